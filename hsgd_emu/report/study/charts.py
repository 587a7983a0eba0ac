"""The figures of studies that are no map: time along one axis, and a cloud of scenarios over any two."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from hsgd_emu.report.bars import MARKS
from hsgd_emu.report.figure import AXIS, BASE_LAYOUT, plotly_text
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.study.axes import Axis
from hsgd_emu.report.study.content import Case, Floats, StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, figure_of
from hsgd_emu.report.study.grid import Grid
from hsgd_emu.report.study.maps import Scale, best_in_words, gain_in_words, scale_of
from hsgd_emu.report.study.words import is_close, seconds, symbol

MOST_DOTS = 5_000
HOVER = "%{hovertext}<extra></extra>"
_MARKS = {**MARKS, "hovertemplate": HOVER}


def charts(content: StudyContent, grid: Grid) -> Iterator[Drawn]:
    """Yield the chart along one axis for each target, as `maps.maps` yields maps."""
    for number, target in enumerate(content.targets):
        (scenarios,) = grid.cells(tuple(0 for _ in grid.others))
        axis, places = content.axes[grid.x], grid.shown[grid.x]
        draw = _line if axis.numbers is not None else _dots
        at = axis.positions(places)
        every = (target.median_SC, target.q10_SC, target.q90_SC)
        tables = [[table[scenarios, case.index] for table in every] for case in content.cases]
        winners = {int(target.best_S[s]) for s in scenarios} if axis.numbers is not None else ()
        # All bands lie under all lines.
        traces = [t for case in content.cases if case.index in winners for t in _band(case, at, tables[case.index])]
        traces += [draw(case, at, tables[case.index], scenarios) for case in content.cases]
        layout = _chart_layout(content, target, grid, axis, scenarios)
        key = ",".join("0" for _ in grid.others)
        yield "chart", number, key, figure_of(traces, layout, _chart_in_words(content, target, scenarios))


def _band(case: Case, at: Sequence[float], tables: Sequence[Floats]) -> list[dict[str, Any]]:
    _, q10_s, q90_s = (_known(table) for table in tables)
    if q10_s == q90_s:
        return []
    line = {"type": "scatter", "mode": "lines", "x": list(at), "meta": case.index, "hoverinfo": "skip"}
    nothing = {"width": 0, "color": case.colour}
    filled = {"fill": "tonexty", "fillcolor": f"{case.colour}30"}
    return [{**line, "y": q10_s, "line": nothing}, {**line, "y": q90_s, "line": nothing, **filled}]


def _line(case: Case, at: Sequence[float], tables: Sequence[Floats], scenarios: list[int]) -> dict[str, Any]:
    whose = {"type": "scatter", "mode": "lines+markers", "meta": case.index, "name": plotly_text(case.name)}
    line = {"color": case.colour, "width": 3, "dash": "8px,3px" if case.dashed else "solid"}
    look = {"x": list(at), "y": _known(tables[0]), "line": line, "marker": {"size": 6}}
    return {**whose, **look, "customdata": scenarios, "hovertemplate": HOVER}


def _dots(case: Case, at: Sequence[float], tables: Sequence[Floats], scenarios: list[int]) -> dict[str, Any]:
    median_s, q10_s, q90_s = (_known(table) for table in tables)
    shift = 0.12 * (case.index % 6 - 2.5)
    ends = list(zip(median_s, q10_s, q90_s, strict=True))
    more = [(high or middle) - middle if middle else 0 for middle, _, high in ends]
    less = [middle - (low or middle) if middle else 0 for middle, low, _ in ends]
    error = {"type": "data", "symmetric": False, "color": case.colour, "thickness": 1.5}
    whose = {**MARKS, "meta": case.index, "name": plotly_text(case.name)}
    place = {"x": [x + shift for x in at], "y": median_s}
    marker = {"color": case.colour, "size": 10, "symbol": symbol(case)}
    look = {"marker": marker, "error_y": {**error, "array": more, "arrayminus": less}}
    return {**whose, **place, **look, "customdata": scenarios, "hovertemplate": HOVER}


def _known(values_s: Floats) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values_s.tolist()]


def _chart_layout(
    content: StudyContent, target: Target, grid: Grid, axis: Axis, scenarios: list[int]
) -> dict[str, Any]:
    known = target.median_SC[scenarios]
    known = known[(known > 0) & (known < math.inf)]
    log = len(known) > 0 and known.max() / known.min() > 20
    places = grid.shown[grid.x]
    edges = axis.edges(places)
    x = {**AXIS, **axis.layout(places)}
    if axis.numbers is not None:
        ends = (axis.numbers[places[0]], axis.numbers[places[-1]])
        x["range"] = [math.log10(end) if axis.log else end for end in ends]
    ticks = {"type": "log", "tickformat": ",~g", "dtick": "D2"} if log else {"rangemode": "tozero", "tickformat": ",~g"}
    frame = {**BASE_LAYOUT, "margin": {"l": 8, "r": 16, "t": 40, "b": 8}}
    y = {**AXIS, "title": {"text": f"time to {target.label} (s)"}, **ticks}
    return {**frame, "xaxis": x, "yaxis": y, **_winners(content, target, axis, edges, scenarios)}


def _winners(
    content: StudyContent, target: Target, axis: Axis, edges: Sequence[float], scenarios: list[int]
) -> dict[str, Any]:
    """Return the strip above the chart with the best case, and the crossovers as lines with their values."""
    numbers = axis.numbers
    crossovers = sorted((one.value, one.below, one.above) for one in target.crossovers if one.axis == axis.name)
    if crossovers and numbers:
        named = {case.name: case for case in content.cases}
        values = [value for value, _, _ in crossovers]
        cases = [named[crossovers[0][1]], *(named[above] for _, _, above in crossovers)]
        return _strip([numbers[0], *values, numbers[-1]], cases, values, axis)
    ends = [numbers[0], *edges[1:-1], numbers[-1]] if numbers else edges
    best = (int(target.best_S[s]) for s in scenarios)
    return _strip(ends, [content.cases[case] if case >= 0 else None for case in best], [], axis)


def _strip(ends: Sequence[float], cases: Sequence[Case | None], lines: Sequence[float], axis: Axis) -> dict[str, Any]:
    shapes: list[dict[str, Any]] = []
    for (low, high), case in zip(pairwise(ends), cases, strict=True):
        if case is not None:
            fill = {"fillcolor": case.colour, "line": {"width": 0}}
            shapes.append({"type": "rect", "yref": "paper", "y0": 1.0, "y1": 1.03, "x0": low, "x1": high, **fill})
    line = {"color": "#888", "width": 1.5, "dash": "dot"}
    shapes += [{"type": "line", "yref": "paper", "y0": 0, "y1": 1.03, "x0": at, "x1": at, "line": line} for at in lines]
    label = {"yref": "paper", "y": 1.03, "yanchor": "bottom", "showarrow": False}
    scale = math.log10 if axis.log else float
    texts: list[dict[str, Any]] = []
    for at in lines:
        # No label upon another: all crossovers stand below in words.
        if not texts or scale(at) - texts[-1]["x"] > 0.08 * (scale(ends[-1]) - scale(ends[0])):
            texts.append({**label, "x": scale(at), "text": axis.say(at)})
    return {"shapes": shapes, "annotations": texts}


def _chart_in_words(content: StudyContent, target: Target, scenarios: list[int]) -> str:
    parts = []
    for end in (scenarios[0], scenarios[-1]):
        best = int(target.best_S[end])
        at = content.at(end)
        if best < 0:
            parts.append(f"at {at} no case reaches {target.label}")
        else:
            parts.append(f"at {at} {content.cases[best].name} is the fastest ({seconds(target.median_SC[end, best])})")
    text = listed(parts)
    return f"{text[0].upper()}{text[1:]}."


def clouds(content: StudyContent) -> Iterator[Drawn]:
    """Yield the clouds of scenarios for each target; the page puts in where each stands on the axes that are picked."""
    layout = {**BASE_LAYOUT, "xaxis": AXIS, "yaxis": AXIS}
    scale = scale_of(content)
    for number, target in enumerate(content.targets):
        best = target.best_S[:MOST_DOTS].tolist()
        mine = [(case, [s for s, index in enumerate(best) if index == case.index]) for case in content.cases]
        data = [_cloud(case, scenarios, target) for case, scenarios in mine if scenarios]
        yield "cloud", number, "", figure_of(data, layout, best_in_words(content, best))
        factors = (target.gain_S if content.both_kinds else target.margin_S)[:MOST_DOTS].tolist()
        text = gain_in_words(content, factors)
        yield "cloud-gain", number, "", figure_of([_gain_cloud(factors, scale)], layout, text)


def _cloud(case: Case, scenarios: list[int], target: Target) -> dict[str, Any]:
    # Hollow where the first two are as good as equal.
    symbols = [f"{symbol(case)}{'-open' * is_close(target, s)}" for s in scenarios]
    look = {"color": case.colour, "size": 10, "symbol": symbols, "line": {"width": 1.5, "color": case.colour}}
    whose = {**_MARKS, "meta": case.index, "name": plotly_text(case.name)}
    return {**whose, "marker": look, "customdata": scenarios}


def _gain_cloud(factors: Sequence[float], scale: Scale) -> dict[str, Any]:
    places = [scale.place(factor) for factor in factors]
    known = [scenario for scenario, place in enumerate(places) if place is not None]
    colour = {"color": [places[scenario] for scenario in known], "colorscale": scale.colorscale}
    ends = {"cmin": -1 if scale.two_sided else 0, "cmax": 1}
    marker = {**colour, **ends, "size": 11, "line": {"width": 0.7, "color": "#777"}}
    return {**_MARKS, "marker": marker, "customdata": known}


def cloud_axes(content: StudyContent) -> str:
    """Return the JSON of the axes that a cloud can be drawn over: layout, and where each scenario stands."""
    found = []
    for axis, places in zip(content.axes, content.places_SA[:MOST_DOTS].T.tolist(), strict=True):
        if len(axis.texts) > 1:
            every = range(len(axis.texts))
            at = axis.positions(every)
            found.append({"layout": {**AXIS, **axis.layout(every)}, "at": [at[place] for place in places]})
    return json.dumps(found)
