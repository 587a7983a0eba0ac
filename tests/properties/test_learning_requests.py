"""Whatever is queued: carried out in batches, in registers, it leaves what it leaves one by one, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.engine.operations import NOBODY, Held, Operations, Version
from hsgd_emu.learning.registers import Registers
from hsgd_emu.learning.requests import Combine, Steps, carry_out
from hsgd_emu.learning.stacks import Stacks

NUM_WORKERS, NUM_NODES = 4, 7


class Book:
    """A learner whose model is one number: exact, and another one for every history."""

    def __init__(self) -> None:
        self.stacks = Stacks({"w": torch.zeros(1, dtype=torch.float64)}, {}, {}, NUM_NODES, 0, TrainSpec(iterations=1))
        self.registers = Registers(self.stacks)
        self.queue: list[Steps | Combine] = []

    def start(self, version: Version) -> None:
        self.registers.put(version, NUM_NODES - 1)

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        self.queue.append(Steps(made, worker, version, iteration, num_steps))

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        self.queue.append(Combine(made, server, begun, list(versions), tuple(weights)))

    def flush(self) -> None:
        queue, self.queue = self.queue, []
        carry_out(queue, self._take, self._combine, lambda *_: ())

    def _take(self, requests: list[Steps], num_steps: int) -> None:
        places = [request.place for request in requests]
        assert places == sorted(set(places))
        self.registers.take(requests)
        for request in requests:
            for t in range(request.iteration, request.iteration + num_steps):
                row = self.stacks.trained["w"][request.place]
                row.copy_(stepped(row, request.place, t))
            made = request.made
            if request.num_steps > num_steps:
                made = request.version = Version(-1 - request.place, b"")
            self.registers.put(made, request.place)

    def _combine(self, request: Combine) -> None:
        self.registers.combine(request, torch.tensor(request.weights, dtype=torch.float64))

    def value(self, version: Version) -> float:
        self.flush()
        return float(self.stacks.model(self.registers.source(version))["w"])


def stepped(value, worker: int, t: int):
    return (value * 1.25 + 0.1 * (worker + 1) + 0.01 * t) % 7


class Plain:
    """The same at once, every version's number kept for ever."""

    def __init__(self) -> None:
        self.values: dict[int, float] = {}

    def start(self, version: Version) -> None:
        self.values[version.number] = 0.0

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        value = self.values[version.number]
        for t in range(iteration, iteration + num_steps):
            value = stepped(value, worker, t)
        self.values[made.number] = value

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        below = [self.values[version.number] for version in versions]
        self.values[made.number] = sum(w * value for w, value in zip(weights, below, strict=True))


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.data())
def test_registers_and_batches_leave_what_one_by_one_leaves(data):
    # Any versions at all: old ones, one's own, another worker's; kept, let go of, and flushed at any time.
    batched, plain = Book(), Plain()
    one, other = Operations(batched), Operations(plain)
    held = {0: one.start()}
    twins = {0: other.start()}
    done = [0] * NUM_WORKERS
    for kind in data.draw(st.lists(st.sampled_from("ssscclf"), max_size=30)):
        number = data.draw(st.sampled_from(sorted(held)))
        if kind == "s":
            worker, num = data.draw(st.integers(0, NUM_WORKERS - 1)), data.draw(st.integers(1, 4))
            made = one.steps(worker, held[number], done[worker], num)
            twins[made.number] = other.steps(worker, twins[number], done[worker], num)
            held[made.number] = made
            done[worker] += num
        elif kind == "c":
            numbers = data.draw(st.lists(st.sampled_from(sorted(held)), min_size=1, max_size=3, unique=True))
            server, weights = data.draw(st.integers(NUM_WORKERS, NUM_NODES - 1)), [1 / len(numbers)] * len(numbers)
            made = one.combine(server, held[number], [held[n] for n in numbers], weights)
            twins[made.number] = other.combine(server, twins[number], [twins[n] for n in numbers], weights)
            held[made.number] = made
        elif kind == "l" and len(held) > 1:
            made = held.pop(number)
            del made
        elif kind == "f":
            batched.flush()
    made = None
    found = {number: batched.value(version) for number, version in held.items()}
    expected = {number: plain.values[number] for number in held}
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-12, atol=1e-12)
    # What is stored is what is still held, and nothing else.
    stored = batched.registers.state()
    assert sorted(stored) == sorted(held)
    assert {number: float(tensors["w"]) for number, tensors in stored.items()} == found


@pytest.mark.parametrize("every", [1, 3, 50])
def test_a_synchronous_trial_copies_nothing_aside_however_rarely_it_is_carried_out(every, monkeypatch):
    # Whatever is set aside is memory and time that a synchronous trial does without.
    monkeypatch.setattr(Stacks, "sent_of", lambda *_: pytest.fail("set aside"))
    book = Book()
    operations = Operations(book)
    whole = operations.start()
    models = dict.fromkeys((4, 5), whole)
    for t in range(0, 100, 2):
        for server, workers in ((4, (0, 1)), (5, (2, 3))):
            for at in (t, t + 1):  # two local phases in each round
                made = [operations.steps(worker, models[server], at, 1) for worker in workers]
                models[server] = operations.combine(server, models[server], made, [0.5, 0.5])
                del made
        whole = operations.combine(6, whole, list(models.values()), [0.5, 0.5])
        models = dict.fromkeys((4, 5), whole)
        if t // 2 % every == 0:
            book.flush()
    monkeypatch.undo()
    book.flush()
    assert list(book.registers.state()) == [whole.number]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 6, 12]), min_size=2, max_size=2), st.randoms(use_true_random=False))
def test_a_round_needs_as_many_batches_as_there_are_aggregations(periods, random):
    # However the groups' requests interleave in emulated time: each batch has all four workers, and a batch ends
    # where some group aggregates, so there are as many as there are such iterations.
    lanes = []
    start = Version(0, b"")
    start.register = "there"
    for period, server, workers in zip(periods, (4, 5), ((0, 1), (2, 3)), strict=True):
        lane, model = [], start
        for t in range(0, 12, period):
            made = [Version(0, b"") for _ in workers]
            pairs = zip(made, workers, strict=True)
            lane += [Steps(one, worker, model, t, period) for one, worker in pairs]
            begun, model = model, Version(0, b"")
            lane.append(Combine(model, server, begun, made, (0.5, 0.5)))
        lanes.append(lane)
    requests = []
    while any(lanes):
        requests.append(random.choice([lane for lane in lanes if lane]).pop(0))
    batches: list[tuple[list[int], set[int], int]] = []

    def steps(batch: list[Steps], num: int) -> None:
        batches.append(([r.place for r in batch], {r.iteration for r in batch}, num))
        for request in batch:
            if request.num_steps > num:
                request.version = start
            else:
                request.made.register = "there"

    def combine(request: Combine) -> None:
        request.made.register = "there"

    carry_out(requests, steps, combine, lambda *_: ())
    ends = sorted({t for period in periods for t in range(period, 13, period)})
    starts = [0, *ends[:-1]]
    expected = [([0, 1, 2, 3], {begin}, end - begin) for begin, end in zip(starts, ends, strict=True)]
    assert batches == expected
