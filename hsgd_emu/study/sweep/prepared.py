"""A study before it runs: its scenarios tried, and which trials have to be learned for it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hsgd_emu.engine.messages import UNKNOWN_BYTES
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.experiment import relocated
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.wording import number as in_short
from hsgd_emu.run import check_learning, known_message_bytes
from hsgd_emu.study.clock import ClockName, times
from hsgd_emu.study.sweep.axes import Scenario
from hsgd_emu.study.sweep.scenarios import Scenarios, Settings
from hsgd_emu.study.sweep.study_file import Study, load_study
from hsgd_emu.study.training.executors import default_jobs, estimate_wall_s
from hsgd_emu.study.training.library import DEFAULT_FOLDER, Library
from hsgd_emu.study.training.wanted import Resources, Wanted, resources, wanted
from hsgd_emu.trials import trial_keys

_PROBED = 64  # scenarios timed to tell how long all of them take


@dataclass(frozen=True)
class StudyPlan:
    """What a study would do. Seconds of the host are None where they were not asked for."""

    name: str
    num_scenarios: int
    axes: tuple[tuple[str, int], ...]
    """Each axis and its number of values."""
    num_trials: int
    """Scenario x case x seed."""
    replications: int
    num_distinct: int
    """Trials that learn something different."""
    num_found: int
    """Of these, learned already."""
    jobs: int
    training_wall_s: float | None = None
    retiming_wall_s: float | None = None
    unread: tuple[str, ...] = ()
    """Each `module:factory` whose code was not run: what the library has, and how long learning takes, is not known."""

    @property
    def num_missing(self) -> int:
        return self.num_distinct - self.num_found

    def lines(self) -> list[str]:
        """Return the plan in words."""
        sizes = ", ".join(f"{name}: {num}" for name, num in self.axes)
        draws = f" x {self.replications} replications" if self.replications > 1 else ""
        lines = [
            f"{self.name}: {_counted(self.num_scenarios, 'scenario')} (values of each axis: {sizes})",
            f"{_counted(self.num_trials, 'trial')}{draws} to re-time{_about(self.retiming_wall_s)}",
        ]
        jobs = f", {min(self.jobs, self.num_missing)} at a time" if self.num_missing > 1 and self.jobs > 1 else ""
        of_these = f"{self.num_distinct:,} of them learn something different; "
        if self.unread:
            return [
                *lines,
                f"{of_these}how many are in the library, and how long the others take, only the code of "
                f"{listed(self.unread)} could tell: --trust-code runs it",
            ]
        training = f"to train: {_counted(self.num_missing, 'trial')}{jobs}{_about(self.training_wall_s)}"
        return [
            *lines,
            f"{of_these}{self.num_found:,} are in the library",
            training if self.num_missing else "nothing to train",
        ]


def _counted(num: int, noun: str) -> str:
    return f"{num:,} {noun}{'s' * (num != 1)}"


def _about(wall_s: float | None) -> str:
    if wall_s is None:
        return ""
    units = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
    size, unit = next((one for one in units if wall_s >= 2 * one[0]), units[-1])
    return f", about {in_short(wall_s / size, 2)} {unit}" if wall_s >= 1 else ", less than a second"


@dataclass(frozen=True)
class Prepared:
    """A study whose every scenario is valid. trials: by the number of a base, each case's and seed's trial."""

    study: Study
    scenarios: Scenarios
    settings: Settings
    resources: Resources
    trials: dict[int, dict[TrialKey, Wanted]]
    library: Library
    unread: tuple[str, ...] = ()
    """As in `StudyPlan`; such a study cannot be run."""

    @property
    def wanted(self) -> list[Wanted]:
        """The distinct trials, in the order of the scenarios."""
        return list({one.key: one for of_base in self.trials.values() for one in of_base.values()}.values())

    @cached_property
    def base_of(self) -> list[int]:
        """The number of the base of each scenario."""
        return [self.scenarios.base(values).number for values in self.study.scenarios]

    def plan(self, jobs: int | None = None, clock: ClockName | None = None) -> StudyPlan:
        """Return the plan; with a clock also how long it takes, as far as that is known."""
        study, distinct = self.study, self.wanted
        jobs = jobs or default_jobs(distinct)
        columns = zip(*study.scenarios, strict=True)
        sizes = [len({value.text if value else None for value in column}) for column in columns]
        return StudyPlan(
            name=study.spec.name,
            num_scenarios=len(study.scenarios),
            axes=tuple(zip((axis.name for axis in study.axes), sizes, strict=True)),
            num_trials=sum(len(self.trials[number]) for number in self.base_of),
            replications=study.spec.replications,
            num_distinct=len(distinct),
            num_found=sum(self.library.find(one) is not None for one in distinct),
            jobs=jobs,
            training_wall_s=None if clock is None or self.unread else self.training_wall_s(jobs),
            retiming_wall_s=None if clock is None else self.retiming_wall_s(clock),
            unread=self.unread,
        )

    def training_wall_s(self, jobs: int) -> float:
        """Return about how many seconds of the host learning takes."""
        missing = [one for one in self.wanted if self.library.find(one) is None]
        return estimate_wall_s(missing, self.library) / max(1, min(jobs, len(missing))) if missing else 0.0

    def retiming_wall_s(self, clock: ClockName) -> float:
        """Return about how many seconds of the host re-timing takes at most: each trial to its end.

        From a few scenarios of the first base; what they cost only once is taken out by a second, smaller sample.
        """
        first = [v for v, base in zip(self.study.scenarios, self.base_of, strict=True) if base == self.base_of[0]]
        few, many = first[:2], first[:_PROBED]
        few_s = self._probe(few, clock)
        slope_s = few_s / len(few)
        if few_s < 1 and len(many) > len(few):
            slope_s = max(0.0, self._probe(many, clock) - few_s) / (len(many) - len(few))
        one = self.settings.setting(first[0])
        draws = len(one.experiment.seeds) * self.study.spec.replications if one.is_random else 1
        return few_s + slope_s * len(self.study.scenarios) * draws

    def _probe(self, asked: Sequence[Scenario], clock: ClockName) -> float:
        begin = time.perf_counter()
        made = [self.settings.setting(values) for values in asked]
        for schedule in made[0].experiment.schedules:
            times([setting.plan(schedule) for setting in made], clock=clock)
        return time.perf_counter() - begin


def prepare(
    study: Study,
    device: str = "auto",
    precision: str = "auto",
    library: Path | str = DEFAULT_FOLDER,
    trust_code: bool = True,
) -> Prepared:
    """Return a study ready to run: every scenario tried, the trials that it wants worked out.

    trust_code: whether the code of its own models and data may be run; without, what depends on it is left out.
    Raises:  ConfigError: everything that is wrong with one of its scenarios.
    """
    scenarios = Scenarios(study)
    # Where only own code that is not to be run could tell the size of a message, any will do.
    settings = Settings(scenarios, lambda one: known_message_bytes(one, trust_code) or UNKNOWN_BYTES)
    settings.check()
    unread: dict[str, None] = {}
    given = resources(device, precision, study.experiment.train.dtype)
    trials: dict[int, dict[TrialKey, Wanted]] = {}
    for number, experiment in enumerate(scenarios.bases()):
        look = trust_code or not experiment.own_code
        unread |= {} if look else dict.fromkeys(experiment.own_code)
        keys = trial_keys(experiment)
        try:
            trials[number] = {key: wanted(experiment, key.case, key.seed, given, look=look) for key in keys}
        except ConfigError as error:
            raise relocated(error, experiment) from error
    return Prepared(study, scenarios, settings, given, trials, Library(Path(library)), tuple(unread))


def check_study(
    path: Path | str, sets: Sequence[str] = (), notes: list[Problem] | None = None, trust_code: bool = False
) -> str:
    """Return in one line what a valid study file is; what should not be overlooked is added to `notes`.

    trust_code: load its data and build its models too, running its own code, and try whether they fit.
    Raises:  ConfigError: everything that is wrong with it, with its run or with one of its scenarios.
    """
    study = load_study(path, sets)
    made, notes = Scenarios(study), [] if notes is None else notes
    Settings(made, lambda _: UNKNOWN_BYTES).check()
    notes += study.notes
    check_learning(made.bases(), notes, trust_code)
    cases, seeds = len(study.experiment.cases), len(study.experiment.seeds)
    scenarios = _counted(len(study.scenarios), "scenario")
    return f"a study of {scenarios}, each with {_counted(cases, 'case')} x {_counted(seeds, 'seed')}"
