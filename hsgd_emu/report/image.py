"""One picture of a page made ready to stand alone: on white, with its title and the key of its colours."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.looks import shortened

_WIDTH_PX, _SCALE = 960, 2
_TITLE_CHARACTERS, _TITLE_LINE_PX, _KEY_ROW_PX, _AIR_PX = 100, 26, 24, 26
_BELOW_PX = 52
"""For the labels and the title of an axis."""
_MOST_LABEL, _CHARACTER_PX, _MARK_PX = 60, 8, 45
"""Of the key's entries: the longest label, and about how wide a character and what stands before them are."""
_ON_PAPER: dict[str, Any] = {"paper_bgcolor": "#ffffff", "font": {"family": "sans-serif", "size": 14, "color": "#333"}}


@dataclass(frozen=True)
class Key:
    """What a colour means. symbol: of its mark, as plotly names it."""

    label: str
    colour: str
    symbol: str = "square"


@dataclass(frozen=True)
class Image:
    """One picture to be written.

    name: of its file, without the ending; of: of the figure it is a picture of; draw: return plotly's `data` and
    `layout`; key: what the colours mean; without it the names of the traces stand there.
    """

    name: str
    of: str
    title: str
    height_px: int
    draw: Callable[[], Mapping[str, Any]]
    key: tuple[Key, ...] = ()


def job(image: Image, path: Path, format: str) -> dict[str, Any]:
    """Return what kaleido is given to draw an image."""
    figure = image.draw()
    data = [*_named(figure["data"], bool(image.key)), *map(_entry, image.key)]
    title = textwrap.wrap(image.title, _TITLE_CHARACTERS)
    title_px = _AIR_PX + _TITLE_LINE_PX * len(title)
    head_px = title_px + _KEY_ROW_PX * _rows([trace["name"] for trace in data if trace["showlegend"]])
    height_px = image.height_px + head_px + _BELOW_PX // 2
    place = {"x": 0.01, "y": 1 - title_px / height_px, "xref": "container", "yref": "container", "yanchor": "top"}
    margin = figure["layout"].get("margin", {})
    more_px = {"t": head_px, "b": _BELOW_PX, "l": 20, "r": 8}
    layout = {
        **figure["layout"],
        **_ON_PAPER,
        "xaxis": _apart(figure["layout"].get("xaxis", {})),
        "margin": {**margin, **{side: margin.get(side, 0) + px for side, px in more_px.items()}},
        "title": {
            "text": "<br>".join(map(plotly_text, title)),
            "x": 0.01,
            "yref": "container",
            # Of the first line; the others go on below it.
            "y": 1 - 38 / height_px,
            "yanchor": "bottom",
        },
        "showlegend": True,
        "legend": {"orientation": "h", "traceorder": "normal", **place},
    }
    size = {"width": _WIDTH_PX, "height": height_px, "scale": _SCALE, "format": format}
    return {"fig": {"data": data, "layout": layout}, "path": path, "opts": size}


def _apart(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Return an axis whose title stands off its labels: else it stands at the very edge, which cuts it."""
    title = axis.get("title")
    return {**axis, "title": {**title, "standoff": 10}} if isinstance(title, Mapping) else dict(axis)


def _named(traces: list[dict[str, Any]], key: bool) -> list[dict[str, Any]]:
    """Return the traces, those with one name as one entry of the legend, in the order of cases on the page."""
    found, seen = [], set[str]()
    for trace in traces:
        name = trace.get("name", "")
        shown = not key and bool(name) and name not in seen and trace.get("hoverinfo") != "skip"
        seen |= {name} if shown else set()
        rank = {"legendrank": trace["meta"] + 1} if isinstance(trace.get("meta"), int) else {}
        found.append({**trace, "showlegend": shown, **rank})
    return found


def _entry(key: Key) -> dict[str, Any]:
    """Return a trace that draws nothing but its entry in the legend."""
    marker = {"color": key.colour, "symbol": key.symbol, "size": 12}
    name = plotly_text(shortened(key.label, _MOST_LABEL))
    nothing = {"type": "scatter", "mode": "markers", "x": [None], "y": [None]}
    return {**nothing, "name": name, "marker": marker, "showlegend": True}


def _rows(names: list[str]) -> int:
    """Return about how many rows a legend has: plotly gives all entries the same width where one row is too few."""
    widths_px = [_MARK_PX + _CHARACTER_PX * len(name) for name in names]
    if not names or sum(widths_px) <= _WIDTH_PX:
        return int(bool(names))
    return -(-len(names) // max(_WIDTH_PX // max(widths_px), 1))
