"""A finished run to ask more of: when its trials reached a target, and when they would have with other costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.engine.times import Nanoseconds_SR
from hsgd_emu.errors import ConfigError, nearest
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.metrics import METRICS, TARGETS, Target, first_reaching, hardness
from hsgd_emu.results.folder import (
    RUN_FILE,
    read_environment,
    recorded_message_bytes,
    recorded_shape,
    require_run_folder,
)
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.wording import number, target_label
from hsgd_emu.study.clock import times
from hsgd_emu.study.retime import check_same_operations, read_recorded
from hsgd_emu.timing.transfers import Message
from hsgd_emu.trials import Recorded
from hsgd_emu.units import plain_number

Reached = dict[int, int | None]
"""By seed: the iteration at which a target was reached, None where it never was."""
_MOST_TIMES = 5_000_000  # times asked of the clock at once: 160 MB as it gives them


@dataclass(frozen=True)
class FinishedRun:
    """A run folder, read back; a message has `message_bytes`."""

    folder: Path
    experiment: Experiment
    message_bytes: int

    @property
    def message(self) -> Message:
        """What is sent."""
        return Message(self.message_bytes)

    @cached_property
    def recorded(self) -> dict[TrialKey, Recorded]:
        """What each trial has learned.

        Raises:  ConfigError: a trial is not finished, or nothing was learned.
        """
        if read_environment(self.folder).get("timing_only"):
            text = "was run with --timing-only and learned nothing, so when it reaches a target is not known"
            raise ConfigError.of(str(self.folder), "", f"{text}; `hsgd-emu run` it with learning")
        return read_recorded(self.folder, self.experiment)

    def reached(self, case: str, target: Target) -> Reached:
        """Return at which evaluated iteration each seed of a case first reached a target."""
        return {
            seed: first_reaching(sorted(self.recorded[TrialKey(case, seed)].metrics.items()), target)
            for seed in self.experiment.seeds
        }


def finished_run(folder: Path | str) -> FinishedRun:
    """Return the run in a folder.

    Raises:  ConfigError: the folder holds no run.
    """
    folder = Path(folder)
    require_run_folder(folder)
    experiment = load_experiment(folder / RUN_FILE).of_shape(recorded_shape(folder))
    num_bytes = experiment.message_bytes or recorded_message_bytes(folder)
    return FinishedRun(folder, experiment, num_bytes)


# --- targets ----------------------------------------------------------------------------------------


def target_of(text: str) -> Target:
    """Return the target that METRIC=LEVEL names.

    Raises:  ConfigError: no such metric or level.
    """
    metric, _, level_text = (part.strip() for part in text.partition("="))
    label = f"--target {text}"
    if metric not in TARGETS:
        hint = nearest(metric, TARGETS)
        raise ConfigError.of(
            label, "", f"expected METRIC=LEVEL, as in test_accuracy=0.8, METRIC one of {TARGETS}{hint}"
        )
    level = plain_number(level_text)
    if METRICS[metric].is_share and not 0 < level <= 1:
        raise ConfigError.of(label, "", f"found '{level_text}'; expected a fraction above 0 and at most 1, such as 0.8")
    if not 0 <= level < math.inf:
        raise ConfigError.of(label, "", f"found '{level_text}'; expected a number of at least 0, such as 0.5")
    return metric, level


def reached_target(run: FinishedRun, target: Target | None) -> Target:
    """Return the target, else the hardest of the run file, that some case reached with more than half of its seeds.

    Raises:  ConfigError: there is none.
    """
    levels = [target] if target else sorted(run.experiment.target_levels(), key=hardness)
    if not levels:
        text = "its run file names no targets; name one with --target, as in --target test_accuracy=0.8"
        raise ConfigError.of(str(run.folder), "", text)
    for level in levels:
        reached = (run.reached(case.name, level).values() for case in run.experiment.cases)
        if any(median_reached(list(iterations)) is not None for iterations in reached):
            return level
    metric = levels[-1][0]
    learned = [metrics for trial in run.recorded.values() for metrics in trial.metrics.values() if metrics.is_finite]
    known = [value for metrics in learned if (value := metrics[metric]) is not None]
    best = (max if METRICS[metric].sign > 0 else min)(known, default=None)
    hint = "" if best is None else f"; the best of any seed is {metric} {number(best)}"
    text = f"no case reached {target_label(*levels[-1])} with more than half of its seeds{hint}"
    raise ConfigError.of(str(run.folder), "", text)


# --- times ------------------------------------------------------------------------------------------


def global_times_ns(
    run: FinishedRun, experiments: Sequence[Experiment], schedule: Schedule, seeds: Sequence[int], iterations: int
) -> Nanoseconds_SR:
    """Return when the global aggregations up to `iterations` end: (experiments, seeds, rounds), nanoseconds.

    Args:    experiments: the run's own with other costs; the routes of each are found anew.
    Raises:  ConfigError: with other costs something else would be learned.
    """
    plans = []
    for experiment in experiments:
        routes = experiment.routes(schedule, run.message_bytes)
        plans += [experiment.plan(schedule, routes, run.message_bytes, seed) for seed in seeds]
        if plans[-1].depends_on_time:
            check_same_operations(run.folder, run.experiment, experiment, run.message_bytes, run.message_bytes)
    most = max(1, _MOST_TIMES // schedule.num_rounds(iterations))
    parts = [times(plans[at : at + most], iterations).time_ns_SR for at in range(0, len(plans), most)]
    return np.concatenate(parts).reshape(len(experiments), len(seeds), -1)
