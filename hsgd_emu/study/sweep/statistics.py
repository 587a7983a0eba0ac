"""Times to a target over seeds and replications: median, quantiles, interval of the median, and who is first.

A time is inf where the target was never reached: later than all others. It is never a NaN, and nothing here makes
one of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.rng import stream

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
