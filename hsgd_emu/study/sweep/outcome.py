"""The rows of a study's tables out of the times of its scenarios."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.study.sweep.axes import Scenario, Value
from hsgd_emu.study.sweep.crossover import Crossover, Line, find_all
from hsgd_emu.study.sweep.race import CaseTimes, Group, Race
from hsgd_emu.study.sweep.statistics import best, median, probability, summarise

Rows = dict[str, list[tuple[Any, ...]]]
Levels = Sequence[tuple[str, float]]
_MOST_LINES = 20_000
"""Lines of a grid along which crossovers are searched."""


def rows_of(numbers: Sequence[int], groups: Sequence[Group], levels: Levels) -> Rows:
    """Return the rows of times, summary, wins and best of scenarios, in scenario order.

    Args:    numbers: of the scenarios that `groups` tells about.
    """
    rows: Rows = {"times": [], "summary": [], "wins": [], "best": []}
    for group in groups:
        scenarios = [numbers[place] for place in group.places]
        medians = []
        for case in group.cases:
            rows["times"] += _times(scenarios, case, levels)
            summary, median_ST = _summary(scenarios, case, levels)
            rows["summary"] += summary
            medians.append(median_ST)
        rows["wins"] += _wins(scenarios, group.cases, levels)
        rows["best"] += _best(scenarios, group.cases, np.stack(medians, axis=-1), levels)
    for table in rows.values():
        table.sort(key=lambda row: row[0])
    return rows


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _times(scenarios: Sequence[int], case: CaseTimes, levels: Levels) -> Iterator[tuple[Any, ...]]:
    time, communication, compute = (
        values.tolist() for values in (case.time_s_SUKT, case.communication_s_SUKT, case.compute_s_SUKT)
    )
    iterations = case.iteration_UT.tolist()
    num_replications = case.time_s_SUKT.shape[2]
    for s, u, k in product(range(len(scenarios)), range(len(case.seeds)), range(num_replications)):
        for t, level in enumerate(levels):
            found: tuple[Any, ...] = (None,) * 4
            if iterations[u][t] < math.inf:
                found = (time[s][u][k][t], int(iterations[u][t]), communication[s][u][k][t], compute[s][u][k][t])
            yield (scenarios[s], case.case, case.seeds[u], k, *level, *found)


def _together(case: CaseTimes) -> NDArray[np.float64]:
    """Return the times (S, T, U * K): the replications of one seed side by side."""
    times_STUK = np.moveaxis(case.time_s_SUKT, 3, 1)
    return times_STUK.reshape(*times_STUK.shape[:2], -1)


def _summary(
    scenarios: Sequence[int], case: CaseTimes, levels: Levels
) -> tuple[list[tuple[Any, ...]], NDArray[np.float64]]:
    stats = summarise(_together(case), case.time_s_SUKT.shape[2])
    columns = [stats.median_s, stats.q10_s, stats.q90_s, stats.low_s, stats.high_s]
    rows = [
        (
            scenario,
            case.case,
            *level,
            stats.num,
            int(stats.num_reached[s, t]),
            *(_null(float(column[s, t])) for column in columns),
        )
        for s, scenario in enumerate(scenarios)
        for t, level in enumerate(levels)
    ]
    return rows, stats.median_s


def _wins(scenarios: Sequence[int], cases: Sequence[CaseTimes], levels: Levels) -> Iterator[tuple[Any, ...]]:
    times = [_together(case) for case in cases]
    chances = {(a, b): probability(times[a], times[b]) for a in range(len(cases)) for b in range(len(cases)) if a != b}
    for s, scenario in enumerate(scenarios):
        for t, level in enumerate(levels):
            for (a, b), chance_ST in chances.items():
                yield (scenario, *level, cases[a].case, cases[b].case, float(chance_ST[s, t]))


def _best(
    scenarios: Sequence[int], cases: Sequence[CaseTimes], median_STC: NDArray[np.float64], levels: Levels
) -> Iterator[tuple[Any, ...]]:
    place_ST, margin_ST = best(median_STC)
    for s, scenario in enumerate(scenarios):
        for t, level in enumerate(levels):
            if place_ST[s, t] >= 0:
                yield (scenario, *level, cases[place_ST[s, t]].case, _null(float(margin_ST[s, t])))


def crossovers(race: Race, best_of: dict[tuple[int, str, float], str]) -> list[Crossover]:
    """Return where the best case changes along each numeric timing axis of a full grid, with all others fixed.

    Args:    best_of: the best case by (scenario, metric, target).
    """
    study = race.scenarios.study
    found: list[Crossover] = []
    for place, axis in enumerate(study.axes if study.is_grid else ()):
        numbers = [value.number for value in axis.values if value.number is not None]
        if axis.is_timing and len(axis.values) > 1 and len(numbers) == len(axis.values):
            found += _along(race, place, numbers, best_of)
    return found


def _along(
    race: Race, place: int, numbers: Sequence[float], best_of: dict[tuple[int, str, float], str]
) -> list[Crossover]:
    study = race.scenarios.study
    axis = study.axes[place]
    by_line: dict[tuple[Value | None, ...], list[int]] = {}
    for number, values in enumerate(study.scenarios):
        by_line.setdefault((*values[:place], None, *values[place + 1 :]), []).append(number)
    lines, about = [], []
    for fixed, scenarios in list(by_line.items())[:_MOST_LINES]:
        for level in race.levels:
            lines.append(Line(numbers, [best_of.get((scenario, *level)) for scenario in scenarios]))
            about.append((fixed, level))

    def evaluate(asked: Sequence[tuple[int, float]]) -> list[dict[str, float]]:
        wanted: dict[tuple[tuple[Value | None, ...], float], Scenario] = {}
        for line, number in asked:
            fixed = about[line][0]
            key = (fixed, number)
            wanted[key] = wanted.get(key) or (*fixed[:place], axis.value(number), *fixed[place + 1 :])
        medians = dict(zip(wanted, _medians(race, list(wanted.values())), strict=True))
        return [medians[about[line][0], number][race.levels.index(about[line][1])] for line, number in asked]

    found = []
    for (fixed, level), crossings in zip(about, find_all(lines, evaluate), strict=True):
        others = {
            other.name: value.text if value.number is None else value.number
            for other, value in zip(study.axes, fixed, strict=True)
            if value is not None
        }
        found += [Crossover(*level, axis.name, others, c.below, c.above, c.value) for c in crossings]
    return found


def _medians(race: Race, asked: Sequence[Scenario]) -> list[list[dict[str, float]]]:
    """Return by scenario and target the median time of each case."""
    found: list[list[dict[str, float]]] = [[{} for _ in race.levels] for _ in asked]
    for begin in range(0, len(asked), race.most_scenarios):
        race.settings.forget()
        for group in race.run(asked[begin : begin + race.most_scenarios]):
            for case in group.cases:
                median_ST = median(_together(case))
                for (s, place), t in product(enumerate(group.places), range(len(race.levels))):
                    found[begin + place][t][case.case] = float(median_ST[s, t])
    return found


def crossover_row(one: Crossover) -> tuple[Any, ...]:
    """Return a crossover as a row of its table."""
    fixed = json.dumps(one.fixed, ensure_ascii=False)
    return (one.metric, one.target, one.axis, fixed, one.below, one.above, one.value)
