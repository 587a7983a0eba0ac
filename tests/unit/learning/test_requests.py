"""Queued requests are carried out in as few batches as their order allows."""

from __future__ import annotations

from collections.abc import Hashable

from hsgd_emu.engine.operations import Version
from hsgd_emu.learning.requests import Combine, Request, Steps, carry_out


def version(is_there: bool = False) -> Version:
    made = Version(0, b"")
    made.register = "there" if is_there else None
    return made


def log_of(requests: list[Request], rate=lambda iteration: 0.1) -> list[str]:
    """Return what `carry_out` does, as text; rate: of the step after an iteration."""
    done: list[str] = []

    def steps(batch: list[Steps], num: int) -> None:
        done.append(" ".join(["steps", *(f"{r.place}:{r.iteration}" for r in batch), f"+{num}"]))
        for request in batch:
            if request.num_steps > num:
                request.version = version(is_there=True)
            else:
                request.made.register = "there"

    def combine(request: Combine) -> None:
        done.append(f"combine -> {request.place}")
        request.made.register = "there"

    def rates(request: Steps, num_steps: int) -> Hashable:
        return tuple(rate(t) for t in range(request.iteration, request.iteration + num_steps))

    carry_out(requests, steps, combine, rates)
    return done


class Group:
    """One group alone: its workers finish one after the other, and it never waits for another group."""

    def __init__(self, server: int, workers: list[int]) -> None:
        self.server, self.workers, self.model = server, workers, version(is_there=True)

    def round(self, iteration: int, period: int) -> list[Request]:
        made = [version() for _ in self.workers]
        pairs = zip(made, self.workers, strict=True)
        found: list[Request] = [Steps(one, worker, self.model, iteration, period) for one, worker in pairs]
        begun, self.model = self.model, version()
        return [*found, Combine(self.model, self.server, begun, made, (1 / len(made),) * len(made))]


def test_nothing_is_asked_of_an_empty_queue():
    assert log_of([]) == []


def test_a_plain_round_is_one_batch_of_all_workers():
    requests = Group(4, [0, 1]).round(0, 5) + Group(5, [2, 3]).round(0, 5)
    assert log_of(requests) == ["steps 0:0 1:0 2:0 3:0 +5", "combine -> 4", "combine -> 5"]


def test_a_group_that_is_far_ahead_in_emulated_time_is_still_batched_with_the_other():
    one, other = Group(4, [0, 1]), Group(5, [2, 3])
    fast = [request for t in (0, 5, 10) for request in one.round(t, 5)]
    slow = [request for t in (0, 5, 10) for request in other.round(t, 5)]
    steps = [line for line in log_of(fast + slow) if line.startswith("steps")]
    assert steps == [f"steps 0:{t} 1:{t} 2:{t} 3:{t} +5" for t in (0, 5, 10)]


def test_groups_of_different_periods_share_the_steps_that_both_take():
    # I_1 = 2 and I_2 = 6 over one round of 6 iterations: three batches of all, the long steps cut in three.
    one, other = Group(4, [0, 1]), Group(5, [2, 3])
    requests = [request for t in (0, 2, 4) for request in one.round(t, 2)] + other.round(0, 6)
    steps = [line for line in log_of(requests) if line.startswith("steps")]
    assert steps == [f"steps 0:{t} 1:{t} 2:{t} 3:{t} +2" for t in (0, 2, 4)]


def ready(worker: int, iteration: int, num_steps: int) -> Steps:
    return Steps(version(), worker, version(is_there=True), iteration, num_steps)


def test_workers_at_different_iterations_go_together_where_their_rates_are_equal():
    assert log_of([ready(1, 5, 2), ready(0, 0, 2)]) == ["steps 0:0 1:5 +2"]
    falling = [ready(2, 1, 2), ready(1, 5, 2), ready(0, 0, 2)]
    assert log_of(falling, lambda t: 1.0 if t < 3 else 0.5) == ["steps 0:0 2:1 +2", "steps 1:5 +2"]


def test_a_worker_that_sits_out_is_not_waited_for():
    model = version()
    first = ready(0, 0, 5)
    requests = [first, Combine(model, 4, first.version, [first.made], (1.0,))]
    requests += [Steps(version(), worker, model, 5, 5) for worker in (0, 1)]
    assert log_of(requests) == ["steps 0:0 +5", "combine -> 4", "steps 0:5 1:5 +5"]


def test_what_one_worker_does_is_done_in_its_order_even_if_it_waits_for_nothing():
    # Momentum is the worker's own: its second steps must not come before its first.
    slow, model = ready(1, 0, 3), version()
    average = Combine(model, 4, slow.version, [slow.made], (1.0,))
    requests = [slow, average, Steps(version(), 0, model, 0, 1), ready(0, 1, 1)]
    assert log_of(requests) == ["steps 1:0 +3", "combine -> 4", "steps 0:0 +1", "steps 0:1 +1"]
