"""`show`: which way the nodes of each class go to the server that aggregates them."""

from __future__ import annotations

from typing import Any

import pytest
from oracle.drive import experiment_of, run_data

from hsgd_emu.show import ways_by_phase, ways_text

LEVELS = [{"name": "site", "count": 2, "uplink": "far"}, {"name": "worker", "count": 2, "uplink": "near"}]
PROFILES = {"near": {"rtt_s": 0.01}, "far": {"rtt_s": 0.1}, "lte": {"rtt_s": 0.05}}


def ways(links: list[dict[str, Any]], periods: list[Any], routing: str = "tree", **profiles: Any) -> str:
    topology = {"levels": LEVELS, "links": links, "routing": routing}
    data = run_data(topology, [{"name": "c", "periods": periods}], 10, 0.001, PROFILES | profiles)
    used = {link["profile"] for link in links if isinstance(link["profile"], str)} | {"near", "far"}
    data["profiles"] = {name: profile for name, profile in data["profiles"].items() if name in used}
    experiment = experiment_of(data)
    schedule = experiment.schedules[0]
    return ways_text(experiment.topology, experiment.routes(schedule, 1000))


ALL = [{"between": ["worker", "root"], "profile": "lte"}]
ONE = [{"between": ["worker-1", "root"], "profile": {"rtt_s": 0.05}}]


@pytest.mark.parametrize(
    ("links", "periods", "routing", "said"),
    [
        ([], [10, 5], "tree", "worker -> site: tree; site -> root: tree"),
        ([], [10, "none"], "tree", "worker -> site -> root: tree"),
        (ALL, [10, "none"], "tree", "worker -> root: direct link (lte)"),
        (ALL, [10, 5], "tree", "worker -> site: tree; site -> root: tree"),
        (ALL, [10, 5], "least_cost", "worker -> site: tree; site -> worker -> root: through other nodes"),
        (
            [{"between": ["root", "site"], "profile": "lte"}],
            [10, 5],
            "tree",
            "worker -> site: tree; site -> root: direct link (lte)",
        ),
        (
            [{"between": ["site", "root"], "profile": "lte"}],
            [10, "none"],
            "tree",
            "worker -> site -> root: tree, by further links",
        ),
        (ONE, [10, "none"], "tree", "3 x worker -> site -> root: tree; 1 x worker -> root: direct link"),
    ],
)
def test_each_class_of_nodes_has_its_way(links: list[Any], periods: list[Any], routing: str, said: str) -> None:
    assert ways(links, periods, routing) == said


def test_a_changed_cost_changes_whether_the_direct_link_pays() -> None:
    assert ways(ALL, [10, "none"], lte={"rtt_s": 0.12}) == "worker -> site -> root: tree"


def test_phases_have_their_ways_one_after_the_other() -> None:
    phases = [{"iterations": 10, "periods": [10, 5]}, {"period": 10}]
    data = run_data({"levels": LEVELS}, [{"name": "c", "phases": phases}], 20, 0.001, PROFILES)
    data["profiles"] = {name: PROFILES[name] for name in ("near", "far")}
    experiment = experiment_of(data)
    (schedule,) = experiment.schedules
    assert list(ways_by_phase(experiment.topology, schedule, experiment.routes(schedule, 1000))) == [
        "until iteration 10: worker -> site: tree; site -> root: tree",
        "to the end: worker -> site -> root: tree",
    ]
