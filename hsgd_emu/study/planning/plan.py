"""Which schedule reaches a target first? Learns as little as it takes to tell, and says how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsgd_emu.errors import ConfigError, nearest
from hsgd_emu.experiment import relocated
from hsgd_emu.metrics import METRICS, TARGETS, Target
from hsgd_emu.results.wording import percent
from hsgd_emu.study.clock import ClockName
from hsgd_emu.study.planning.candidates import Candidate, Periods, candidates, entrants, variants
from hsgd_emu.study.planning.result import PlanResult, Training
from hsgd_emu.study.planning.search import Request, Search
from hsgd_emu.study.training.executors import Crew, ExecutorName, TrainingProgress, train
from hsgd_emu.study.training.library import DEFAULT_FOLDER, Learned, Library
from hsgd_emu.study.training.wanted import Resources, Wanted, resources, wanted

BUDGET = 0.2
"""Of the training that learning every candidate with every seed to its end would take."""
REPLICATIONS = 10
AT_ONCE = 2
"""Schedules that go on at a time, whatever the machine: what is learned does not depend on it."""

Train = Callable[[Sequence[Wanted]], Mapping[str, Learned]]
"""Learns what is not learned yet, and returns all of it by key."""


def plan_schedule(
    path: Path | str,
    target: Target,
    sets: Sequence[str] = (),
    *,
    topologies: Sequence[str] = (),
    groupings: Sequence[str] = (),
    tries: Sequence[str] = (),
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
    progress: TrainingProgress | None = None,
) -> PlanResult:
    """Return which schedule of a run reaches a target first, in the median over seeds and draws of the network.

    The search is `study.search`: every clock is known beforehand, and only what looks fast is learned further.

    Args:    target: (metric, level).  sets: KEY=VALUE.  topologies, groupings: to choose from beside the run's own.
             tries: KEY=VALUE of train, servers, mixing, compression or averaging, to choose from too; those of one key
             are alternatives, those of several are combined.
             periods: to choose from (default: a 1-2-5 series); see `candidates.Periods`.  budget: the most to learn, as
             a share of learning every candidate with every seed to its end.  replications: draws of the network for
             each seed.  library: of learned trials; what is in it is not learned again, but counts as if it were, so
             that the answer does not depend on it.
    Raises:  ConfigError: the run file or one of these is wrong.
    """
    progress = progress or TrainingProgress()
    _check(target, budget, replications)
    of = variants(Path(path), sets, topologies, groupings, periods, tries)
    experiment, choice = of[0].experiment, candidates(of)
    for note in dict.fromkeys(note for variant in of for note in variant.experiment.notes):
        progress.warn(f"note: {note}")
    for variant in of:
        for text in variant.notes:
            progress.warn(f"note: {f'{variant.label}: ' if variant.label else ''}{text}")
    progress.say(f"timing {len(choice):,} schedules")
    shelf = Library(library)

    crew = Crew()

    def learn_all(asked: Sequence[Wanted]) -> Mapping[str, Learned]:
        return train(asked, shelf, executor, jobs, progress, ray_address, crew)

    try:
        timed = list(entrants(of, replications, clock))
        given = resources(device, precision, experiment.train.dtype)
        total = sum(entrant.cost * int(entrant.iterations[-1]) * len(entrant.time_s) for entrant in timed)
        oracle = _Oracle(choice, target[0], given, shelf, learn_all, progress)
        search = Search(timed, METRICS[target[0]].sign * target[1], oracle, budget * total, AT_ONCE)
        with crew:
            findings = search.run()
    except ConfigError as error:
        raise relocated(error, experiment) from error
    training = Training(search.used / total, budget, oracle.learned, oracle.found)
    return PlanResult(*target, tuple(choice), tuple(findings), experiment.seeds, timed[0].time_s.shape[1], training)


@dataclass
class _Oracle:
    """Learns trials for the search: through the library, and all of a step side by side."""

    choice: Sequence[Candidate]
    metric: str
    given: Resources
    library: Library
    learn_all: Train
    progress: TrainingProgress
    learned: int = 0
    """Iterations learned now."""
    found: int = 0
    """Those found in the library."""
    _wanted: dict[tuple[int, int], Wanted] = field(default_factory=dict)
    _until: dict[str, int] = field(default_factory=dict)

    def __call__(self, requests: Sequence[Request]) -> list[dict[int, float]]:
        """Return the figures of the target's metric by iteration, larger is better."""
        asked = [self._asked(request) for request in requests]
        names = dict.fromkeys(self.choice[request.entrant].name for request in requests)
        self.progress.say("learning " + "; ".join(names))
        for one in asked:
            self._count(one)
        found = self.learn_all(asked)
        return [self._figures(found[one.key]) for one in asked]

    def _asked(self, request: Request) -> Wanted:
        key = (request.entrant, request.seed)
        if key not in self._wanted:
            candidate = self.choice[request.entrant]
            experiment = candidate.variant.experiment
            self._wanted[key] = wanted(experiment, candidate.schedule.name, experiment.seeds[request.seed], self.given)
        return replace(self._wanted[key], until=request.until)

    def _count(self, one: Wanted) -> None:
        before, known = self._until.get(one.key, 0), self.library.progress_of(one)
        have = max(before, min(one.until, known.iteration)) if known else before
        self.found += have - before
        self.learned += max(0, one.until - have)
        self._until[one.key] = max(before, one.until)

    def _figures(self, learned: Learned) -> dict[int, float]:
        sign = METRICS[self.metric].sign
        return {
            iteration: math.nan if value is None or not metrics.is_finite else sign * value
            for iteration, metrics in learned.metrics.items()
            for value in [metrics[self.metric]]
        }


def _check(target: Target, budget: float, replications: int) -> None:
    metric, level = target
    if metric not in TARGETS:
        hint = nearest(metric, TARGETS) or f"; one of {', '.join(TARGETS)}"
        raise ConfigError.of("--target", "", f"found '{metric}', which is no metric{hint}")
    is_share = METRICS[metric].is_share
    if not (0 < level <= 1 if is_share else 0 <= level < math.inf):
        right = "a share above 0 and at most 1, such as 0.8" if is_share else "0 or more"
        raise ConfigError.of("--target", "", f"found {level:g} for {metric}; expected {right}")
    if not 0 < budget <= 1:
        text = f"found {budget:g}; expected a share above 0 and at most 1 ({percent(BUDGET)} is usual)"
        raise ConfigError.of("--budget", "", text)
    if replications < 1:
        raise ConfigError.of("--replications", "", f"found {replications}; expected 1 or more")
