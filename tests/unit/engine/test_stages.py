"""Cases in stages, and Hier-AVG's notation: who aggregates when, by hand; what equals what; mistakes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from oracle.drive import experiment_of, plan_of

from hsgd_emu.engine.emulate import emulate, operations_hash
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.metrics import Metrics

RUN: dict[str, Any] = yaml.safe_load("""
name: stages
topology:
  name: t
  levels: [{name: edge, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
  links: [{between: [worker, root], profile: direct}]
profiles: {near: {rtt_s: 0.02}, far: {rtt_s: 1.0}, direct: {rtt_s: 0.6}}
compute: {step_s: 0.01}
model: softmax_regression
train: {iterations: 24}
message_bytes: 1000
""")
RANDOM = {
    "near": {"rtt_s": {"distribution": "gamma", "shape": 2, "scale": 0.1}},
    "far": {"rtt_s": {"distribution": "uniform", "low": 0.5, "high": 1.5}},
    "direct": {"rtt_s": {"distribution": "lognormal", "median": 0.6, "sigma": 0.5}},
}
STEP = {"step_s": {"distribution": "uniform", "low": 0.001, "high": 0.1}}


def experiment(*cases: dict[str, Any], **changes: Any) -> Experiment:
    named = [{"name": f"c{number}"} | case for number, case in enumerate(cases)]
    return experiment_of(yaml.safe_dump(RUN | {"cases": named} | changes))


def run(plan: Plan, **more: Any) -> tuple[list[RoundRecord], str, str]:
    """Return the rounds, the hash of the timeline and that of what was done."""
    found: list[RoundRecord] = []
    operations = Operations()
    timeline = emulate(plan, operations, found.append, **more)
    return found, timeline, operations.digest()


def case(*phases: dict[str, Any]) -> dict[str, Any]:
    return {"phases": list(phases)}


def test_each_stage_has_a_tree_of_its_own() -> None:
    """By hand. Two rounds of 2 over the direct links: 2 x (0.02 + 0.6). Then rounds of 10 with local ones of 5: 0.1 of
    steps, one local exchange of 0.02, then the way up and down again over both links, 0.02 + 1."""
    plan = plan_of(experiment(case({"iterations": 4, "period": 2}, {"periods": [10, 5]})), 0, 1)
    first, second = plan.schedule.stages
    assert first.children == {0: (2, 3, 4, 6, 7, 8)}
    assert second.children == {0: (1, 5), 1: (2, 3, 4), 5: (6, 7, 8)}
    rounds, _, done = run(plan)
    assert [(one.round, one.iteration) for one in rounds] == [(1, 2), (2, 4), (3, 14), (4, 24)]
    two, ten = 620 * 10**6, (100 + 20 + 1020) * 10**6
    assert [one.time_ns for one in rounds] == [two, 2 * two, 2 * two + ten, 2 * two + 2 * ten]
    assert rounds[2].aggregated_ns == 2 * two + ten - 510 * 10**6
    assert [len(one.barriers) for one in run(plan, keep="full")[0]] == [1, 1, 5, 5]
    assert done == operations_hash(plan)
    assert rounds[-1].uploaded_bytes == (2 * 6 + 2 * (12 + 2)) * 1000


def test_who_is_late_at_the_end_of_a_stage_begins_the_next_one_late() -> None:
    """The way down to the second group is 2 s longer: it alone is behind, each worker begins when it has the model."""
    groups = [
        {"name": name, "uplink": uplink, "children": [{"name": f"of_{name}", "count": 2, "uplink": "near"}]}
        for name, uplink in (("edge", "far"), ("other", "slow"))
    ]
    costs = {"near": {"rtt_s": 0.02}, "far": {"rtt_s": 1.0}, "slow": {"up_s": 0.5, "down_s": 2.5}}
    far = {"topology": {"name": "t", "root": {"children": groups}}, "profiles": costs}
    found = experiment(case({"iterations": 4, "periods": [4, 2]}, {"periods": [20, 10]}), **far)
    rounds, *_ = run(plan_of(found, 0, 1), keep="full")
    aggregated = {
        (row.node, row.iteration): row.end_ns for one in rounds for row in one.activities if row.kind == "aggregate"
    }
    # 0.04 of steps, 1 1/2 local exchanges of 0.02, half an RTT to the root: the global server has it at 0.57.
    assert aggregated[0, 4] == 570 * 10**6
    # The first server's model has come at 1.08; ten steps and half a local exchange later it aggregates.
    assert aggregated[1, 14] == (570 + 500 + 10 + 100 + 10) * 10**6
    assert aggregated[4, 14] == aggregated[1, 14] + 2 * 10**9


def test_streams_go_on_from_stage_to_stage() -> None:
    """Of a case cut in two at the end of a round, all is as if it had not been cut."""
    whole = {"period": {"rounds": [8]}, "participation": 0.5}
    cut = case({"iterations": 8, "period": 8}, {"period": 8}) | {"participation": 0.5}
    cut_below = case({"iterations": 12, "periods": [12, 4]}, {"periods": [12, 4]})
    of = experiment(whole, cut, {"periods": [12, 4]}, cut_below, profiles=RANDOM, compute=STEP)
    rounds = [run(plan_of(of, number, 3))[1:] for number in range(4)]
    assert rounds[0] == rounds[1]
    assert rounds[2] == rounds[3]
    assert rounds[0] != rounds[2]


def test_a_link_on_both_routes_has_one_stream() -> None:
    """Whoever goes over its uplink to the edge in one stage and through it to the root in the other draws on."""
    tree = {"topology": {"name": "t", "levels": RUN["topology"]["levels"]}, "profiles": RANDOM | {"far": {"rtt_s": 0}}}
    del tree["profiles"]["direct"]
    stages = case({"iterations": 12, "period": 6}, {"periods": [6, 6]})
    of = experiment({"period": 6}, stages, compute={"step_s": 0}, **tree)
    alone, both = (run(plan_of(of, number, 3), keep="full")[0] for number in range(2))

    def of_worker(rounds: list[RoundRecord]) -> list[int]:
        rows = [row for one in rounds for row in one.activities if row.node == 2 and row.kind in ("upload", "download")]
        return [row.end_ns - row.start_ns for row in rows]

    assert of_worker(alone) == of_worker(both)


@pytest.mark.parametrize(
    ("stands_for", "notation"),
    [
        ({"period": 4}, case({"period": 4})),
        ({"period": 4, "participation": 0.5}, case({"period": 4, "participation": 0.5})),
        ({"periods": [12, 4]}, {"hier_avg": {"K1": 4, "K2": 12, "S": 3}}),
        ({"period": 12}, {"hier_avg": {"K1": 4, "K2": 12, "S": 1}}),
        ({"period": 4}, {"hier_avg": {"K1": 4, "K2": 12, "S": 6}}),
    ],
)
def test_notation_is_what_it_stands_for(stands_for: dict[str, Any], notation: dict[str, Any]) -> None:
    one, other = experiment(stands_for), experiment(notation)
    assert one.resolved() == other.resolved()
    assert one.schedules == other.schedules


def test_hier_avg_on_more_levels() -> None:
    levels = [{"name": n, "count": 2, "uplink": "far"} for n in ("region", "edge", "worker")]
    deep = {"topology": {"name": "t", "levels": levels}, "profiles": {"far": {"rtt_s": 1}}}
    found = experiment({"hier_avg": {"K1": 4, "K2": 12, "S": 2}}, **deep)
    assert found.cases[0].periods == (12, "none", 4)


def test_a_trial_ends_in_the_stage_that_reaches_the_targets() -> None:
    plan = plan_of(experiment(case({"iterations": 8, "period": 4}, {"periods": [8, 4]})), 0, 1)
    for last in (4, 8, 16):

        def is_enough(iteration: int, metrics: Metrics, last: int = last) -> bool:
            return iteration == last

        rounds, *_ = run(plan, is_enough=is_enough)
        assert rounds[-1].iteration == last
        assert rounds == run(replace(plan, iterations=last))[0]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"period": 4} | case({"period": 4}), "cases.0: gives both period and phases; give period"),
        ({"period": 4, "hier_avg": {"K1": 1, "K2": 2, "S": 1}}, "cases.0: gives both period and hier_avg; "),
        (case({"period": 4}, {"period": 4}), "phases.0.iterations: is missing; only the last phase has none"),
        (case({"iterations": 4, "period": 4}, {"iterations": 4, "period": 4}), "phases.1.iterations: found 4; the l"),
        (case({"iterations": 24, "period": 4}, {"period": 4}), "phases: the phases before the last one have 24"),
        (case({"iterations": 9, "period": 4}, {"period": 3}), "phases.0.period: iterations is 9, not a multiple of "),
        (case({"iterations": 4, "period": 4}, {"period": 3}), "phases.1.period: the last phase has 20 .* 22 or 25 "),
        (case({"iterations": 8, "periods": [6, 4]}, {"period": 4}), "phases.0.periods: 6 is not a multiple of 4; "),
        (
            case({"iterations": 8, "periods": [{"rounds": [3, 5]}, 3]}, {"period": 4}),
            "phases.0.periods: round 2 is the last one and cut to 5 iterations, not a multiple of 3; iterations 6 or",
        ),
        (
            case({"iterations": 4, "period": 4}, {"periods": [{"rounds": [3, 15]}, 3]}),
            "phases.1.periods: round 3 is the last one and cut to 2 iterations, .*; train.iterations 22 or 25 would do",
        ),
        (case({"iterations": 4}, {"period": 4}), "phases.0: gives neither period nor periods; "),
        (case({"iterations": 4, "period": 4, "periods": [4, 2]}, {"period": 4}), "phases.0: gives both period "),
        ({"hier_avg": {"K1": 4, "K2": 10, "S": 3}}, "cases.0.hier_avg: K2 is 10, not a multiple of K1, 4"),
        (
            {"hier_avg": {"K1": 4, "K2": 12, "S": 4}},
            "cases.0.hier_avg.S: S is 4, but the groups of topology 't' have 3 workers; S may be 1, 3 or 6",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_would_be_right(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        experiment(wrong)
