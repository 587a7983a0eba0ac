"""The figures, as plotly JSON that the page's own script draws."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hsgd_emu.report.content import Case, Content, Point
from hsgd_emu.report.sentences import accuracy_in_iterations, accuracy_in_time, loss_in_words, time_in_words
from hsgd_emu.results.wording import percent

X = Literal["time_s", "iteration"]
Y = Literal["test_accuracy", "test_loss", "time_s"]
TITLES = {
    "time_s": "emulated time (s)",
    "iteration": "iterations",
    "test_accuracy": "test accuracy",
    "test_loss": "test loss",
}
HOVERS: dict[str, str] = {
    "test_accuracy": "%{y:.1%}",
    "test_loss": "loss %{y:.4g}",
    "time_s": "%{y:,.4~g} s",
}

AXIS: dict[str, Any] = {
    "zeroline": False,
    "automargin": True,
    "gridcolor": "#8883",
    "linecolor": "#8886",
    "showline": True,
}
BASE_LAYOUT: dict[str, Any] = {
    # Colours of text and grid are the page's own, by its style sheet, in light and dark.
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#777"},
    "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
    "showlegend": False,
    "hovermode": "closest",
    "dragmode": False,
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#888", "activecolor": "#555"},
}


@dataclass(frozen=True)
class Figure:
    """One figure. id: its element's, fixed, so that the bytes are; text: what it shows, in a sentence."""

    id: str
    title: str
    text: str
    json: str
    time_axis: bool
    wide: bool = False


def figures(content: Content) -> list[Figure]:
    """Return the figures that the run's data allow, the most telling first."""
    if not content.has_accuracy and not content.has_loss:
        if not any(case.median for case in content.cases):
            return []
        return [_figure(content, "time-iterations", "iteration", "time_s", time_in_words, wide=True)]
    found = []
    if content.has_accuracy:
        found += [
            _figure(content, "accuracy-time", "time_s", "test_accuracy", accuracy_in_time, wide=True),
            _figure(content, "accuracy-iterations", "iteration", "test_accuracy", accuracy_in_iterations),
        ]
    if content.has_loss:
        found.append(_figure(content, "loss-time", "time_s", "test_loss", loss_in_words))
    return found


def _figure(content: Content, id: str, x: X, y: Y, say: Callable[[Content], str], wide: bool = False) -> Figure:
    import plotly.graph_objects as go
    import plotly.io as pio

    traces = [trace for case in content.cases for trace in _traces(case, x, y)]
    targets = sorted({t.target for s in content.summaries for t in s.targets if t.metric == y})
    # go.Figure validates: a misspelt attribute is an error here, not a silently different picture.
    figure = go.Figure(data=traces, layout=_layout(content, x, y, targets))
    title = f"{TITLES[y]} against {TITLES[x]}".replace(" (s)", "")
    text = pio.to_json(figure, engine="json")
    return Figure(id, title[0].upper() + title[1:], say(content), text, x == "time_s", wide)


def plotly_text(text: str) -> str:
    """Return user text so that plotly shows it literally: it takes `<b>`, `<a href>` for markup."""
    return html.escape(text, quote=False)


def _traces(case: Case, x: X, y: Y) -> list[dict[str, Any]]:
    lines = [
        {
            **_line(case, points, x, y),
            "line": {"color": case.colour, "width": 1},
            "opacity": 0.4,
            "hoverinfo": "skip",
        }
        for points in case.seeds
    ]
    main = {
        **_line(case, case.median, x, y),
        "line": {"color": case.colour, "width": 3, "dash": "8px,3px" if case.dashed else "solid"},
        "customdata": [[point.iteration, point.time_s] for point in case.median],
        "hovertemplate": "%{fullData.name}<br>"
        + HOVERS[y]
        # the time is on the y axis of one figure already
        + ("" if y == "time_s" else " at %{customdata[1]:,.4~g} s")
        + "<br>iteration %{customdata[0]:,}<extra></extra>",
    }
    if len(case.median) == 1:
        main |= {"mode": "markers", "marker": {"color": case.colour, "size": 9}}
    return [*lines, main]


def _line(case: Case, points: Sequence[Point], x: X, y: Y) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": plotly_text(case.name),
        "meta": case.index,
        "x": [getattr(point, x) for point in points],
        "y": [getattr(point, y) for point in points],
    }


def _layout(content: Content, x: X, y: Y, targets: Sequence[float]) -> dict[str, Any]:
    label = {"xref": "paper", "x": 1, "xanchor": "right", "yanchor": "bottom", "showarrow": False}
    return {
        **BASE_LAYOUT,
        "xaxis": {**AXIS, "title": {"text": TITLES[x]}, "rangemode": "tozero", "tickformat": ",~g"},
        "yaxis": {**AXIS, "title": {"text": TITLES[y]}, **_y_axis(content, y, targets)},
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": target,
                "y1": target,
                "line": {"color": "#888", "width": 1, "dash": "dot"},
            }
            for target in targets
        ],
        "annotations": [{**label, "y": target, "text": _target_text(y, target)} for target in targets],
    }


def _target_text(y: Y, target: float) -> str:
    return f"target {percent(target) if y == 'test_accuracy' else f'{target:g}'}"


def _y_axis(content: Content, y: Y, targets: Sequence[float]) -> dict[str, Any]:
    if y == "time_s":
        return {"rangemode": "tozero"}
    values = [getattr(point, y) for case in content.cases for point in case.median]
    known = [value for value in values if value is not None]
    # Targets are shapes, which plotly's own range does not take in.
    low, high = min([*known, *targets]), max([*known, *targets])
    margin = 0.05 * (high - low or 1)
    if y == "test_accuracy":
        # never below 0 or visibly above 1; room over the highest target for its label
        return {"tickformat": ".0%", "range": [max(low - margin, 0), min(high + 1.5 * margin, 1.02)]}
    return {"range": [max(low - margin, 0), high + margin]}
