"""Which schedule reaches a target first? Learns as little as it takes to tell, and says how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from hsgd_emu.errors import ConfigError, listed, nearest
from hsgd_emu.experiment import relocated
from hsgd_emu.results.rows import METRICS
from hsgd_emu.results.wording import number, percent
from hsgd_emu.study.candidates import Periods
from hsgd_emu.study.clock import ClockName
from hsgd_emu.study.contest import Candidate, candidates, entrants, variants
from hsgd_emu.study.executors import ExecutorName, TrainingProgress, train
from hsgd_emu.study.library import DEFAULT_FOLDER, Learned, Library
from hsgd_emu.study.plan_result import PlanResult
from hsgd_emu.study.search import Request, Search
from hsgd_emu.study.wanted import Resources, Wanted, resources, wanted

BUDGET = 0.2
"""Of the training that trying everything would take."""
REPLICATIONS = 10
AT_ONCE = 4
"""Schedules that go on at a time, on any machine: which are learned how far does not depend on it."""


class PlanProgress(TrainingProgress):
    """Told how planning goes, and does nothing with it."""

    def say(self, text: str) -> None:
        """Something takes a while."""


class Train(Protocol):
    """Learns what is wanted and not yet in the library, and returns all of it by key: `executors.train`."""

    def __call__(self, wanted: Sequence[Wanted]) -> Mapping[str, Learned]: ...


def plan_schedule(
    path: Path | str,
    target: tuple[str, float],
    sets: Sequence[str] = (),
    *,
    topologies: Sequence[str] = (),
    groupings: Sequence[str] = (),
    periods: Periods | None = None,
    budget: float = BUDGET,
    replications: int = REPLICATIONS,
    executor: ExecutorName = "local",
    jobs: int | None = None,
    ray_address: str | None = None,
    clock: ClockName = "auto",
    device: str = "auto",
    precision: str = "auto",
    library: Path | str = DEFAULT_FOLDER,
    progress: PlanProgress | None = None,
) -> PlanResult:
    """Return which schedule of a run reaches the target first, in the median over seeds and draws of the network.

    Args:    target: (metric, level).  sets: KEY=VALUE.  topologies, groupings: to choose from beside the run's own.
             periods: to choose from; see `candidates.Periods`.  budget: share of the training that learning every
             candidate with every seed to its end would take.  library: of learned trials; what is in it is not
             learned again, and counts as if it were, so that the answer does not depend on it.
    Raises:  ConfigError: the run file or one of these is wrong.
    """
    progress = progress or PlanProgress()
    _check(target, budget, replications)
    of = variants(Path(path), sets, topologies, groupings, periods)
    choice = candidates(of)
    progress.say(f"timing {len(choice)} schedules")
    experiment = of[0].experiment
    try:
        timed = list(entrants(of, replications, clock))
        given = resources(device, precision, experiment.train.dtype)
        shelf = Library(library)
        oracle = _Oracle(choice, target[0], given, shelf, progress, lambda all_wanted: train(all_wanted, shelf, executor, jobs, progress, ray_address))
    except ConfigError as error:
        raise relocated(error, experiment) from error
    ...
