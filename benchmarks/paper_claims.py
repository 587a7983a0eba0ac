"""What the paper says of its curves, held against ours: shown, not shown, or no data, each with the numbers.

Curves are compared at the evaluations that both have, of the seeds that both have, by the median over seeds. One lies
above another if its accuracy is higher in the mean over these evaluations and at least as high at more than half of
them. That is a reading of figures: it knows nothing of how sure it is, so the number of seeds stands beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hsgd_emu.results.wording import CaseSummary, TargetSummary, number, target_label

Verdict = Literal["shown", "not shown", "no data"]
LEAST_EVALUATIONS = 5
CLOSE = 0.02
"""Accuracies whose means differ by at most this are close."""
NON_IID = ("group_non_iid", "by_label")
"""With ten workers and ten classes both are the same: a class for each worker, five in each of two groups."""


@dataclass(frozen=True)
class Curve:
    """Test accuracy by seed and iteration of one schedule.

    periods: (P,), (G, I) and so on; num_groups: 1 for local SGD, which knows none.
    """

    periods: tuple[int, ...]
    num_groups: int
    partition: str
    accuracy: dict[int, dict[int, float]]

    @property
    def is_local_sgd(self) -> bool:
        return len(self.periods) == 1

    @property
    def name(self) -> str:
        if self.is_local_sgd:
            return f"P={self.periods[0]}"
        groups = "" if self.num_groups == 2 else f" N={self.num_groups}"
        partition = (
            "" if self.partition == "by_label" else f" ({self.partition.replace('_', '-').replace('iid', 'IID')})"
        )
        return f"G={self.periods[0]} I={self.periods[-1]}{groups}{partition}"


@dataclass(frozen=True)
class Claim:
    """One thing the paper says, and what our runs say to it. details: the numbers, a line each."""

    text: str
    verdict: Verdict
    details: tuple[str, ...]

    def lines(self) -> list[str]:
        return [f"{self.verdict}: {self.text}", *(f"  {line}" for line in self.details)]


@dataclass(frozen=True)
class Gap:
    """One curve over another: at how many common evaluations it is at least as high, and by how much in the mean."""

    above: str
    below: str
    num: int
    num_above: int
    mean: float
    num_seeds: int
    until: int

    @property
    def is_above(self) -> bool:
        return self.mean > 0 and 2 * self.num_above > self.num

    def text(self) -> str:
        seeds = "one seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"
        at = f"at least as high at {self.num_above} of {self.num} evaluations until iteration {self.until:,}"
        return f"{self.above} over {self.below}: {100 * self.mean:+.1f} points in the mean, {at}, {seeds}"


def gap(above: Curve, below: Curve) -> Gap | None:
    """Return how one curve lies over another, or None where they have too few evaluations in common."""
    seeds = [seed for seed in above.accuracy if seed in below.accuracy]
    curves = [curve.accuracy[seed] for seed in seeds for curve in (above, below)]
    common = sorted(set(curves[0]).intersection(*curves)) if curves else []
    if len(common) < LEAST_EVALUATIONS:
        return None
    medians = [
        [statistics.median(curve.accuracy[seed][at] for seed in seeds) for at in common] for curve in (above, below)
    ]
    apart = [one - other for one, other in zip(*medians, strict=True)]
    num_above = sum(one >= 0 for one in apart)
    mean = statistics.fmean(apart)
    return Gap(above.name, below.name, len(common), num_above, mean, len(seeds), common[-1])


def judged(text: str, gaps: Iterable[Gap | None], holds: Callable[[Gap], bool] = lambda one: one.is_above) -> Claim:
    """Return a claim that is shown if it holds for every pair of curves that can be compared."""
    found = [one for one in gaps if one is not None]
    if not found:
        return Claim(text, "no data", ())
    verdict: Verdict = "shown" if all(map(holds, found)) else "not shown"
    return Claim(text, verdict, tuple(f"{one.text()}{'' if holds(one) else ' (not so)'}" for one in found))


def find(curves: Sequence[Curve], periods: tuple[int, ...], partition: str = "by_label") -> Curve | None:
    """Return the curve of these periods with this partition; of H-SGD the one with two groups."""
    alike = (one for one in curves if one.periods == periods and one.partition == partition)
    return next((one for one in alike if one.is_local_sgd or one.num_groups == 2), None)


# --- the claims -------------------------------------------------------------------------------------


def hsgd_is_first(summaries: Sequence[CaseSummary]) -> Claim:
    """H-SGD before every local SGD, in emulated time to the run's highest accuracy (Table 2)."""
    levels = [t.target for s in summaries for t in s.targets if t.metric == "test_accuracy"]
    if not levels:
        return Claim("H-SGD reaches the target before every local SGD", "no data", ())
    target = max(levels)
    text = f"H-SGD reaches {target_label('test_accuracy', target)} before every local SGD (Table 2)"
    found = {s: t for s in summaries for t in s.targets if (t.metric, t.target) == ("test_accuracy", target)}
    lines = tuple(f"{summary.case}: {_reached(summary, one)}" for summary, one in found.items())
    if any(one.num_seeds == 0 for one in found.values()):
        return Claim(text, "no data", lines)
    groups: dict[bool, list[float]] = {True: [], False: []}
    for summary, one in found.items():
        groups[summary.local_sgd].append(float("inf") if one.median_time_s is None else one.median_time_s)
    # Where nobody reached it, or there is nobody to be compared with, nothing is known.
    if not all(groups.values()) or min(groups[True] + groups[False]) == float("inf"):
        return Claim(text, "no data", lines)
    return Claim(text, "shown" if max(groups[False]) < min(groups[True]) else "not shown", lines)


def _reached(summary: CaseSummary, target: TargetSummary) -> str:
    if target.num_seeds == 0:
        return "no seed is finished"
    seeds = f"{target.num_reached} of {target.num_seeds} seeds"
    if target.median_time_s is None:
        return f"not reached in {summary.final_iteration or 0:,.0f} iterations ({seeds})"
    return f"{number(target.median_time_s)} s, {target.median_iterations or 0:,.0f} iterations ({seeds})"


def sandwich(curves: Sequence[Curve]) -> Claim:
    """H-SGD between local SGD with P = G and with P = I, in iterations (Figure 3a, Remark 4)."""
    gaps = []
    for curve in curves:
        if len(curve.periods) != 2:
            continue
        often, seldom = (find(curves, (period,), curve.partition) for period in reversed(curve.periods))
        gaps += [gap(often, curve)] if often else []
        gaps += [gap(curve, seldom)] if seldom else []
    return judged("in iterations H-SGD lies between local SGD with P = G (below) and P = I (above) (Figure 3a)", gaps)


def more_groups_are_worse(curves: Sequence[Curve]) -> Claim:
    """The same G and I with larger N (Figure 3a, Remark 4)."""
    pairs = [
        (few, many)
        for few in curves
        for many in curves
        if not few.is_local_sgd
        and (few.periods, few.partition) == (many.periods, many.partition)
        and few.num_groups < many.num_groups
    ]
    return judged("with larger N the performance is worse (Figure 3a)", (gap(few, many) for few, many in pairs))


def smaller_i_makes_up_for_larger_g(curves: Sequence[Curve]) -> Claim:
    """G=200 I=2 against G=50 I=5 (Figures 3a and 3b, Theorem 2)."""
    one, other = find(curves, (200, 2)), find(curves, (50, 5))
    gaps = [gap(one, other)] if one and other else []
    return judged("G=200 I=2 is better than G=50 I=5 (Figure 3b)", gaps)


def is_like_frequent_local_sgd(curves: Sequence[Curve]) -> Claim:
    """G=50 I=5 against P=10 (Figures 3a and 3b)."""
    one, other = find(curves, (50, 5)), find(curves, (10,))
    text = f"G=50 I=5 is similar to P=10: within {100 * CLOSE:g} points in the mean (Figure 3b)"
    return judged(text, [gap(one, other)] if one and other else [], _is_close)


def group_iid_saves_local_aggregations(curves: Sequence[Curve]) -> Claim:
    """Group-IID with I against group-non-IID with half of it (Figure 3c, Theorem 1)."""
    gaps = []
    for curve in curves:
        if curve.partition != "group_iid" or curve.is_local_sgd or curve.periods[-1] % 2:
            continue
        periods = (*curve.periods[:-1], curve.periods[-1] // 2)
        halves = (find(curves, periods, name) for name in NON_IID)
        gaps.append(next((one for half in halves if half and (one := gap(curve, half))), None))
    text = f"group-IID is within {100 * CLOSE:g} points of group-non-IID with half the I in the mean (Figure 3c)"
    return judged(text, gaps, _is_close)


def _is_close(one: Gap) -> bool:
    return abs(one.mean) <= CLOSE


def all_claims(summaries: Sequence[CaseSummary], curves: Sequence[Curve]) -> list[Claim]:
    """Return what the paper claims, in its order; summaries: of Table 2's run, empty where it is not there."""
    return [
        hsgd_is_first(summaries),
        sandwich(curves),
        more_groups_are_worse(curves),
        smaller_i_makes_up_for_larger_g(curves),
        is_like_frequent_local_sgd(curves),
        group_iid_saves_local_aggregations(curves),
    ]
