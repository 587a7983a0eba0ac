"""Times of measured cases as a function of constants: what a fit turns the knobs of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import Bandwidth, ComputeProfile, LinkProfile
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.summary import median_reached
from hsgd_emu.study.costs import ProfileCost, profile_costs, profile_of, rebound
from hsgd_emu.study.finished import FinishedRun, global_times_ns
from hsgd_emu.study.fitting.table import Measured
from hsgd_emu.timing.costs import TransferModel, mean_s
from hsgd_emu.units import NS_PER_S

Nanoseconds_SP = NDArray[np.int64]
Floats = NDArray[np.float64]
_STEP = 0.01
"""Relative step of the derivatives: times are straight lines in the constants, but for kinks."""


def expected_s(run: FinishedRun, cost: ProfileCost) -> float:
    """Return what an exchange or a step of a profile is expected to take, seconds."""
    profile = profile_of(run.experiment, cost)
    if isinstance(profile, LinkProfile):
        return TransferModel(profile, run.message_bytes).expected_ns() / NS_PER_S
    assert profile.step_s is not None
    return mean_s(profile.step_s)


def constant(profile: LinkProfile | ComputeProfile, value_s: float, message_bytes: int) -> LinkProfile | ComputeProfile:
    """Return a profile of the constant `value_s`, split over up and down as the profile's expectation is."""
    if isinstance(profile, ComputeProfile):
        return ComputeProfile(step_s=value_s)
    return LinkProfile(rtt_s=value_s, up_share=_up_share(profile, message_bytes))


def _up_share(profile: LinkProfile, message_bytes: int) -> float | None:
    if profile.rtt_s is not None:
        return profile.up_share
    if profile.up_s is not None and profile.down_s is not None:
        up, down = mean_s(profile.up_s), mean_s(profile.down_s)
    else:
        rate = profile.bandwidth_bps
        assert rate is not None
        assert profile.latency_s is not None
        rates = (rate.up, rate.down) if isinstance(rate, Bandwidth) else (rate, rate)
        up, down = (mean_s(profile.latency_s) + 8 * message_bytes / one for one in rates)
    # Of 1/3 all digits; of 0.0375 / 0.05 not the last, which is rounding.
    return float(f"{up / (up + down):.12g}") if up != down else None


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
        profile = profile_of(self.base, cost)
        return profile.up_share if isinstance(profile, LinkProfile) else None

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
        size = self.run.message_bytes
        return rebound(self.base, {c: constant(profile_of(self.run.experiment, c), s, size) for c, s in values})

    def _times_of(self, experiments: Sequence[Experiment], schedule: Schedule, rows: Sequence[Measured]) -> Floats:
        """Return the times of rows of one case: (S, rows)."""
        period, seeds = schedule.global_period, self.run.experiment.seeds
        last = max(at or 0 for row in rows for at in row.reached.values())
        # Where all take part, every round after the first is alike: all begins when the global server sends down.
        alike = schedule.participation >= 1
        if alike:
            seeds, last = seeds[:1], min(last, 2 * period)
        times_ns = global_times_ns(self.run, experiments, schedule, seeds, last)

        def at(place: int, seed: int, iteration: int | None) -> float | None:
            if iteration is None:
                return None
            number = iteration // period
            if not alike:
                return int(times_ns[place, seeds.index(seed), number - 1])
            first, step = int(times_ns[place, 0, 0]), int(times_ns[place, 0, -1] - times_ns[place, 0, 0])
            return first + (number - 1) * step

        medians = [
            [median_reached([at(place, seed, iteration) for seed, iteration in row.reached.items()]) for row in rows]
            for place in range(len(experiments))
        ]
        return np.array(medians, np.float64)


def _constants(run: FinishedRun, values_s: Mapping[ProfileCost, float]) -> Experiment:
    """Return the run's experiment with every cost constant: aggregations at their expectation, profiles as given."""
    experiment, size = run.experiment, run.message_bytes
    profiles = {c: constant(profile_of(experiment, c), value_s, size) for c, value_s in values_s.items()}
    nodes = [
        node if node.aggregation_s is None else replace(node, aggregation_s=mean_s(node.aggregation_s))
        for node in experiment.topology.nodes
    ]
    return rebound(replace(experiment, topology=replace(experiment.topology, nodes=tuple(nodes))), profiles)


def measured_ns(model: Model) -> Floats:
    """Return the times that the rows were measured to take: (rows,) nanoseconds."""
    return np.array([row.time_s for row in model.rows]) * NS_PER_S
