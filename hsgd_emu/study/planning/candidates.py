"""What a plan chooses from: every sensible schedule, on one or several variants of a run, with its clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hsgd_emu.config.run_schema import OF_ALL_CASES, WHOLE_SECTIONS, CaseSpec, LevelPeriod
from hsgd_emu.engine.mixing import build_graph
from hsgd_emu.engine.schedule import Mistakes, Schedule, build_schedule
from hsgd_emu.engine.times import seconds
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.experiment import Experiment, plain
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.study.changes import Changes, changed_experiment
from hsgd_emu.study.clock import ClockName, times
from hsgd_emu.study.costs import free_name
from hsgd_emu.study.planning.race import Entrant
from hsgd_emu.study.sweep.race import network_seed
from hsgd_emu.timing.transfers import Message
from hsgd_emu.together import misfits
from hsgd_emu.topology.tree import Topology

Periods = Sequence[Sequence[int]]
"""One list for all levels of servers, or one for each from the root down."""
LEAST_ROUNDS = 4
"""A schedule with fewer global aggregations shows nothing before it has learned almost all of its iterations."""
MOST_CANDIDATES = 2_000


def with_candidates(
    experiment: Experiment, periods: Periods | None = None, keep: bool = True, notes: list[str] | None = None
) -> Experiment:
    """Return the experiment with its own cases and after them every candidate that is none of them.

    Args:    periods: to choose from (default: `period_series`).  keep: its own cases, else only the candidates.
             notes: is told how many candidates do not go together with what the run says of all, and why.
    Raises:  ConfigError: a given period that no schedule of this run can have, or too many candidates.
    """
    iterations, topology = experiment.train.iterations, experiment.topology
    if periods is not None:
        _check_periods(periods, topology, iterations)
    cases, schedules = (list(experiment.cases), list(experiment.schedules)) if keep else ([], [])
    known = {_identity(experiment.alone(case.name)) for case in cases}
    names = {case.name for case in cases}
    left_out = Counter[str]()
    for case in candidate_cases(topology, periods or [period_series(iterations)]):
        mistakes: Mistakes = []
        schedule = build_schedule(case, topology, iterations, experiment.train.participation, mistakes)
        assert schedule is not None, mistakes
        fitting = _fitting(experiment, case, schedule, left_out)
        if fitting is not None and _identity(fitting) not in known:
            name = free_name(case.name, names)
            cases.append(case.model_copy(update={"name": name}))
            schedules.append(replace(fitting.schedules[0], name=name))
    if not cases:
        raise ConfigError.of("--periods", "", f"no schedule is left: {listed(left_out)}")
    if notes is not None:
        notes += [f"{num} schedule{'s' * (num > 1)} left out: {reason}" for reason, num in left_out.items()]
    return replace(experiment, cases=tuple(cases), schedules=tuple(schedules))


def _fitting(experiment: Experiment, case: CaseSpec, schedule: Schedule, left_out: Counter[str]) -> Experiment | None:
    """Return the run of a candidate alone; None, after counting it, where the run's sections do not allow it."""
    if experiment.mixing is not None:
        hubs = schedule.stages[0].children[0]
        graph = build_graph(experiment.mixing, hubs, experiment.topology, lambda *_: None)
        if graph is None:
            left_out["without hubs that could mix as the run's do"] += 1
            return None
        schedule = replace(schedule, graph=graph)
    alone = replace(experiment, cases=(case,), schedules=(schedule,)).alone(case.name)
    wrong = misfits(alone)
    left_out.update(wrong[:1])
    return None if wrong else alone


def period_series(iterations: int) -> list[int]:
    """Return the divisors of `iterations` next to 1, 2, 5, 10, 20, 50, ... that leave `LEAST_ROUNDS` rounds."""
    most = max(1, iterations // LEAST_ROUNDS)
    small = [d for d in range(1, math.isqrt(iterations) + 1) if iterations % d == 0]
    divisors = sorted({d for one in small for d in (one, iterations // one) if d <= most})
    series = [step * 10**k for k in range(len(str(most))) for step in (1, 2, 5) if step * 10**k <= most]
    return sorted({min(divisors, key=lambda d: (abs(math.log(d / wanted)), d)) for wanted in series})


def candidate_cases(topology: Topology, periods: Periods) -> list[CaseSpec]:
    """Return local SGD with every period, and every chain of periods down the levels of servers.

    Each period divides the one above it and is shorter; `none` for levels that only pass models on.
    Raises:  ConfigError: more than `MOST_CANDIDATES`.
    """
    levels = [sorted(set(found)) for found in (periods if len(periods) > 1 else [periods[0]] * topology.num_levels)]
    cases = [CaseSpec(name=f"P={p}", period=p) for p in sorted({p for level in levels for p in level})]
    for chain in _chains(levels):
        if len(cases) >= MOST_CANDIDATES:
            text = f"more than {MOST_CANDIDATES:,} schedules on {topology.num_levels} levels of servers"
            raise ConfigError.of("--periods", "", f"{text}; give fewer periods to choose from")
        cases.append(CaseSpec(name=_name(chain), periods=chain))
    return cases


def _chains(levels: Sequence[Sequence[int]]) -> Iterator[tuple[LevelPeriod, ...]]:
    """Yield every chain in which at least two levels aggregate."""
    for first in levels[0]:
        for rest in _below(levels[1:], first):
            if any(period != "none" for period in rest):
                yield (first, *rest)


def _below(levels: Sequence[Sequence[int]], above: int) -> Iterator[tuple[LevelPeriod, ...]]:
    if not levels:
        yield ()
        return
    for rest in _below(levels[1:], above):
        yield ("none", *rest)
    for period in levels[0]:
        if period < above and above % period == 0:
            for rest in _below(levels[1:], period):
                yield (period, *rest)


def _name(chain: Sequence[LevelPeriod]) -> str:
    if len(chain) == 2:
        return f"G={chain[0]} I={chain[1]}"
    return ",".join(map(str, chain))


def _identity(alone: Experiment) -> str:
    """Return what tells the run of a case alone from others on the same topology and data."""
    (schedule,) = alone.schedules
    stages = [(sorted(one.period.items()), one.participation, one.rounds, one.begin) for one in schedule.stages]
    return repr((stages, schedule.graph, _settings(alone)))


def _settings(alone: Experiment) -> str:
    """Return what holds for a case beside its schedule."""
    train = alone.train.model_copy(update={"participation": 1.0})
    return repr([train, *(getattr(alone, name) for name in WHOLE_SECTIONS)])


def _check_periods(periods: Periods, topology: Topology, iterations: int) -> None:
    problems = []
    if len(periods) not in (1, topology.num_levels) or not all(periods):
        text = f"found {len(periods)} lists for {topology.num_levels} level{'s' * (topology.num_levels > 1)} of servers"
        problems.append(
            Problem("--periods", "", f"{text}; give one for all levels, or one for each from the root down")
        )
    wrong = [p for p in dict.fromkeys(p for level in periods for p in level) if p < 1 or iterations % p]
    if wrong:
        right = listed(period_series(iterations))
        text = f"found {listed(wrong)}; train.iterations is {iterations}, a multiple of {right} and others"
        problems.append(Problem("--periods", "", text))
    if problems:
        raise ConfigError(problems)


_ANY_CASE = ("cases=[{name: any, period: 1}]", "published=null")
"""Stands for the run's own cases on another topology, which may mean nothing there; published times are of those."""


@dataclass(frozen=True)
class Variant:
    """The run on one topology with one grouping and some settings; its schedules are what is chosen from.

    label: what is not the run's own, empty for the run itself.  num_own: cases of the run file, which come first.
    settings: those that were tried, as keys of a case.  notes: what could not be tried, and why.
    """

    label: str
    experiment: Experiment
    num_own: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Candidate:
    """One schedule on one variant. case: as a run file has it.  is_own: it is one of the run file itself."""

    name: str
    variant: Variant
    case: CaseSpec
    schedule: Schedule
    is_own: bool

    @property
    def is_local_sgd(self) -> bool:
        """Whether only the global server aggregates."""
        return self.schedule.is_local_sgd


def variants(
    path: Path,
    sets: Sequence[str] = (),
    topologies: Sequence[str] = (),
    groupings: Sequence[str] = (),
    periods: Periods | None = None,
    tries: Sequence[str] = (),
) -> list[Variant]:
    """Return the run itself, then the run on other topologies, with other groupings of the data and other settings, all
    combined; what is the same as one before is left out.

    tries: KEY=VALUE; those of one key are alternatives.
    Raises:  ConfigError: the run file, a topology, a grouping, a period or a setting is wrong.
    """
    found: list[Variant] = []
    for topology in (None, *dict.fromkeys(topologies)):
        for grouping in (None, *dict.fromkeys(groupings)):
            changes = [*sets] if grouping is None else [*sets, f"data.grouping={grouping}"]
            changes += [] if topology is None else _ANY_CASE
            run = changed_experiment(path, Changes(topology, (), changes))
            if grouping is not None and run.data.grouping == found[0].experiment.data.grouping:
                continue
            named = {"topology": topology, "grouping": grouping}
            label = ", ".join(f"{what} {value}" for what, value in named.items() if value is not None)
            num_own, notes = len(run.cases) if topology is None else 0, list[str]()
            whole = with_candidates(run, periods, num_own > 0, notes)
            found.append(Variant(label, whole, num_own, notes=notes))
            known = {_identity(whole.alone(case.name)) for case in whole.cases}
            for texts in _combined(tries):
                tried = _tried(path, Changes(topology, (), changes, tries=texts), run, notes)
                if tried is not None:
                    found += _new(tried, texts, run, label, periods, num_own > 0, known)
    if tries and sum(len(one.experiment.cases) for one in found) > MOST_CANDIDATES:
        raise ConfigError.of("--try", "", f"more than {MOST_CANDIDATES:,} schedules in all; give fewer, or --periods")
    return found


def _combined(tries: Sequence[str]) -> list[tuple[str, ...]]:
    """Return every choice of settings with at most one of each key; without the choice of none."""
    by_key: dict[str, list[str | None]] = {}
    for text in dict.fromkeys(tries):
        by_key.setdefault(text.partition("=")[0].strip(), [None]).append(text)
    found = [tuple(text for text in texts if text is not None) for texts in product(*by_key.values())]
    return sorted((texts for texts in found if texts), key=lambda texts: (len(texts), *map(tries.index, texts)))


def _tried(path: Path, changes: Changes, run: Experiment, notes: list[str]) -> Experiment | None:
    """Return the run with some settings; None, with a note, where each alone is right and they do not go together.

    Raises:  ConfigError: one alone is wrong, or decides what all that is compared must have in common.
    """
    for text in changes.tries:
        key = text.partition("=")[0].strip()
        if key.partition(".")[0] not in ("train", *WHOLE_SECTIONS):
            right = f"expected a key of {listed(('train', *WHOLE_SECTIONS))}, as in train.learning_rate=0.1"
            raise ConfigError.of(
                f"--try {text}", "", f"{right}; --set changes anything for all, --topology and --grouping choose"
            )
    try:
        tried = changed_experiment(path, changes)
    except ConfigError as error:
        if len(changes.tries) == 1:
            raise
        notes.append(f"not tried together: {' and '.join(changes.tries)} ({error.problems[0].message})")
        return None
    for name in OF_ALL_CASES:
        if getattr(tried.train, name) != getattr(run.train, name):
            text = f"changes train.{name}, which all that is compared must have in common; --set changes it for all"
            raise ConfigError.of(f"--try {' --try '.join(changes.tries)}", "", text)
    return tried


def _new(
    tried: Experiment,
    texts: Sequence[str],
    run: Experiment,
    label: str,
    periods: Periods | None,
    keep: bool,
    known: set[str],
) -> Iterator[Variant]:
    """Yield the variant of a run with other settings, with the schedules that are not known yet; nothing if none is."""
    notes: list[str] = []
    whole = with_candidates(tried, periods, keep, notes)
    identity = {case.name: _identity(whole.alone(case.name)) for case in whole.cases}
    new = [name for name, one in identity.items() if one not in known]
    known.update(identity.values())
    cases = tuple(case for case in whole.cases if case.name in new)
    schedules = tuple(schedule for schedule in whole.schedules if schedule.name in new)
    if cases:
        labels = ", ".join(filter(None, [label, *texts]))
        yield Variant(labels, replace(whole, cases=cases, schedules=schedules), 0, _as_case(tried, run), notes)


def _as_case(tried: Experiment, run: Experiment) -> dict[str, Any]:
    """Return the settings that are not the run's as keys of a case."""
    before = plain(run.train)
    train = {key: value for key, value in plain(tried.train).items() if before.get(key) != value}
    found = {name: getattr(tried, name) for name in WHOLE_SECTIONS if getattr(tried, name) != getattr(run, name)}
    return {**({"train": train} if train else {}), **{name: plain(value) for name, value in found.items()}}


def candidates(of: Sequence[Variant]) -> list[Candidate]:
    """Return the candidates of all variants, in order."""
    return [
        Candidate(", ".join(filter(None, [case.name, variant.label])), variant, case, schedule, place < variant.num_own)
        for variant in of
        for place, (case, schedule) in enumerate(
            zip(variant.experiment.cases, variant.experiment.schedules, strict=True)
        )
    ]


def entrants(of: Sequence[Variant], replications: int, clock: ClockName = "auto") -> Iterator[Entrant]:
    """Yield what is known of each candidate before it learns, in the order of `candidates`.

    Args:    replications: draws of the network for each seed; the first is what a run has, and where nothing of the
             network is random there is no other.
    Raises:  ConfigError: a link takes longer for a message than any run may.
    """
    for variant in of:
        yield from _timed(variant.experiment, replications, clock)


def _timed(experiment: Experiment, replications: int, clock: ClockName) -> Iterator[Entrant]:
    num_bytes = experiment.message_bytes or timing_message_bytes(experiment)
    experiment.network.check(Message(num_bytes))
    draws = range(1 if experiment.network.is_constant else replications)
    num_seeds, num_workers = len(experiment.seeds), len(experiment.topology.workers)
    for schedule in experiment.schedules:
        routes = experiment.routes(schedule, num_bytes)
        first = experiment.plan(schedule, routes, num_bytes, experiment.seeds[0])
        plans = [replace(first, seed=s, network_seed=network_seed(s, k)) for s in experiment.seeds for k in draws]
        ends = map(first.schedule.end_of, range(1, first.num_rounds + 1))
        iterations = np.array([iteration for iteration in ends if first.is_evaluated(iteration)], np.int64)
        time_ns = times(plans, clock=clock).time_ns_SR[:, [schedule.num_rounds(one) - 1 for one in iterations.tolist()]]
        yield Entrant(iterations, seconds(time_ns).reshape(num_seeds, len(draws), -1), num_workers)
