"""The curves: each metric against emulated time, communication time, iterations, rounds and bytes, over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from hsgd_emu.metrics import METRICS
from hsgd_emu.report.bars import MARKS
from hsgd_emu.report.content import MOST_POINTS, Case, Content, Point, Spread
from hsgd_emu.report.figure import AXIS, Column, ColumnKind, Figure, Picture, Ref, Rows, Switch, plotly_text
from hsgd_emu.report.sentences import Axis, curves_in_words, listed, place_of, reached_at, time_in_words
from hsgd_emu.report.traffic import bytes_in_words
from hsgd_emu.results.wording import TargetSummary, level_text, number, target_label

AXES: dict[Axis, str] = {
    "time_s": "emulated time",
    "communication_s": "communication time",
    "iteration": "iterations",
    "round": "global rounds",
    "uploaded_bytes": "uploaded bytes",
    "bytes": "bytes over all links",
}
SHOWN = {name: metric.words for name, metric in METRICS.items()} | {"time_s": "emulated time"}
"""What can be drawn; the time only where nothing was trained."""
KINDS: dict[str, ColumnKind] = {name: "share" if metric.is_share else "number" for name, metric in METRICS.items()}
FORMS = {name: ".1%" if metric.is_share else ".4~g" for name, metric in METRICS.items()} | {"time_s": ",.5~r"}
"""How d3 writes a value."""


@dataclass(frozen=True)
class _Rows:
    """The rows of one case in the figure's table."""

    case: Case
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.case.drawn)

    def ref(self, column: str) -> Ref:
        return Ref(column, self.start, self.end)


def curves(content: Content) -> Figure | None:
    """Return the figure of all curves, or None where nothing was evaluated yet.

    One picture per thing shown and axis, the first: test accuracy against emulated time. A run that was not trained
    has its emulated time instead of a metric, and so has one in which all diverged at once.
    """
    rows = list(_rows(content))
    if not rows:
        return None
    shown = [metric for metric in METRICS if content.has(metric)] or ["time_s"]
    against: tuple[Axis, ...] = ("iteration", "bytes") if shown == ["time_s"] else (*AXES,)
    # An axis on which a case has no place would compare nothing.
    points = [point for case in content.cases for point in case.points]
    axes = [axis for axis in against if all(place_of(point, axis) is not None for point in points)]
    return Figure(
        id="curves",
        title="Curves",
        pictures=tuple(_picture(content, rows, metric, axis) for metric in shown for axis in axes),
        columns=tuple(_columns(content, rows, shown)),
        switches=(
            Switch("Show", tuple((metric, SHOWN[metric]) for metric in shown)),
            Switch("Against", tuple((axis, AXES[axis]) for axis in axes)),
        ),
        note=_note(content),
        log_x=True,
    )


def _rows(content: Content) -> Iterator[_Rows]:
    start = 0
    for case in content.cases:
        if case.points:
            rows = _Rows(case, start)
            yield rows
            start = rows.end


# --- the data ---------------------------------------------------------------------------------------


def _columns(content: Content, rows: Sequence[_Rows], shown: Sequence[str]) -> Iterator[Column]:
    points = [point for one in rows for point in one.case.drawn]
    yield Column("case", "case", "text", [one.case.name for one in rows for _ in one.case.drawn])
    yield Column("iteration", "iteration", "count", [point.iteration for point in points])
    yield Column("num_seeds", "seeds", "count", [point.num_seeds for point in points])
    yield from _spread_columns("time_s", "emulated time", "seconds", [point.time_s for point in points])
    yield Column("communication_s", "communication", "seconds", [point.communication_s.median for point in points])
    yield Column("communication_share", "communication share", "share", [_share(point) for point in points])
    yield Column("round", "round", "count", [point.round for point in points])
    yield Column("uploaded_bytes", "uploaded bytes", "bytes", [point.uploaded_bytes for point in points])
    if any(point.num_bytes is not None for point in points):
        yield Column("bytes", "bytes over all links", "bytes", [point.num_bytes for point in points])
    for metric in shown:
        if metric != "time_s":
            yield from _spread_columns(metric, SHOWN[metric], KINDS[metric], [p.metrics[metric] for p in points])


def _spread_columns(name: str, label: str, kind: ColumnKind, spreads: Sequence[Spread | None]) -> Iterator[Column]:
    for place, which in enumerate(("", "least", "most")):
        values = [spread[place] if spread else None for spread in spreads]
        yield Column(_spread_column(name, which), f"{label}, {which}" if which else label, kind, values)


def _spread_column(name: str, which: str) -> str:
    """Return test_accuracy_least, time_least_s: a unit stays last."""
    if not which:
        return name
    return f"{name[:-2]}_{which}_s" if name.endswith("_s") else f"{name}_{which}"


def _share(point: Point) -> float | None:
    return point.communication_s.median / point.time_s.median if point.time_s.median > 0 else None


# --- a picture --------------------------------------------------------------------------------------


def _picture(content: Content, rows: Sequence[_Rows], metric: str, axis: Axis) -> Picture:
    drawn = [one for one in rows if any(_spread(point, metric) for point in one.case.drawn)]
    # All bands lie under all lines, and these under the marks.
    traces = [trace for one in drawn for trace in _bands(one, metric, axis)]
    traces += [_line(one, metric, axis) for one in drawn]
    traces += [trace for one in drawn if (trace := _crossings(one.case, metric, axis))]
    targets = sorted({t.target for one in rows for t in one.case.summary.targets if t.metric == metric})
    values = [value for one in drawn for point in one.case.drawn for value in _spread(point, metric) or ()]
    ticks = {"tickformat": "~s", "ticksuffix": "B"} if axis.endswith("bytes") else {"tickformat": ",~r"}
    unit = " (s)" if axis in ("time_s", "communication_s") else ""
    layout = {
        "xaxis": {**AXIS, "title": {"text": f"{AXES[axis]}{unit}"}, "rangemode": "tozero", **ticks},
        "yaxis": y_axis(metric, values, targets),
        **target_lines(metric, targets, values),
    }
    text = time_in_words(content, axis) if metric == "time_s" else curves_in_words(content, metric, axis)
    return Picture((metric, axis), text, traces, layout)


def _spread(point: Point, metric: str) -> Spread | None:
    return point.time_s if metric == "time_s" else point.metrics[metric]


def _bands(rows: _Rows, metric: str, axis: Axis) -> Iterator[dict[str, Any]]:
    """Yield the edges of the band from least to most over seeds, the second filled towards the first."""
    if len(rows.case.seeds) < 2:
        return
    edge = {"type": "scatter", "mode": "lines", "meta": rows.case.index, "hoverinfo": "skip"}
    edge |= {"line": {"width": 0, "color": rows.case.colour}}
    least, most = _spread_column(metric, "least"), _spread_column(metric, "most")
    for start, end in _stretches(rows, metric):
        x = Ref(axis, start, end)
        yield {**edge, "x": x, "y": Ref(least, start, end)}
        yield {**edge, "x": x, "y": Ref(most, start, end), "fill": "tonexty", "fillcolor": f"{rows.case.colour}26"}


def _stretches(rows: _Rows, metric: str) -> Iterator[tuple[int, int]]:
    """Yield the stretches of rows that all have the metric: filling over a gap would invent values."""
    points = enumerate(rows.case.drawn, rows.start)
    for known, group in groupby(points, lambda point: _spread(point[1], metric) is not None):
        places = [place for place, _ in group]
        if known:
            yield places[0], places[-1] + 1


def _line(rows: _Rows, metric: str, axis: Axis) -> dict[str, Any]:
    case = rows.case
    in_hover = [_spread_column(metric, "least"), _spread_column(metric, "most"), "num_seeds", "time_s"]
    in_hover += ["communication_share", "iteration"]
    has_bytes = all(point.num_bytes is not None for point in case.points)
    in_hover += ["bytes"] if has_bytes else []
    num = sum(_spread(point, metric) is not None for point in case.drawn)
    place = {"x": rows.ref(axis), "y": rows.ref(metric)}
    data = Rows(tuple(rows.ref(name) for name in in_hover))
    said = {"customdata": data, "hovertemplate": _hover(metric, len(case.seeds), has_bytes)}
    return {**whose_line(case, num), **place, **line_look(case), **said}


def whose_line(case: Case, num_points: int) -> dict[str, Any]:
    """Return how the trace of a case's curve begins; a single point is a mark."""
    mode = "markers" if num_points == 1 else "lines"
    return {"type": "scatter", "mode": mode, "name": plotly_text(case.name), "meta": case.index}


def line_look(case: Case) -> dict[str, Any]:
    """Return the look of a case's curve: dashed for local SGD."""
    line = {"color": case.colour, "width": 2.5, "dash": "8px,3px" if case.dashed else "solid"}
    return {"line": line, "marker": {"color": case.colour, "size": 9}}


def _hover(metric: str, num_seeds: int, has_bytes: bool) -> str:
    form = FORMS[metric]
    unit = " s" if metric == "time_s" else ""
    lines = ["%{fullData.name}", f"{SHOWN[metric]} %{{y:{form}}}{unit}"]
    if num_seeds > 1:
        spread = f"%{{customdata[0]:{form}}} to %{{customdata[1]:{form}}}{unit}"
        lines.append(f"({spread}; median of %{{customdata[2]}} seeds)")
    if metric != "time_s":
        lines.append("emulated time %{customdata[3]:,.5~r} s")
    lines.append("%{customdata[4]:.0%} of the time is communication")
    lines.append("iteration %{customdata[5]:,}")
    lines += ["%{customdata[6]:.3~s}B sent"] if has_bytes else []
    return "<br>".join(lines) + "<extra></extra>"


def _crossings(case: Case, metric: str, axis: Axis) -> dict[str, Any] | None:
    """Return a ring where the seeds reach each target in the median."""
    targets = [target for target in case.summary.targets if target.metric == metric]
    found = [(at, target) for target in targets if (at := reached_at(case, target, axis)) is not None]
    if not found:
        return None
    place = {"x": [at for at, _ in found], "y": [target.target for _, target in found]}
    look = {"marker": {"symbol": "circle-open", "size": 11, "color": case.colour, "line": {"width": 2.5}}}
    texts = [_crossing_in_words(case, target) for _, target in found]
    said = {"text": texts, "hovertemplate": "%{fullData.name}<br>%{text}<extra></extra>"}
    return {**MARKS, "name": plotly_text(case.name), "meta": case.index, **place, **look, **said}


def _crossing_in_words(case: Case, target: TargetSummary) -> str:
    """Return `reaches 80% test accuracy: 12.30 s, 350 iterations`, what it spent, and the spread over seeds."""
    times_s = (target.median_time_s, target.least_time_s, target.most_time_s)
    time, least, most = (number(value or 0.0) for value in times_s)
    lines = [f"reaches {target_label(*target.key)}: {time} s, {target.median_iterations or 0:,.0f} iterations"]
    communication_s, num_bytes = (reached_at(case, target, axis) for axis in ("communication_s", "bytes"))
    lines.append(f"{number(communication_s or 0.0)} s of communication")
    if num_bytes is not None:
        lines[-1] += f", {bytes_in_words(num_bytes)} sent"
    if target.num_seeds > 1:
        reached = "" if target.num_reached == target.num_seeds else f"reached by {target.num_reached}, "
        lines.append(f"(median of {target.num_seeds} seeds, {reached}{least}-{most} s)")
    return "<br>".join(lines)


# --- axes, targets, notes ---------------------------------------------------------------------------


def y_axis(metric: str, values: Sequence[float], targets: Sequence[float] = ()) -> dict[str, Any]:
    """Return the y axis for a metric (or `time_s`), with all its values and targets in it."""
    axis = {**AXIS, "title": {"text": SHOWN[metric] + (" (s)" if metric == "time_s" else "")}}
    if metric == "time_s":
        return {**axis, "rangemode": "tozero", "tickformat": ",~r"}
    low, high, margin = _ends(values, targets)
    if METRICS[metric].is_share:
        # never below 0 or visibly above 1; room over the highest target for its label
        return {**axis, "tickformat": ".0%", "range": [max(low - margin, 0), min(high + 1.5 * margin, 1.02)]}
    return {**axis, "tickformat": "~g", "range": [max(low - margin, 0), high + 1.5 * margin]}


def _ends(values: Sequence[float], targets: Sequence[float]) -> tuple[float, float, float]:
    # Targets are shapes, which plotly's own range does not take in.
    low, high = min([*values, *targets]), max([*values, *targets])
    return low, high, 0.05 * (high - low or 1)


def target_lines(metric: str, targets: Sequence[float], values: Sequence[float]) -> Mapping[str, Any]:
    """Return the layout's dotted lines at the targets (ascending), each with its label."""
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    line |= {"line": {"color": "#888", "width": 1, "dash": "dot"}}
    labels = []
    for target, side in zip(targets, _sides(metric, targets, values), strict=True):
        text = f"target {level_text(metric, target)}"
        place = {"xref": "paper", "x": side, "xanchor": ("left", "right")[side], "y": target, "yanchor": "bottom"}
        labels.append({**place, "showarrow": False, "text": text})
    return {"shapes": [{**line, "y0": target, "y1": target} for target in targets], "annotations": labels}


def _sides(metric: str, targets: Sequence[float], values: Sequence[float]) -> Iterator[int]:
    """Yield on which side each target has its label (0: left): where there are few curves.

    Accuracies rise from the lower left to the upper right, losses fall. Labels closer than their height would lie on
    each other: the upper one goes to the other side.
    """
    if not targets:
        return
    low, high, margin = _ends(values, targets)
    last = [-math.inf, -math.inf]
    for target in targets:
        height = (target - low) / (high - low or 1)
        side = 0 if (height if METRICS[metric].sign > 0 else 1 - height) > 2 / 3 else 1
        if target - last[side] < 1.4 * margin:
            side = 1 - side
        last[side] = target
        yield side


def _note(content: Content) -> str:
    """Return what is left out."""
    parts = []
    without = [case.name for case in content.cases if not any(_spread(p, m) for p in case.points for m in METRICS)]
    if content.was_trained and without and len(without) < len(content.cases):
        parts.append(f"Without a curve, for nothing was measured: {listed(without)}.")
    if any(len(case.drawn) < len(case.points) for case in content.cases):
        most = max(len(case.points) for case in content.cases)
        drawn = f"Of up to {most:,} evaluations of a case about {MOST_POINTS:,} are drawn and listed"
        parts.append(f"{drawn}, among them all at which a target is reached; hsgd-emu export writes them all.")
    return " ".join(parts)
