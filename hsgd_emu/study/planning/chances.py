"""How sure is the order of two schedules in a race? Paired over seeds, for these learn independently of each other.

The draws of the network of one seed share what it learned, so they are averaged. One seed has no spread: it tells
nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.study.planning.race import Curve, Racer

Floats = NDArray[np.float64]
SURE = 0.95
"""With which two schedules are said to be told apart."""
MOST_SEEDS = 1000


def ahead_when_it_arrives(first: Racer, other: Racer, now_s: float) -> tuple[float, float] | None:
    """Return how likely the leading one is still ahead when it reaches the target, and when that should be.

    As far back as ahead: where its median figure was as far below today's as the target is above, at t_s, it is
    expected at the target at now_s**2 / t_s. Its lead over the other one (of figures at equal emulated time) is
    expected to go on changing meanwhile as it has since t_s, to 2 lead(now) - lead(t). How far off that may be, the
    curves tell: by how much the same guess, made at t_s from as far back again, missed today's lead. The chance is that
    of Student's t that the mean over seeds is above 0, with that miss added to the spread of the mean.

    None: there is no such t_s, one of both was not evaluated as far back, or there is one seed.
    """
    back_s = _moment_of(first, 2 * first.figure_at(now_s) - first.target, now_s)
    if back_s is None:
        return None
    now, back, further = (_lead(first, other, moment_s) for moment_s in (now_s, back_s, back_s * back_s / now_s))
    with np.errstate(invalid="ignore"):
        chance = _chance(2 * now - back, now - (2 * back - further))
    return None if chance is None else (chance, now_s * now_s / back_s)


def ahead_now(first: Racer, other: Racer, now_s: float) -> float | None:
    """Return how likely the leading one is ahead: when it arrives if that can be told, else at present."""
    told = ahead_when_it_arrives(first, other, now_s)
    return told[0] if told is not None else _chance(_lead(first, other, now_s), np.zeros(1))


def _moment_of(racer: Racer, figure: float, now_s: float) -> float | None:
    """Return the last moment at which the median figure was not above one; None: it had none then."""
    times_s = np.unique(racer.entrant.time_s)
    times_s = times_s[times_s <= now_s]
    low, high = 0, len(times_s)  # the figure at place high is above
    while low < high:
        between = (low + high) // 2
        low, high = (between + 1, high) if racer.figure_at(times_s[between]) <= figure else (low, between)
    return float(times_s[low - 1]) if low and np.isfinite(racer.figure_at(times_s[low - 1])) else None


def _lead(first: Racer, other: Racer, moment_s: float) -> Floats:
    """Return (seeds,) by how much the first's figure is above the other's; not finite where one has none."""
    with np.errstate(invalid="ignore"):
        return np.asarray((first.figures_at(moment_s) - other.figures_at(moment_s)).mean(axis=1))


def _chance(lead: Floats, missed: Floats) -> float | None:
    from scipy.stats import t

    if len(lead) < 2 or not (np.isfinite(lead).all() and np.isfinite(missed).all()):
        return None
    error = np.sqrt(lead.var(ddof=1) / len(lead) + np.mean(missed**2))
    if error == 0:
        return float((np.sign(lead[0]) + 1) / 2)
    return float(t.cdf(lead.mean() / error, len(lead) - 1))


class Lag(NamedTuple):
    """How much longer than the winner a schedule takes: 0.05 = 5% longer, as far as it was learned.

    told_apart: with `SURE`.  num_seeds: about how many seeds would tell; None: more than `MOST_SEEDS`.
    """

    share: float
    told_apart: bool
    num_seeds: int | None


def lag_behind(winner: Racer, other: Racer) -> Lag | None:
    """Return the lag of a schedule behind the winner; None: one seed, or it was not evaluated.

    Compared are the logarithms of the times of the same seed and draw: until the target where both have reached it, and
    where not, until they got beyond the lower one of their best figures: the one has its time, and the other would need
    its next evaluation at least.
    """
    if len(winner.trials) < 2 or not all(trial.best for trial in (*winner.trials, *other.trials)):
        return None
    lags = np.array([_lag(a, b) for a, b in zip(winner.trials, other.trials, strict=True)])
    mean, spread = float(lags.mean()), float(lags.std(ddof=1))
    told = mean > 0 and _interval(spread, len(lags)) < mean
    enough = (num for num in range(2, MOST_SEEDS + 1) if _interval(spread, num) < mean)
    return Lag(float(np.expm1(mean)), told, next(enough, None))


def _interval(spread: float, num: int) -> float:
    """Return how far the mean of so many may be off on one side."""
    from scipy.stats import t

    return float(t.ppf(SURE, num - 1) * spread / np.sqrt(num))


def _lag(winner: Curve, other: Curve) -> float:
    """Return the mean over draws of log(time of the other / time of the winner)."""
    if winner.reached is None and other.reached is None and winner.best[-1] == other.best[-1]:
        return 0.0
    if winner.reached is None and (other.reached is not None or winner.best[-1] < other.best[-1]):
        return -_lag(other, winner)
    place = winner.reached
    if other.reached is None:
        place = int(np.searchsorted(winner.best, other.best[-1], side="right"))
    assert place is not None
    behind = len(other.best) if other.reached is None else other.reached
    behind_s = other.time_s[:, min(behind, other.time_s.shape[1] - 1)]
    return float(np.mean(np.log(_later(behind_s) / _later(winner.time_s[:, place]))))


def _later(times_s: Floats) -> Floats:
    """Return times that have a logarithm: a network may cost nothing."""
    return np.maximum(times_s, 1e-9)
