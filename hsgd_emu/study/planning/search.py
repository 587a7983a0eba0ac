"""The search for the schedule that reaches a target first: pure, over an oracle that learns.

What every schedule's clock shows at every iteration is known beforehand; only how many iterations it needs is not. So
the schedule that looks fastest is always learned a little further, and the others wait. How fast one looks: it has got
as far in n iterations as the best of all had got in m, so it is expected to need n / m times the best one's iterations.
Once a schedule has reached the target at time B, those whose clock passes B unreached are beaten for certain, and those
that would have to learn several times as fast as they have shown are dropped. None is expected to need fewer iterations
than those that average at least as often everywhere (the sandwich of Wang et al. 2022). This is successive halving
without its fixed rungs: a step is taken only where it can change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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


FIRST_SHARE = 1 / 16
"""Of the iterations, that a schedule is learned for before it is judged (and one evaluation at least)."""
GROWTH = 1.5
"""A trial goes on to this many times the iterations it has."""
DOUBT = 3.0
"""A schedule is dropped when it would have to learn this many times as fast as it has shown."""


class Request(NamedTuple):
    """Learn the trial of an entrant and a seed (by their numbers) up to an iteration."""

    entrant: int
    seed: int
    until: int


Learn = Callable[[Sequence[Request]], Sequence[Mapping[int, float]]]
"""Returns by request the figure of the target at every evaluated iteration so far; larger is better."""


@dataclass(frozen=True)
class Entrant:
    """What is known of a schedule before it has learned anything.

    iterations: (E,) the evaluated ones.  time_s: (seeds, replications, E) when they end.  oftener: the entrants (by
    their numbers) that average at least as often everywhere.  cost: of one iteration.
    """

    iterations: NDArray[np.int64]
    time_s: Floats
    oftener: tuple[int, ...] = ()
    cost: float = 1.0


Fate = Literal["reached", "never", "diverged", "beaten", "dropped", "open"]


@dataclass(frozen=True)
class Finding:
    """What is known of an entrant in the end.

    fate: reached, never (it has no more iterations), diverged (with some seed, and so out of the race), beaten (its
    clock passed the best time unreached: for certain), dropped (it looked too slow), open (the budget was spent).
    time_s: the median over seeds and replications where reached, else how long it looks to take; inf: never.
    at_least_s: what that median cannot be below.  times_s: (seeds, replications), inf where not known to reach.
    until: by seed, iterations learned.  best: by seed, the best figure so far (-inf: none).  num_diverged: seeds.
    """

    fate: Fate
    time_s: float
    at_least_s: float
    times_s: Floats
    until: tuple[int, ...]
    best: tuple[float, ...]
    num_diverged: int = 0


class Search:
    """Learns entrants step by step; `run` returns a finding for each, in their order."""

    def __init__(
        self, entrants: Sequence[Entrant], target: float, learn: Learn, budget: float = np.inf, at_once: int = 1
    ) -> None:
        """target: of the figure; budget: the most that learning may cost; at_once: entrants learned side by side."""
        self.entrants, self.target, self.learn, self.budget, self.at_once = entrants, target, learn, budget, at_once
        self.trials = [[Curve(entrant.iterations, time_s) for time_s in entrant.time_s] for entrant in entrants]
        self.num_iterations = max(int(entrant.iterations[-1]) for entrant in entrants)
        self.front = np.full((len(entrants[0].time_s), self.num_iterations + 1), -np.inf)
        """By seed and iteration: the best figure that any entrant had got by then."""
        self.used = 0.0

    def run(self) -> list[Finding]:
        """Learn until the answer is settled, or the budget spent."""
        while True:
            best_s = self._best_s()
            live = [number for number in range(len(self.entrants)) if self._is_live(number, best_s)]
            chosen = sorted(live, key=self._looks_s)[: self.at_once]
            requests = [request for number in chosen for request in self._steps(number, best_s)]
            requests = self._affordable(requests or self._last_steps(best_s))
            if not requests:
                return [self._finding(number, best_s, number in live) for number in range(len(self.entrants))]
            for request, values in zip(requests, self.learn(requests), strict=True):
                self._take(request, values)

    def _affordable(self, requests: Sequence[Request]) -> list[Request]:
        """Return the first requests that the budget allows, and pay for them."""
        found = []
        for entrant, seed, until in requests:
            cost = (until - self.trials[entrant][seed].until) * self.entrants[entrant].cost
            if self.used + cost > self.budget:
                break
            self.used += cost
            found.append(Request(entrant, seed, until))
        return found

    def _take(self, request: Request, values: Mapping[int, float]) -> None:
        trial, front = self.trials[request.entrant][request.seed], self.front[request.seed]
        begin = len(trial.best)
        trial.take(values, request.until, self.target)
        for iteration, best in zip(trial.iterations[begin:], trial.best[begin:], strict=False):
            front[iteration : max(iteration, np.searchsorted(front, best))] = best

    def _best_s(self) -> float:
        """Return the least settled time to the target; inf: none yet."""
        return min((self._at_least_s(n) for n in range(len(self.entrants)) if self._is_settled(n)), default=np.inf)

    def _least_s(self, number: int) -> Floats:
        """Return (seeds, replications) the least that reaching the target can take; inf: never.

        A schedule that diverges with any seed is no answer, whatever the others do.
        """
        times_s = np.array([trial.least_s() for trial in self.trials[number]])
        return np.full_like(times_s, np.inf) if self._num_diverged(number) else times_s

    def _most_s(self, number: int) -> Floats:
        times_s = np.array([trial.most_s() for trial in self.trials[number]])
        return np.full_like(times_s, np.inf) if self._num_diverged(number) else times_s

    def _num_diverged(self, number: int) -> int:
        return sum(trial.diverged for trial in self.trials[number])

    def _is_settled(self, number: int) -> bool:
        """Tell whether what is not known of some seeds can no longer move the median."""
        return middle(self._least_s(number)) == middle(self._most_s(number))

    def _at_least_s(self, number: int) -> float:
        return median_time(self._least_s(number))

    def _is_live(self, number: int, best_s: float) -> bool:
        return not self._is_settled(number) and self._looks_s(number, DOUBT) < best_s

    def _looks_s(self, number: int, faster: float = 1.0) -> float:
        """Return how long an entrant looks to take until the target, or until as far as any has got yet.

        faster: as if it learned this many times as fast as it, or one that averages oftener, has shown.
        """
        found = []
        for seed, trial in enumerate(self.trials[number]):
            slowness = max(self._slowness(one, seed) for one in (number, *self.entrants[number].oftener))
            needed = max(trial.until + 1, slowness * self._goal(seed) / faster)
            found.append(trial.at_s(needed) if trial.reached is None else trial.most_s())
        return median_time(np.array(found))

    def _goal(self, seed: int) -> float:
        """Return the iteration at which any entrant had reached the target, or had got as far as any has."""
        front = self.front[seed]
        return float(np.searchsorted(front, min(self.target, front[-1])))

    def _slowness(self, number: int, seed: int) -> float:
        """Return how many times the iterations of the best of all an entrant has needed so far; 1: not known."""
        trial = self.trials[number][seed]
        if not trial.best:
            return 1.0
        if trial.reached is not None:
            return max(1.0, int(trial.iterations[trial.reached]) / max(1.0, self._goal(seed)))
        # Until any got beyond where this one is: a standstill that all share is held against none.
        return max(1.0, trial.until / int(np.searchsorted(self.front[seed], trial.best[-1], side="right")))

    def _steps(self, number: int, best_s: float) -> list[Request]:
        """Return the next step of every seed that can still change whether this entrant is the best."""
        least_s = self._least_s(number)
        # Of an even number, an early one of the two middle values makes up for a late one.
        late_s = best_s if least_s.size % 2 else 2 * best_s - middle(least_s)[0]
        known_s = min(late_s, middle(self._most_s(number))[1])
        return [
            Request(number, seed, self._next(trial, known_s))
            for seed, trial in enumerate(self.trials[number])
            if trial.reached is None and trial.least_s().min() < known_s
        ]

    def _last_steps(self, best_s: float) -> list[Request]:
        """Return steps for the seeds of the best one that could not change its median: its spread is worth knowing."""
        known = [n for n in range(len(self.entrants)) if self._is_settled(n) and self._at_least_s(n) == best_s < np.inf]
        return [
            Request(number, seed, self._next(trial, np.inf))
            for number in known[:1]
            for seed, trial in enumerate(self.trials[number])
            if trial.is_open
        ]

    def _next(self, trial: Curve, known_s: float) -> int:
        """Return how far a trial is learned next: not beyond where the clock shows what is known to be too late."""
        wanted = trial.place_of(max(FIRST_SHARE * self.num_iterations, GROWTH * trial.until))
        in_time = int(np.searchsorted(trial.time_s.min(axis=0), known_s)) - 1
        return int(trial.iterations[max(len(trial.best), min(wanted, in_time, len(trial.iterations) - 1))])

    def _finding(self, number: int, best_s: float, is_live: bool) -> Finding:
        settled, at_least_s = self._is_settled(number), self._at_least_s(number)
        fate: Fate = "open" if is_live else "beaten" if at_least_s >= best_s else "dropped"
        trials, num_diverged = self.trials[number], self._num_diverged(number)
        if settled:
            fate = "diverged" if num_diverged else "never" if np.isinf(at_least_s) else "reached"
        return Finding(
            fate=fate,
            time_s=at_least_s if settled else self._looks_s(number),
            at_least_s=at_least_s,
            times_s=np.array([trial.most_s() for trial in trials]),
            until=tuple(trial.until for trial in trials),
            best=tuple(trial.best[-1] if trial.best else -np.inf for trial in trials),
            num_diverged=num_diverged,
        )
