"""How far chance moves the times to target within one scenario: every trial's, case by case.

What the figure shows of the scenario that the reader chooses, the page's script puts in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.report.figure import AXIS, BASE_LAYOUT
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.study.content import Case, StudyContent, Target, Times
from hsgd_emu.report.study.figure import Drawn, figure_of, short
from hsgd_emu.report.study.grid import Grid
from hsgd_emu.report.study.words import seconds, symbol
from hsgd_emu.results.wording import percent

_ROW_PX, _FRAME_PX = 84, 64


@dataclass(frozen=True)
class Choice:
    """A choice of one value of `axis`, or (-1) of the scenario itself. start: the option shown first."""

    name: str
    axis: int
    options: tuple[tuple[int, str], ...]
    start: int


def spread_height_px(content: StudyContent) -> int:
    """Return how high the figure is."""
    return _FRAME_PX + _ROW_PX * len(content.cases)


def choices(content: StudyContent, grid: Grid | None) -> list[Choice]:
    """Return how the reader chooses the scenario: by each axis where all of a grid are there, else out of a list."""
    assert content.times
    scenarios = content.times.scenarios
    start = content.middle if content.middle in scenarios else scenarios[0]
    if len(scenarios) == 1:
        return []
    if not grid or len(scenarios) < content.num_scenarios:
        options = tuple((row, content.at(scenario) or "as it is") for row, scenario in enumerate(scenarios))
        return [Choice("scenario", -1, options, scenarios.index(start))]
    return [
        Choice(axis.name, i, tuple(enumerate(axis.texts)), int(content.places_SA[start, i]))
        for i, axis in enumerate(content.axes)
        if len(axis.texts) > 1
    ]


def spreads(content: StudyContent) -> Iterator[Drawn]:
    """Yield the figure of each target, without the numbers."""
    for number, target in enumerate(content.targets if content.times else ()):
        traces = [trace for case in content.cases for trace in _traces(case)]
        yield "spread", number, "", figure_of(traces, _layout(content, target), "")


def spread_data(content: StudyContent) -> dict[str, Any]:
    """Return every trial's times and their statistics, by target, scenario and case; null where never."""
    times = content.times
    if not times:
        return {}
    rows = range(len(times.scenarios))
    return {
        "scenarios": times.scenarios,
        "titles": [content.at(scenario) or "the run as it is" for scenario in times.scenarios],
        "places": content.places_SA[list(times.scenarios)].tolist(),
        "trials": times.trials,
        "times": [[[short(values) for values in row] for row in table] for table in times.times_TSCN.tolist()],
        "stats": [
            [_stats(target, scenario, never_C) for scenario, never_C in zip(times.scenarios, never_SC, strict=True)]
            for target, never_SC in zip(content.targets, times.never_TSC.tolist(), strict=True)
        ],
        "texts": [[spread_in_words(content, times, i, row) for row in rows] for i in range(len(content.targets))],
    }


def _stats(target: Target, scenario: int, never_C: Sequence[float]) -> list[list[float | None]]:
    """Return by case: median, low, high, q10, q90."""
    tables = (target.median_SC, target.low_SC, target.high_SC)
    return [
        short([*(float(table[scenario, case]) for table in tables), *middle_80(target, scenario, case, never)])
        for case, never in enumerate(never_C)
    ]


def middle_80(target: Target, scenario: int, case: int, never: float) -> tuple[float, float]:
    """Return the 10% and the 90% quantile of a case's trials; never: the share that does.

    Where more than a tenth never do, so does the 90% quantile: the table's own stays at the last trial that does.
    """
    low_s, high_s = float(target.q10_SC[scenario, case]), float(target.q90_SC[scenario, case])
    return (low_s if never <= 0.9 else math.inf), (high_s if never <= 0.1 else math.inf)


def _traces(case: Case) -> Iterator[dict[str, Any]]:
    """Yield the parts of a case's row: its trials as dots, the middle 80%, the median's interval, the median."""
    nothing: dict[str, Any] = {"type": "scatter", "x": [], "y": []}
    said = {"hovertemplate": "%{hovertext}<extra></extra>"}
    colour = {"color": case.colour}
    dots = {**colour, "size": 7, "opacity": 0.7}
    yield {**nothing, **said, "meta": ["dots", case.index], "mode": "markers", "marker": dots}
    for part, width in (("range", 2), ("interval", 8)):
        line = {**colour, "width": width}
        look = {"line": line, "opacity": 1 if part == "range" else 0.55}
        # An arrow where it goes on to never.
        arrow = {**colour, "symbol": "triangle-right", "size": 0, "opacity": 1}
        yield {**nothing, **said, **look, "meta": [part, case.index], "mode": "lines+markers", "marker": arrow}
    mark = {**colour, "size": 13, "symbol": symbol(case), "line": {"width": 1.5, "color": "#fff"}}
    yield {**nothing, **said, "meta": ["median", case.index], "mode": "markers", "marker": mark}


def _layout(content: StudyContent, target: Target) -> dict[str, Any]:
    num = len(content.cases)
    label = {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "align": "left", "showarrow": False}
    x = {**AXIS, "title": {"text": f"time to {target.label} (s)"}, "nticks": 6, "tickformat": ",~g"}
    y = {**AXIS, "visible": False, "range": [-0.5, num - 0.5], "fixedrange": True}
    heads = [{**label, "y": num - 1 - i + 0.06, "text": ""} for i in range(num)]
    frame = {**BASE_LAYOUT, "margin": {"l": 12, "r": 12, "t": 8, "b": 8}}
    return {**frame, "xaxis": x, "yaxis": y, "annotations": heads}


def spread_in_words(content: StudyContent, times: Times, number: int, row: int) -> str:
    """Say how the cases' times are spread in one scenario, the fastest first."""
    target, scenario = content.targets[number], times.scenarios[row]
    order = sorted(content.cases, key=lambda case: float(target.median_SC[scenario, case.index]))
    never_C = times.never_TSC[number, row].tolist()
    parts = [_case_in_words(case, target, scenario, never_C[case.index]) for case in order]
    where = content.at(scenario)
    return f"{f'At {where}, t' if where else 'T'}ime to {target.label}: {listed(parts, 8)}."


def _case_in_words(case: Case, target: Target, scenario: int, never: float) -> str:
    if never == 1:
        return f"{case.name} never"
    median_s = float(target.median_SC[scenario, case.index])
    q10_s, q90_s = middle_80(target, scenario, case.index, never)
    median = seconds(median_s) if math.isfinite(median_s) else "never in the median"
    notes = [f"80% of trials in {seconds(q10_s)} to {seconds(q90_s)}"] if q10_s < q90_s < math.inf else []
    notes += [f"never in {percent(round(never, 3))} of trials"] if never else []
    return f"{case.name} {median} ({', '.join(notes)})" if notes else f"{case.name} {median}"
