"""Steps that workers skip: which they are, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from oracle.drive import engine, experiment_of, plan_of, run_data

from hsgd_emu.engine.skipped import Taken, TakenOnly
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import Cost

TWO = {"levels": [{"name": "w", "count": 2, "uplink": {"rtt_s": 2}}]}


def world(**train: object) -> dict:
    return run_data(TWO, [{"name": "c", "period": 4}], 12, 1, **train)


def test_a_worker_knows_its_own_steps_in_whatever_order_it_is_asked() -> None:
    uniforms = stream(7, "steps", "w-0").random(5000)
    taken = Taken(7, "w-0", 0.3)
    expected = np.flatnonzero(uniforms < 0.3)
    assert taken.iterations(1200, 3) == expected[1200:1203].tolist()
    assert [taken.before(t) for t in (0, 1, 17, 4999)] == [int((expected < t).sum()) for t in (0, 1, 17, 4999)]
    assert taken.iterations(0, 4) == expected[:4].tolist()


def test_a_skipped_step_is_drawn_and_not_spent() -> None:
    spent = TakenOnly(Cost(2).stream(1, "compute", "w"), 1, "w", 0.5)
    flags = stream(1, "steps", "w").random(12) < 0.5
    assert [spent.take(4) for _ in range(3)] == [2_000_000_000 * int(part.sum()) for part in flags.reshape(3, 4)]
    at_once = TakenOnly(Cost(2).stream(1, "compute", "w"), 1, "w", 0.5).sums(3, 4)
    assert at_once.tolist() == [2_000_000_000 * int(part.sum()) for part in flags.reshape(3, 4)]


def test_what_is_learned_skips_what_the_clock_does_on_every_network() -> None:
    plan = replace(plan_of(experiment_of(world(step_probability=0.5))), network_seed=5)
    for worker in plan.workers:
        spent, taken = plan.steps(worker), plan.taken(worker)
        assert [spent.take(1) > 0 for _ in range(12)] == [taken.before(t + 1) > taken.before(t) for t in range(12)]


def test_losses_count_for_the_next_evaluation() -> None:
    plan = replace(plan_of(experiment_of(world())), evaluate_every=5, iterations=16)  # aggregations at 4, 8, 12, 16
    evaluated = [t for t in (4, 8, 12, 16) if plan.is_evaluated(t)]
    assert [plan.evaluated_at(t) for t in range(1, 17)] == [min(e for e in evaluated if e >= t) for t in range(1, 17)]


def test_a_round_takes_as_long_as_the_most_steps_of_a_worker_in_it() -> None:
    records, _ = engine(experiment_of(world(step_probability=0.5)))
    flags = np.stack([stream(1, "steps", f"w-{w}").random(12) < 0.5 for w in range(2)]).reshape(2, 3, 4)
    rounds_s = flags.sum(axis=2).max(axis=0) + 2
    assert [record.time_ns for record in records] == (rounds_s.cumsum() * 1_000_000_000).tolist()


def test_a_name_goes_before_its_class_and_one_is_no_skipping() -> None:
    named = plan_of(experiment_of(world(step_probability={"w": 0.5, "w-1": 1})))
    assert named.step_probability == {1: 0.5}
    for nothing in (1, {"w": 1}, {"w-0": 1.0}):
        assert plan_of(experiment_of(world(step_probability=nothing))).step_probability == {}
        assert experiment_of(world(step_probability=nothing)).alone("c").train.step_probability is None
    own = experiment_of(world(step_probability={"w": 0.5})).alone("c").train.step_probability
    assert own == {"w-0": 0.5, "w-1": 0.5}


def test_a_case_has_its_own() -> None:
    data = world(step_probability=0.5)
    data["cases"].append({"name": "all", "period": 4, "train": {"step_probability": 1}})
    experiment = experiment_of(data)
    assert plan_of(experiment, 0).step_probability == {1: 0.5, 2: 0.5}
    assert plan_of(experiment, 1).step_probability == {}


@pytest.mark.parametrize(
    ("given", "field", "text"),
    [
        (
            {"root": 0.5},
            "train.step_probability.root",
            "'root' is a server, and only workers take steps; workers are ",
        ),
        ({"v": 0.5}, "train.step_probability.v", "'v' is no worker of the topology; workers are w, w-0, w-1"),
        ({"w-9": 0.5}, "train.step_probability.w-9", "did you mean"),
        (0, "train.step_probability", "found 0; expected a fraction above 0"),
        ({"w": 1.5}, "train.step_probability.w", "found 1.5; expected a fraction of at most 1"),
        ({}, "train.step_probability", "expected at least one item"),
        ("half", "train.step_probability", "expected a fraction"),
    ],
)
def test_mistakes(given: object, field: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment_of(world(step_probability=given))
    (problem,) = caught.value.problems
    assert problem.field == field
    assert text in problem.message


def test_mistakes_in_what_is_averaged() -> None:
    data = world()
    data["targets"] = {"averaged_test_loss": [0.5], "averaged_test_accuracy": [0.5]}
    with pytest.raises(ConfigError) as caught:
        experiment_of(data)
    assert {problem.field for problem in caught.value.problems} == {f"targets.{name}" for name in data["targets"]}
    assert "asks for" in caught.value.problems[0].message
    data["evaluation"] = {"averaged": {"after": 12}}
    with pytest.raises(ConfigError, match=r"found 12, .* is 12: nothing is left"):
        experiment_of(data)
    data["evaluation"] = {"averaged": {"after": 11}}
    experiment_of(data)


def test_mistakes_of_a_case_are_told_too() -> None:
    data = world(step_probability={"x": 1})
    data["cases"][0]["train"] = {"step_probability": {"y": 1}}
    with pytest.raises(ConfigError) as caught:
        experiment_of(data)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"train.step_probability.x", "cases.0.train.step_probability.y"}
