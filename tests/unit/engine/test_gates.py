"""A gate driven by hand from a list of events: no SimPy, no torch."""

from __future__ import annotations

import subprocess
import sys
from itertools import cycle

import pytest

from hsgd_emu.engine.gates import ClosingGate, Ticket
from hsgd_emu.engine.operations import NOBODY, Operations, Version
from hsgd_emu.engine.schedule import Rounds, Stage

CHILDREN = (1, 2, 3)


def gate_of(*members: tuple[int, ...], end: int = 15) -> ClosingGate:
    stage = Stage({0: 5}, dict.fromkeys(CHILDREN, 0), {0: CHILDREN}, 1.0, Rounds(5), 5)
    share = {1: 0.5, 2: 0.25, 3: 0.25}

    def weigh(children: tuple[int, ...]) -> list[float]:
        total = sum(share[child] for child in children)
        return [share[child] / total for child in children]

    return ClosingGate(stage.phases(0), CHILDREN, cycle(members or [CHILDREN]), weigh, end)


def drive(gate: ClosingGate, ticket: Ticket, events: list[tuple[int, int]]) -> list[int]:
    """Tell of (time, child) arrivals; return the times at which the gate said that the ticket is closed."""
    operations = Operations()
    start = operations.start()
    return [
        now_ns
        for now_ns, child in events
        if gate.arrive(ticket, child, operations.steps(child, start, 0, 5), f"link {child}", now_ns)
    ]


def test_a_ticket_is_closed_by_the_last_child_whoever_that_is() -> None:
    gate = gate_of()
    ticket = gate.first()
    assert ticket.phase == (0, 0, 5, 1)
    assert drive(gate, ticket, [(30, 2), (40, 3), (70, 1)]) == [70]
    assert (ticket.blamed, ticket.link, ticket.slack_ns) == (1, "link 1", 30)
    assert (ticket.first_ns, ticket.last_ns) == (30, 70)


def test_of_several_last_ones_the_first_in_node_order_is_blamed() -> None:
    gate = gate_of()
    ticket = gate.first()
    assert drive(gate, ticket, [(30, 3), (70, 2), (70, 1)]) == [70]
    assert (ticket.blamed, ticket.slack_ns) == (1, 0)


def test_what_is_combined_is_in_node_order_with_the_weights_of_those_who_took_part() -> None:
    gate = gate_of((1, 3), (2,))
    ticket = gate.first()
    assert ticket.sits_out == {2}
    assert drive(gate, ticket, [(10, 3), (20, 1)]) == [20]
    arrived = dict(ticket.arrived)
    versions, weights = gate.combination(ticket)
    assert versions == [arrived[1], arrived[3]]
    assert weights == pytest.approx([2 / 3, 1 / 3])
    assert ticket.arrived == {}  # the gate keeps no model
    assert gate.held(ticket) == (0.25, 0, 5)  # what child 2 would have weighed
    assert gate_of().held(gate_of().first()) is NOBODY
    following = gate.after(ticket)
    assert following is not None
    assert following.sits_out == {1, 3}
    assert gate.after(ticket) is following  # whoever asks: the same for all children


def test_tickets_follow_one_another_until_the_end_which_may_come_nearer() -> None:
    gate = gate_of(end=15)
    tickets: list[Ticket | None] = [gate.first()]
    while tickets[-1] is not None:
        tickets.append(gate.after(tickets[-1]))
    assert [ticket.phase.end for ticket in tickets if ticket] == [5, 10, 15]
    gate = gate_of(end=15)
    first = gate.first()
    gate.end = 5
    assert gate.after(first) is None


def test_nothing_of_simpy_or_torch_is_needed() -> None:
    code = "import sys, hsgd_emu.engine.gates; assert not {'simpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_gate_keeps_no_version_alive() -> None:
    gate = gate_of()
    ticket = gate.first()
    versions = [Version(number, b"") for number in range(3)]
    for child, version in zip(CHILDREN, versions, strict=True):
        gate.arrive(ticket, child, version, "", 0)
    before = [sys.getrefcount(version) for version in versions]
    gate.combination(ticket)
    assert [sys.getrefcount(version) for version in versions] == [count - 1 for count in before]
