"""Where the best case changes along an axis, and such boundaries in words, by the simplest law that they obey."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.results.wording import number, target_label

_MOST_HALVINGS = 30  # only next to zero are they all needed: there an interval never gets narrow against its end

Medians = Mapping[str, float]
"""The median time to the target of each case in seconds, in case order; inf: never."""


@dataclass(frozen=True)
class Line:
    """One numeric axis, all others fixed: its values and the best case at each (None: no case reaches the target)."""

    values: Sequence[float]
    best: Sequence[str | None]


@dataclass(frozen=True)
class Crossing:
    """A change of the best case along a line: `below` wins for smaller values, `above` for greater ones."""

    below: str
    above: str
    value: float


@dataclass(frozen=True)
class Crossover:
    """One row of the table `crossovers`: a crossing along `axis`, and the values of all other axes (`fixed`)."""

    metric: str
    target: float
    axis: str
    fixed: Mapping[str, float | str]
    below: str
    above: str
    value: float


def best_case(medians_s: Medians) -> str | None:
    """Return the case with the least median; the first of a tie; None where no case reaches the target."""
    case = min(medians_s, key=lambda case: medians_s[case], default=None)
    return None if case is None or math.isinf(medians_s[case]) else case


# --- the search ---------------------------------------------------------------------------------------


def find_all(
    lines: Sequence[Line],
    evaluate: Callable[[Sequence[tuple[int, float]]], Sequence[Medians]],
    rel_tol: float = 1e-3,
) -> list[list[Crossing]]:
    """Return where the best case changes along each of many lines, least value first.

    Halves each interval whose ends have different best cases, by ratio where both ends are above zero, else by
    difference, until it is narrower than `rel_tol` times its greater end. Where the middle belongs to a third case both
    halves are searched. Where times are linear in the axis (constant RTTs) each case is best in one interval at
    most, so every change is found. Not found: a case that wins only between two neighbouring values with one and the
    same best case, or only in less than the tolerance.

    Args:    evaluate: takes (place of the line, axis value) pairs, the middles of one round of all lines, so that one
             call of the clock can time them all; returns the medians of each pair.
    """
    ends = (sorted(zip(line.values, line.best, strict=True), key=lambda end: end[0]) for line in lines)
    intervals = (_Interval(n, low, high, a, b) for n, e in enumerate(ends) for (low, a), (high, b) in pairwise(e))
    todo = list(_changes(intervals))
    found: list[_Interval] = []
    for _ in range(_MOST_HALVINGS):
        found += [interval for interval in todo if interval.is_narrow(rel_tol)]
        todo = [interval for interval in todo if not interval.is_narrow(rel_tol)]
        if not todo:
            break
        medians = evaluate([(interval.line, interval.middle) for interval in todo])
        halves = [interval.halves(best_case(at)) for interval, at in zip(todo, medians, strict=True)]
        todo = list(_changes(half for both in halves for half in both))
    crossings: list[list[Crossing]] = [[] for _ in lines]
    for interval in sorted(found + todo, key=lambda interval: interval.low):
        crossings[interval.line].append(interval.crossing())
    return crossings


@dataclass(frozen=True)
class _Interval:
    line: int
    low: float
    high: float
    below: str | None
    above: str | None

    @property
    def middle(self) -> float:
        return math.sqrt(self.low) * math.sqrt(self.high) if self.low > 0 else (self.low + self.high) / 2

    def is_narrow(self, rel_tol: float) -> bool:
        return self.high - self.low <= rel_tol * max(abs(self.low), abs(self.high))

    def halves(self, best: str | None) -> tuple[_Interval, _Interval]:
        return replace(self, high=self.middle, above=best), replace(self, low=self.middle, below=best)

    def crossing(self) -> Crossing:
        assert self.below is not None
        assert self.above is not None
        return Crossing(self.below, self.above, self.middle)


def _changes(intervals: Iterable[_Interval]) -> Iterator[_Interval]:
    """Keep those with different best cases at their ends. Where no case reaches the target there is none to change."""
    return (i for i in intervals if i.below is not None and i.above is not None and i.below != i.above)


# --- in words -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Boundary:
    """The crossovers from one case to another along one axis (equal in all axes that are not numeric)."""

    rows: Sequence[Crossover]
    law: Law | None

    @property
    def axis(self) -> str:
        return self.rows[0].axis

    @property
    def num_terms(self) -> float:
        return math.inf if self.law is None else self.law.num_terms


def sentences(crossovers: Sequence[Crossover], axes: Mapping[str, str]) -> list[str]:
    """Return one sentence per boundary between two cases, those with the most crossovers first.

    `To 80% test accuracy, H-SGD G=50 I=5 wins over local SGD P=10 while far/near > 3.2.` The law is the simplest that
    its crossovers obey (see `boundary.simplest_law`), else the least and the greatest crossover are told. A boundary
    seen along several axes is told along the one with the simplest law. It was seen between the study's values only.

    Args:    axes: the numeric axes in order, with their unit ("s" or ""). Crossovers that differ in any other fixed
             axis are boundaries of their own.
    """

    def kind(row: Crossover) -> Hashable:
        others = tuple((name, str(value)) for name, value in row.fixed.items() if name not in axes)
        return row.metric, row.target, tuple(sorted((row.below, row.above))), tuple(sorted(others))

    told: list[_Boundary] = []
    for between in _groups(crossovers, kind):
        seen = [_boundary(rows, axes) for rows in _groups(between, lambda row: (row.axis, row.below))]
        simplest = min(seen, key=lambda seen: (seen.num_terms, -len(seen.rows), list(axes).index(seen.axis)))
        told += [boundary for boundary in seen if boundary.axis == simplest.axis]
    told.sort(key=lambda boundary: -len(boundary.rows))
    return [_sentence(boundary, axes) for boundary in told]


_T = TypeVar("_T")


def _groups(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """Return the items of each key together, in order of their first."""
    groups: dict[Hashable, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _boundary(rows: Sequence[Crossover], axes: Mapping[str, str]) -> _Boundary:
    points = [
        {row.axis: row.value} | {name: float(value) for name, value in row.fixed.items() if name in axes}
        for row in rows
    ]
    return _Boundary(rows, simplest_law(rows[0].axis, points))


def _sentence(boundary: _Boundary, axes: Mapping[str, str]) -> str:
    first = boundary.rows[0]
    if boundary.law is not None:
        same = [name for name in first.fixed if len({row.fixed[name] for row in boundary.rows}) == 1]
        while_ = boundary.law.text(axes) + _at(first, same, axes)
    else:
        rows = sorted(boundary.rows, key=lambda row: row.value)
        ends = [quantity(row.value, axes[row.axis]) + _at(row, list(row.fixed), axes) for row in (rows[0], rows[-1])]
        while_ = f"{first.axis} > {' ... '.join(dict.fromkeys(ends))}"
    return f"To {target_label(first.metric, first.target)}, {first.above} wins over {first.below} while {while_}."


def _at(row: Crossover, names: Sequence[str], axes: Mapping[str, str]) -> str:
    """Return ` (near = 0.02 s, network = two_sites)`."""
    values = [
        f"{name} = {row.fixed[name]:g} {axes[name]}".rstrip() if name in axes else f"{name} = {row.fixed[name]}"
        for name in names
    ]
    return f" ({', '.join(values)})" if values else ""


WITHIN = 0.05  # a law holds where it is off by this share at most, at every point
_MOST_TERMS = 3
_CONSTANT = ""  # the term that belongs to no axis

Point = Mapping[str, float]
"""One place of a boundary: the value of each numeric axis, by name."""


@dataclass(frozen=True)
class Law:
    """Threshold = sum of coefficient * value of an axis, or `coefficient` alone for the term without a name."""

    axis: str
    coefficients: Mapping[str, float]

    @property
    def num_terms(self) -> int:
        return len(self.coefficients)

    def text(self, units: Mapping[str, str]) -> str:
        """Return `far > 0.21 s`, `far/near > 3.2` or `far > 3.2 x near + 0.04 s`."""
        unit = units[self.axis]
        if self.num_terms > 1:
            return f"{self.axis} > {_sum(self.coefficients, units, unit)}"
        ((name, value),) = self.coefficients.items()
        if name == _CONSTANT:
            return f"{self.axis} > {quantity(value, unit)}"
        return f"{self.axis}/{name} > {quantity(value, _per(unit, units[name]))}"


def simplest_law(axis: str, points: Sequence[Point]) -> Law | None:
    """Return the law with the fewest terms that gives `axis` from the other values within 5% at each point.

    Tried, by number of terms and then by how well they fit: a constant, one other axis (a ratio), sums of these. A sum
    is what two cases with constant costs obey: the time of each is linear in every RTT and step time. A law has
    fewer terms than there are points, or nothing would have tested it; a single point is a constant only if nothing
    else varies.
    """
    values_P = np.array([point[axis] for point in points])
    varying = [name for name in points[0] if name != axis and len({point[name] for point in points}) > 1]
    if (values_P <= 0).any():
        return None
    for num_terms in range(1, _MOST_TERMS + 1):
        if varying and len(points) <= num_terms:
            return None
        fits = list(_fits(values_P, points, varying, num_terms))
        if fits:
            return Law(axis, min(fits, key=lambda fit: fit[0])[1])
    return None


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit, if it has one."""
    return f"{number(value, 2)} {unit}".rstrip()


def _fits(
    values_P: NDArray[np.float64], points: Sequence[Point], varying: Sequence[str], num_terms: int
) -> Iterator[tuple[float, dict[str, float]]]:
    """Yield worst relative error and coefficients of each set of terms that holds (relative least squares)."""
    for names in combinations([_CONSTANT, *varying], num_terms):
        terms_PT = np.array([[point.get(name, 1.0) for name in names] for point in points]) / values_P[:, None]
        coefficients = np.linalg.lstsq(terms_PT, np.ones(len(points)), rcond=None)[0]
        off = float(np.abs(terms_PT @ coefficients - 1).max())
        if off <= WITHIN:
            yield off, dict(zip(names, map(float, coefficients), strict=True))


def _sum(coefficients: Mapping[str, float], units: Mapping[str, str], unit: str) -> str:
    text = ""
    # The constant comes last, as one writes it.
    for name, value in sorted(coefficients.items(), key=lambda item: item[0] == _CONSTANT):
        sign = (" - " if text else "-") if value < 0 else (" + " if text else "")
        per = _per(unit, units.get(name, ""))
        text += sign + " ".join(filter(None, [f"{abs(value):.3g}", per, f"x {name}" if name else ""]))
    return text


def _per(unit: str, by: str) -> str:
    if unit == by:
        return ""
    return f"{unit} per {by}".strip() if by else unit
