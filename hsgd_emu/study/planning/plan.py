"""Which schedule reaches a target first? A race in emulated time: nobody is learned beyond the winner's moment."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsgd_emu.errors import ConfigError, nearest
from hsgd_emu.experiment import relocated
from hsgd_emu.metrics import METRICS, TARGETS, Target
from hsgd_emu.results.wording import named, number, percent, value_text
from hsgd_emu.study.clock import ClockName
from hsgd_emu.study.planning.candidates import Candidate, Periods, candidates, entrants, variants
from hsgd_emu.study.planning.chances import ahead_when_it_arrives
from hsgd_emu.study.planning.race import Entrant, Race, Request, median_time
from hsgd_emu.study.planning.result import PlanResult, Training
from hsgd_emu.study.training.executors import Crew, ExecutorName, TrainingProgress, train
from hsgd_emu.study.training.library import DEFAULT_FOLDER, Learned, Library
from hsgd_emu.study.training.wanted import Resources, Wanted, resources, wanted

REPLICATIONS = 10
AT_ONCE = 4
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
    budget: float = 1.0,
    confidence: float | None = None,
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

    The race is `planning.race`: all advance together in emulated time, and the first to the target has won. That is
    exact, unless a budget stops it or a confidence lets it drop who is probably beaten.

    Args:    target: (metric, level).  sets: KEY=VALUE.  topologies, groupings: to choose from beside the run's own.
             tries: KEY=VALUE of train, servers, mixing, compression or averaging, to choose from too; those of one key
             are alternatives, those of several are combined.
             periods: to choose from (default: a 1-2-5 series); see `candidates.Periods`.  budget: the most to learn, as
             a share of learning every candidate with every seed to its end.  confidence: with which one may be dropped
             that the leading one will probably beat (none: nobody is); see `chances`.  replications: draws of the
             network for each seed.  library: of learned trials; what is in it is not learned again, but counts as if it
             were, so that the answer does not depend on it.
    Raises:  ConfigError: the run file or one of these is wrong.
    """
    progress = progress or TrainingProgress()
    _check(target, budget, confidence, replications)
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
        oracle = _Oracle(choice, target[0], given, shelf, learn_all, progress)
        sign = METRICS[target[0]].sign
        race = Race(
            *(timed, sign * target[1], oracle),
            budget=budget,
            at_once=AT_ONCE,
            confidence=confidence,
            judge=ahead_when_it_arrives,
            watch=lambda now_s, leader, share: progress.say(_standing(race, choice, target[0], now_s, leader, share)),
        )
        progress.warn(f"note: {_price(timed, race.total)}")
        with crew:
            findings = race.run()
    except ConfigError as error:
        raise relocated(error, experiment) from error
    training = Training(race.share, oracle.learned, oracle.found, race.total)
    return PlanResult(
        *(*target, tuple(choice), tuple(findings), experiment.seeds, timed[0].time_s.shape[1], training),
        *(race.now_s, race.leader(), confidence),
    )


def _price(timed: Sequence[Entrant], total: float) -> str:
    """Return what the race costs at most for each second of emulated time, and in all."""
    second = sum(
        one.cost * int(one.iterations[-1]) * len(one.time_s) / last_s
        for one in timed
        if (last_s := median_time(one.time_s[:, :, -1])) > 0
    )
    each = f"each further second of emulated time costs {number(second, 3)} iterations of workers at most"
    return f"{len(timed):,} schedules race with {len(timed[0].time_s)} seeds: {each}, and all of it {number(total, 3)}"


def _standing(race: Race, choice: Sequence[Candidate], metric: str, now_s: float, leader: int, share: float) -> str:
    """Return who leads."""
    figure = METRICS[metric].sign * race.racers[leader].figure_at(now_s)
    told = f" with {named(metric, value_text(metric, figure))}" if math.isfinite(figure) else ""
    return f"{number(now_s, 3)} s: {choice[leader].name} leads{told}; {percent(round(share, 3))} learned"


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


def _check(target: Target, budget: float, confidence: float | None, replications: int) -> None:
    metric, level = target
    if metric not in TARGETS:
        hint = nearest(metric, TARGETS) or f"; one of {', '.join(TARGETS)}"
        raise ConfigError.of("--target", "", f"found '{metric}', which is no metric{hint}")
    is_share = METRICS[metric].is_share
    if not (0 < level <= 1 if is_share else 0 <= level < math.inf):
        right = "a share above 0 and at most 1, such as 0.8" if is_share else "0 or more"
        raise ConfigError.of("--target", "", f"found {level:g} for {metric}; expected {right}")
    if not 0 < budget <= 1:
        raise ConfigError.of("--budget", "", f"found {budget:g}; expected a share above 0 and at most 1")
    if confidence is not None and not 0.5 < confidence < 1:
        raise ConfigError.of("--confidence", "", f"found {confidence:g}; expected above 0.5 and below 1, as 0.95")
    if replications < 1:
        raise ConfigError.of("--replications", "", f"found {replications}; expected 1 or more")
