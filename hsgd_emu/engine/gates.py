"""Whom a server waits for, and what it averages: policy as state machines that know no SimPy and no torch.

A gate is told what happens and says what follows. Whatever drives it - processes on the emulated clock, a test with a
list of events, real sockets - asks for a ticket for each child, tells of every model that arrives, and where the gate
says that a ticket is closed, combines what the gate names and sends the answer to all that hold the ticket. Decisions
use the clock and the draws, never weights, so that the clock may run ahead of the learning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from hsgd_emu.config.run_schema import CaseSpec
from hsgd_emu.engine.operations import NOBODY, NOTHING, Held, Version
from hsgd_emu.engine.record import RoundRecord, Split
from hsgd_emu.engine.schedule import Phase


class Answer(NamedTuple):
    """What is sent down to the holders of a ticket; fixed when it is sent."""

    version: Version
    sent_ns: int
    split: Split
    record: RoundRecord | None
    """Of the round that is over once all workers hold it: it comes from a global aggregation."""


class Ticket:
    """What children are to do in one phase, who has done it, and what they are answered."""

    __slots__ = (
        "after",
        "answer",
        "arrived",
        "blamed",
        "first_ns",
        "last_ns",
        "link",
        "missing",
        "phase",
        "second_last_ns",
        "signal",
        "sits_out",
        "wake_ns",
    )

    def __init__(self, phase: Phase, children: Sequence[int], members: Sequence[int]) -> None:
        """members: the children that take part, in node order."""
        self.phase, self.missing = phase, len(members)
        self.sits_out = frozenset(children).difference(members) if len(members) < len(children) else frozenset()
        self.arrived: dict[int, Version] = dict.fromkeys(members, NOTHING)
        """By child in node order."""
        self.first_ns = self.last_ns = self.second_last_ns = -1
        self.blamed, self.link = -1, ""
        """The last child to arrive, the first in node order of several, and the costliest link of its way."""
        self.wake_ns: int | None = None
        """When the gate asks to be woken."""
        self.answer: Answer
        """Not there before it is sent."""
        self.after: Ticket | None = None
        self.signal: Any = None
        """What the driver lets the holders wait for."""

    def note(self, child: int, version: Version, link: str, now_ns: int) -> None:
        """Note that a child's model has arrived."""
        self.arrived[child] = version
        self.missing -= 1
        last_ns = self.second_last_ns = self.last_ns
        if last_ns < 0:
            self.first_ns = now_ns
        if now_ns > last_ns or child < self.blamed:
            self.last_ns, self.blamed, self.link = now_ns, child, link

    @property
    def slack_ns(self) -> int:
        """How much later the last child was than the second last."""
        return self.last_ns - self.second_last_ns if self.second_last_ns >= 0 else 0


class Gate(Protocol):
    """What drives a gate can do with it. Children of one ticket do the same iterations and get the same answer."""

    end: int
    """The last iteration; no phase begins there or later. It may come nearer while the trial goes on."""

    def first(self) -> Ticket:
        """Return the ticket that all children begin with."""

    def after(self, ticket: Ticket) -> Ticket | None:
        """Return the ticket that follows one that has been answered; None: there is nothing more to do."""

    def arrive(self, ticket: Ticket, child: int, version: Version, link: str, now_ns: int) -> bool:
        """Take a child's model in; return whether that closes the ticket. link: the costliest of its way."""

    def wake(self, ticket: Ticket, now_ns: int) -> bool:
        """It is `ticket.wake_ns`; return whether that closes the ticket."""

    def combination(self, ticket: Ticket) -> tuple[list[Version], list[float]]:
        """Return what to average when a ticket is closed, with weights that sum to 1, and keep none of it."""

    def held(self, ticket: Ticket) -> Held:
        """Return what those who sit out would weigh."""


class ClosingGate:
    """Waits for all who take part in a phase: Algorithm 1."""

    def __init__(
        self,
        phases: Iterator[Phase],
        children: Sequence[int],
        members: Iterator[Sequence[int]],
        weigh: Callable[[tuple[int, ...]], list[float]],
        end: int,
    ) -> None:
        """members: who takes part, phase after phase; weigh: gives the weights of children in their average."""
        self._phases, self._children, self._members, self._weigh, self.end = phases, children, members, weigh, end

    def first(self) -> Ticket:
        return self._open()

    def after(self, ticket: Ticket) -> Ticket | None:
        if ticket.after is None and ticket.phase.end < self.end:
            ticket.after = self._open()
        return ticket.after

    def _open(self) -> Ticket:
        return Ticket(next(self._phases), self._children, next(self._members))

    def arrive(self, ticket: Ticket, child: int, version: Version, link: str, now_ns: int) -> bool:
        ticket.note(child, version, link, now_ns)
        return not ticket.missing

    def wake(self, ticket: Ticket, now_ns: int) -> bool:
        return False

    def combination(self, ticket: Ticket) -> tuple[list[Version], list[float]]:
        arrived, ticket.arrived = ticket.arrived, {}
        return list(arrived.values()), self._weigh(tuple(arrived))

    def held(self, ticket: Ticket) -> Held:
        if not ticket.sits_out:
            return NOBODY
        children = tuple(self._children)
        share = sum(w for child, w in zip(children, self._weigh(children), strict=True) if child in ticket.sits_out)
        return Held(share, ticket.phase.begin, ticket.phase.end)


def gate_of(case: CaseSpec) -> tuple[Callable[..., Gate], bool]:
    """Return what makes the gates of a case's servers, as `ClosingGate` is made, and whether what they average depends
    on when models arrive."""
    return ClosingGate, False
