"""The timeline's picture, with every moment worked out by hand, and exactly the rows of the table."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from oracle.drive import experiment_of, run_data

from hsgd_emu.metrics import Metrics
from hsgd_emu.report import gantt
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.gantt import MOST_NODES
from hsgd_emu.results.rows import CurveRow, TimelineRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read
from hsgd_emu.run import Options, run_experiment

NEAR = {"up_s": 0.25, "down_s": 0.5}
FAR = {"rtt_s": 4}
HSGD = {"name": "G=2 I=1", "periods": [2, 1]}
HOSTILE = "<a href='x'>b</a> & %{y} " + "long " * 12 + "name"


def two_levels(sites: int = 2, workers: int = 2) -> dict[str, Any]:
    return {
        "levels": [{"name": "site", "count": sites, "uplink": FAR}, {"name": "w", "count": workers, "uplink": NEAR}]
    }


def run_of(
    folder: Path, topology: dict[str, Any], cases: list[dict[str, Any]], iterations: int, compute: Any = 1, **more: Any
) -> Path:
    data = run_data(topology, cases, iterations, compute=compute)
    given = {**data, "message_bytes": 1000, "targets": {}, "seeds": [1], "timeline": "full", **more}
    return run_experiment(experiment_of(given), folder, Options(timing_only=True))


def figure_of(*folders: Path) -> Figure:
    with gather(folders) as content:
        figure = gantt.timeline(content)
    assert figure is not None
    for picture in figure.pictures:
        figure.plotly(picture.key)  # checks every attribute
    return figure


def drawn(tmp_path: Path, *given: Any, **more: Any) -> Figure:
    return figure_of(run_of(tmp_path / "run", *given, **more))


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    columns = {column.name: column.values for column in figure.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def bars_of(figure: Figure, node: str) -> list[tuple[str, float, float]]:
    bars = [(row["kind"], row["start_s"], row["end_s"]) for row in rows_of(figure) if row["node"] == node]
    return sorted(bars, key=lambda bar: bar[1:])


def labels_of(figure: Figure, picture: int = 0) -> list[str]:
    return list(figure.pictures[picture].layout["yaxis"]["ticktext"])


def lines_of(figure: Figure, width: float) -> list[tuple[float, float, float]]:
    """The lines of aggregations as (time, from row, to row)."""
    traces = [t for t in figure.pictures[0].traces if t.get("mode") == "lines" and t["line"]["width"] == width]
    x, y = (traces[0][name] for name in ("x", "y"))
    return sorted((x[i], y[i], y[i + 1]) for i in range(0, len(x), 3))


def test_every_moment_of_a_round_by_hand(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(), [HSGD], 2)
    assert bars_of(figure, "w-0") == [
        ("compute", 0, 1),
        ("upload", 1, 1.25),
        ("download", 1.25, 1.75),
        ("compute", 1.75, 2.75),
        ("upload", 2.75, 3),
        ("wait", 3, 7),  # the site is under way to the root and back
        ("download", 7, 7.5),
    ]
    assert bars_of(figure, "site-0") == [
        ("aggregate", 1.25, 1.25),
        ("aggregate", 3, 3),
        ("upload", 3, 5),
        ("download", 5, 7),
    ]
    assert bars_of(figure, "root") == [("aggregate", 5, 5)]
    assert figure.pictures[0].text == (
        "In its first global round (7.50 s) G=2 I=1 aggregates twice at each site and once globally. w-0 waits the "
        "longest, 4.00 s; it computes for 2.00 s and sends and receives for 1.50 s. Shown: the first round of seed 1, "
        "7.50 s."
    )


def test_aggregations_are_marked_from_their_server_to_the_last_node_below(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(), [HSGD], 2)
    assert labels_of(figure) == ["<b>root</b>", "<b>site-0</b>", "w-0", "w-1", "<b>site-1</b>", "w-2", "w-3"]
    # Rows: root 0, after a gap site-0 1.4, its workers 2.4 and 3.4, after a gap site-1 4.8, its workers 5.8 and 6.8.
    assert lines_of(figure, 1.5) == [
        (1.25, pytest.approx(0.9), pytest.approx(3.9)),
        (1.25, pytest.approx(4.3), pytest.approx(7.3)),
        (3, pytest.approx(0.9), pytest.approx(3.9)),
        (3, pytest.approx(4.3), pytest.approx(7.3)),
    ]
    assert lines_of(figure, 3) == [(5, -0.5, pytest.approx(7.3))]
    layout = figure.pictures[0].layout
    assert [(label["x"], label["text"]) for label in layout["annotations"]] == [(5, "global")]
    assert [shape["x0"] for shape in layout["shapes"]] == [7.5]
    assert layout["xaxis"]["range"] == [0, 7.5]


def test_bars_are_exactly_the_rows_of_the_table(tmp_path: Path) -> None:
    topology = {"levels": [{"name": n, "count": 2, "uplink": {"rtt_s": r}} for n, r in (("r", 3), ("s", 2), ("w", 1))]}
    compute = {"distribution": "lognormal", "median": 1, "sigma": 0.5}
    cases = [{"name": "8,4,2", "periods": [8, 4, 2], "participation": 0.5}, {"name": "P=2", "period": 2}]
    folder = run_of(tmp_path / "run", topology, cases, 24, compute)
    figure = figure_of(folder)
    with contextlib.closing(connect_to_read(folder)) as connection:
        table = connection.execute('SELECT "case", node, kind, start_s, end_s, iteration, bytes, peer FROM timeline')
        kept = set(table.fetchall())
    names = ("case", "node", "kind", "start_s", "end_s", "iteration", "bytes", "peer")
    shown = [tuple(row[name] for name in names) for row in rows_of(figure)]
    assert len(set(shown)) == len(shown)
    assert set(shown) <= kept
    # What is left out begins later than what is shown ends.
    for case, picture in zip(("8,4,2", "P=2"), figure.pictures, strict=True):
        end_s = picture.layout["xaxis"]["range"][1]
        assert {row for row in kept if row[0] == case and row[3] < end_s} <= set(shown)
    assert [label.strip("</b>") for label in labels_of(figure)][:6] == ["root", "r-0", "s-0", "w-0", "w-1", "s-1"]
    assert labels_of(figure, 1) == ["<b>root</b>", *(f"w-{i}" for i in range(8))]


def test_fast_workers_are_seen_at_work_on_the_round_after(tmp_path: Path) -> None:
    """A round takes the slow one 5 + 1 + 7 = 13, so three take 39. The fast one has had its model since 32.5."""
    downs = {"fast": 0.5, "slow": 7}
    children = [{"name": name, "uplink": {"up_s": 1, "down_s": down_s}} for name, down_s in downs.items()]
    figure = drawn(tmp_path, {"root": {"children": children}}, [{"name": "P=5", "period": 5}], 20)
    # Both are there at 6, 0.5 later the fast one goes on; the slow one has done its next steps at 18, is there at 19.
    assert bars_of(figure, "fast")[:6] == [
        ("compute", 0, 5),
        ("upload", 5, 6),
        ("download", 6, 6.5),
        ("compute", 6.5, 11.5),
        ("upload", 11.5, 12.5),
        ("wait", 12.5, 19),
    ]
    assert bars_of(figure, "fast")[-3:] == [("compute", 32.5, 37.5), ("upload", 37.5, 38.5), ("wait", 38.5, 45)]
    assert [shape["x0"] for shape in figure.pictures[0].layout["shapes"]] == [13, 26, 39]
    assert figure.pictures[0].layout["xaxis"]["range"] == [0, 39]
    assert figure.pictures[0].text == (
        "In its first global round (13.0 s) P=5 aggregates once globally. No worker waits; fast computes for 5.00 s "
        "and sends and receives for 1.50 s. Shown: the first 3 rounds of seed 1, 39.0 s."
    )


def test_who_sits_out_neither_computes_nor_uploads(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(1, 2), [{"name": "half", "period": 1, "participation": 0.5}], 1)
    kinds = [[kind for kind, *_ in bars_of(figure, f"w-{i}")] for i in range(2)]
    # One of the two takes part; both receive. Up 2 + 0.25, down 0.5 + 2: until 1 + 2.25 the other one waits.
    assert sorted(kinds) == [["compute", "upload", "download"], ["wait", "download"]]
    assert "waits the longest, 3.25 s; it computes for 0 s" in figure.pictures[0].text


def test_uneven_periods_are_said_as_a_range(tmp_path: Path) -> None:
    periods = {"root": 4, "site": 2, "site-1": 1}
    figure = drawn(tmp_path, two_levels(), [{"name": "uneven", "periods": periods}], 4)
    assert "aggregates 2 to 4 times at each site and once globally." in figure.pictures[0].text
    assert {row["steps"] for row in rows_of(figure) if row["node"] == "w-0" and row["kind"] == "compute"} == {2}
    assert {row["steps"] for row in rows_of(figure) if row["node"] == "w-3" and row["kind"] == "compute"} == {1}


def test_compute_that_goes_on_at_once_is_one_bar(tmp_path: Path) -> None:
    topology = {"levels": [{"name": "w", "count": 1, "uplink": {"rtt_s": 0}}]}
    rows = rows_of(drawn(tmp_path, topology, [{"name": "P=2", "period": 2}], 6))
    compute = [
        (row["start_s"], row["end_s"], row["steps"], row["iteration"]) for row in rows if row["kind"] == "compute"
    ]
    assert compute == [(0, 6, 6, 6)]


def test_dense_rounds_are_shown_by_themselves_and_others_three_at_a_time(tmp_path: Path) -> None:
    cases = [{"name": "P=1", "period": 1}, {"name": "G=20 I=1", "periods": [20, 1]}]
    figure = drawn(tmp_path, two_levels(), cases, 80)
    # H-SGD stands first: there local aggregations are to be seen.
    dense, sparse = figure.pictures
    assert (dense.key, sparse.key) == (("1",), ("0",))
    assert "Shown: the first round of seed 1" in dense.text
    assert "Shown: the first 3 rounds of seed 1" in sparse.text
    assert len(sparse.layout["annotations"]) == 3
    assert figure.switches[0].options == (("0", "P=1"), ("1", "G=20 I=1"))


def test_a_round_of_too_many_bars_is_cut(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(), [{"name": "long", "periods": [1000, 1]}], 1000)
    rows = rows_of(figure)
    assert len(rows) <= gantt.MOST_BARS
    end_s = figure.pictures[0].layout["xaxis"]["range"][1]
    assert max(row["start_s"] for row in rows) <= end_s < 1000
    # The round: 1,000 times 1.75 s, of which the last exchange goes by way of the root, 4 s more.
    assert figure.pictures[0].text.startswith("In its first global round (1,754 s) long aggregates 1,000 times")
    assert "Shown: the beginning of the first round of seed 1" in figure.pictures[0].text
    assert figure.pictures[0].layout["shapes"] == []


def test_thousands_of_workers_make_a_small_figure(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(5, 1000), [HSGD], 2)
    assert len(labels_of(figure)) <= MOST_NODES
    assert "<i>… 995 more w</i>" in labels_of(figure)
    assert len(figure.as_json()) < 80_000
    assert figure.height_px <= 940
    # 1 root, 5 sites, k workers and a row for the rest each: 6 + 5 (k + 1) <= 40, k = 5.
    assert "31 of 5,006 nodes" in figure.pictures[0].text


def test_only_what_touches_the_global_server(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(), [HSGD], 2, timeline="rounds")
    assert labels_of(figure) == ["<b>root</b>", "site-0", "site-1"]
    assert figure.pictures[0].text == (
        "In its first global round (7.50 s) G=2 I=1 aggregates once globally. Only what touches the global server was "
        "kept (timeline: rounds). Shown: the first round of seed 1, 7.50 s."
    )


def test_no_timeline_is_no_figure(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run", two_levels(), [HSGD], 2, timeline="none")
    with gather([folder]) as content:
        assert gantt.timeline(content) is None
    assert "timeline: full" in gantt.NO_TIMELINE


def test_of_an_unfinished_run_the_first_seed_with_rows_is_shown(tmp_path: Path) -> None:
    """Seed 1 waits, seed 2 is at work; the other case has nothing yet. The run file is no experiment."""
    keys = [TrialKey(case, seed) for case in (HOSTILE, "late") for seed in (1, 2)]
    run = f"name: x\ncases:\n- {{name: {json.dumps(HOSTILE)}, period: 5}}\n- {{name: late, period: 5}}\n"
    rows = [
        TimelineRow("<b>w", "compute", 0.0, 1.0, 5, 0, ""),
        TimelineRow("<b>w", "upload", 1.0, 2.0, 5, 1000, HOSTILE),
        TimelineRow(HOSTILE, "aggregate", 2.0, 2.0, 5, 0, "<b>w"),
        TimelineRow("<b>w", "download", 2.0, 3.0, 5, 1000, HOSTILE),
    ]
    curve = CurveRow(1, 5, 3.0, 2.0, 1.0, 2.0, 0.0, 0, 0, Metrics())
    with RunStore.create(tmp_path / "run", run, {}, keys, ()) as store:
        store.commit_round(keys[1], 5, curve, rows, [], [])
    figure = figure_of(tmp_path / "run")
    assert len(figure.pictures) == 1
    assert "Nothing was recorded of late." in figure.note
    assert {row["seed"] for row in rows_of(figure)} == {2}
    assert "the first round of seed 2" in figure.pictures[0].text
    # Names are shown literally, also where plotly takes markup and templates.
    assert labels_of(figure) == ["<b>&lt;a href…ong name</b>", "&lt;b&gt;w"]
    plot = figure.plotly()
    upload = next(trace for trace in plot.data if "uploads" in (trace.hovertemplate or ""))
    assert upload.text == ("&lt;b&gt;w",)
    assert upload.hovertext[0].startswith("&lt;a href='x'&gt;b&lt;/a&gt; &amp; ")
    assert all("long" not in (trace.hovertemplate or "") for trace in plot.data)


def test_plain_names_stand_once_in_the_page(tmp_path: Path) -> None:
    figure = drawn(tmp_path, two_levels(), [HSGD], 2)
    text = json.loads(figure.as_json())["pictures"]["0"]["data"][0]["text"]
    assert list(text) == ["$"]
    assert next(iter(figure.plotly().data)).text[:2] == ("w-0", "w-1")


def test_a_network_that_costs_nothing_is_drawn(tmp_path: Path) -> None:
    topology = {"levels": [{"name": "w", "count": 1, "uplink": {"rtt_s": 0}}]}
    figure = drawn(tmp_path, topology, [{"name": "P=1", "period": 1}], 3, 0)
    low, high = figure.pictures[0].layout["xaxis"]["range"]
    assert low < high
