"""The simplest law of a boundary between two cases: from which value of an axis on does one of them win?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.results.wording import number

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
