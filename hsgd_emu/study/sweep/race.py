"""When each case reaches each target in given scenarios: what was learned, put on the clock of each network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.engine.times import seconds
from hsgd_emu.metrics import first_reaching
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.rng import seed_of
from hsgd_emu.study.clock import ClockName, times
from hsgd_emu.study.sweep.axes import Scenario
from hsgd_emu.study.sweep.scenarios import Setting, Settings
from hsgd_emu.study.training.library import Learned

Floats = NDArray[np.float64]
_MOST_PLANS = 20_000
_MOST_TIMES = 2**22  # global aggregations timed at once: 128 MiB of results


@dataclass(frozen=True)
class CaseTimes:
    """One case in S scenarios of one base, U seeds, K replications, T targets; inf: the target is never reached."""

    case: str
    seeds: tuple[int, ...]
    iteration_UT: Floats
    time_s_SUKT: Floats
    communication_s_SUKT: Floats
    compute_s_SUKT: Floats


@dataclass(frozen=True)
class Group:
    """Scenarios with the same base, by their places in what was asked for, and their cases."""

    places: Sequence[int]
    cases: Sequence[CaseTimes]


class Race:
    """Learned trials that can be timed in any scenario.

    trials: by the number of the base, then case and seed, the trial in `learned`.
    """

    def __init__(
        self,
        settings: Settings,
        trials: Mapping[int, Mapping[TrialKey, str]],
        learned: Mapping[str, Learned],
        replications: int = 1,
        clock: ClockName = "auto",
    ) -> None:
        self.settings, self.trials, self.learned = settings, trials, learned
        self.scenarios = settings.scenarios
        self.replications, self.clock = replications, clock
        self.levels = self.scenarios.study.experiment.target_levels()
        self._reached: dict[str, list[float]] = {}

    @cached_property
    def most_scenarios(self) -> int:
        """How many scenarios memory holds at a time."""
        plans, rounds = 1, 1
        for one in self.scenarios.bases():
            plans = max(plans, len(one.seeds) * self.replications)
            rounds = max(rounds, *(s.num_rounds(one.train.iterations) for s in one.schedules))
        return max(1, min(_MOST_PLANS, _MOST_TIMES // rounds) // plans)

    def run(self, asked: Sequence[Scenario]) -> list[Group]:
        """Return the times of scenarios, those of one base together."""
        places: dict[int, list[int]] = {}
        for place, values in enumerate(asked):
            places.setdefault(self.scenarios.base(values).number, []).append(place)
        groups = []
        for number, found in places.items():
            made = [self.settings.setting(asked[place]) for place in found]
            groups.append(Group(found, [self._case(number, one, made) for one in made[0].experiment.schedules]))
        return groups

    def _case(self, number: int, schedule: Schedule, made: Sequence[Setting]) -> CaseTimes:
        """Return one case's times in settings of one base."""
        seeds = made[0].experiment.seeds
        reached = [self._iterations(self.trials[number][TrialKey(schedule.name, seed)]) for seed in seeds]
        iteration_UT = np.array(reached).reshape(len(seeds), len(self.levels))
        found = [np.full((len(made), len(seeds), self.replications, len(self.levels)), np.inf) for _ in range(3)]
        last = max((i for row in reached for i in row if i < np.inf), default=0)
        if last:
            plans, place_SUK = self._plans(schedule, made, int(last))
            timed = times(plans, clock=self.clock)
            for u, t in product(range(len(seeds)), range(len(self.levels))):
                if iteration_UT[u, t] < np.inf:
                    column = timed.round_of(int(iteration_UT[u, t]))
                    parts = (timed.time_ns_SR, timed.communication_ns_SR, timed.compute_ns_SR)
                    for into, part in zip(found, parts, strict=True):
                        into[:, u, :, t] = seconds(part[:, column][place_SUK[:, u, :]])
        return CaseTimes(schedule.name, seeds, iteration_UT, *found)

    def _iterations(self, key: str) -> list[float]:
        """Return at which evaluated iteration a trial reaches each target."""
        if key not in self._reached:
            learned = sorted(self.learned[key].metrics.items())
            found = [first_reaching(learned, level) for level in self.levels]
            self._reached[key] = [np.inf if iteration is None else float(iteration) for iteration in found]
        return self._reached[key]

    def _plans(
        self, schedule: Schedule, made: Sequence[Setting], iterations: int
    ) -> tuple[list[Plan], NDArray[np.int64]]:
        """Return a plan for each seed and replication, and its place (S, U, K); one plan where all are alike."""
        seeds = made[0].experiment.seeds
        place_SUK = np.empty((len(made), len(seeds), self.replications), np.int64)
        plans: list[Plan] = []
        for s, setting in enumerate(made):
            first = replace(setting.plan(schedule), iterations=iterations)
            own_times = setting.is_random or schedule.participation < 1 or bool(first.step_probability)
            for u, seed in enumerate(seeds if own_times else seeds[:1]):
                for k in range(self.replications if setting.is_random else 1):
                    # A replication stands for all after it too, until they have their own, and so does a seed.
                    place_SUK[s, u:, k:] = len(plans)
                    own = first if (u, k) == (0, 0) else replace(first, seed=seed, network_seed=network_seed(seed, k))
                    plans.append(own)
        return plans, place_SUK


def network_seed(seed: int, replication: int) -> int | None:
    """Return the seed of a replication's costs; replication 0 is the trial's own, as a fresh run draws it."""
    return seed_of(seed, "replication", replication) if replication else None
