"""Requests of the engine, kept until a value is needed and then carried out in as few batches as possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Steps:
    worker: int
    iteration: int
    num_steps: int

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.worker,)


@dataclass(frozen=True)
class Average:
    server: int
    children: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.server, *self.children)


@dataclass(frozen=True)
class HandDown:
    server: int
    child: int

    @property
    def nodes(self) -> tuple[int, ...]:
        return (self.server, self.child)


Request = Steps | Average | HandDown


def carry_out(
    requests: Sequence[Request],
    steps: Callable[[list[int], int, int], None],
    average: Callable[[Average], None],
    hand_down: Callable[[list[HandDown]], None],
) -> None:
    """Carry out requests in an order that respects every node's own order, with steps batched over workers.

    A request waits for the earlier ones that touch a node of its own. In each wave everything that is not steps and
    waits for nothing is done; then all steps that wait for nothing are taken together: `steps(workers, iteration,
    num_steps)`, with workers in ascending order, as far as the shortest of them goes.
    """
    queue = list(requests)
    while queue:
        ready, queue = _wave(queue, average, hand_down)
        for iteration in sorted({request.iteration for request in ready}):
            batch = sorted((r for r in ready if r.iteration == iteration), key=lambda r: r.worker)
            num_steps = min(request.num_steps for request in batch)
            steps([request.worker for request in batch], iteration, num_steps)
            rest: list[Request] = [
                Steps(r.worker, iteration + num_steps, r.num_steps - num_steps)
                for r in batch
                if r.num_steps > num_steps
            ]
            queue = rest + queue


def _wave(
    queue: list[Request],
    average: Callable[[Average], None],
    hand_down: Callable[[list[HandDown]], None],
) -> tuple[list[Steps], list[Request]]:
    """Do what can be done without steps; return the steps that are ready, and what is left behind them."""
    ready: list[Steps] = []
    waiting: list[Request] = []
    copies = _Copies(hand_down)
    blocked: set[int] = set()
    for request in queue:
        if not blocked.isdisjoint(request.nodes):
            blocked.update(request.nodes)
            waiting.append(request)
        elif isinstance(request, Steps):
            blocked.add(request.worker)
            ready.append(request)
        elif isinstance(request, HandDown):
            copies.add(request)
        else:
            copies.make()
            average(request)
    copies.make()
    return ready, waiting


class _Copies:
    """Models on their way down that can be copied in any order, so that those of one server go together."""

    def __init__(self, hand_down: Callable[[list[HandDown]], None]) -> None:
        self._hand_down = hand_down
        self._waiting: list[HandDown] = []
        self._servers: set[int] = set()
        self._children: set[int] = set()

    def add(self, copy: HandDown) -> None:
        # What follows a copy (global server -> local server -> worker) must see its result, what it reads or
        # writes must not change before it, and of two copies to one node the later one stays.
        if self._children.intersection(copy.nodes) or copy.child in self._servers:
            self.make()
        self._waiting.append(copy)
        self._servers.add(copy.server)
        self._children.add(copy.child)

    def make(self) -> None:
        if self._waiting:
            self._hand_down(self._waiting)
        self._waiting, self._servers, self._children = [], set(), set()
