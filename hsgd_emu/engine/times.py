"""When the global aggregations of many scenarios end: what studies ask of the clock, whichever clock answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.units import NS_PER_S, to_s

Nanoseconds_SR = NDArray[np.int64]


@dataclass(frozen=True)
class Times:
    """The global aggregations 1 ... R of S scenarios of one schedule; (S, R) int64, nanoseconds.

    Split along the critical path: time_ns = compute_ns + communication + aggregation_ns.
    """

    schedule: Schedule
    time_ns_SR: Nanoseconds_SR
    """The last worker holds the new global model."""
    aggregated_ns_SR: Nanoseconds_SR
    """The global server holds it."""
    compute_ns_SR: Nanoseconds_SR
    aggregation_ns_SR: Nanoseconds_SR

    @property
    def communication_ns_SR(self) -> Nanoseconds_SR:
        return self.time_ns_SR - self.compute_ns_SR - self.aggregation_ns_SR

    def round_of(self, iteration: int) -> int:
        """Return the column of the global aggregation at `iteration`."""
        return self.schedule.num_rounds(iteration) - 1


def seconds(time_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return nanoseconds as seconds, rounded as `to_s` does also where a float cannot hold them."""
    if time_ns.size and int(time_ns.max()) >= 2**53:
        return np.array([to_s(int(value)) for value in time_ns.flat]).reshape(time_ns.shape)
    return np.asarray(time_ns / NS_PER_S)


def simulated_times(plans: Sequence[Plan]) -> Times:
    """Return the times of plans of one schedule as the SimPy engine, the reference, has them."""
    rows = [_rounds(plan) for plan in plans]
    values = np.array(rows, np.int64).reshape(len(plans), -1, 4)
    return Times(plans[0].schedule, *np.moveaxis(values, 2, 0))


def _rounds(plan: Plan) -> list[tuple[int, int, int, int]]:
    rows: list[tuple[int, int, int, int]] = []

    def keep(record: RoundRecord) -> None:
        rows.append((record.time_ns, record.aggregated_ns, record.split.compute_ns, record.split.aggregation_ns))

    emulate(plan, Operations(), keep)
    return rows
