"""The schedules that planning chooses from: local SGD and H-SGD with every sensible chain of periods."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np

from hsgd_emu.config.run_schema import CaseSpec, LevelPeriod
from hsgd_emu.engine.schedule import Mistakes, Schedule, build_schedule
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.experiment import Experiment
from hsgd_emu.topology.tree import Topology

Periods = Sequence[Sequence[int]]
"""One list for all levels of servers, or one for each from the root down."""
LEAST_ROUNDS = 4
"""A schedule with fewer global aggregations shows nothing before it has learned almost all of its iterations."""
MOST_CANDIDATES = 2_000


def with_candidates(experiment: Experiment, periods: Periods | None = None, keep: bool = True) -> Experiment:
    """Return the experiment with its own cases and after them every candidate that is none of them.

    Args:    periods: to choose from (default: `period_series`).  keep: its own cases, else only the candidates.
    Raises:  ConfigError: a given period that no schedule of this run can have, or too many candidates.
    """
    iterations, topology = experiment.train.iterations, experiment.topology
    if periods is not None:
        _check_periods(periods, topology, iterations)
    cases, schedules = (list(experiment.cases), list(experiment.schedules)) if keep else ([], [])
    own = zip(schedules, cases, strict=True)
    known = {_identity(schedule, case) for schedule, case in own if schedule.rounds_are_alike}
    names = {case.name for case in cases}
    for case in candidate_cases(topology, periods or [period_series(iterations)]):
        mistakes: Mistakes = []
        schedule = build_schedule(case, topology, iterations, experiment.train.participation, mistakes)
        assert schedule is not None, mistakes
        if _identity(schedule, case) not in known:
            name = _free(case.name, names)
            cases.append(case.model_copy(update={"name": name}))
            schedules.append(replace(schedule, name=name))
    return replace(experiment, cases=tuple(cases), schedules=tuple(schedules))


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


def oftener(schedules: Sequence[Schedule], topology: Topology, iterations: int) -> list[tuple[int, ...]]:
    """Return for each schedule those (by place) that average at least as often at every server, and somewhere more.

    A server that only passes models on averages as often as the one above it. Other shares of participation are not
    compared.
    """
    often = np.array([_how_often(schedule, topology, iterations) for schedule in schedules])
    shares = np.array([schedule.participation for schedule in schedules])
    found = []
    for own, share in zip(often, shares, strict=True):
        is_oftener = (often >= own).all(axis=1) & (often > own).any(axis=1) & (shares == share)
        found.append(tuple(np.flatnonzero(is_oftener).tolist()))
    return found


def _how_often(schedule: Schedule, topology: Topology, iterations: int) -> list[int]:
    found: dict[int, int] = {}
    for server in topology.servers:
        aggregates = server in schedule.children
        found[server] = (
            schedule.num_phases(server, iterations) if aggregates else found[topology.nodes[server].parent or 0]
        )
    return list(found.values())


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


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered where a case of the run has it for another schedule."""
    free = next(n for n in (name if k == 1 else f"{name} ({k})" for k in count(1)) if n not in taken)
    taken.add(free)
    return free


def _identity(schedule: Schedule, case: CaseSpec) -> tuple[object, ...]:
    return tuple(sorted(schedule.period.items())), schedule.participation, repr((case.train, case.averaging))


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
