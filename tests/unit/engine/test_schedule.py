"""Periods -> who aggregates whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.config.load import draft_topology
from hsgd_emu.config.reader import read_text
from hsgd_emu.config.run_schema import CaseSpec
from hsgd_emu.engine.schedule import Mistakes, Stage, build_schedule
from hsgd_emu.topology.tree import Topology, build_topology

TWO = "levels: [{name: site, count: 2, uplink: x}, {name: worker, count: 2, uplink: x}]"
THREE = (
    "levels: [{name: metro, count: 1, uplink: x}, {name: edge, count: 2, uplink: x}, {name: w, count: 2, uplink: x}]"
)
UNEVEN = """
root:
  children:
    - name: campus
      children: [{name: hall, children: [{name: phone, count: 2}]}, {name: kiosk}]
    - {name: lone}
"""


def tree(text: str) -> Topology:
    draft = draft_topology(read_text(text, "t.yaml", Path()), [])
    assert draft is not None
    topology = build_topology(draft, [])
    assert topology is not None
    return topology


def case_of(**fields: Any) -> CaseSpec:
    return CaseSpec(**fields)


def built(text: str, iterations: int | None = None, **fields: Any) -> Stage:
    mistakes: Mistakes = []
    schedule = build_schedule(case_of(name="c", **fields), tree(text), iterations, 1.0, mistakes)
    assert not mistakes
    assert schedule is not None
    (stage,) = schedule.stages
    return stage


def told(text: str, iterations: int | None = None, **fields: Any) -> Mistakes:
    mistakes: Mistakes = []
    assert build_schedule(case_of(name="c", **fields), tree(text), iterations, 1.0, mistakes) is None
    return mistakes


def test_local_sgd_aggregates_all_workers_at_the_root() -> None:
    schedule = built(THREE, period=7)
    assert schedule.period == {0: 7}
    assert schedule.children == {0: (3, 4, 6, 7)}
    assert set(schedule.parent.values()) == {0}


def test_one_period_per_level_from_the_root_down() -> None:
    schedule = built(THREE, periods=[8, 4, 2])
    assert schedule.period == {0: 8, 1: 4, 2: 2, 5: 2}
    assert schedule.children == {0: (1,), 1: (2, 5), 2: (3, 4), 5: (6, 7)}
    assert schedule.end_of(1) == 8


def test_a_skipped_level_is_contracted() -> None:
    schedule = built(THREE, periods=[8, "none", 2])
    assert schedule.period == {0: 8, 2: 2, 5: 2}
    assert schedule.children == {0: (2, 5), 2: (3, 4), 5: (6, 7)}
    schedule = built(THREE, periods=[8, 4, "none"])
    assert schedule.children == {0: (1,), 1: (3, 4, 6, 7)}


def test_one_server_of_a_class_can_be_skipped() -> None:
    # The root then aggregates a local server and the two workers of the other site, in node order.
    schedule = built(TWO, periods={"root": 4, "site": 2, "site-1": "none"})
    assert schedule.period == {0: 4, 1: 2}
    assert schedule.children == {0: (1, 5, 6), 1: (2, 3)}


def test_a_name_beats_its_class_in_either_order() -> None:
    for names in (["site", "site-1"], ["site-1", "site"]):
        periods: dict[str, int] = {name: {"site": 2, "site-1": 5}[name] for name in names}
        assert built(TWO, periods={"root": 10, **periods}).period == {0: 10, 1: 2, 4: 5}


def test_uneven_trees_mix_workers_and_servers_below_one_server() -> None:
    schedule = built(UNEVEN, periods=[6, 3, 1])
    assert schedule.children == {0: (1, 6), 1: (2, 5), 2: (3, 4)}
    assert schedule.period == {0: 6, 1: 3, 2: 1}


def test_participation_of_the_case_beats_that_of_the_run() -> None:
    assert built(TWO, period=2).participation == 1.0
    assert built(TWO, period=2, participation=0.25).participation == 0.25


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        ({"periods": [4]}, ("periods",), "1 period for 2 levels of servers"),
        ({"periods": [4, 2, 1]}, ("periods",), "3 periods for 2 levels of servers"),
        ({"periods": ["none", 2]}, ("periods",), "the global server needs a number of iterations"),
        ({"periods": {"site": 2}}, ("periods",), "no period for root, the global server"),
        ({"periods": {"root": 4}}, ("periods",), "no period for site-0, site-1; write `none`"),
        ({"periods": {"root": 4, "stie": 2}}, ("periods", "stie"), "did you mean 'site'?"),
        ({"periods": {"root": 4, "worker": 2}}, ("periods", "worker"), "'worker' is a worker"),
        ({"periods": [50, 7]}, ("periods",), "50 is not a multiple of 7; 49 and 56 are"),
        ({"periods": [3, 6]}, ("periods",), "3 is not a multiple of 6; 6 is"),
        ({"periods": {"root": 50, "site": 7}}, ("periods", "site"), "50 is not a multiple of 7; 49 and 56 are"),
        (
            {"periods": {"root": 50, "site": 5, "site-1": 7}},
            ("periods", "site-1"),
            "50 is not a multiple of 7; 49 and 56 are",
        ),
    ],
)
def test_each_mistake_is_told_once_at_its_field(fields: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    ((where, text),) = told(TWO, **fields)
    assert where == path
    assert message in text


def test_a_multiple_is_of_the_next_aggregating_server_above() -> None:
    # 8 and 4 would do for metro; with metro skipped, 2 must divide 8. 6 over 4 is told although 12 over 4 is right.
    assert built(THREE, periods=[12, "none", 4]).period == {0: 12, 2: 4, 5: 4}
    ((path, text),) = told(THREE, periods=[12, 6, 4])
    assert (path, text) == (("periods",), "6 is not a multiple of 4; 4 and 8 are")


@pytest.mark.parametrize(("fields", "field"), [({"period": 30}, "period"), ({"periods": [30, 5]}, "periods")])
def test_iterations_are_whole_rounds(fields: dict[str, Any], field: str) -> None:
    ((path, text),) = told(TWO, 100, **fields)
    assert path == (field,)
    assert text == "train.iterations is 100, not a multiple of the global period 30; 90 and 120 are"
    assert built(TWO, 90, **fields).end_of(1) == 30
