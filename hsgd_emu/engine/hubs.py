"""Hubs on the clock: each sends its result to its neighbours, and goes on once it has theirs; nobody waits for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from simpy.events import Event

from hsgd_emu.engine.operations import Version
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import Barrier, RoundRecord, Split
from hsgd_emu.engine.schedule import Phase


class Result(NamedTuple):
    """A hub's model as it is where it has arrived."""

    at_ns: int
    hub: int
    version: Version
    split: Split
    link: str
    """The costliest of its way; empty at the hub itself."""


class Mixing:
    """One global aggregation of all hubs.

    Hubs drift apart, at most by as many rounds as they are apart in the graph. The global model, the weighted mean of
    all results, is what is evaluated; no node holds it.
    """

    def __init__(self, plan: Plan, record: RoundRecord, phase: Phase, signal: Callable[[], Event]) -> None:
        """phase: of the global server; signal: makes an event."""
        graph = plan.schedule.graph
        assert graph is not None
        self.plan, self.record, self.phase, self.neighbours = plan, record, phase, graph.neighbours
        self.results: dict[int, Version] = {}
        self.still_to_mix = set(plan.mixing)
        self.complete = {hub: signal() for hub in plan.mixing}
        self._arrived: dict[int, list[Result]] = {hub: [] for hub in plan.mixing}
        self._members = {hub: graph.members(hub) for hub in plan.mixing}

    def arrive(self, hub: int, result: Result) -> None:
        """Take in what has arrived at a hub: its own result, or a neighbour's."""
        self.results[result.hub] = result.version
        self._arrived[hub].append(result)
        if len(self._arrived[hub]) == len(self._members[hub]):
            self.complete[hub].succeed()

    def last(self, hub: int) -> tuple[Result, Barrier]:
        """Return what a hub had to wait for: of several that came last the first in node order."""
        times = sorted(result.at_ns for result in self._arrived[hub])
        last = min((one for one in self._arrived[hub] if one.at_ns == times[-1]), key=lambda one: one.hub)
        return last, Barrier(hub, self.phase.end, last.at_ns, last.hub, last.link, times[-1] - times[-2])

    def taken(self, hub: int) -> tuple[list[Version], list[float]]:
        """Return what a hub takes, in node order, with weights that sum to 1, once it is complete."""
        self.still_to_mix.discard(hub)
        return [self.results[one] for one in self._members[hub]], self.plan.mixing[hub]

    def combination(self) -> tuple[list[Version], list[float]]:
        """Return what the global model is the average of, and keep none of it."""
        results, self.results = self.results, {}
        return [results[hub] for hub in self.plan.mixing], self.plan.hub_weights
