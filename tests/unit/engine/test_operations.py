"""The log of operations: what it hashes to, and how a trial goes on from the middle of it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from oracle.drive import experiment_of, plan_of, run_data
from oracle.gates import DeadlineGate, WakingGate

from hsgd_emu.engine.emulate import emulate, operations_hash
from hsgd_emu.engine.fast import applies
from hsgd_emu.engine.gates import ClosingGate
from hsgd_emu.engine.operations import NOBODY, Held, Operations, Version
from hsgd_emu.engine.plan import Plan
from hsgd_emu.errors import RunError
from hsgd_emu.metrics import Metrics


def world(seed: int = 1, participation: float = 1.0, **changes: Any) -> dict[str, Any]:
    """Two sites of two and three workers on a random network."""
    draw = random.Random(seed)
    sites = [
        {
            "name": name,
            "uplink": {"rtt_s": draw.uniform(0.01, 2)},
            "children": [
                {"name": f"{name}{i}", "uplink": {"rtt_s": draw.uniform(0.01, 2)}, "compute": {"step_s": draw.random()}}
                for i in range(count)
            ],
        }
        for name, count in (("a", 2), ("b", 3))
    ]
    cases = [{"name": "c", "periods": {"root": 12, "a": 2, "b": 6}}]
    data = run_data({"root": {"name": "root", "children": sites}}, cases, 24, participation=participation)
    return {**data, **changes}


def clocked(plan: Plan) -> str:
    """Return the hash as a trial on the clock has it."""
    operations = Operations()
    emulate(plan, operations, lambda record: None)
    return operations.digest()


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_a_synchronous_trial_has_one_hash_on_a_hundred_networks(participation: float) -> None:
    plans = [plan_of(experiment_of(world(seed, participation))) for seed in range(100)]
    hashes = {clocked(plan) for plan in plans}
    # And the walk through the tree, which asks no clock, has it too.
    assert hashes == {operations_hash(plans[0])}


@pytest.mark.parametrize(
    "changes",
    [
        {"cases": [{"name": "c", "periods": {"root": 12, "a": 4, "b": 6}}]},
        {"cases": [{"name": "c", "period": 12}]},
        {"averaging": {"by": "uniform"}},
        {"evaluation": {"every_iterations": 24}},
        {"train": {"iterations": 36}},
    ],
)
def test_whatever_is_learned_otherwise_has_another_hash(changes: dict[str, Any]) -> None:
    before, after = (plan_of(experiment_of(data)) for data in (world(), world(**changes)))
    assert clocked(after) == operations_hash(after) != operations_hash(before)


def test_who_takes_part_is_part_of_the_hash() -> None:
    experiment = experiment_of(world(participation=0.5))
    hashes = {operations_hash(plan_of(experiment, seed=seed)) for seed in (1, 2, 3)}
    assert len(hashes) == 3


def flat(far_s: float, gate: type[ClosingGate], iterations: int = 4) -> Plan:
    children = [
        {"name": name, "uplink": {"rtt_s": rtt_s}, "compute": {"step_s": 1}}
        for name, rtt_s in (("x", 0.1), ("y", 0.2), ("z", far_s))
    ]
    data = run_data({"root": {"children": children}}, [{"name": "c", "period": 1}], iterations)
    return replace(plan_of(experiment_of(data)), gate=gate, depends_on_time=gate is not ClosingGate)


@pytest.mark.parametrize("gate", [DeadlineGate, WakingGate])
def test_a_gate_that_goes_by_time_has_another_hash_where_the_order_changes_and_no_other(
    gate: type[ClosingGate],
) -> None:
    near, nearer, late = (operations_hash(flat(far_s, gate)) for far_s in (0.3, 0.25, 6))
    assert near == nearer == operations_hash(flat(0.3, ClosingGate))
    assert late not in (near, operations_hash(flat(6, ClosingGate)))
    assert late == operations_hash(flat(6.01, gate))


def test_the_fast_clock_says_where_it_does_not_apply() -> None:
    assert applies(flat(0.3, ClosingGate))
    assert not applies(flat(0.3, DeadlineGate))


# --- going on from the middle ------------------------------------------------------------------------------------


class Summing:
    """A learner whose versions are exact numbers, kept by itself."""

    def __init__(self) -> None:
        self.asked = 0

    def start(self, version: Version) -> None:
        version.register = 1.0

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        self.asked += 1
        made.register = version.register * 1.5 + worker + iteration / 7 + num_steps

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        self.asked += 1
        made.register = sum(w * v.register for w, v in zip(weights, versions, strict=True))

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        return Metrics(test_loss=version.register)

    def restore(self, state: Mapping[str, Any], versions: Mapping[int, Version]) -> None:
        for number, value in state["versions"].items():
            versions[number].register = value


def run(plan: Plan, operations: Operations) -> tuple[dict[int, Metrics | None], str]:
    found: dict[int, Metrics | None] = {}
    digest = emulate(plan, operations, lambda record: found.update({record.iteration: record.metrics}))
    return found, digest


def checkpoints(plan: Plan) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the state after each global aggregation."""
    states: list[tuple[int, dict[str, Any]]] = []
    learner = Summing()
    operations = Operations(learner)
    held: list[Version] = []

    def keep(iteration: int) -> None:
        states.append((iteration, {"operations": operations.count, "versions": {}}))

    combine = operations.combine

    def noting(*args: Any) -> Version:
        held[:] = [combine(*args)]
        return held[0]

    operations.combine = noting  # type: ignore[method-assign]
    emulate(plan, operations, lambda record: None, on_aggregated=lambda t: (keep(t), _fill(states, held))[0])
    yield from states


def _fill(states: list[tuple[int, dict[str, Any]]], held: list[Version]) -> None:
    states[-1][1]["versions"] = {held[0].number: held[0].register}


@pytest.mark.parametrize("participation", [1.0, 0.5])
def test_a_trial_goes_on_from_any_global_aggregation_as_if_it_had_not_stopped(participation: float) -> None:
    plan = plan_of(experiment_of(world(5, participation, train={"iterations": 48, "participation": participation})))
    expected, digest = run(plan, Operations(Summing()))
    for iteration, state in checkpoints(plan):
        learner = Summing()
        known = {at: metrics for at, metrics in expected.items() if at <= iteration and metrics}
        found, again = run(plan, Operations(learner, known, state))
        assert (found, again) == (expected, digest)
        assert (learner.asked > 0) == (iteration < 48)


def test_figures_that_are_not_recorded_are_told() -> None:
    with pytest.raises(RunError, match="no evaluation at iteration 12"):
        run(plan_of(experiment_of(world())), Operations(recorded={24: Metrics()}))
