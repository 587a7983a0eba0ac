"""Queued requests are carried out in as few batches as their order allows."""

from __future__ import annotations

from hsgd_emu.learning.requests import Average, HandDown, Request, Steps, carry_out


def log_of(requests: list[Request]) -> list[str]:
    """Return what `carry_out` does, as text."""
    done: list[str] = []
    carry_out(
        requests,
        lambda workers, iteration, num: done.append(f"steps {workers} {iteration}+{num}"),
        lambda request: done.append(f"average {request.children} -> {request.server}"),
        lambda copies: done.append("copy " + " ".join(f"{c.server}->{c.child}" for c in copies)),
    )
    return done


def local_round(server: int, workers: list[int], iteration: int, period: int) -> list[Request]:
    """One group alone: its workers finish one after the other, and it never waits for the other group."""
    return [
        *(Steps(worker, iteration, period) for worker in workers),
        Average(server, tuple(workers), (1 / len(workers),) * len(workers)),
        *(HandDown(server, worker) for worker in workers),
    ]


def test_nothing_is_asked_of_an_empty_queue():
    assert log_of([]) == []


def test_a_plain_round_is_one_batch_of_all_workers():
    # Groups (0, 1 below 4) and (2, 3 below 5), one after the other in emulated time.
    requests = local_round(4, [0, 1], 0, 5) + local_round(5, [2, 3], 0, 5)
    assert log_of(requests) == [
        "steps [0, 1, 2, 3] 0+5",
        "average (0, 1) -> 4",
        "copy 4->0 4->1",
        "average (2, 3) -> 5",
        "copy 5->2 5->3",
    ]


def test_a_group_that_is_far_ahead_in_emulated_time_is_still_batched_with_the_other():
    fast = [request for t in (0, 5, 10) for request in local_round(4, [0, 1], t, 5)]
    slow = [request for t in (0, 5, 10) for request in local_round(5, [2, 3], t, 5)]
    steps = [line for line in log_of(fast + slow) if line.startswith("steps")]
    assert steps == [f"steps [0, 1, 2, 3] {t}+5" for t in (0, 5, 10)]


def test_groups_of_different_periods_share_the_steps_that_both_take():
    # I_1 = 2 and I_2 = 6 over one round of 6 iterations: three batches of all, the long steps cut in three.
    requests = [request for t in (0, 2, 4) for request in local_round(4, [0, 1], t, 2)] + local_round(5, [2, 3], 0, 6)
    steps = [line for line in log_of(requests) if line.startswith("steps")]
    assert steps == ["steps [0, 1, 2, 3] 0+2", "steps [0, 1, 2, 3] 2+2", "steps [0, 1, 2, 3] 4+2"]


def test_workers_at_different_iterations_are_not_batched():
    assert log_of([Steps(1, 5, 2), Steps(0, 0, 2)]) == ["steps [0] 0+2", "steps [1] 5+2"]


def test_a_worker_that_sits_out_is_not_waited_for():
    requests = [
        Steps(0, 0, 5),
        Average(4, (0,), (1.0,)),
        HandDown(4, 0),
        HandDown(4, 1),
        Steps(0, 5, 5),
        Steps(1, 5, 5),
    ]
    steps = [line for line in log_of(requests) if line.startswith("steps")]
    assert steps == ["steps [0] 0+5", "steps [0, 1] 5+5"]


def test_copies_from_the_global_server_down_to_the_workers_see_each_other():
    requests: list[Request] = [HandDown(6, 4), HandDown(6, 5), HandDown(4, 0), HandDown(5, 2)]
    assert log_of(requests) == ["copy 6->4 6->5", "copy 4->0 5->2"]


def test_a_copy_is_made_before_its_model_changes():
    # The copies of one call may be made in any order: reading 4 and writing 4 must not be in one.
    assert log_of([HandDown(4, 0), HandDown(6, 4)]) == ["copy 4->0", "copy 6->4"]
    assert log_of([HandDown(4, 0), HandDown(5, 0)]) == ["copy 4->0", "copy 5->0"]
