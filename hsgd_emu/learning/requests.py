"""Operations asked for, kept until a value is needed and then carried out in as few batches as possible."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

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
_KINDS: dict[str, type[Request]] = {kind.__name__: kind for kind in (Steps, Combine, Compress)}


def split(queue: Sequence[Request], version: Version) -> tuple[list[Request], list[Request]]:
    """Return the requests that a version comes of, with those that they wait for at their own places, and the others.

    That is the same whenever it is asked, whoever is ahead of the others by then.
    """
    wanted, places = {version.number}, set[int]()
    due: list[Request] = []
    later: list[Request] = []
    for request in reversed(queue):
        if request.made.number in wanted or request.place in places:
            wanted.update(one.number for one in _named(request))
            places.add(request.place)
            due.append(request)
        else:
            later.append(request)
    return due[::-1], later[::-1]


def _named(request: Request) -> list[Version]:
    """Return the versions that a request begins with."""
    if isinstance(request, Steps):
        return [request.version]
    return [request.begun, *request.versions] if isinstance(request, Combine) else [request.version, request.base]


def stored(request: Request) -> dict[str, Any]:
    """Return a request as plain data, versions by number."""
    found: dict[str, Any] = {"kind": type(request).__name__}
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name == "versions":
            value = [version.number for version in value]
        elif isinstance(value, Version):
            value = value.number
        found[field.name] = tuple(value) if isinstance(value, Held) else value
    return found


def restored(found: Mapping[str, Any], version_of: Callable[[int], Version]) -> Request:
    """Return what was `stored`; version_of: gives a version by its number."""
    values = {name: value for name, value in found.items() if name != "kind"}
    for name in ("made", "begun", "version", "base"):
        if name in values:
            values[name] = version_of(values[name])
    if "versions" in values:
        values |= {"versions": [version_of(number) for number in values["versions"]], "held": Held(*values["held"])}
    return _KINDS[found["kind"]](**values)


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
