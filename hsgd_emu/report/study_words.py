"""What is said of one scenario: the text beside the pointer."""

from __future__ import annotations

import math

import numpy as np

from hsgd_emu.report.figures import plotly_text
from hsgd_emu.report.study_content import CLOSE, StudyContent, Target
from hsgd_emu.results.wording import number, percent

_MOST_CASES = 8
HOVER_LABEL = {"align": "left", "bgcolor": "#16202c", "bordercolor": "#9dabba", "font": {"color": "#fff", "size": 13}}


def hover(content: StudyContent, target: Target, scenario: int) -> str:
    """Return every case's time in a scenario, the fastest first, and how sure that is; marked up for plotly."""
    median_C = target.median_SC[scenario]
    order = [int(case) for case in np.argsort(median_C, kind="stable") if math.isfinite(median_C[case])]
    lines = [plotly_text(content.at(scenario)) or "the run as it is"]
    for rank, case in enumerate(order[:_MOST_CASES]):
        text = f"{plotly_text(content.cases[case].name)}: {seconds(median_C[case])}{_interval(target, scenario, case)}"
        lines.append(f"<b>{text}</b>" if rank == 0 else text)
    if len(order) > _MOST_CASES:
        lines.append(f"and {len(order) - _MOST_CASES} more")
    never = [plotly_text(case.name) for case in content.cases if case.index not in order]
    if never:
        lines.append(f"not reached: {', '.join(never[:_MOST_CASES])}")
    sure = how_sure(content, target, scenario)
    lines += [plotly_text(text) for text in sure.split("; ")] if sure else []
    return "<br>".join(lines)


def how_sure(content: StudyContent, target: Target, scenario: int) -> str:
    """Say by how much the best beats the second, and how often in matched trials."""
    second = int(target.second_S[scenario])
    if second < 0:
        return ""
    name, margin = content.cases[second].name, float(target.margin_S[scenario])
    text = f"as good as {name}" if margin < 1.005 else f"{number(margin, 3)} times less than {name}"
    probability = float(target.probability_S[scenario])
    return text + ("" if math.isnan(probability) else f"; first in {percent(round(probability, 2))} of matched trials")


def _interval(target: Target, scenario: int, case: int) -> str:
    low, high = float(target.low_SC[scenario, case]), float(target.high_SC[scenario, case])
    if low == high:
        return ""
    return f" ({number(low, 3)} to {number(high, 3) if math.isfinite(high) else 'never'})"


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
