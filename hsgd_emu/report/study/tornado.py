"""What the time to target depends on: one axis changed at a time, or, where no scenarios allow it, ranks over all."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from hsgd_emu.report.study.axes import middle_scenario
from hsgd_emu.report.study.content import StudyContent, Target

FEWEST_TO_RANK = 8
MOST_CASES = 20
"""Cases that can be chosen one by one."""


@dataclass(frozen=True)
class Subject:
    """Whose time it is: that of the fastest of these cases in each scenario."""

    label: str
    cases: tuple[int, ...]


@dataclass(frozen=True)
class Lines:
    """The scenarios that differ from one of reference in one axis only; by axis, in the order of its values."""

    reference: int
    scenarios: dict[int, list[int]]


@dataclass(frozen=True)
class End:
    """One end of a bar, or the reference. time_s: inf = never; case: the fastest there, -1 where time_s is inf."""

    scenario: int
    time_s: float
    case: int


@dataclass(frozen=True)
class Bar:
    """One axis from its lowest to its highest value, the others held; of names: from that of least time to most."""

    axis: int
    low: End
    high: End
    width_s: float
    """Of the bar, which always reaches to the time of reference; inf where an end is never and another is not."""


@dataclass(frozen=True)
class Rank:
    """Spearman's rank correlation of an axis with the time, over all scenarios; None where the time is always one."""

    axis: int
    correlation: float | None


def subjects(content: StudyContent) -> list[Subject]:
    """Return whose time can be shown: the fastest case's, that of each kind of schedule, that of each case."""
    every = tuple(case.index for case in content.cases)
    if len(every) == 1:
        return [Subject(content.cases[0].name, every)]
    kinds = [
        Subject(name, tuple(case.index for case in content.cases if case.dashed == local))
        for name, local in (("the best H-SGD", False), ("the best local SGD", True))
        if content.both_kinds
    ]
    alone = [Subject(case.name, (case.index,)) for case in content.cases]
    return [Subject("the fastest case", every), *kinds, *(alone if len(alone) <= MOST_CASES else ())]


def lines_of(content: StudyContent) -> Lines | None:
    """Return the scenarios that change one axis each, around the one nearest to the middle that allows it; or None."""
    found: dict[tuple[int, tuple[int, ...]], dict[int, int]] = defaultdict(dict)
    rows = [tuple(row) for row in content.places_SA.tolist()]
    for scenario, row in enumerate(rows):
        for i, place in enumerate(row):
            found[i, _without(row, i)].setdefault(place, scenario)
    varying = [i for i, axis in enumerate(content.axes) if len(axis.texts) > 1]
    allowed = [s for s, row in enumerate(rows) if all(len(found[i, _without(row, i)]) > 1 for i in varying)]
    if not allowed or not varying:
        return None
    reference = allowed[middle_scenario(content.axes, content.places_SA[allowed])]
    mine = {i: found[i, _without(rows[reference], i)] for i in varying}
    return Lines(reference, {i: [line[place] for place in sorted(line)] for i, line in mine.items()})


def bars(content: StudyContent, target: Target, subject: Subject, lines: Lines) -> list[Bar]:
    """Return the bar of each axis, the widest first; of equal ones first that of the earlier axis."""
    start_s = time_at(target, subject, lines.reference).time_s
    found = []
    for i, scenarios in lines.scenarios.items():
        ends = [time_at(target, subject, scenario) for scenario in scenarios]
        if content.axes[i].numbers is None:
            ends.sort(key=lambda end: end.time_s)
        low, high = ends[0], ends[-1]
        least, most = (pick(start_s, low.time_s, high.time_s) for pick in (min, max))
        found.append(Bar(i, low, high, 0.0 if least == most else most - least))
    return sorted(found, key=lambda bar: -bar.width_s)


def time_at(target: Target, subject: Subject, scenario: int) -> End:
    """Return the least median of the subject's cases in a scenario; of equal ones the first case's."""
    times_C = target.median_SC[scenario, list(subject.cases)]
    least = int(times_C.argmin())
    time_s = float(times_C[least])
    return End(scenario, time_s, subject.cases[least] if math.isfinite(time_s) else -1)


def ranks(content: StudyContent, target: Target, subject: Subject) -> list[Rank]:
    """Return each numeric axis's correlation with the time, the strongest first; never is later than all times."""
    from scipy.stats import spearmanr

    times_S = target.median_SC[:, list(subject.cases)].min(axis=1)
    constant = bool((times_S == times_S[0]).all())
    found = []
    for i, axis in enumerate(content.axes):
        if axis.numbers is not None and len(axis.numbers) > 1:
            numbers_S = np.array(axis.numbers)[content.places_SA[:, i]]
            found.append(Rank(i, None if constant else float(spearmanr(numbers_S, times_S).statistic)))
    return sorted(found, key=lambda rank: -abs(rank.correlation or 0.0))


def can_rank(content: StudyContent) -> bool:
    """Tell whether there are scenarios enough, and an axis of numbers, to rank."""
    numeric = any(axis.numbers is not None and len(axis.numbers) > 1 for axis in content.axes)
    return numeric and content.num_scenarios >= FEWEST_TO_RANK


def _without(places: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return places[:axis] + places[axis + 1 :]
