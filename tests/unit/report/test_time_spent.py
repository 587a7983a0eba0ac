"""Where the time went, against the rows of `curve` and waits computed by hand."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.experiment import Experiment
from hsgd_emu.metrics import Metrics
from hsgd_emu.report.content import Content, gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.time_spent import time_spent
from hsgd_emu.report.waiting import waiting
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import Options, run_experiment
from tests.unit.report.test_traffic import described, sites, timed

HOSTILE = '<b>bold</b> & "q" %{y} \u05d0\u05d1 ' + "long" * 15


def columns(figure: Figure) -> dict[str, list[Any]]:
    return {column.name: list(column.values) for column in figure.columns}


def table(figure: Figure) -> list[dict[str, Any]]:
    """Return a figure's table as rows."""
    names = [column.name for column in figure.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*(c.values for c in figure.columns), strict=True)]


def drawn(figure: Figure) -> None:
    """Every picture is one that plotly accepts and JSON without a NaN; every combination of switches has one."""
    keys = {picture.key for picture in figure.pictures}
    options: list[tuple[str, ...]] = [()]
    for switch in figure.switches:
        options = [(*before, key) for before in options for key, _ in switch.options]
    assert keys == set(options)
    for picture in figure.pictures:
        assert len(figure.plotly(picture.key).data) == len(picture.traces) > 0
        assert picture.text.endswith(".")
        assert "nan" not in picture.text
    assert len({len(column.values) for column in figure.columns}) == 1
    json.loads(figure.as_json())


def row(number: int, parts: tuple[float, float, float], accuracy: float | None) -> CurveRow:
    return CurveRow(number, 50 * number, sum(parts), sum(parts), *parts, 0, 0, Metrics(test_accuracy=accuracy))


@contextlib.contextmanager
def trained(
    folder: Path,
    curves: dict[str, list[list[tuple[float, float, float, float | None]]]],
    unfinished: Sequence[str] = (),
    targets: Sequence[tuple[str, float]] = (("test_accuracy", 0.8),),
) -> Iterator[Content]:
    """A run whose seeds have these rows of (compute, communication, aggregation, accuracy), 50 iterations each."""
    experiment = described(sites(2, 1), [{"name": name, "periods": [50, 5]} for name in curves], 1000)
    keys = [TrialKey(case, seed) for case in curves for seed in range(len(curves[case]))]
    with RunStore.create(folder, experiment.resolved(), {}, keys, list(targets)) as store:
        for key in keys:
            for number, (*parts, accuracy) in enumerate(curves[key.case][key.seed], start=1):
                compute, communication, aggregation = parts
                store.commit_round(
                    key, 50 * number, row(number, (compute, communication, aggregation), accuracy), [], [], []
                )
            if key.case not in unfinished:
                store.finish_trial(key, "weights", "timeline", "simpy", 1.0)
        store.finish()
    with gather([folder]) as content:
        yield content


def test_parts_are_those_of_the_seed_in_the_middle_and_add_up(tmp_path: Path) -> None:
    # Times at the end: 10, 30 and 20 s; the third seed is the median. Medians of each part would not add up to it.
    curves = {"c": [[(1, 9, 0, 0.5)], [(2, 20, 8, 0.5)], [(12, 7, 1, 0.5)]]}
    with trained(tmp_path / "run", curves) as content:
        figure = time_spent(content)
    assert figure is not None
    drawn(figure)
    (found,) = table(figure)
    assert [found[f"{part}_s"] for part in ("time", "compute", "communication", "aggregation")] == [20, 12, 7, 1]
    assert found["communication_share"] == 7 / 20
    assert [label for label, _ in figure.key] == ["compute", "communication", "aggregation"]
    # Nobody reached the target: there is nothing to switch to.
    assert (figure.switches, figure.pictures[0].key) == ((), ())


def test_of_two_seeds_in_the_middle_it_is_the_mean(tmp_path: Path) -> None:
    with trained(tmp_path / "run", {"c": [[(1, 9, 0, 0.5)], [(4, 16, 0, 0.5)]]}) as content:
        figure = time_spent(content)
        assert content.summaries[0].final_time_s == 15
    assert figure is not None
    (found,) = table(figure)
    assert (found["time_s"], found["compute_s"], found["communication_s"]) == (15, 2.5, 12.5)
    assert len(figure.plotly().data) == 2, "no aggregation costs anything"


def test_until_a_target_is_where_it_was_first_reached(tmp_path: Path) -> None:
    # 80% is reached in the second row of the fast case, by one seed of three of the slow one, never by the third.
    slow = [[(1, 9, 0, 0.1), (2, 18, 0, 0.9)], [(1, 9, 0, 0.1)], [(1, 9, 0, 0.2)]]
    curves = {"fast": [[(1, 2, 0, 0.5), (2, 4, 0, 0.8), (3, 6, 0, 0.9)]], "slow": slow, "never": [[(1, 1, 0, 0.1)]]}
    with trained(tmp_path / "run", curves) as content:
        figure = time_spent(content)
        reached = content.summaries[0].targets[0].median_time_s
    assert figure is not None
    drawn(figure)
    assert figure.switches[0].options == (("end", "the end"), ("target-0", "80% test accuracy"))
    fast, *others = table(figure)[3:]
    assert (fast["until"], fast["time_s"], fast["compute_s"]) == ("80% test accuracy", 6, 2)
    assert fast["time_s"] == reached
    assert [(found["time_s"], found["num_reached"]) for found in others] == [(None, 1), (None, 0)]
    picture = figure.pictures[1]
    labels = [note["text"] for note in picture.layout["annotations"]]
    assert labels == ["6.000 s", "not reached (1 of 3 seeds)", "not reached"]
    assert picture.text == (
        "Until 80% test accuracy, communication takes 67% of 6.000 s in fast; slow and never did not get there."
    )


def test_seeds_that_are_still_to_come_count_as_later(tmp_path: Path) -> None:
    # Two of three seeds reached it, at 5 and 9 s: the median of three is the later one, as in the table.
    curves = {"c": [[(1, 4, 0, 0.9)], [(1, 8, 0, 0.9)], [(1, 1, 0, 0.1)]]}
    with trained(tmp_path / "run", curves) as content:
        figure = time_spent(content)
        assert content.summaries[0].targets[0].median_time_s == 9
    assert figure is not None
    assert table(figure)[1]["time_s"] == 9


def test_unfinished_trials_show_what_there_is(tmp_path: Path) -> None:
    curves: dict[str, Any] = {"under way": [[(1, 4, 0, 0.1)]], "waiting": [[]], "done": [[(1, 1, 0, 0.9)]]}
    with trained(tmp_path / "run", curves, unfinished=("under way", "waiting")) as content:
        figure = time_spent(content)
    assert figure is not None
    drawn(figure)
    labels = [[note["text"] for note in picture.layout["annotations"]] for picture in figure.pictures]
    assert labels == [["5.000 s", "nothing yet", "2.000 s"], ["not reached yet", "nothing yet", "2.000 s"]]


def test_a_run_that_has_not_begun_has_nothing_to_show(tmp_path: Path) -> None:
    with trained(tmp_path / "run", {"c": [[]]}, unfinished=("c",)) as content:
        assert time_spent(content) is None
        assert waiting(content) is None


def test_names_are_shown_literally_and_shortened(tmp_path: Path) -> None:
    with trained(tmp_path / "run", {HOSTILE: [[(1, 4, 0, 0.9)]]}) as content:
        figure = time_spent(content)
    assert figure is not None
    drawn(figure)
    for trace in figure.pictures[0].traces:
        assert trace["hovertemplate"] == "%{customdata}<extra></extra>"
        assert "&lt;b&gt;bold&lt;/b&gt; &amp;" in trace["customdata"][0]
        assert "<b>" not in trace["customdata"][0]
    (label,) = figure.pictures[0].layout["yaxis"]["ticktext"]
    assert "…" in label
    assert len(label) < 60
    assert columns(figure)["case"][0] == HOSTILE


def waits(experiment: Experiment, folder: Path) -> Figure | None:
    with gather([timed(experiment, folder)]) as content:
        figure = waiting(content)
    if figure:
        drawn(figure)
    return figure


def test_waiting_by_hand(tmp_path: Path) -> None:
    """G=10, I=5; steps of 1 s; near 0.25 up, 0.5 down; far 3 up, 1 down.

    A round takes 5 + 0.75 + 5 + 0.25 + 3 + 1 + 0.5 = 15.5 s. Nobody waits at the local aggregation, for both
    workers arrive at the same moment; at the global one each waits 3 + 1 s until its site has the model.
    """
    experiment = described(sites(2, 1), [{"name": "c", "periods": [10, 5]}], 20, seeds=(1, 2))
    figure = waits(experiment, tmp_path / "run")
    assert figure is not None
    found = {row["group"]: row for row in table(figure)}
    assert found["w at site0"]["wait_share"] == pytest.approx(4 / 15.5)
    assert found["w at site0"]["wait_s"] == pytest.approx(8)
    assert found["w at site0"]["num_nodes"] == 2
    assert [found[server]["wait_share"] for server in ("site0", "site1", "root")] == [0, 0, 0]
    assert figure.pictures[0].text == (
        "Workers wait 25.8% of the time in c; the longest waits are those of w at site0 in c, 25.8%."
    )


def test_groups_that_wait_for_others(tmp_path: Path) -> None:
    """Three fast workers (1 s a step) and a slow one (2 s), P=5, RTT 2: the fast wait 5 of 12 s, the server too."""
    kinds = (("a", 3, 1), ("b", 1, 2))
    children = [{"name": n, "count": num, "uplink": {"rtt_s": 2}, "compute": {"step_s": s}} for n, num, s in kinds]
    cases = [{"name": "c", "period": 5}, {"name": "half", "period": 5, "participation": 0.25}]
    figure = waits(described({"root": {"children": children}}, cases, 50), tmp_path / "run")
    assert figure is not None
    found = {(row["case"], row["group"]): row["wait_share"] for row in table(figure)}
    assert found["c", "a at root"] == pytest.approx(5 / 12)
    assert found["c", "root"] == pytest.approx(5 / 12)
    assert found["c", "b"] == 0
    # Where three of four sit out, the server has one child to wait for.
    assert found["half", "root"] == 0
    assert [trace["marker"]["symbol"] for trace in figure.pictures[0].traces] == ["circle-open"] * 2
    # Who waits longest comes first.
    assert columns(figure)["group"][0] == "a at root"
    # The mean over workers, not over groups: 3 x 5 / 12 / 4.
    assert "and 31.2% in c" in figure.pictures[0].text


def test_servers_that_do_not_aggregate_have_no_mark(tmp_path: Path) -> None:
    cases = [{"name": "P", "period": 10}, {"name": "H", "periods": [10, 5]}]
    figure = waits(described(sites(2, 1), cases, 20), tmp_path / "run")
    assert figure is not None
    found = {(row["case"], row["group"]): row["wait_share"] for row in table(figure)}
    assert (found["P", "site0"], found["H", "site0"]) == (None, 0)
    # All arrive at the same moment and nothing comes between: 0%, which is not the same as not known.
    assert found["P", "w at site0"] == 0


def test_many_groups_are_summed_up(tmp_path: Path) -> None:
    # 30 sites, the far one of the last is slower: 30 groups of workers, 30 sites, the root; 19 and the rest are shown.
    topology = sites(*[2] * 29)
    topology["root"]["children"].append(
        {"name": "slow", "uplink": {"rtt_s": 40}, "children": [{"name": "v", "count": 2, "uplink": {"rtt_s": 1}}]}
    )
    figure = waits(described(topology, [{"name": "c", "periods": [10, 5]}], 20), tmp_path / "run")
    assert figure is not None
    names, nodes = columns(figure)["group"], columns(figure)["num_nodes"]
    assert (len(names), names[-1]) == (20, "42 other groups")
    assert sum(nodes) == 1 + 30 + 60
    assert "42 groups that wait least" in figure.note


def test_no_waits_were_kept(tmp_path: Path) -> None:
    experiment = described(sites(2), [{"name": "c", "periods": [10, 5]}], 20, timeline="none")
    assert waits(experiment, tmp_path / "run") is None


def test_nobody_waits_with_one_worker(tmp_path: Path) -> None:
    experiment = described(
        {"root": {"children": [{"name": "w", "uplink": {"rtt_s": 1}}]}}, [{"name": "c", "period": 5}], 20
    )
    figure = waits(experiment, tmp_path / "run")
    assert figure is not None
    assert figure.pictures[0].text.startswith("Nobody waits")


def test_waits_of_an_unfinished_trial_are_of_its_time_so_far(tmp_path: Path) -> None:
    # Three rounds have waits, two of them are evaluated.
    every = {"every_iterations": 20}
    cases = [{"name": "c", "periods": [10, 5]}]
    experiment = described(sites(2, 1), cases, 100, seeds=(1, 2), evaluation=every)
    folder = run_experiment(experiment, tmp_path / "run", Options(timing_only=True, stop_at=30))
    with gather([folder]) as content:
        figure = waiting(content)
    assert figure is not None
    assert columns(figure)["wait_share"][0] == pytest.approx(4 / 15.5)
