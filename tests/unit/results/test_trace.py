"""A trace says what the table says, to the nanosecond, in a form that viewers of Chrome's traces take."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.errors import ConfigError, RunError
from hsgd_emu.metrics import Metrics
from hsgd_emu.results import trace as trace_module
from hsgd_emu.results.rows import CurveRow, TimelineRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, select
from hsgd_emu.results.trace import TRACE_FILE, TraceSummary, write_trace
from hsgd_emu.run import run
from hsgd_emu.units import to_s

from .conftest import CASES, KEYS, RUN_YAML, NewStore, commit, curve_row, write_trial

RUNS = Path(__file__).parents[3] / "runs"
Event = dict[str, Any]
# Whatever stands in names must come back; the last two are what Perfetto's own reader has stumbled over.
HOSTILE = (
    "</script><b>&amp;",
    "\"'`${x}",
    "a\nb\tc\x7f",
    "\u202eright\u05d0",
    "n" * 5000,
    "NA",
    "C:\\",
    "\U0001f4c8 é",
)

PAPER = """
name: paper
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.5}, far: {rtt_s: 4}}
compute: {step_s: 1}
model: softmax_regression
message_bytes: 4242
train: {iterations: 20}
cases: [{name: H-SGD, periods: [10, 5]}, {name: local, period: 5}]
seeds: [1, 2]
timeline: full
"""


@pytest.fixture(scope="module")
def three_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random links and steps, three levels, a level left out, uneven periods, workers that sit out."""
    folder = tmp_path_factory.mktemp("three") / "run"
    run(RUNS / "three_levels.yaml", folder, timing_only=True, sets=["train.iterations=160", "seeds=[1]"])
    write_trace(folder)
    return folder


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "paper.yaml").write_text(PAPER)
    run(folder / "paper.yaml", folder / "run", timing_only=True)
    return folder / "run"


@pytest.fixture
def folder(new_store: NewStore) -> Path:
    """Two trials with two rounds of 50 iterations each; the others have not begun."""
    with new_store() as store:
        write_trial(store, KEYS[3], [(1.0, 0.5), (2.0, 0.9)])
        write_trial(store, KEYS[0], [(5.0, 0.2), (6.0, 0.3)])
    return store.folder


def events(path: Path, *phases: str) -> list[Event]:
    """The events of these phases; numbers with a point as Decimal, so that no digit is lost in reading."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    content = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal, parse_constant=refuse)
    assert content["displayTimeUnit"] in ("ms", "ns")
    found: list[Event] = content["traceEvents"]
    return [event for event in found if not phases or event["ph"] in phases]


def ns(microseconds: Decimal) -> int:
    nanoseconds = microseconds * 1000
    assert nanoseconds == int(nanoseconds)
    return int(nanoseconds)


def names(path: Path, kind: str = "thread_name") -> dict[Any, str]:
    """By (pid, tid) the tracks, or by pid the processes."""
    found = [event for event in events(path, "M") if event["name"] == kind]
    return {(e["pid"], e["tid"]) if "tid" in e else e["pid"]: e["args"]["name"] for e in found}


def slices(path: Path) -> list[tuple[Any, ...]]:
    """What a viewer shows: (process, track, name, start, end, arguments)."""
    tracks, processes = names(path), names(path, "process_name")
    return [
        (processes[e["pid"]], tracks[e["pid"], e["tid"]], e["name"], ns(e["ts"]), ns(e["ts"] + e["dur"]), e["args"])
        for e in events(path, "X")
    ]


def timeline(folder: Path, where: str = "") -> list[tuple[str, int, TimelineRow]]:
    connection = connect_to_read(folder)
    rows = [(row[0], row[1], TimelineRow(*row[2:])) for row in select(connection, "timeline", where)]
    connection.close()
    return rows


def rows_of(*rows: tuple[str, str, float, float]) -> list[TimelineRow]:
    return [TimelineRow(node, kind, start_s, end_s, 50, 4000, "root") for node, kind, start_s, end_s in rows]


def write_rows(store: RunStore, rows: list[TimelineRow], curve: CurveRow | None = None) -> None:
    store.commit_round(KEYS[0], 50, curve or curve_row(1, 9.0, 0.5), rows, [], [])


# --- what a viewer needs ---------------------------------------------------------------------------


def test_every_event_has_what_its_phase_needs(three_levels: Path, folder: Path) -> None:
    write_trace(folder)
    for path in (three_levels / TRACE_FILE, folder / TRACE_FILE):
        for event in events(path):
            assert type(event["pid"]) is int
            assert isinstance(event["name"], str)
            assert isinstance(event["args"], dict)
            if event["ph"] == "M":
                key = "name" if event["name"] in ("process_name", "thread_name") else "sort_index"
                assert event["name"] in ("process_name", "process_sort_index", "thread_name", "thread_sort_index")
                assert type(event["args"][key]) is (str if key == "name" else int)
                assert ("tid" in event) == event["name"].startswith("thread")
                continue
            assert isinstance(event["ts"], Decimal)
            assert event["ts"] >= 0
            if event["ph"] == "C":
                assert event["name"] in ("test_accuracy", "test_loss", "train_loss")
                assert type(event["args"]["value"]) is Decimal
                continue
            assert event["ph"] == "X"
            assert type(event["tid"]) is int
            assert isinstance(event["dur"], Decimal)
            assert event["dur"] >= 0
            assert event["name"] == event["cat"]
            assert type(event["args"]["iteration"]) is int
            assert ("bytes" in event["args"]) == (event["name"] in ("upload", "download"))


def test_every_process_and_track_is_named_once_and_no_number_stands_for_two(three_levels: Path) -> None:
    path = three_levels / TRACE_FILE
    labels = [event for event in events(path, "M") if event["name"].endswith("_name")]
    tracks, processes = names(path), names(path, "process_name")
    assert len(labels) == len(tracks) + len(processes)
    assert set(tracks) == {(event["pid"], event["tid"]) for event in events(path, "X")}
    numbers = [*processes, *(tid for _, tid in tracks)]
    assert len(set(numbers)) == len(numbers)


def overlaps(path: Path) -> list[tuple[Any, ...]]:
    """Neighbours on a track that are not disjoint: Perfetto drops the second, or takes it for a part of the first."""
    tracks = defaultdict(list)
    for event in events(path, "X"):
        tracks[event["pid"], event["tid"]].append((ns(event["ts"]), ns(event["ts"] + event["dur"])))
    found = []
    for track, spans in tracks.items():
        spans.sort()
        found += [(track, a, b) for a, b in itertools.pairwise(spans) if a[1] > b[0]]
    return found


def test_slices_of_a_track_never_overlap(three_levels: Path) -> None:
    assert overlaps(three_levels / TRACE_FILE) == []


def test_what_overlaps_goes_to_the_first_track_that_is_free(new_store: NewStore) -> None:
    with new_store() as store:
        spans = [(0.0, 3.0), (1.0, 2.0), (1.5, 4.0), (2.0, 2.5), (3.0, 3.0), (3.0, 5.0)]
        moved = [("w", "upload", *span) for span in spans]
        # Own activities that overlap too, and out of order: no engine writes them today.
        own = [("w", "wait", 5.0, 6.0), ("w", "compute", 1.0, 2.0), ("w", "compute", 6.0, 7.0)]
        write_rows(store, rows_of(*moved, *own))
    write_trace(store.folder)
    path = store.folder / TRACE_FILE
    assert overlaps(path) == []
    found = defaultdict(list)
    for _, track, _, start_ns, end_ns, _ in slices(path):
        found[track].append((start_ns / 1e9, end_ns / 1e9))
    assert found == {
        "w transfers": [(0.0, 3.0), (3.0, 3.0), (3.0, 5.0)],
        "w transfers 2": [(1.0, 2.0), (2.0, 2.5)],
        "w transfers 3": [(1.5, 4.0)],
        "w": [(5.0, 6.0), (6.0, 7.0)],
        "w 2": [(1.0, 2.0)],
    }


def test_tracks_stand_as_the_aggregation_tree_does(three_levels: Path, tmp_path: Path) -> None:
    write_trace(three_levels, tmp_path / "t.json", cases=["40,20,10"])
    tracks = names(tmp_path / "t.json")
    order = {e["tid"]: e["args"]["sort_index"] for e in events(tmp_path / "t.json", "M") if "thread_s" in e["name"]}
    shown = [name for (_, tid), name in sorted(tracks.items(), key=lambda item: order[item[0][1]])]
    assert [name for name in shown if not name.endswith(" transfers")] == [
        *("cloud", "region-0", "site-0", "worker-0", "worker-1", "worker-2"),
        *("site-1", "worker-3", "worker-4", "worker-5"),
        *("region-1", "site-2", "worker-6", "worker-7", "worker-8", "site-3", "worker-9", "worker-10", "worker-11"),
    ]
    # The global server sends and receives nothing by itself: transfers are its children's.
    assert shown[1:4] == ["region-0", "region-0 transfers", "site-0"]


# --- what it says ----------------------------------------------------------------------------------


def test_it_holds_the_timeline_and_nothing_else(three_levels: Path) -> None:
    def of_row(case: str, seed: int, row: TimelineRow) -> tuple[Any, ...]:
        moved = row.kind in ("upload", "download")
        args = {"iteration": row.iteration, **({"bytes": row.bytes} if moved else {})}
        args |= {"peer": row.peer} if row.peer else {}
        start_ns, end_ns = round(row.start_s * 1e9), round(row.end_s * 1e9)
        return f"{case}, seed {seed}", row.node, row.kind, start_ns, end_ns, str(args)

    found = slices(three_levels / TRACE_FILE)
    written = Counter((trial, track.split()[0], *rest, str(args)) for trial, track, *rest, args in found)
    assert written == Counter(of_row(*row) for row in timeline(three_levels))
    assert sum(written.values()) > 4000


def test_times_by_hand(paper: Path, tmp_path: Path) -> None:
    summary = write_trace(paper, tmp_path / "t.json", cases=["H-SGD"], seeds=[1], rounds=1)
    worker = [(t, name, start_ns, end_ns) for _, t, name, start_ns, end_ns, _ in slices(tmp_path / "t.json")]
    # 5 steps of 1 s, up 0.25, down 0.25, twice; between the second up (10.75) and the global model: up 2, down 2.
    half = 250_000_000
    assert [row for row in worker if row[0].startswith("worker-0")] == [
        ("worker-0", "compute", 0, 20 * half),
        ("worker-0 transfers", "upload", 20 * half, 21 * half),
        ("worker-0 transfers", "download", 21 * half, 22 * half),
        ("worker-0", "compute", 22 * half, 42 * half),
        ("worker-0 transfers", "upload", 42 * half, 43 * half),
        ("worker-0", "wait", 43 * half, 59 * half),
        ("worker-0 transfers", "download", 59 * half, 60 * half),
    ]
    assert '"ts":5250000.000,"dur":250000.000,' in (tmp_path / "t.json").read_text()
    # The default cost of an aggregation is none; it is what one looks for, so it stays.
    assert ("root", "aggregate", 51 * half, 51 * half) in worker
    # 4 workers x 7 slices, 2 sites x (2 aggregations, up, down), 1 aggregation of the root; nobody else waits.
    assert (summary.num_events, summary.num_trials) == (4 * 7 + 2 * 4 + 1, 1)
    assert summary.num_tracks == 2 * 6 + 1


@pytest.mark.parametrize("start_ns", [1, 999, 1001, 10**15 + 7, 5_184_000_123_456_789, 4_367_428_523_168_119])
def test_no_nanosecond_is_lost_in_a_hundred_days(new_store: NewStore, start_ns: int) -> None:
    # The last one, after 51 days, is one less by round(to_s(4367428523168119) * 1e9).
    end_ns = start_ns + 1_000_001
    with new_store() as store:
        write_rows(store, rows_of(("w", "compute", to_s(start_ns), to_s(end_ns))))
    path = write_trace(store.folder).path
    assert [row[3:5] for row in slices(path)] == [(start_ns, end_ns)]
    # Viewers read binary64 and round to the nanosecond.
    if start_ns < 2**52:
        (event,) = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
        assert round(event["ts"] * 1000) == start_ns
    assert "e+" not in path.read_text()


def test_the_curve_is_a_counter_at_the_moment_the_round_is_over(folder: Path) -> None:
    path = write_trace(folder).path
    pid = next(pid for pid, name in names(path, "process_name").items() if name == "P=5, seed 1")
    accuracy = [e for e in events(path, "C") if (e["pid"], e["name"]) == (pid, "test_accuracy")]
    assert [(e["ts"], float(e["args"]["value"])) for e in accuracy] == [(5_000_000, 0.2), (6_000_000, 0.3)]


def test_a_loss_that_is_no_number_is_a_gap(new_store: NewStore) -> None:
    with new_store() as store:
        row = CurveRow(1, 50, 9.0, 8.9, 1.0, 8.0, 0.0, 0, 0, Metrics(train_loss=float("nan"), test_loss=float("inf")))
        write_rows(store, rows_of(("w", "compute", 0.0, 1.0)), row)
    assert events(write_trace(store.folder).path, "C") == []


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back_as_they_are(tmp_path: Path, name: str) -> None:
    with RunStore.create(tmp_path / "run", RUN_YAML, {}, [TrialKey(name, 1)], []) as store:
        row = TimelineRow(name, "upload", 0.0, 1.0, 50, 4000, f"{name}{name}")
        store.commit_round(TrialKey(name, 1), 50, curve_row(1, 1.0, 0.5), [row], [], [])
    path = write_trace(store.folder, cases=[name]).path
    assert slices(path)[0][:3] == (f"{name}, seed 1", f"{name} transfers", "upload")
    assert events(path, "X")[0]["args"]["peer"] == name + name
    # Perfetto's reader takes no escaped surrogates, and a backslash before the last quote escapes it for some.
    assert "\\ud83" not in path.read_text(encoding="utf-8").lower()
    assert '\\\\"' not in path.read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_bytes(three_levels: Path, tmp_path: Path) -> None:
    write_trace(three_levels, tmp_path / "deep" / "again.json")
    assert (tmp_path / "deep" / "again.json").read_bytes() == (three_levels / TRACE_FILE).read_bytes()


# --- how much of it --------------------------------------------------------------------------------


def test_rounds_are_those_of_each_case(three_levels: Path, tmp_path: Path) -> None:
    # 160 iterations: 16 rounds of 10 in the first case, 4 of 40 in the others.
    summary = write_trace(three_levels, tmp_path / "t.json", rounds=3)
    last: dict[str, int] = defaultdict(int)
    for trial, _, _, _, _, args in slices(tmp_path / "t.json"):
        last[trial] = max(last[trial], args["iteration"])
    assert last.pop("P=10, seed 1") == 30
    assert set(last.values()) == {120}
    wanted = timeline(three_levels, "t.iteration <= CASE t.\"case\" WHEN 'P=10' THEN 30 ELSE 120 END")
    assert len(events(summary.path, "X")) == len(wanted)
    everything = write_trace(three_levels, tmp_path / "all.json", rounds=10**30)
    assert everything.path.read_bytes() == (three_levels / TRACE_FILE).read_bytes()


def test_rounds_cut_the_counters_too(folder: Path) -> None:
    assert {e["ts"] for e in events(write_trace(folder, rounds=1).path, "C")} == {1_000_000, 5_000_000}


def test_cases_and_seeds(paper: Path, tmp_path: Path) -> None:
    def trials(*cases: str, seeds: tuple[int, ...] = ()) -> list[str]:
        return list(names(write_trace(paper, tmp_path / "t.json", cases, seeds).path, "process_name").values())

    assert trials() == ["H-SGD, seed 1", "H-SGD, seed 2", "local, seed 1", "local, seed 2"]
    assert trials("local") == ["local, seed 1", "local, seed 2"]
    assert trials("local", "H-SGD", "local", seeds=(2,)) == ["H-SGD, seed 2", "local, seed 2"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cases": ["G=50 I=4"]}, "--case G=50 I=4: the run has no such case; did you mean 'G=50 I=5'?"),
        ({"cases": ["x"]}, "--case x: the run has no such case; cases are P=5, G=50 I=5"),
        ({"seeds": [1, 7]}, "--seed 7: the run has no such seed; seeds are 1, 2, 3"),
        ({"rounds": 0}, "--rounds 0: is not a number of rounds, 1 or more"),
        ({"seeds": [2]}, "no round is over yet; there is a trace from the first one on"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_written(folder: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        write_trace(folder, **asked)
    assert said in str(error.value)
    assert [path.name for path in folder.iterdir() if path.name.startswith(TRACE_FILE)] == []


def test_a_case_without_rows_is_said_though_another_has_some(new_store: NewStore) -> None:
    with new_store() as store:
        write_trial(store, KEYS[0], [(1.0, 0.5)])
    with pytest.raises(ConfigError, match=r"no round of G=50 I=5 is over yet"):
        write_trace(store.folder, cases=list(CASES))


@pytest.mark.parametrize(
    ("timing_only", "how"),
    [(True, "`hsgd-emu run FILE --timing-only --set timeline=full`"), (False, "--out DIR --set timeline=full`")],
)
def test_a_run_that_recorded_nothing_says_how_to(tmp_path: Path, timing_only: bool, how: str) -> None:
    environment = {"timing_only": timing_only}
    with RunStore.create(tmp_path / "run", RUN_YAML + "timeline: none\n", environment, KEYS, []) as store:
        store.commit_round(KEYS[0], 50, curve_row(1, 1.0, 0.5), [], [], [])
    with pytest.raises(ConfigError) as error:
        write_trace(store.folder)
    assert "no timeline was recorded (timeline: none)" in str(error.value)
    assert how in str(error.value)


def test_a_run_that_recorded_rounds_only_says_so(paper: Path, tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text(PAPER)
    sets = ["timeline=rounds", "seeds=[1]"]
    run(tmp_path / "paper.yaml", tmp_path / "run", timing_only=True, sets=sets)
    summary = write_trace(tmp_path / "run", cases=["H-SGD"])
    assert "Only what touches the global server was recorded (timeline: rounds)." in summary.lines()
    assert set(names(summary.path).values()) == {"root", "site-0 transfers", "site-1 transfers"}
    assert not any("Only what" in line for line in write_trace(paper, tmp_path / "full.json").lines())


def test_a_run_that_goes_on_is_read_as_it_is(new_store: NewStore) -> None:
    with new_store() as store:
        write_trial(store, KEYS[0], [(1.0, 0.5)])
        commit(store, KEYS[1], curve_row(1, 2.0, 0.4))
        summary = write_trace(store.folder, cases=["P=5"])
        assert summary.num_trials == 2
        assert "Trials not finished: 2; the trace has their rounds so far." in summary.lines()
        finished = write_trace(store.folder, cases=["P=5"], seeds=[1])
        assert not any("not finished" in line for line in finished.lines())


# --- the file and the command ----------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_a_failure_midway_leaves_the_old_trace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_trace(folder).path.read_bytes()

    def fail(nanoseconds: int) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trace_module, "_us", fail)
    with pytest.raises(RunError, match="cannot be written \\(No space left on device\\)"):
        write_trace(folder)
    assert (folder / TRACE_FILE).read_bytes() == before
    assert not (folder / f"{TRACE_FILE}.new").exists()


def test_where_nothing_can_be_written_is_said(folder: Path) -> None:
    (folder / "file").write_text("mine")
    (folder / "taken").mkdir()
    for out in (folder / "file" / "t.json", folder / "taken"):
        with pytest.raises(ConfigError, match="cannot be written"):
            write_trace(folder, out)
    assert not (folder / "taken.new").exists()


def test_many_events_are_said() -> None:
    lines = TraceSummary(Path("t.json"), 1, 1_000_001, 9, False, 0).lines()
    assert lines[1] == "1,000,001 events on 9 tracks of 1 trial."
    assert "That is much for a viewer in a browser: --case, --seed and --rounds choose less." in lines


def test_the_command(paper: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    asked = ["--out", str(out), "--case", "local", "--case", "H-SGD", "--seed", "2", "--rounds", "1"]
    done = CliRunner().invoke(app, ["trace", str(paper), *asked])
    assert done.exit_code == 0
    # H-SGD as above: 37 slices. local: 4 x (compute, up, down) and an aggregation, for the first of 4 rounds.
    assert done.stdout.splitlines() == [
        f"Trace:  {out}",
        f"{37 + 13} events on {13 + 9} tracks of 2 trials.",
        "Open it in https://ui.perfetto.dev or chrome://tracing",
    ]
    assert len(events(out, "X")) == 50


@pytest.mark.parametrize(
    ("database", "said"),
    [("study.sqlite", "is a study, and only a run has a timeline"), ("other", "has no run.sqlite")],
)
def test_the_command_on_what_is_no_run_is_bad_input(tmp_path: Path, database: str, said: str) -> None:
    (tmp_path / database).touch()
    done = CliRunner().invoke(app, ["trace", str(tmp_path)])
    assert done.exit_code == 2
    assert said in done.stderr
