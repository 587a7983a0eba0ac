"""Whom the aggregations waited for, by hand; nobody is blamed for a tie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.report.blame import blame
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.results.rows import BarrierRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import Options, run_experiment
from tests.unit.report.test_time_spent import HOSTILE, drawn, row, table
from tests.unit.report.test_traffic import described, sites, timed

CASES = [{"name": "c", "period": 5}]


def with_barriers(
    folder: Path, barriers: dict[str, list[list[tuple[str, float]]]], timeline: str = "full"
) -> Figure | None:
    """A run whose seeds' global aggregations waited for these workers, so many seconds; each over its own link."""
    cases = [{"name": name, "period": 5} for name in barriers]
    experiment = described(sites(2, 1), cases, 1000, timeline=timeline)
    keys = [TrialKey(case, seed) for case in barriers for seed in range(len(barriers[case]))]
    with RunStore.create(folder, experiment.resolved(), {}, keys, []) as store:
        for key in keys:
            for number, (worker, slack_s) in enumerate(barriers[key.case][key.seed], start=1):
                barrier = BarrierRow("root", 5 * number, 1.0, worker, f"{worker}--root", slack_s)
                at = row(number, (1, 1, 0), None)._replace(iteration=5 * number)
                store.commit_round(key, 5 * number, at, [], [barrier], [])
            store.finish_trial(key, None, "timeline", "simpy", 1.0)
        store.finish()
    with gather([folder]) as content:
        figure = blame(content)
    if figure:
        drawn(figure)
    return figure


def rows(figure: Figure, by: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(found["case"], found["waited_for"]): found for found in table(figure) if found["by"] == by}


def test_a_slow_worker_is_blamed_with_its_link_and_delay(tmp_path: Path) -> None:
    # Of three aggregations in a round the sites' two at 5 (site1 has one child) and the root's at 10:
    # v's steps take 2 s instead of 1, so that it is 5 s later than w at site0, every time.
    slow = {"name": "v", "uplink": {"rtt_s": 1}, "compute": {"step_s": 2}}
    topology = sites(1, 1)
    topology["root"]["children"][0]["children"].append(slow)
    with gather(
        [timed(described(topology, [{"name": "c", "periods": [10, 5]}], 40, seeds=(1, 2)), tmp_path)]
    ) as content:
        figure = blame(content)
    assert figure is not None
    drawn(figure)
    # Two seeds with 4 rounds: each site 2 aggregations a round, the root one: 5 x 4 x 2 = 40.
    by_node = rows(figure, "node")
    v = by_node["c", "v"]
    assert (v["num"], v["share"]) == (16, 0.4)
    # v arrives at 10.5, w at 5.25: NEAR takes 0.25 up, v's link 0.5.
    assert v["mean_slack_s"] == pytest.approx(5.25)
    assert v["total_slack_s"] == pytest.approx(8 * 5.25)
    assert rows(figure, "link")["c", "v--site0"] == {**v, "by": "link", "waited_for": "v--site0"}
    # The root waits for site0: two periods of 10 + 0.5 + 0.5 s against two of 5 + 0.25 + 0.5, less what site0's and
    # site1's last downloads would take.
    assert by_node["c", "site0"]["num"] == 8
    assert by_node["c", "site0"]["mean_slack_s"] == pytest.approx((10.5 + 0.5 + 10.5) - (5.25 + 0.5 + 5.25))
    # site1 has but one child.
    assert (by_node["c", "nobody alone"]["num"], by_node["c", "nobody alone"]["mean_slack_s"]) == (16, 0)
    assert sum(found["share"] for found in by_node.values()) == pytest.approx(1)
    assert figure.pictures[1].text == (
        "Waited for most often: c for v in 40.0% of its aggregations, by 5.25 s on average."
    )


def test_ties_blame_nobody(tmp_path: Path) -> None:
    # With constant costs all arrive at the same moment; the engine names the first in the file.
    with gather([timed(described(sites(3, 2), [{"name": "c", "periods": [10, 5]}], 20), tmp_path)]) as content:
        figure = blame(content)
    assert figure is not None
    drawn(figure)
    assert [found["waited_for"] for found in table(figure)] == ["nobody alone"] * 2
    for picture in figure.pictures:
        assert "w-0" not in str(picture)
        assert picture.text == "In c all children, or the last ones, arrived together in 100% of aggregations."


def test_shares_delays_and_others_by_hand(tmp_path: Path) -> None:
    # Seed 0: a three times (1 s), b twice (2 s); seed 1: a once (5 s), a tie, and c to h once each.
    seeds = [
        [("a", 1.0)] * 3 + [("b", 2.0)] * 2,
        [("a", 5.0), ("a", 0.0), *((name, 0.5) for name in "cdefgh")],
    ]
    figure = with_barriers(tmp_path / "run", {"one": seeds})
    assert figure is not None
    found = rows(figure, "link")
    a = found["one", "a--root"]
    assert (a["num"], a["share"], a["mean_slack_s"], a["total_slack_s"]) == (4, 4 / 13, 2.0, 4.0)
    # Five are named; of equal ones the first by name. e is not: f, g and h with it.
    assert [name for _, name in found] == [*(f"{n}--root" for n in "abcde"), "3 others", "nobody alone"]
    assert (found["one", "3 others"]["num"], found["one", "3 others"]["total_slack_s"]) == (3, 0.75)
    assert found["one", "nobody alone"]["share"] == 1 / 13
    assert "{" not in figure.pictures[0].text


def test_a_single_other_is_named(tmp_path: Path) -> None:
    figure = with_barriers(tmp_path / "run", {"one": [[(name, 1.0) for name in "abcdef"]]})
    assert figure is not None
    assert [name for _, name in rows(figure, "node")] == list("abcdef")


def test_ties_of_some_cases_are_told_beside_the_others(tmp_path: Path) -> None:
    figure = with_barriers(
        tmp_path / "run", {"tied": [[("a", 0.0)]], "late": [[("a", 0.0), ("b", 0.002), ("b", 0.004)]]}
    )
    assert figure is not None
    assert figure.pictures[1].text == (
        "Waited for most often: late for b in 66.7% of its aggregations, by 3.00 ms on average. "
        "In tied all children, or the last ones, arrived together in 100% of aggregations."
    )


def test_a_node_may_be_called_nobody_alone(tmp_path: Path) -> None:
    figure = with_barriers(tmp_path / "run", {"c": [[("nobody alone", 1.0)]]})
    assert figure is not None
    assert "arrived together" not in figure.pictures[1].text
    assert rows(figure, "node")["c", "nobody alone"]["mean_slack_s"] == 1


def test_hostile_names_are_shown_literally(tmp_path: Path) -> None:
    figure = with_barriers(tmp_path / "run", {HOSTILE: [[(HOSTILE, 1.0)]]})
    assert figure is not None
    for picture in figure.pictures:
        assert "<b>bold" not in str(picture.traces) + str(picture.layout)


def test_many_cases_and_workers_stay_small(tmp_path: Path) -> None:
    barriers = {f"case {i}": [[(f"w-{k}", 1.0) for k in range(100)]] for i in range(12)}
    figure = with_barriers(tmp_path / "run", barriers)
    assert figure is not None
    # 12 cases with a head, one by name and the others.
    assert len(table(figure)) == 2 * 12 * 2
    assert figure.height_px < 1000
    assert figure.pictures[0].text.endswith("The table has 8 more.")


def test_what_was_kept_is_said(tmp_path: Path) -> None:
    figure = with_barriers(tmp_path / "run", {"c": [[("a", 1.0)]]}, timeline="rounds")
    assert figure is not None
    assert "the global server's aggregations only" in figure.note
    full = with_barriers(tmp_path / "full", {"c": [[("a", 1.0)]]})
    assert full is not None
    assert "only" not in full.note


def test_nothing_kept_nothing_shown(tmp_path: Path) -> None:
    with gather([timed(described(sites(2), CASES, 20, timeline="none"), tmp_path / "run")]) as content:
        assert blame(content) is None


def test_a_run_under_way_shows_what_there_is(tmp_path: Path) -> None:
    experiment = described(sites(2, 1), CASES, 20, seeds=(1, 2))
    with gather([run_experiment(experiment, tmp_path, Options(timing_only=True, stop_at=10))]) as content:
        figure = blame(content)
    assert figure is not None
    drawn(figure)
    assert sum(found["num"] for found in rows(figure, "node").values()) == 2 * 2


def test_one_worker_is_nobody_to_wait_for(tmp_path: Path) -> None:
    topology = {"root": {"children": [{"name": "w", "uplink": {"rtt_s": 1}}]}}
    with gather([timed(described(topology, CASES, 20), tmp_path)]) as content:
        figure = blame(content)
    assert figure is not None
    assert [found["waited_for"] for found in table(figure)] == ["nobody alone"] * 2
