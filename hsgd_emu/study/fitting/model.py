"""Times of measured cases as a function of constants: what a fit turns the knobs of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import LinkProfile
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.summary import median_reached
from hsgd_emu.study.costs import ProfileCost, bound_cost, profile_costs, rebound
from hsgd_emu.study.finished import FinishedRun, global_times_ns
from hsgd_emu.study.fitting.table import Measured
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Transfer, transfer_of
from hsgd_emu.units import NS_PER_S

Nanoseconds_SP = NDArray[np.int64]
Floats = NDArray[np.float64]
_STEP = 0.01
"""Relative step of the derivatives: times are straight lines in the constants, but for kinks."""


def expected_s(run: FinishedRun, cost: ProfileCost) -> float:
    """Return what an exchange or a step of a profile is expected to take, seconds."""
    bound = bound_cost(run.experiment, cost)
    return bound.expected_ns(run.message) / NS_PER_S if isinstance(bound, Transfer) else bound.expected_s


@dataclass(frozen=True)
class Model:
    """The rows' times when the unknown profiles are constants and all else is constant too.

    Exact for the synchronous schedules: the SimPy engine's and the fast clock's times, routes found anew for every
    set of constants. Random costs are taken at their expectation.
    """

    run: FinishedRun
    rows: Sequence[Measured]
    base: Experiment
    unknown: Sequence[ProfileCost]

    @classmethod
    def of(cls, run: FinishedRun, rows: Sequence[Measured], fixed: Mapping[str, float]) -> Model:
        """Return the model in which what `fixed` names is no unknown.

        Whatever link a route may take is unknown: which it takes depends on the constants.
        """
        costs = profile_costs(run.experiment)
        base = _constants(run, {cost: fixed.get(cost.name, expected_s(run, cost)) for cost in costs})
        return cls(run, rows, base, [cost for cost in costs if cost.name not in fixed])

    def up_share(self, cost: ProfileCost) -> float | None:
        """Return the share of an unknown RTT that goes up, None: half of it."""
        bound = bound_cost(self.base, cost)
        return bound.up_share(self.run.message) if isinstance(bound, Transfer) else None

    def times_ns(self, values_ns_SP: Nanoseconds_SP) -> Floats:
        """Return the rows' times under S sets of constants: (S, rows), nanoseconds."""
        experiments = [self._experiment(values_ns) for values_ns in values_ns_SP]
        found = np.empty((len(experiments), len(self.rows)))
        for schedule in self.run.experiment.schedules:
            places = [place for place, row in enumerate(self.rows) if row.case == schedule.name]
            if places:
                found[:, places] = self._times_of(experiments, schedule, [self.rows[place] for place in places])
        return found

    def times_and_counts(self, values_ns: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return the rows' times, and how many times each pays each unknown: (rows,) nanoseconds, (rows, unknowns).

        The constants are whole nanoseconds, as the clock has them, so that the counts are exact away from kinks.
        """
        steps = np.maximum(1, np.rint(values_ns * _STEP).astype(np.int64))
        times_ns = self.times_ns(np.vstack([values_ns, values_ns + np.diag(steps)]))
        return times_ns[0], (times_ns[1:] - times_ns[0]).T / steps

    def _experiment(self, values_ns: NDArray[np.int64]) -> Experiment:
        values = zip(self.unknown, (values_ns / NS_PER_S).tolist(), strict=True)
        return rebound(self.base, {cost: _constant(self.run, cost, value_s) for cost, value_s in values})

    def _times_of(self, experiments: Sequence[Experiment], schedule: Schedule, rows: Sequence[Measured]) -> Floats:
        """Return the times of rows of one case: (S, rows)."""
        seeds = self.run.experiment.seeds
        last = max(at or 0 for row in rows for at in row.reached.values())
        # Where all take part, every round after the first is alike: all begins when the global server sends down.
        alike = schedule.participation >= 1 and schedule.rounds_are_alike
        if alike:
            seeds, last = seeds[:1], min(last, schedule.end_of(2))
        times_ns = global_times_ns(self.run, experiments, schedule, seeds, last)

        def at(place: int, seed: int, iteration: int | None) -> float | None:
            if iteration is None:
                return None
            number = schedule.num_rounds(iteration)
            if not alike:
                return int(times_ns[place, seeds.index(seed), number - 1])
            first, step = int(times_ns[place, 0, 0]), int(times_ns[place, 0, -1] - times_ns[place, 0, 0])
            return first + (number - 1) * step

        medians = [
            [median_reached([at(place, seed, iteration) for seed, iteration in row.reached.items()]) for row in rows]
            for place in range(len(experiments))
        ]
        return np.array(medians, np.float64)


def _constant(run: FinishedRun, cost: ProfileCost, value_s: float) -> Transfer | Cost:
    """Return the constant cost `value_s`, split over up and down as what it stands for is expected to be."""
    bound = bound_cost(run.experiment, cost)
    if isinstance(bound, Cost):
        return Cost(value_s)
    return transfer_of(LinkProfile(rtt_s=value_s, up_share=bound.up_share(run.message)))


def _constants(run: FinishedRun, values_s: Mapping[ProfileCost, float]) -> Experiment:
    """Return the run's experiment with every cost constant: aggregations at their expectation, profiles as given."""
    network = run.experiment.network
    aggregations = {server: cost.at_expectation() for server, cost in network.aggregations.items()}
    changed = replace(run.experiment, network=replace(network, aggregations=aggregations))
    return rebound(changed, {cost: _constant(run, cost, value_s) for cost, value_s in values_s.items()})


def measured_ns(model: Model) -> Floats:
    """Return the times that the rows were measured to take: (rows,) nanoseconds."""
    return np.array([row.time_s for row in model.rows]) * NS_PER_S
