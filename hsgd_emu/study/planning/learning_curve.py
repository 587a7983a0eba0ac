"""What one trial of a search has learned so far, on its clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def median_time(times_s: Floats) -> float:
    """Return the median of times, inf = never (the rule of `results.summary.median_reached`)."""
    low, high = middle(times_s)
    return (low + high) / 2


def middle(times_s: Floats) -> tuple[float, float]:
    """Return the two middle values; of an odd number the one twice."""
    ordered = np.sort(times_s, axis=None)
    return float(ordered[(ordered.size - 1) // 2]), float(ordered[ordered.size // 2])


@dataclass
class Curve:
    """One entrant and seed: how far it has learned, and the best figure up to each evaluated iteration."""

    iterations: NDArray[np.int64]
    time_s: Floats
    best: list[float] = field(default_factory=list)
    reached: int | None = None
    """Place of the evaluation that reached the target."""
    diverged: bool = False
    """Before it reached the target."""

    @property
    def until(self) -> int:
        return int(self.iterations[len(self.best) - 1]) if self.best else 0

    @property
    def is_open(self) -> bool:
        """Whether it has neither reached the target nor diverged, and has iterations left."""
        return self.reached is None and not self.diverged and len(self.best) < len(self.iterations)

    def take(self, values: Mapping[int, float], until: int, target: float) -> None:
        """Take what was learned up to an iteration; what the oracle may know beyond it does not count yet."""
        for iteration in map(int, self.iterations[len(self.best) : self.place_of(until + 1)]):
            value, before = values[iteration], self.best[-1] if self.best else -np.inf
            self.diverged |= self.reached is None and bool(np.isnan(value))
            self.best.append(before if self.diverged or not value > before else value)
            if self.reached is None and self.best[-1] >= target:
                self.reached = len(self.best) - 1

    def place_of(self, iteration: float) -> int:
        """Return the place of the first evaluation at or after an iteration."""
        return int(np.searchsorted(self.iterations, iteration))

    def at_s(self, iteration: float) -> Floats:
        """Return (replications,) when the first evaluation at or after an iteration ends; inf where there is none."""
        place = self.place_of(iteration)
        return self.time_s[:, place] if place < len(self.iterations) else np.full(len(self.time_s), np.inf)

    def least_s(self) -> Floats:
        """Return (replications,) what reaching the target takes at least; inf: never."""
        if self.diverged:
            return np.full(len(self.time_s), np.inf)
        return self.at_s(self.until + 1) if self.reached is None else self.time_s[:, self.reached]

    def most_s(self) -> Floats:
        """Return (replications,) what reaching the target takes, inf where that is not known."""
        return np.full(len(self.time_s), np.inf) if self.reached is None else self.time_s[:, self.reached]
