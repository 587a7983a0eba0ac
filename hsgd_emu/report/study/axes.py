"""The axes of a study as the report draws them: values in order, words, ticks, and where cells begin and end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.looks import shortened

_UNITS = {"_s": "s", "_bytes": "bytes", "_bps": "bit/s"}
_PREFIXES = ("k", "M", "G", "T")
_RTT = "round-trip time"
_MOST_NAMED_TICKS = 7


@dataclass(frozen=True)
class Axis:
    """One axis. numbers: of its distinct values, ascending; None for an axis of names. texts: the values in words."""

    name: str
    changes: str
    """What it changes in the run, in words."""
    unit: str
    texts: tuple[str, ...]
    numbers: tuple[float, ...] | None
    log: bool

    @property
    def title(self) -> str:
        """The name with the unit, for a figure's axis."""
        name = f"{self.name} RTT" if self.changes.startswith(_RTT) and "rtt" not in self.name.lower() else self.name
        return f"{name} ({self.unit})" if self.unit else name

    def at(self, place: int) -> str:
        """Return the name with one value: `far 0.3 s`."""
        return f"{self.name} {self.texts[place]}"

    def say(self, value: float) -> str:
        """Return a number on this axis with its unit."""
        return _with_unit(value, self.unit)

    @property
    def extent(self) -> str:
        """The values in few words: `0.02 s to 2 s, 13 values`."""
        if len(self.texts) <= 3 or (self.numbers is None and len(self.texts) <= 6):
            return ", ".join(self.texts)
        if self.numbers is None:
            return f"{len(self.texts)} values"
        return f"{self.texts[0]} to {self.texts[-1]}, {len(self.texts)} values"

    def place_of(self, value: float | str | None) -> int | None:
        """Return the place of a value of this axis, or None where it has no such value."""
        if self.numbers is None:
            text = _plain(str(value))
            return self.texts.index(text) if text in self.texts else None
        if not isinstance(value, int | float):
            return None
        near = (i for i, number in enumerate(self.numbers) if math.isclose(number, value, rel_tol=1e-9))
        return next(near, None)

    def positions(self, places: Sequence[int]) -> list[float]:
        """Return where values stand on a figure's axis; names stand at 0, 1, 2, ... of those given."""
        return [float(i) for i in range(len(places))] if self.numbers is None else [self.numbers[i] for i in places]

    def edges(self, places: Sequence[int]) -> list[float]:
        """Return where the cells of values begin and end: half-way between them, one more than the values."""
        log = self.log and self.numbers is not None
        at = [math.log(value) if log else value for value in self.positions(places)]
        middles = [(a + b) / 2 for a, b in pairwise(at)]
        first, last = (middles[0] - at[0], at[-1] - middles[-1]) if middles else (0.5, 0.5)
        ends = [at[0] - first, *middles, at[-1] + last]
        return [math.exp(end) for end in ends] if log else ends

    def layout(self, places: Sequence[int], edges: bool = False) -> dict[str, Any]:
        """Return plotly's attributes for an axis with these values. edges: the range is that of their cells."""
        found: dict[str, Any] = {"title": {"text": plotly_text(self.title), "standoff": 10}, **self._ticks(places)}
        if self.log:
            found["type"] = "log"
        if edges or self.numbers is None:
            ends = self.edges(places)
            found["range"] = [math.log10(end) if self.log else end for end in (ends[0], ends[-1])]
        return found

    def _ticks(self, places: Sequence[int]) -> dict[str, Any]:
        if self.numbers is None or len(places) <= _MOST_NAMED_TICKS:
            numbers = self.numbers
            texts = [_number(numbers[i]) if numbers else plotly_text(shortened(self.texts[i], 28)) for i in places]
            return {"tickmode": "array", "tickvals": self.positions(places), "ticktext": texts}
        if not self.log:
            return {"tickformat": ",~g", "nticks": 6}
        values = round_values(self.numbers[places[0]], self.numbers[places[-1]])
        return {"tickmode": "array", "tickvals": values, "ticktext": [_number(value) for value in values]}


def round_values(low: float, high: float) -> list[float]:
    """Return the values 1, 2, 5, 10, ... between two positive ones; of more than eight only the powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    slack = 1 + 1e-9
    values = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    inside = [value for value in values if low / slack <= value <= high * slack]
    return inside if len(inside) <= 8 else [value for value in inside if f"{value:e}".startswith("1.0")]


def make_axis(spec: Mapping[str, Any], values: Sequence[tuple[str, float | None]]) -> tuple[Axis, list[int]]:
    """Return an axis, and for each scenario the place of its value on it.

    Args:    spec: the axis in the study file.  values: by scenario, as the table has them.
    """
    changes, unit = _changes(spec)
    distinct = list(dict.fromkeys(values))
    numbers = [number for _, number in distinct if number is not None]
    if len(numbers) == len(distinct):
        distinct.sort(key=lambda value: value[1] or 0.0)
        texts = tuple(_with_unit(number or 0.0, unit) for _, number in distinct)
        known: tuple[float, ...] | None = tuple(sorted(numbers))
    else:
        texts, known = tuple(_plain(text) for text, _ in distinct), None
    place = {value: i for i, value in enumerate(distinct)}
    log = known is not None and _is_log(spec, known)
    axis = Axis(str(spec["name"]), changes, unit if known else "", texts, known, log)
    return axis, [place[value] for value in values]


def _changes(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an axis changes, in words, and the unit of its values."""
    if "rtt_s" in spec:
        return f"{_RTT} of {spec['rtt_s']}", "s"
    if "scale" in spec:
        return f"every time of {spec['scale']}, multiplied", "×"
    if "profile" in spec:
        return f"profile of {spec['profile']}", ""
    if "set" in spec:
        field = str(spec["set"])
        return field, next((unit for ending, unit in _UNITS.items() if field.endswith(ending)), "")
    return "topology", ""


def _is_log(spec: Mapping[str, Any], numbers: Sequence[float]) -> bool:
    """Tell whether an axis is logarithmic: the study file says so, or the values span a factor of ten."""
    if numbers[0] <= 0:
        return False
    values = spec.get("values")
    given = spec.get("spacing") or (values.get("spacing") if isinstance(values, dict) else None)
    if given is not None:
        return bool(given == "log")
    return numbers[-1] / numbers[0] >= 10


def _with_unit(value: float, unit: str) -> str:
    if unit in ("bit/s", "bytes") and value >= 1000:
        power = min(int(math.log10(value) / 3 + 1e-9), len(_PREFIXES))
        return f"{_number(value / 1000**power)} {_PREFIXES[power - 1]}{'B' if unit == 'bytes' else unit}"
    return _number(value) + (unit if unit == "×" else f" {unit}" if unit else "")


def _number(value: float) -> str:
    """Return a number as people write it: 0.0294, 2, 10,000."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def _plain(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def middle_scenario(axes: Sequence[Axis], places_SA: NDArray[np.int64]) -> int:
    """Return the scenario nearest to the middle value of every axis (the upper one of two); of equals the first."""
    nums_A = np.array([len(axis.texts) for axis in axes], np.int64)
    return int((np.abs(places_SA - nums_A // 2) / np.maximum(nums_A, 1)).sum(axis=1).argmin())
