"""Pictures with a row per case, group or link: the axis of the rows, what stands at the end of a bar, the height."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hsgd_emu.report.figure import AXIS, plotly_text
from hsgd_emu.report.looks import shortened
from hsgd_emu.results.wording import number

MOST_LABEL = 24
"""Letters of a row's label: on a phone the labels must leave room for the bars."""


def row_axis(labels: Sequence[str], places: Sequence[float] | None = None, num_rows: float | None = None) -> Any:
    """Return a y axis with these labels (users' text) at these places (default: 0, 1, ...), the first on top."""
    at = list(range(len(labels)) if places is None else places)
    rows = {"tickvals": at, "ticktext": [plotly_text(shortened(label, MOST_LABEL)) for label in labels]}
    ends = {"range": [(len(labels) if num_rows is None else num_rows) - 0.5, -0.5]}
    # Unseen ticks keep the labels off the marks at 0.
    unseen = {"ticks": "outside", "ticklen": 7, "tickcolor": "rgba(0,0,0,0)"}
    return {**AXIS, **rows, **ends, **unseen, "showgrid": False}


def value_axis(title: str, most: float, room: float, **more: Any) -> Any:
    """Return an x axis from 0 to the highest value and some room (as a part of it) for labels at the bars' ends."""
    head = {"title": {"text": title, "font": {"size": 13}}, "range": [0, most * (1 + room) or 1], "nticks": 6}
    return {**AXIS, **head, **more}


def end_label(x: float, y: float, text: str) -> dict[str, Any]:
    """Return a text (plain: what is the users' is escaped here) to the right of a bar's end."""
    return {"x": x, "y": y, "text": plotly_text(text), "showarrow": False, "xanchor": "left", "xshift": 3}


def height_px(num_rows: float, row_px: int = 34) -> int:
    """Return the height of a figure with so many rows."""
    return round(64 + row_px * max(num_rows, 2))


def hover(lines: Iterable[str]) -> str:
    """Return the text of a mark, from plain lines; the hover template shows it as `customdata`."""
    return "<br>".join(plotly_text(line) for line in lines)


def seconds(value: float, digits: int = 3) -> str:
    """Return a duration in words, short ones in milliseconds or microseconds: 4.19 s, 0.952 ms, 72 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.1 * size or value == 0:
            return f"{number(value / size, digits)} {unit}"
    return f"{number(value / 1e-6, digits)} us"


BARS: dict[str, Any] = {"type": "bar", "orientation": "h"}
MARKS: dict[str, Any] = {"type": "scatter", "mode": "markers"}


def flat(colour: str | Sequence[str]) -> dict[str, Any]:
    """Return the marker of bars without an edge."""
    return {"color": colour, "line": {"width": 0}}


def hovers(texts: Iterable[Iterable[str]], **more: Any) -> dict[str, Any]:
    """Return what a trace has of its marks' texts, lines each: nothing in a name is taken for a part of a template."""
    return {"customdata": [hover(lines) for lines in texts], **more, "hovertemplate": "%{customdata}<extra></extra>"}
