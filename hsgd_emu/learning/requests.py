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
    copies: list[HandDown] = []
    blocked: set[int] = set()
    for request in queue:
        if not blocked.isdisjoint(request.nodes):
            blocked.update(request.nodes)
            waiting.append(request)
        elif isinstance(request, Steps):
            blocked.add(request.worker)
            ready.append(request)
        elif isinstance(request, HandDown):
            # Copies that follow a copy (global server -> local server -> worker) must see its result.
            if any(request.server == copy.child for copy in copies):
                hand_down(copies)
                copies = []
            copies.append(request)
        else:
            if copies:
                hand_down(copies)
                copies = []
            average(request)
    if copies:
        hand_down(copies)
    return ready, waiting
