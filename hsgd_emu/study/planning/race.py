"""The race of schedules to a target: pure, over an oracle that learns.

What every schedule's clock shows at every iteration is known beforehand; only how many iterations it needs is not. So
all advance together in emulated time, each as far as its clock allows, and the first to reach the target in the median
over seeds and draws of the network has won. Nobody needs to be learned beyond that moment, and no other can be faster:
the answer is that of learning everything. In what steps they advance decides only what it costs.
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
    return float(_medians(times_s.reshape(-1, 1))[0])


def _medians(times_s: Floats) -> Floats:
    """Return the median of each column."""
    ordered = np.sort(times_s, axis=0)
    return np.asarray((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


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

    iterations: (E,) the evaluated ones.  time_s: (seeds, replications, E) when they end.  cost: of one iteration.
    """

    iterations: NDArray[np.int64]
    time_s: Floats
    cost: float = 1.0


@dataclass
class Curve:
    """One entrant and seed: the best figure up to each evaluated iteration, as far as it was taken."""

    iterations: NDArray[np.int64]
    time_s: Floats
    """(replications, E)"""
    best: list[float] = field(default_factory=list)
    reached: int | None = None
    """Place of the evaluation that reached the target."""
    diverged: bool = False
    """Before it reached the target."""

    @property
    def until(self) -> int:
        """The iteration up to which it is known."""
        return int(self.iterations[len(self.best) - 1]) if self.best else 0

    @property
    def is_open(self) -> bool:
        """Whether it has neither reached the target nor diverged, and has iterations left."""
        return self.reached is None and not self.diverged and len(self.best) < len(self.iterations)

    def take(self, value: float, target: float) -> bool:
        """Take the next evaluation; tell whether it was the last: the target, or no finite model any more."""
        before = self.best[-1] if self.best else -np.inf
        self.diverged = bool(np.isnan(value))
        self.best.append(value if value > before else before)
        if self.best[-1] >= target:
            self.reached = len(self.best) - 1
        return self.diverged or self.reached is not None

    def bounds_s(self) -> Floats:
        """Return (replications, E + 1) what reaching the target takes at least once n evaluations are known."""
        if self.reached is not None:
            return np.repeat(self.time_s[:, [self.reached]], self.time_s.shape[1] + 1, axis=1)
        never = np.full((len(self.time_s), 1), np.inf)
        return np.repeat(never, self.time_s.shape[1] + 1, axis=1) if self.diverged else np.hstack([self.time_s, never])

    def figures_at(self, moment_s: float) -> Floats:
        """Return (replications,) the best figure at a moment of emulated time; -inf before the first evaluation."""
        known = np.array([-np.inf, *self.best])
        places = [int(np.searchsorted(row[: len(self.best)], moment_s, side="right")) for row in self.time_s]
        return np.asarray(known[places])


class Racer:
    """One entrant in the race. Its open trials are always known up to the same evaluation."""

    def __init__(self, entrant: Entrant, target: float) -> None:
        self.entrant, self.target = entrant, target
        self.trials = [Curve(entrant.iterations, time_s) for time_s in entrant.time_s]
        self.num_known = 0
        """Evaluations that every open trial has."""
        self.away_until_s = -np.inf
        """Not before this moment does it go on: until then it is thought to be beaten."""
        self._bound()

    def _bound(self) -> None:
        # Monotone: what the median is at least once so many evaluations are known and no other trial has reached it.
        self.bound_s = _medians(np.vstack([trial.bounds_s() for trial in self.trials]))
        if self.num_diverged:
            self.bound_s = np.full_like(self.bound_s, np.inf)

    @property
    def num_diverged(self) -> int:
        """Seeds whose model was not finite before the target. A schedule with one of them is no answer."""
        return sum(trial.diverged for trial in self.trials)

    @property
    def at_least_s(self) -> float:
        """What its median cannot be below; once that is settled, the median itself."""
        return float(self.bound_s[self.num_known])

    @property
    def is_settled(self) -> bool:
        """Whether what is not known can no longer move the median."""
        return bool(self.bound_s[self.num_known] == self.bound_s[-1])

    def needs(self, moment_s: float) -> int:
        """Return how many evaluations tell that it has not reached the target before a moment."""
        wanted = min(int(np.searchsorted(self.bound_s, moment_s)), len(self.entrant.iterations))
        return self.num_known if self.is_settled else max(self.num_known, wanted)

    def open_seeds(self) -> list[int]:
        """Return the seeds, by their numbers, that go on."""
        return [seed for seed, trial in enumerate(self.trials) if trial.is_open]

    def iteration(self, num_evaluations: int) -> int:
        """Return the iteration of the last of so many evaluations."""
        return int(self.entrant.iterations[num_evaluations - 1]) if num_evaluations else 0

    def cost(self, moment_s: float) -> float:
        """Return what learning up to a moment costs at most while no further seed reaches the target."""
        steps = self.iteration(self.needs(moment_s)) - self.iteration(self.num_known)
        return steps * self.entrant.cost * len(self.open_seeds()) if steps else 0.0

    def take(self, found: Mapping[int, Mapping[int, float]], until: int) -> None:
        """Take what the open seeds have learned until an iteration, in its order, and no more than settles the median.

        So what is known does not depend on the steps in which it was learned.
        """
        for iteration in map(int, self.entrant.iterations[self.num_known :]):
            if iteration > until or self.is_settled:
                return
            ended = [self.trials[seed].take(found[seed][iteration], self.target) for seed in self.open_seeds()]
            self.num_known += 1
            if any(ended):
                self._bound()

    def times_s(self) -> Floats:
        """Return (seeds, replications) what reaching the target takes, inf where that is not known."""
        return np.array([trial.bounds_s()[:, -1] for trial in self.trials])

    def figures_at(self, moment_s: float) -> Floats:
        """Return (seeds, replications) the best figure at a moment, at most the target."""
        return np.minimum([trial.figures_at(moment_s) for trial in self.trials], self.target)

    def figure_at(self, moment_s: float) -> float:
        """Return the median of those; -inf: not evaluated in half of them."""
        return median_time(self.figures_at(moment_s))


Fate = Literal["reached", "never", "diverged", "beaten", "dropped", "open"]


@dataclass(frozen=True)
class Finding:
    """What is known of an entrant in the end.

    fate: reached (its median is known), never (it has no more iterations), diverged (with some seed, and so out of the
    race), beaten (its median is above the winner's for certain), dropped (that is likely), open (the budget was spent).
    time_s: the median over seeds and replications where reached, else inf.  at_least_s: what it cannot be below.
    cost: of what a dropped one would have learned at most.  racer: its curves.
    """

    fate: Fate
    racer: Racer
    time_s: float
    at_least_s: float
    cost: float = 0.0

    @property
    def times_s(self) -> Floats:
        """(seeds, replications), inf where not known to reach the target."""
        return self.racer.times_s()

    @property
    def until(self) -> list[int]:
        """Iterations learned, by seed."""
        return [trial.until for trial in self.racer.trials]


Judge = Callable[[Racer, Racer, float], tuple[float, float] | None]
"""How likely the first is ahead of the second when it reaches the target, and when that will be; None: no telling."""
Watch = Callable[[float, int, float], None]
"""Told the moment of emulated time, who leads (by number), and the share of all learning that was used."""
SLICE, FIRST = 1 / 4, 1 / 100
"""They advance by as much time as a quarter of what was learned so far costs, and at first a hundredth of all: each
trial is taken up about twenty times at most. The answer is the same for any other."""


class Race:
    """Learns entrants side by side; `run` returns a finding for each, in their order."""

    def __init__(
        self,
        entrants: Sequence[Entrant],
        target: float,
        learn: Learn,
        *,
        budget: float = 1.0,
        at_once: int = 1,
        confidence: float | None = None,
        judge: Judge | None = None,
        watch: Watch | None = None,
    ) -> None:
        """target: of the figure; budget: the most that is learned, a share of all; at_once: entrants that go on side by
        side; confidence: with which one is dropped that `judge` says is beaten (none: never).
        """
        self.racers = [Racer(entrant, target) for entrant in entrants]
        self.total = sum(racer.cost(np.inf) for racer in self.racers)
        self.learn, self.budget, self.at_once, self.watch = learn, budget * self.total, at_once, watch
        self.confidence, self.judge = confidence, judge
        self.used = 0.0
        self.now_s = 0.0
        """Up to here it is known of all that go on that they have not reached the target."""

    @property
    def best_s(self) -> float:
        """The least settled median; inf: none yet."""
        return min((racer.at_least_s for racer in self.racers if racer.is_settled), default=np.inf)

    @property
    def share(self) -> float:
        """Of all learning, what was used."""
        return self.used / self.total

    def leader(self) -> int:
        """Return who has got furthest by now, of those who can still win or have; who arrived earlier, then."""
        able = [number for number, racer in enumerate(self.racers) if racer.at_least_s < np.inf]
        # Of those with the same median whoever is ahead in the mean.
        return max(able or range(len(self.racers)), key=self._lead)

    def run(self) -> list[Finding]:
        """Race until the first has reached the target, none can any more, or the budget is spent."""
        while (live := self._live()) and self._advance(live):
            self.now_s = max(self.now_s, min((self.racers[n].at_least_s for n in live), default=np.inf))
            self.now_s = min(self.now_s, self.best_s)
            if self.watch:
                self.watch(self.now_s, self.leader(), self.share)
            self._drop()
        live, best_s = self._live(), self.best_s
        return [self._finding(racer, number in live, best_s) for number, racer in enumerate(self.racers)]

    def _live(self) -> list[int]:
        """Return those that can still be the first and are not away; where all of these are away, they."""
        best_s = self.best_s
        able = [n for n, racer in enumerate(self.racers) if not racer.is_settled and racer.at_least_s < best_s]
        live = [number for number in able if self.racers[number].away_until_s <= self.now_s]
        return live if live or best_s < np.inf else able

    def _lead(self, number: int) -> tuple[float, float, float]:
        racer = self.racers[number]
        arrived_s = racer.at_least_s if racer.is_settled else np.inf
        return racer.figure_at(self.now_s), -arrived_s, float(np.mean(racer.figures_at(self.now_s)))

    def _advance(self, live: Sequence[int]) -> bool:
        """Let all live ones advance to a common moment, the leading ones first; False: the budget does not allow it."""
        moment_s = self._next_moment(live)
        if self.used + self._cost(live, moment_s) > self.budget:
            return False
        order = sorted(live, key=self._lead, reverse=True)
        for begin in range(0, len(order), self.at_once):
            # A seed that reaches the target may ask for more of the others: the median can come earlier then.
            while asked := self._asked(order[begin : begin + self.at_once], min(moment_s, self.best_s)):
                if not self._learn(asked):
                    return False
        return True

    def _cost(self, live: Sequence[int], moment_s: float) -> float:
        return sum(self.racers[number].cost(moment_s) for number in live)

    def _next_moment(self, live: Sequence[int]) -> float:
        """Return the moment up to which a slice of the learning suffices, or the first that takes any."""
        allowed = min(max(SLICE * self.used, FIRST * self.total), self.budget - self.used)
        if self._cost(live, self.best_s) <= allowed:
            return self.best_s
        ends = [racer.bound_s[np.isfinite(racer.bound_s)].max() for racer in (self.racers[n] for n in live)]
        low, high = min(self.racers[number].at_least_s for number in live), min(max(ends) * (1 + 1e-9), self.best_s)
        for _ in range(50):
            between = (low + high) / 2
            low, high = (between, high) if self._cost(live, between) <= allowed else (low, between)
        return low if self._cost(live, low) else high

    def _asked(self, numbers: Sequence[int], moment_s: float) -> dict[int, int]:
        """Return up to which iteration each of these that has to is learned."""
        needed = {number: self.racers[number].needs(moment_s) for number in numbers}
        racers = self.racers
        return {n: racers[n].iteration(needs) for n, needs in needed.items() if needs > racers[n].num_known}

    def _learn(self, asked: Mapping[int, int]) -> bool:
        """Learn and take what is asked for; False: the budget does not allow it."""
        requests, cost = [], 0.0
        for number, until in asked.items():
            racer = self.racers[number]
            seeds = racer.open_seeds()
            requests += [Request(number, seed, until) for seed in seeds]
            cost += racer.entrant.cost * sum(until - racer.trials[seed].until for seed in seeds)
        if self.used + cost > self.budget:
            return False
        self.used += cost
        found: dict[int, dict[int, Mapping[int, float]]] = {number: {} for number in asked}
        for request, values in zip(requests, self.learn(requests), strict=True):
            found[request.entrant][request.seed] = values
        for number, until in asked.items():
            self.racers[number].take(found[number], until)
        return True

    def _drop(self) -> None:
        """Send away who is likely to be beaten by the leading one, until that should have arrived."""
        first = self.racers[self.leader()]
        if self.confidence is None or self.judge is None or first.is_settled:
            return
        for number in self._live():
            racer = self.racers[number]
            caught_up = racer.at_least_s >= self.now_s
            judged = self.judge(first, racer, self.now_s) if caught_up and racer is not first else None
            if judged is not None and judged[0] >= self.confidence:
                racer.away_until_s = judged[1]

    def _finding(self, racer: Racer, is_live: bool, best_s: float) -> Finding:
        fate: Fate = "open" if is_live else "beaten" if racer.at_least_s >= best_s else "dropped"
        if racer.is_settled:
            fate = "diverged" if racer.num_diverged else "never" if np.isinf(racer.at_least_s) else "reached"
        cost = racer.cost(best_s) if fate == "dropped" else 0.0
        return Finding(fate, racer, racer.at_least_s if racer.is_settled else np.inf, racer.at_least_s, cost)
