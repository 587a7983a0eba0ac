"""A fit in words: the constants, what is left undetermined, how far each time is off, and profiles to paste."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.writer import to_yaml
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.wording import TextTable, number
from hsgd_emu.study.changes import COMPUTE
from hsgd_emu.study.costs import ChangedCost
from hsgd_emu.study.fitting.table import Measured

_HARD_TO_TELL = 0.95  # correlation from which two constants are said to be hard to tell apart


@dataclass(frozen=True)
class FittedValue:
    """One constant: an RTT or a step time. low_s, high_s: 95% interval, None where it is not determined."""

    cost: ChangedCost
    up_share: float | None
    """Of an RTT: as the profile in its place has it."""
    value_s: float
    low_s: float | None
    high_s: float | None
    determined: bool

    @property
    def name(self) -> str:
        return self.cost.name

    @property
    def what(self) -> str:
        """What it is the constant of: `RTT` or `step`."""
        return "RTT" if self.cost.kind == "link profile" else "step"


@dataclass(frozen=True)
class Combination:
    """A sum of constants that the times determine where they do not determine each. weights: by name."""

    weights: dict[str, float]
    value_s: float

    def text(self) -> str:
        """Return it as an equation: `compute + 0.2 x far = 0.0497 s`."""
        parts = [name if abs(num - 1) < 1e-9 else f"{num:.4g} x {name}" for name, num in self.weights.items()]
        return f"{' + '.join(parts).replace('+ -', '- ')} = {number(self.value_s)} s"


@dataclass(frozen=True)
class FittedRow:
    """A row of the table and the time that the fitted constants give it."""

    measured: Measured
    fitted_s: float

    @property
    def off(self) -> float:
        """How far the fitted time is off, as a share of the measured one."""
        return self.fitted_s / self.measured.time_s - 1


@dataclass(frozen=True)
class Fit:
    """Constants fitted to a table of times.

    Args:    table: what the times were taken from: a file's name, or the source of published times.
             combinations: what is determined together only.  correlation: (values, values), of their logarithms.
             fixed: what was given.  other: other constants that explain the times as well, if a start led to some.
             freedom: how many more times there are than constants they determine.
             left_out: in words, which published times could not be compared.
    """

    table: str
    values: tuple[FittedValue, ...]
    rows: tuple[FittedRow, ...]
    combinations: tuple[Combination, ...]
    correlation: NDArray[np.float64]
    fixed: Mapping[str, float]
    other: dict[str, float] | None
    freedom: int
    message_bytes: int
    left_out: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what was found, a sentence a line."""
        times = "one time" if len(self.rows) == 1 else f"{len(self.rows)} times"
        num = len(self.values)
        lines = [f"{times} in {self.table}, {num} unknown constant{'s' * (num > 1)}; a message has"]
        lines[0] += f" {self.message_bytes:,} bytes."
        lines += [_value_line(value) for value in self.values if value.determined]
        lines += [f"{name}: {value_s:g} s, as given" for name, value_s in self.fixed.items()]
        lines += self.certainty()
        lines.append(f"The largest miss: {self.worst.measured.case}, {_percent(self.worst.off)}.")
        lines += [f"Left out: {text}." for text in self.left_out]
        return lines

    @property
    def worst(self) -> FittedRow:
        """The row whose fitted time is furthest off."""
        return max(self.rows, key=lambda row: abs(row.off))

    def certainty(self) -> list[str]:
        """Return what the times do not determine well, a sentence a line; none where all is well determined."""
        lines = self._undetermined() + self._hard_to_tell()
        if self.other is not None:
            also = ", ".join(f"{name} {number(value_s)} s" for name, value_s in self.other.items())
            lines.append(f"Other constants explain the times as well: {also}. Fix one, or add a time.")
        if not self.freedom:
            lines.append("There are no more times than unknowns: the intervals are those of the rounding alone.")
        return lines

    def _undetermined(self) -> list[str]:
        names = [value.name for value in self.values if not value.determined]
        if not names:
            return []
        lines = [f"Not determined by these times: {', '.join(names)}."]
        for combination in self.combinations:
            lines.append(f"  They determine only {combination.text()}.")
        loose = [name for name in names if all(name not in one.weights for one in self.combinations)]
        lines += [f"  No time depends on {', '.join(loose)}."] if loose else []
        if self.combinations:
            one = next(iter(self.combinations[0].weights))
            lines.append(f"  Add a case that pays them otherwise, or fix one: --fix {one}=SECONDS.")
        return lines

    def _hard_to_tell(self) -> list[str]:
        lines = []
        for place, one in enumerate(self.values):
            for before, other in enumerate(self.values[:place]):
                value = self.correlation[place, before]
                if one.determined and other.determined and abs(value) > _HARD_TO_TELL:
                    lines.append(f"{other.name} and {one.name} are hard to tell apart (correlation {value:.2f}).")
        return lines

    def result_table(self) -> TextTable:
        """Return one row per measured time."""
        rows = []
        for row in self.rows:
            iterations = median_reached(list(row.measured.reached.values())) or 0
            cells = [row.measured.case, f"{iterations:,.0f}", f"{number(row.measured.time_s)} s"]
            rows.append([*cells, f"{number(row.fitted_s)} s", _percent(row.off)])
        return TextTable(("case", "iterations", "measured", "fitted", "off"), rows)

    def snippet(self) -> str:
        """Return YAML to paste into a run file: the determined constants that a run file can bind."""
        profiles: dict[str, Any] = {}
        sections: dict[str, Any] = {}
        for value in self.values:
            cost = value.cost
            if value.determined and (cost.ref is None or isinstance(cost.ref, str)):
                found = self._profile(value)
                if cost.ref is None:
                    sections[COMPUTE] = found
                else:
                    profiles[cost.name] = found
        return to_yaml(({"profiles": profiles} if profiles else {}) | sections) if profiles or sections else ""

    def _profile(self, value: FittedValue) -> dict[str, Any]:
        key = "rtt_s" if value.cost.kind == "link profile" else "step_s"
        source = f"fitted to {self.table}"
        source += f", messages of {self.message_bytes:,} bytes" if key == "rtt_s" else ""
        if value.low_s is not None and value.high_s is not None:
            source += f"; 95%: {number(value.low_s)} to {number(value.high_s)} s"
        share = {} if value.up_share is None else {"up_share": value.up_share}
        return {key: float(f"{value.value_s:.6g}"), **share, "source": source}


def _value_line(value: FittedValue) -> str:
    text = f"{value.name}: {value.what} {number(value.value_s)} s"
    if value.low_s is None or value.high_s is None:
        return text
    return f"{text} (95%: {number(value.low_s)} to {number(value.high_s)})"


def _percent(share: float) -> str:
    return f"{round(100 * share, 2) + 0.0:+.2f}%"
