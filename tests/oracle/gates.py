"""Gates that go by time, made up for tests."""

from __future__ import annotations

from hsgd_emu.engine.gates import ClosingGate, Ticket
from hsgd_emu.engine.operations import Version


class DeadlineGate(ClosingGate):
    """Takes those who are there when the first of a phase has been for half a second; at least one."""

    def arrive(self, ticket: Ticket, child: int, version: Version, link: str, now_ns: int) -> bool:
        if not ticket.missing:
            return False  # closed already: dropped
        if 0 <= ticket.first_ns < now_ns - 500_000_000:
            return self._closed(ticket)
        return super().arrive(ticket, child, version, link, now_ns)

    def _closed(self, ticket: Ticket) -> bool:
        ticket.missing = 0
        return True

    def combination(self, ticket: Ticket) -> tuple[list[Version], list[float]]:
        ticket.arrived = {child: version for child, version in ticket.arrived.items() if version.number >= 0}
        return super().combination(ticket)


class WakingGate(DeadlineGate):
    """Closes every phase two seconds after it began, if somebody is there, else at the first arrival."""

    def first(self) -> Ticket:
        ticket = super().first()
        ticket.wake_ns = 2_000_000_000
        return ticket

    def arrive(self, ticket: Ticket, child: int, version: Version, link: str, now_ns: int) -> bool:
        return bool(ticket.missing) and ClosingGate.arrive(self, ticket, child, version, link, now_ns)

    def wake(self, ticket: Ticket, now_ns: int) -> bool:
        return bool(ticket.arrived) and ticket.first_ns >= 0 and bool(ticket.missing) and self._closed(ticket)
