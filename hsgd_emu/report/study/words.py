"""Words and looks that a study's figures share."""

from __future__ import annotations

import math

from hsgd_emu.report.study.content import CLOSE, Case, Target
from hsgd_emu.results.wording import number


def symbol(case: Case) -> str:
    """Return the shape of a case's marks: a circle for local SGD, a diamond for H-SGD."""
    return "circle" if case.dashed else "diamond"


def seconds(value: float) -> str:
    """Return a time with three digits."""
    return f"{number(value, 3)} s"


def times_less(value: float) -> str:
    """Return a factor: `2.3×`."""
    return f"{number(value, 2)}×"


def is_close(target: Target, scenario: int) -> bool:
    """Tell whether the first two are as good as equal."""
    return bool(target.margin_S[scenario] < CLOSE)


def margin_cell(value: float) -> str:
    """Return a factor, or what stands for none: `2.3×`, `∞`, `-`."""
    if math.isnan(value):
        return "-"
    return "∞" if math.isinf(value) else times_less(value)


def gain_cell(gain: float) -> str:
    """Return the kind that is faster, and how many times: `H-SGD 2.3×`, `local SGD only`."""
    if math.isnan(gain):
        return "-"
    kind = "H-SGD" if gain > 1 else "local SGD"
    return f"{kind} only" if gain in (0, math.inf) else f"{kind} {times_less(max(gain, 1 / gain))}"
