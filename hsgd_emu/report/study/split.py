"""Which axis tells most about the fastest case: for studies whose scenarios are no grid, so no crossover is at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hsgd_emu.report.study.content import Integers, StudyContent, Target


@dataclass(frozen=True)
class Split:
    """Scenarios cut in two by one numeric axis. low, high: (the case fastest most often, how often, of how many)."""

    axis: int
    value: float
    right: int
    """Scenarios whose fastest case is that of their side."""
    low: tuple[int, int, int]
    high: tuple[int, int, int]


def splits(content: StudyContent, target: Target) -> list[Split]:
    """Return the best cut of each numeric axis that tells more than the most frequent case, the best axis first."""
    reached = np.flatnonzero(target.best_S >= 0)
    best = target.best_S[reached]
    found = []
    for i, axis in enumerate(content.axes):
        if axis.numbers is not None and len(axis.numbers) > 1 and len(reached):
            split = _cut(i, np.array(axis.numbers)[content.places_SA[reached, i]], best, len(content.cases))
            if split and split.right > np.bincount(best).max():
                found.append(split)
    return sorted(found, key=lambda split: -split.right)


def _cut(
    axis: int, numbers_S: np.ndarray[tuple[int], np.dtype[np.float64]], best_S: Integers, num: int
) -> Split | None:
    order = np.argsort(numbers_S, kind="stable")
    numbers_S, best_S = numbers_S[order], best_S[order]
    low_SC = np.cumsum(best_S[:, None] == np.arange(num), axis=0)
    high_SC = low_SC[-1] - low_SC
    right_S = low_SC.max(axis=1) + high_SC.max(axis=1)
    ends = np.flatnonzero(numbers_S[:-1] < numbers_S[1:])
    if not len(ends):
        return None
    last = int(ends[right_S[ends].argmax()])
    low, high = int(low_SC[last].argmax()), int(high_SC[last].argmax())
    return Split(
        axis=axis,
        value=float(numbers_S[last] + numbers_S[last + 1]) / 2,
        right=int(right_S[last]),
        low=(low, int(low_SC[last, low]), last + 1),
        high=(high, int(high_SC[last, high]), len(best_S) - last - 1),
    )
