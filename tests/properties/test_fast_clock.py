"""The fast clock against the engine, on whatever worlds hypothesis thinks up: the same nanoseconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle.drive import experiment_of, plan_of, run_data
from oracle.worlds import costs, links, runs, tied_world

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.engine import fast
from hsgd_emu.engine.messages import ModelShape, Sends
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.times import simulated_times
from hsgd_emu.timing.transfers import bound, scaled

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def assert_same(plans: list[Plan]) -> None:
    ours, engine = fast.fast_times(plans), simulated_times(plans)
    for name in ("time_ns_SR", "aggregated_ns_SR", "compute_ns_SR", "aggregation_ns_SR"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(engine, name), name)
    assert ours.schedule == engine.schedule


@settings(FIXED, max_examples=200)
@given(data=runs(), seeds=st.lists(st.integers(0, 3), min_size=1, max_size=3), network=st.integers(0, 9))
def test_fast_clock_is_the_engine(data: dict[str, Any], seeds: list[int], network: int) -> None:
    """Any tree, periods, profiles, participation; several scenarios at once; also another network seed, and messages
    of unlike sizes."""
    experiment = experiment_of(data)
    for case in range(len(experiment.cases)):
        plans = [plan_of(experiment, case, seed) for seed in seeds]
        coded: dict[tuple[int, Direction], Any] = {(0, "down"): sum, (plans[0].workers[-1], "up"): lambda sizes: 5}
        sends = Sends(coded=coded, shape=lambda: ModelShape((3, 4), 1))
        others = [replace(plans[0], network_seed=network), replace(plans[0], sends=sends)]
        assert_same([*plans, *others, replace(plans[0], sends=Sends(copies=3))])


@settings(FIXED, max_examples=60)
@given(
    data=runs(),
    factors=st.lists(st.sampled_from([0.0, 1e-9, 0.5, 1, 3, 40]), min_size=2, max_size=4),
    one=st.booleans(),
)
def test_scenarios_of_other_costs(data: dict[str, Any], factors: list[float], one: bool) -> None:
    """Scenarios at once that differ in links (in one of them or in all), steps, aggregations, and so in routes."""
    plans = []
    for factor in factors:
        experiment = experiment_of(data)
        draft = experiment.topology_draft
        links = {ref: transfer.scaled(factor or 1) for ref, transfer in experiment.network.transfers.items()}
        if one:
            links = dict([*links.items()][:1])
        steps = {ref: bound(scaled(profile, factor or 1)) for ref, profile in draft.computes.items() if profile}
        changed = replace(experiment, network=experiment.network.rebound(links | steps))
        plans.append(plan_of(changed, 1, 2))
    assert_same(plans)


@st.composite
def unlike_rounds(draw: st.DrawFn) -> dict[str, Any]:
    """A run with a case of local SGD whose rounds grow, one of H-SGD whose rounds are listed, and one in stages."""
    data = draw(runs())
    local, nested = data["cases"]
    period, iterations = local["period"], data["train"]["iterations"]
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    grown = [{"first": draw(st.integers(1, 3)), "add": draw(st.integers(0, 2))}, {"first": 1, "times": 2}, "once"]
    listed = {"rounds": [period * length for length in lengths]}
    of_stages = [{"period": draw(st.sampled_from([1, period]))}, {"periods": nested["periods"]}, {"period": listed}]
    stages = [
        draw(st.sampled_from(of_stages)) | {"iterations": period * draw(st.integers(1, 3))}
        for _ in range(draw(st.integers(1, 3)))
    ]
    for stage in draw(st.lists(st.sampled_from(stages), max_size=1)):
        stage["participation"] = draw(st.sampled_from([1.0, 0.5]))
    data["train"]["iterations"] = iterations + sum(stage["iterations"] for stage in stages)
    data["cases"] = [
        {"name": "grown", "period": draw(st.sampled_from(grown))},
        {"name": "listed", "periods": nested["periods"] | {"root": listed}},
        {"name": "stages", "phases": [*stages, draw(st.sampled_from(of_stages))]},
    ]
    return data


@settings(FIXED, max_examples=50)
@given(
    data=unlike_rounds(),
    factors=st.lists(st.sampled_from([0.5, 1, 3]), min_size=1, max_size=2),
    elements=st.sampled_from([7, 2**19]),
)
def test_rounds_that_are_not_alike(data: dict[str, Any], factors: list[float], elements: int) -> None:
    """Growing rounds, lists of them and stages with trees of their own, in several scenarios and up to any round."""
    experiment = experiment_of(data)
    first = dict(list(experiment.network.transfers.items())[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "_ELEMENTS", elements)
        for case, schedule in enumerate(experiment.schedules):
            plans = [plan_of(experiment, case, seed) for seed in (1, 2)]
            for factor in factors:
                links = {ref: transfer.scaled(factor) for ref, transfer in first.items()}
                changed = replace(experiment, network=experiment.network.rebound(links))
                plans.append(plan_of(changed, case, 2))
            assert_same(plans)
            some = schedule.end_of(max(1, plans[0].num_rounds // 2))
            assert_same([replace(plan, iterations=some) for plan in plans])


@st.composite
def hubs(draw: st.DrawFn) -> dict[str, Any]:
    """A run whose servers below the global one mix, with groups of their own, some with a level of servers between."""
    num = draw(st.integers(2, 4))
    names = [f"hub{number}" for number in range(num)]
    profiles = {f"link{number}": draw(links()) for number in range(3)} | {"tree": draw(links())}
    steps = {f"step{number}": {"step_s": draw(costs())} for number in range(2)}

    def workers(hub: int) -> list[dict[str, Any]]:
        below = {"name": f"w{hub}", "count": draw(st.integers(1, 3)), "uplink": draw(st.sampled_from([*profiles]))}
        below["compute"] = draw(st.sampled_from([*steps]))
        between = {"name": f"edge{hub}", "uplink": "tree", "children": [below], "aggregation_s": draw(costs())}
        return [between] if draw(st.booleans()) else [below]

    nodes = [{"name": name, "uplink": "tree", "children": workers(number)} for number, name in enumerate(names)]
    line = [{"between": list(pair), "profile": draw(st.sampled_from([*profiles]))} for pair in pairwise(names)]
    period, local = draw(st.sampled_from([4, 6])), draw(st.sampled_from([1, 2]))
    root = draw(st.sampled_from([period, {"first": period, "add": 2}, {"rounds": [period, 2, period]}]))
    servers = {"root": root} | {node["name"]: 2 for node in nodes}
    servers |= {below["name"]: local for node in nodes for below in node["children"] if "children" in below}
    graph = draw(st.sampled_from(["links", "complete", "ring"]))
    topology = {"name": "t", "root": {"children": nodes}, "links": line, "routing": draw(ROUTING)}
    case = {"name": "hubs", "periods": servers, "mixing": {"graph": graph}}
    case["participation"] = draw(st.sampled_from([1.0, 0.5]))
    iterations = 2 * period if isinstance(root, int) else draw(st.sampled_from([2, 8, 14]))
    train = {"iterations": iterations, "step_probability": draw(st.sampled_from([1.0, 0.5]))}
    used = {name: profile for name, profile in (profiles | steps).items() if f"'{name}'" in str(topology)}
    given = {"topology": topology, "profiles": used, "cases": [case], "train": train}
    return given | {"name": "hubs", "model": "softmax_regression", "message_bytes": 1000}


ROUTING = st.sampled_from(["tree", "least_cost"])


@settings(FIXED, max_examples=60)
@given(data=hubs(), seeds=st.lists(st.integers(0, 3), min_size=1, max_size=3), factor=st.sampled_from([0.5, 3]))
def test_hubs_that_drift_apart(data: dict[str, Any], seeds: list[int], factor: float) -> None:
    """Each goes on with its neighbours' results; over routes that share links, in rounds of any kind."""
    experiment = experiment_of(data)
    plans = [plan_of(experiment, 0, seed) for seed in seeds]
    link = {ref: transfer.scaled(factor) for ref, transfer in list(experiment.network.transfers.items())[:1]}
    changed = replace(experiment, network=experiment.network.rebound(link))
    assert_same([*plans, plan_of(changed, 0, 1), replace(plans[0], network_seed=9)])


@settings(FIXED, max_examples=60)
@given(data=runs(), elements=st.sampled_from([1, 7, 64]))
def test_chunks_change_nothing(data: dict[str, Any], elements: int) -> None:
    """Rounds and scenarios are computed in parts of any size."""
    experiment = experiment_of(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "_ELEMENTS", elements)
        assert_same([plan_of(experiment, 1, seed) for seed in (1, 2, 1)])


def test_ties_and_constant_costs_with_partial_participation() -> None:
    """Splits follow the first of several last ones; a worker that sat out goes on from its own time."""
    for number in range(300):
        data = tied_world(Random(number))
        if number % 2:
            _make_constant(data)
        experiment = experiment_of(data)
        assert_same([plan_of(experiment, 0, seed) for seed in (1, 2)])


def test_workers_on_both_sides_of_a_server_of_whom_none_may_take_part() -> None:
    site = {"name": "site", "uplink": {"rtt_s": 0}, "children": [{"name": "far", "uplink": {"rtt_s": 0}}]}
    workers = [{"name": name, "uplink": {"rtt_s": rtt_s}} for name, rtt_s in (("slow", 5), ("fast", 1))]
    topology = {"root": {"children": [workers[0], site, workers[1]]}}
    data = run_data(topology, [{"name": "c", "periods": {"root": 1, "site": 1}}], 12, 0, participation=0.5)
    assert_same([plan_of(experiment_of(data), 0, seed) for seed in (1, 2, 3)])


def _make_constant(data: Any) -> None:
    """Put the first of several samples in the place of all."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(value, dict) and "samples" in value:
            data[key] = value["samples"][0]
        elif isinstance(value, dict | list):
            _make_constant(value)
