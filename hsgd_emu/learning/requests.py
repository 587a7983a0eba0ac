"""Operations asked for, kept until a value is needed and then carried out in as few batches as possible."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.engine.operations import NOBODY, NOTHING, Held, Version


@dataclass(slots=True)
class Steps:
    """Steps of a worker from a version, to be made a version; whoever takes them lets go of the one they begin with."""

    made: Version
    place: int
    """The worker's row."""
    version: Version
    iteration: int
    num_steps: int
    evaluated: int = 0
    """The evaluation that the losses count for."""
    holds: Sequence[int] = ()
    """Where iterates are averaged: for how many iterations the model received counts, and that after each step."""
    rate_sum: float = 0.0
    """Of the learning rates of the whole phase, where new control variates follow from it."""

    @property
    def is_ready(self) -> bool:
        return self.version.register is not None


@dataclass(slots=True)
class Combine:
    """An average of versions, to be made a version; whoever makes it lets go of them."""

    made: Version
    place: int
    """The server's row."""
    begun: Version
    """What the server sent down last; nothing where hubs mix."""
    versions: list[Version]
    weights: tuple[float, ...]
    held: Held = NOBODY
    """By those who sit out."""

    @property
    def is_ready(self) -> bool:
        return all(one.register is not None for one in [self.begun, *self.versions] if one is not NOTHING)


@dataclass(slots=True)
class Compress:
    """A version that is sent compressed, to be made the one that is received; whoever makes it lets go of both."""

    made: Version
    place: int
    """The sender's row."""
    direction: Direction
    version: Version
    base: Version
    """What both ends know."""

    @property
    def is_ready(self) -> bool:
        return self.version.register is not None and self.base.register is not None


Request = Steps | Combine | Compress


def carry_out(
    requests: list[Request],
    steps: Callable[[list[Steps], int], None],
    at_once: Callable[[Combine | Compress], None],
    rates: Callable[[Steps, int], Hashable],
) -> None:
    """Carry out requests in an order in which every version is made before it is needed, steps batched over workers.

    Takes them out of the list: a request that is done must not keep the version alive that it made.

    A request waits for the versions it names, and for the earlier ones of its own place. In each wave all that can be
    averaged or compressed is, `at_once`; then the steps that wait for nothing are taken together as far as the
    shortest of them goes: `steps(requests, num_steps)`, in ascending order of workers. It makes a request's version
    where that is all of it, and else lets its `version` be where it has got to. Together go those that have equal
    learning rates: rates (request, num_steps), whatever their iteration numbers.
    """
    queue = requests[:]
    requests.clear()
    while queue:
        ready, queue = _wave(queue, at_once)
        num_steps = min((request.num_steps for request in ready), default=0)
        alike: dict[Hashable, list[Steps]] = {}
        for request in sorted(ready, key=lambda request: (request.iteration, request.place)):
            alike.setdefault(rates(request, num_steps), []).append(request)
        for batch in alike.values():
            steps(sorted(batch, key=lambda request: request.place), num_steps)
        queue = [*_rest(ready, num_steps), *queue]


def _rest(taken: Sequence[Steps], num_steps: int) -> list[Request]:
    """Return what is left of steps that were taken in part."""
    left = [request for request in taken if request.num_steps > num_steps]
    for request in left:
        request.iteration, request.num_steps = request.iteration + num_steps, request.num_steps - num_steps
    return [*left]


def _wave(queue: list[Request], at_once: Callable[[Combine | Compress], None]) -> tuple[list[Steps], list[Request]]:
    """Do what can be done without steps; return the steps that are ready, and what is left behind them."""
    ready: list[Steps] = []
    waiting: list[Request] = []
    taken: set[int] = set()
    for request in queue:
        if request.place in taken or not request.is_ready:
            taken.add(request.place)
            waiting.append(request)
        elif isinstance(request, Steps):
            taken.add(request.place)
            ready.append(request)
        else:
            at_once(request)
    return ready, waiting
