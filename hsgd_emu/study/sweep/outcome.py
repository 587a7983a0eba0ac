"""The rows of a study's tables out of the times of its scenarios.

A time is inf where the target was never reached: later than all others. It is never a NaN, and nothing here makes one
of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.rng import stream
from hsgd_emu.study.sweep.axes import Scenario, Value
from hsgd_emu.study.sweep.crossover import Crossover, Line, find_all
from hsgd_emu.study.sweep.race import CaseTimes, Group, Race

CONFIDENCE = 0.95
NUM_RESAMPLES = 999  # with 999 the 2.5% and 97.5% points are the 25th and the 975th value, nothing in between
_ROWS_AT_ONCE = 2_000  # 2,000 x 999 medians are 16 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stats:
    """What `summarise` tells of each row: arrays of the rows' shape, in seconds, inf = never."""

    num: int
    """Values per row: seeds x replications."""
    num_reached: NDArray[np.int64]
    median_s: Floats
    q10_s: Floats
    q90_s: Floats
    low_s: Floats
    high_s: Floats


def summarise(times_s: Floats, num_replications: int = 1) -> Stats:
    """Return the median, the 10% and 90% quantiles and the median's 95% bootstrap interval of each row.

    Median: as `results.summary.median_reached`; never unless more than half reach the target. Quantiles: linear between
    two neighbours; never where the later one is (the median's rule).

    Interval: percentile bootstrap of the median, as `scipy.stats.bootstrap(method="percentile")` with 999 resamples
    (the tests compare them); no value between two, so that never needs no arithmetic. Seeds are resampled, each with
    all its replications: replications share what their seed has learned and are not independent of each other. Of a
    single seed the replications are resampled, and the interval tells of the network's randomness alone. The same
    resamples serve every row and the order of seeds and replications does not matter, so a row's interval depends
    on its values only. How often it holds the true median: 50% of the time with 2 seeds and 75% with 3, where it is
    their whole range and nothing could do better; 87% to 96% from 5 seeds on.

    Args:    times_s: (..., num) seconds, inf = never. The replications of one seed lie side by side (seed 0's, then
             seed 1's, ...): num = num_seeds * num_replications.
    Returns: low_s = median_s = high_s where num is 1 or all values are the same.
    """
    *shape, num = times_s.shape
    assert num > 0, "a row has at least one value"
    assert num % num_replications == 0, f"{num} values are not whole seeds of {num_replications} replications"
    assert not np.isnan(times_s).any(), "a time is a number or inf (never)"
    times_RN = np.asarray(times_s, dtype=np.float64).reshape(-1, num)
    sorted_RN = np.sort(times_RN, axis=-1)
    median_R = _quantile(sorted_RN, 0.5)
    low_R, high_R = _interval(times_RN, num_replications) if num > 1 else (median_R, median_R)
    return Stats(
        num=num,
        num_reached=np.isfinite(sorted_RN).sum(axis=-1).reshape(shape),
        median_s=median_R.reshape(shape),
        q10_s=_quantile(sorted_RN, 0.1).reshape(shape),
        q90_s=_quantile(sorted_RN, 0.9).reshape(shape),
        low_s=low_R.reshape(shape),
        high_s=high_R.reshape(shape),
    )


def median(times_s: Floats) -> Floats:
    """Return the median of each row (..., num) alone, the same as `summarise`'s and much faster."""
    return np.asarray(_quantile(np.sort(times_s, axis=-1), 0.5))


def probability(a_s: Floats, b_s: Floats) -> Floats:
    """Return P(A reaches the target before B) over matched pairs; a tie (also: neither ever does) counts half.

    Args:    a_s, b_s: (..., num) seconds, inf = never; the same seed and replication at the same place.
    Returns: (...) 0 to 1; 1 - probability(b_s, a_s).
    """
    return np.asarray((a_s < b_s).mean(axis=-1) + 0.5 * (a_s == b_s).mean(axis=-1))


def best(median_s: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the place of the case with the least median (the first of a tie; -1: none reaches), and its margin.

    Args:    median_s: (..., num_cases) seconds, inf = never.
    Returns: (...) int64, and (...) second least median / least: 1 for a tie, inf where no other case reaches the
             target, NaN where none does.
    """
    padded = np.concatenate([median_s, np.full((*median_s.shape[:-1], 1), np.inf)], axis=-1)
    two = np.sort(padded, axis=-1)[..., :2]
    first, second = two[..., 0], two[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = np.where(first == second, 1.0, second / first)
    never = np.isinf(first)
    return np.where(never, -1, np.argmin(padded, axis=-1)), np.where(never, np.nan, margin)


def _quantile(sorted_RN: Floats, q: float) -> Floats:
    place = q * (sorted_RN.shape[-1] - 1)
    return _between(sorted_RN[..., math.floor(place)], sorted_RN[..., math.ceil(place)], place - math.floor(place))


def _between(low: Floats, high: Floats, fraction: float) -> Floats:
    """Return the value at a fraction (0 to 1) of the way from low to high; never (inf) where high is."""
    if fraction == 0:
        return low
    # Clipped: the two products' rounding must not leave [low, high], and equal values must stay as they are.
    return np.clip(low * (1 - fraction) + high * fraction, low, high)


def _interval(times_RN: Floats, num_replications: int) -> tuple[Floats, Floats]:
    num = times_RN.shape[-1]
    together = num_replications if num_replications < num else 1  # of a single seed each value stands alone
    resamples_DU, drawn_B = _resamples(num // together)
    tail = round((1 - CONFIDENCE) / 2 * (NUM_RESAMPLES + 1))
    low_R, high_R = np.empty(len(times_RN)), np.empty(len(times_RN))
    for start in range(0, len(times_RN), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        units_RUK = _in_one_order(times_RN[rows].reshape(-1, num // together, together))
        medians_RB = np.sort(_resampled_medians(units_RUK, resamples_DU)[:, drawn_B], axis=-1)
        low_R[rows], high_R[rows] = medians_RB[:, tail - 1], medians_RB[:, -tail]
    return low_R, high_R


@lru_cache(maxsize=16)
def _resamples(num_units: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct resamples (D, num_units) of the places of units, sorted, and the one each draw (B,) is.

    A median does not see the order within a resample: 3 seeds have 10 distinct resamples, not 999.
    """
    draws_BU = stream(0, "median interval", num_units).integers(0, num_units, (NUM_RESAMPLES, num_units))
    resamples_DU, drawn_B = np.unique(np.sort(draws_BU, axis=-1), axis=0, return_inverse=True)
    return resamples_DU, drawn_B.reshape(-1)


def _in_one_order(units_RUK: Floats) -> Floats:
    """Return the values of each unit sorted, and the units of each row in lexicographic order."""
    units_RUK = np.sort(units_RUK, axis=-1)
    order_RU = np.lexsort(units_RUK.transpose(2, 0, 1)[::-1], axis=-1)
    return np.take_along_axis(units_RUK, order_RU[:, :, None], axis=1)


def _resampled_medians(units_RUK: Floats, resamples_DU: NDArray[np.int64]) -> Floats:
    """Return the median (R, D) of each row over each resample of its units."""
    num_rows, num_units, num_together = units_RUK.shape
    if num_together == 1:
        # Sorted rows and sorted places: the median of a resample sits at the middle places it drew.
        low_D, high_D = resamples_DU[:, (num_units - 1) // 2], resamples_DU[:, num_units // 2]
        return _between(units_RUK[:, low_D, 0], units_RUK[:, high_D, 0], 0.5)
    medians_RD = np.empty((num_rows, len(resamples_DU)))
    for place, resample_U in enumerate(resamples_DU):
        # A whole sort: NumPy sorts rows of some tens of values several times faster than it partitions them.
        medians_RD[:, place] = _quantile(np.sort(units_RUK[:, resample_U].reshape(num_rows, -1), axis=-1), 0.5)
    return medians_RD


Rows = dict[str, list[tuple[Any, ...]]]
Levels = Sequence[tuple[str, float]]
_MOST_LINES = 20_000  # lines of a grid along which crossovers are searched


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
