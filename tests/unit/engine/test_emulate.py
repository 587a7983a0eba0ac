"""What the engine asks of a learner, in which order, and how it tells of rounds and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from oracle.drive import engine, experiment_of, plan_of, run_data

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import NOBODY, Held, Operations, Version
from hsgd_emu.metrics import Metrics


class Diary:
    """A learner that writes down what it is asked; of versions, where they were made."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.made_at: dict[int, int] = {}

    def start(self, version: Version) -> None:
        self.made_at[version.number] = -1

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        self.made_at[made.number] = worker
        self.asked.append(("steps", worker, iteration, num_steps, self.made_at[version.number]))

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        self.made_at[made.number] = server
        self.asked.append(("combine", server, tuple(self.made_at[v.number] for v in versions), tuple(weights)))

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        self.asked.append(("evaluate", self.made_at[version.number], iteration))
        return Metrics(test_accuracy=iteration / 100)

    def restore(self, state: Mapping[str, Any], versions: Mapping[int, Version]) -> None:
        raise AssertionError


def world(iterations: int = 4, **changes: Any) -> dict[str, Any]:
    """A site of two workers (nodes 2, 3) and one of a single worker (5), all costs equal."""
    sites = [
        {
            "name": name,
            "uplink": {"rtt_s": 2},
            "children": [{"name": f"{name}w", "count": count, "uplink": {"rtt_s": 2}}],
        }
        for name, count in (("a", 2), ("b", 1))
    ]
    data = run_data({"root": {"children": sites}}, [{"name": "c", "periods": [4, 2]}], iterations, 1)
    return {**data, **changes}


def diary(data: dict[str, Any]) -> list[tuple[Any, ...]]:
    learner = Diary()
    emulate(plan_of(experiment_of(data)), Operations(learner), lambda record: None)
    return learner.asked


def test_algorithm_1_is_asked_for_in_the_order_of_time_and_nodes() -> None:
    half = (0.5, 0.5)
    local = [("steps", 2, 0, 2, -1), ("steps", 3, 0, 2, -1), ("steps", 5, 0, 2, -1)]
    # Equation (2): a group weighs its share of the workers, 2 and 1 of 3.
    groups = [("combine", 1, (2, 3), half), ("combine", 4, (5,), (1.0,))]
    # Handing down is passing a version on: a worker goes on from its server's.
    again = [("steps", 2, 2, 2, 1), ("steps", 3, 2, 2, 1), ("steps", 5, 2, 2, 4)]
    whole = [("combine", 0, (1, 4), (2 / 3, 1 / 3)), ("evaluate", 0, 4)]
    assert diary(world()) == [*local, *groups, *again, *groups, *whole]
    assert diary(world(8))[len(diary(world())) :][:3] == [(*one[:2], 4, 2, 0) for one in local]


def test_at_one_moment_the_first_node_comes_first_whoever_was_asked_to_wait_first() -> None:
    # Node 2's upload of 2 s begins at 1, node 1's of 1 s at 2: both arrive at 3, and 1 is before 2.
    children = [
        {"name": "a", "uplink": {"up_s": 1, "down_s": 1}, "compute": {"step_s": 2}},
        {"name": "b", "uplink": {"up_s": 2, "down_s": 1}, "compute": {"step_s": 1}},
    ]
    data = run_data({"root": {"children": children}}, [{"name": "c", "period": 1}], 1)
    (record,), _ = engine(experiment_of(data))
    assert [(b.waited_for, b.slack_ns) for b in record.barriers] == [(1, 0)]
    # b's steps are over first; of the downloads, both over at 4, a's comes first.
    assert [asked[:2] for asked in diary(data) if asked[0] == "steps"] == [("steps", 2), ("steps", 1)]
    assert [row.node for row in record.activities if row.kind == "download"] == [1, 2]


def test_delays_are_served_by_node_order_not_by_the_order_of_calls() -> None:
    # Both finish computing at 3 s: b (node 2) was scheduled at 2 s by its second period, a at 0 s by its first.
    children = [
        {
            "name": "a",
            "children": [{"name": "x", "uplink": {"rtt_s": 0}, "compute": {"step_s": 3}}],
            "uplink": {"rtt_s": 0},
        },
        {
            "name": "b",
            "children": [{"name": "y", "uplink": {"rtt_s": 0}, "compute": {"step_s": 1}}],
            "uplink": {"rtt_s": 0},
        },
    ]
    periods = {"root": 3, "a": 1, "b": 1}
    steps = list(diary(run_data({"root": {"children": children}}, [{"name": "c", "periods": periods}], 3)))
    order = [asked[1:3] for asked in steps if asked[0] == "steps"]
    # y at 1, 2 and 3; x at 3, 6 and 9: at 3 the first node, x (2), comes before y (4).
    assert order == [(4, 0), (4, 1), (2, 0), (4, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize(
    ("averaging", "weights"), [("workers", (2 / 3, 1 / 3)), ("uniform", (0.5, 0.5)), ("samples", (2 / 3, 1 / 3))]
)
def test_weights_of_groups(averaging: str, weights: tuple[float, float]) -> None:
    # Without samples told (timing only) `samples` counts workers.
    asked = diary(world(averaging={"by": averaging}))
    assert [one[3] for one in asked if one[:2] == ("combine", 0)] == [weights]


def test_weights_by_samples() -> None:
    experiment = experiment_of(world(averaging={"by": "samples"}))
    schedule = experiment.schedules[0]
    plan = experiment.plan(schedule, experiment.routes(schedule, 1), 1, 1, [10, 30, 60])
    learner = Diary()
    emulate(plan, Operations(learner), lambda record: None)
    weights = {one[1]: one[3] for one in learner.asked if one[0] == "combine"}
    assert weights == {1: (0.25, 0.75), 4: (1.0,), 0: (0.4, 0.6)}


def test_who_sits_out_takes_no_steps_and_is_not_averaged_but_receives() -> None:
    data = run_data(
        {"levels": [{"name": "w", "count": 4, "uplink": {"rtt_s": 1}}]},
        [{"name": "c", "period": 2}],
        20,
        1,
        participation=0.5,
    )
    asked = diary(data)
    for number in range(10):
        steps = sorted(one[1] for one in asked if one[0] == "steps" and one[2] == 2 * number)
        aggregate = [one for one in asked if one[0] == "combine"][number]
        assert aggregate[2] == tuple(steps)
        assert aggregate[3] == (0.5, 0.5)
    # Whoever takes part goes on from the last global model, also after it sat out.
    assert {one[4] for one in asked if one[0] == "steps" and one[2]} == {0}
    records, _ = engine(experiment_of(data))
    for record in records:
        assert sorted(row.node for row in record.activities if row.kind == "download") == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("every", "evaluated"),
    [(1, [4, 8, 12, 16, 20]), (8, [8, 16, 20]), (6, [8, 12, 20]), (5, [8, 12, 16, 20]), (100, [20])],
)
def test_the_first_aggregation_at_or_after_each_multiple_is_evaluated_and_the_last(
    every: int, evaluated: list[int]
) -> None:
    data = world(20, evaluation={"every_iterations": every})
    records, _ = engine(experiment_of(data))
    assert [one[2] for one in diary(data) if one[0] == "evaluate"] == evaluated
    assert [record.iteration for record in records if record.metrics is not None] == evaluated
    assert [record.round for record in records] == [1, 2, 3, 4, 5]


def test_the_global_aggregation_is_told_before_any_worker_goes_on() -> None:
    told: list[str] = []
    plan = plan_of(experiment_of(world(8)))
    emulate(
        plan,
        Operations(),
        lambda r: told.append(f"round {r.iteration}"),
        on_aggregated=lambda t: told.append(f"has {t}"),
    )
    assert told == ["has 4", "round 4", "has 8", "round 8"]


class OddError(Exception):
    """An exception that cannot be made again from its arguments."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} is not {other}")


@pytest.mark.parametrize("error", [OddError(1, 2), ValueError("no"), RuntimeError()])
def test_a_learner_s_failure_comes_out_as_it_is(error: Exception) -> None:
    class Failing(Diary):
        def combine(self, *_: Any) -> None:
            raise error

    with pytest.raises(type(error)) as caught:
        emulate(plan_of(experiment_of(world())), Operations(Failing()), lambda record: None)
    assert caught.value is error


def test_a_failure_while_telling_a_round_comes_out_as_it_is() -> None:
    error = OddError(3, 4)

    def fail(_: object) -> None:
        raise error

    with pytest.raises(OddError) as caught:
        emulate(plan_of(experiment_of(world())), Operations(), fail)
    assert caught.value is error


def test_nothing_costs_nothing() -> None:
    # All events at 0: the order alone decides, and every round is told.
    data = run_data(
        {
            "levels": [
                {"name": "s", "count": 2, "uplink": {"rtt_s": 0}},
                {"name": "w", "count": 2, "uplink": {"rtt_s": 0}},
            ]
        },
        [{"name": "c", "periods": [4, 2]}],
        12,
        0,
    )
    records, _ = engine(experiment_of(data))
    assert [(record.iteration, record.time_ns) for record in records] == [(4, 0), (8, 0), (12, 0)]


def test_interrupting_goes_through() -> None:
    class Interrupted(Diary):
        def steps(self, *_: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emulate(plan_of(experiment_of(world())), Operations(Interrupted()), lambda record: None)
