"""Whatever is queued: carried out in batches it leaves what it leaves one by one, in order."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hsgd_emu.learning.requests import Average, HandDown, Request, Steps, carry_out

NUM_WORKERS, NUM_NODES = 4, 7


class Book:
    """Stands for the models: every node holds an exact record of all that has been done to it."""

    def __init__(self) -> None:
        self.node: list[object] = [("start", n) for n in range(NUM_NODES)]

    def steps(self, workers: list[int], iteration: int, num_steps: int) -> None:
        assert workers == sorted(set(workers))
        assert num_steps > 0
        for worker in workers:
            for t in range(iteration, iteration + num_steps):
                self.node[worker] = hash((self.node[worker], "step", t))

    def average(self, request: Average) -> None:
        values = tuple(self.node[child] for child in request.children)
        self.node[request.server] = hash((values, request.weights))

    def hand_down(self, copies: list[HandDown]) -> None:
        # As the learner does: server by server, each server's children together.
        for server in dict.fromkeys(copy.server for copy in copies):
            for child in sorted(copy.child for copy in copies if copy.server == server):
                self.node[child] = self.node[server]

    def one_by_one(self, requests: list[Request]) -> None:
        for request in requests:
            if isinstance(request, Steps):
                self.steps([request.worker], request.iteration, request.num_steps)
            elif isinstance(request, Average):
                self.average(request)
            else:
                self.hand_down([request])


@st.composite
def any_requests(draw: st.DrawFn) -> list[Request]:
    """Any sequence at all in which a worker's iterations follow each other."""
    done = [0] * NUM_WORKERS
    requests: list[Request] = []
    for kind in draw(st.lists(st.sampled_from("sah"), max_size=25)):
        if kind == "s":
            worker, num = draw(st.integers(0, NUM_WORKERS - 1)), draw(st.integers(1, 4))
            requests.append(Steps(worker, done[worker], num))
            done[worker] += num
            continue
        server = draw(st.integers(NUM_WORKERS, NUM_NODES - 1))
        others = st.integers(0, NUM_NODES - 1).filter(lambda node, server=server: node != server)
        if kind == "h":
            requests.append(HandDown(server, draw(others)))
        else:
            children = tuple(draw(st.lists(others, min_size=1, max_size=3, unique=True)))
            requests.append(Average(server, children, tuple(range(len(children)))))
    return requests


@settings(max_examples=400, derandomize=True, deadline=None)
@given(any_requests())
def test_batches_leave_what_one_by_one_leaves(requests):
    batched, plain = Book(), Book()
    carry_out(requests, batched.steps, batched.average, batched.hand_down)
    plain.one_by_one(requests)
    assert batched.node == plain.node


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[list[Request]], list[int]]:
    """Return one global round of two groups with periods of their own, each group's requests in order."""
    periods = [draw(st.sampled_from([1, 2, 3, 6, 12])) for _ in range(2)]
    lanes = []
    for period, server, workers in zip(periods, (4, 5), ((0, 1), (2, 3)), strict=True):
        lane: list[Request] = []
        for t in range(0, 12, period):
            lane += [Steps(worker, t, period) for worker in workers]
            lane.append(Average(server, workers, (0.5, 0.5)))
            lane += [HandDown(server, worker) for worker in workers]
        lanes.append(lane)
    return lanes, periods


@settings(max_examples=100, derandomize=True, deadline=None)
@given(schedules(), st.randoms(use_true_random=False))
def test_a_round_needs_as_many_batches_as_there_are_aggregations(drawn, random):
    # However the groups' requests interleave in emulated time: each batch has all four workers, and a batch ends
    # where some group aggregates, so there are as many as there are such iterations.
    lanes, periods = drawn
    left = [list(lane) for lane in lanes]
    requests: list[Request] = []
    while any(left):
        requests.append(random.choice([lane for lane in left if lane]).pop(0))
    batches: list[tuple[list[int], int, int]] = []
    carry_out(requests, lambda *call: batches.append(call), lambda _: None, lambda _: None)
    ends = sorted({t for period in periods for t in range(period, 13, period)})
    starts = [0, *ends[:-1]]
    expected = [([0, 1, 2, 3], start, end - start) for start, end in zip(starts, ends, strict=True)]
    assert batches == expected
    assert np.sum([len(workers) * num for workers, _, num in batches]) == 4 * 12
