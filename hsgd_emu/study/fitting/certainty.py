"""What measured times determine of the constants fitted to them, and how well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.study.fitting.model import Floats, Model, measured_ns
from hsgd_emu.study.fitting.result import Combination
from hsgd_emu.units import NS_PER_S

SMALL = 1e-6
"""Counts this small against a row's largest are rounding."""


def determined_by(
    counts: Floats, values_s: Floats, names: Sequence[str]
) -> tuple[tuple[Combination, ...], NDArray[np.bool_]]:
    """Return the sums of several unknowns that alone are determined, and for each unknown whether it is by itself.

    The rows' counts, reduced as a system of linear equations: a reduced row with one entry determines one unknown.
    """
    reduced = _reduced(counts)
    alone = [row for row in reduced if np.count_nonzero(row) == 1]
    determined = np.any(np.array(alone) != 0, axis=0) if alone else np.zeros(len(names), bool)
    together = [row for row in reduced if np.count_nonzero(row) > 1]
    combinations = [
        Combination({name: float(num) for name, num in zip(names, row, strict=True) if num}, float(row @ values_s))
        for row in together
    ]
    return tuple(combinations), determined


def _reduced(rows: Floats) -> list[Floats]:
    """Return the nonzero rows of the reduced row echelon form."""
    rest = [row / np.abs(row).max() for row in rows if np.abs(row).max() > 0]
    done: list[Floats] = []
    for column in range(rows.shape[1]):
        if not rest:
            break
        pivot = max(range(len(rest)), key=lambda place: abs(rest[place][column]))
        if abs(rest[pivot][column]) <= SMALL:
            continue
        row = rest.pop(pivot)
        row = row / row[column]
        rest = [_cleaned(other - other[column] * row) for other in rest]
        done = [_cleaned(other - other[column] * row) for other in done] + [row]
    return done


def _cleaned(row: Floats) -> Floats:
    return np.where(np.abs(row) <= SMALL, 0.0, row)


def intervals(
    model: Model, values_s: Floats, times_ns: Floats, counts: Floats, determined: NDArray[np.bool_]
) -> tuple[list[float | None], list[float | None], Floats, int]:
    """Return the ends of the 95% intervals (None: not determined), the unknowns' correlations, and how many more times
    there are than constants they determine."""
    from scipy.stats import t as student

    times_ns, asked_ns = np.maximum(times_ns, 1), measured_ns(model)
    residuals = np.log(times_ns / asked_ns)
    # Columns of one length: a constant that is nearly 0 is not taken for one that no time depends on.
    slopes = counts / times_ns[:, None]
    lengths = np.linalg.norm(slopes, axis=0)
    lengths = np.where(lengths > 0, lengths, 1.0)
    half = np.linalg.pinv(slopes / lengths, rcond=SMALL)
    inverse = half @ half.T
    deviation = np.sqrt(np.diag(inverse))
    scale = np.where(deviation > 0, deviation, 1.0)
    correlation = inverse / scale[:, None] / scale
    freedom = len(residuals) - int(np.linalg.matrix_rank(slopes / lengths, SMALL))
    # Measured times vary, and they are rounded: the wider of the two intervals.
    rounding = _resolution_s(model) / math.sqrt(12) * NS_PER_S / asked_ns
    deviation_s = 1.96 * np.sqrt(half**2 @ rounding**2)
    if freedom > 0:
        spread = math.sqrt(float(residuals @ residuals) / freedom)
        deviation_s = np.maximum(deviation_s, student.ppf(0.975, freedom) * spread * deviation)
    width = deviation_s / lengths / (values_s * NS_PER_S)
    # Where the interval is wide, the straight one: the logarithm of what may as well be 0 says nothing.
    narrow = np.minimum(width, 1.0)
    low = np.where(width < 1, values_s * np.exp(-narrow), np.maximum(0, values_s * (1 - width)))
    high = np.where(width < 1, values_s * np.exp(narrow), values_s * (1 + width))
    ends = [[float(v) if d else None for v, d in zip(end, determined, strict=True)] for end in (low, high)]
    return ends[0], ends[1], correlation, freedom


def _resolution_s(model: Model) -> float:
    """Return the unit of the last digit that the measured times are given with, at most a second."""
    exponents = [Decimal(repr(row.time_s)).normalize().as_tuple().exponent for row in model.rows]
    return 10.0 ** min(0, *(exponent for exponent in exponents if isinstance(exponent, int)))
