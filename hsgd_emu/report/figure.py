"""One figure of a report: the data it draws as a table, and its pictures as plotly JSON that the page's script draws.

The data stand in the page once. A picture refers to them by `Ref`; the same table is what a reader can open as a table
and download as CSV.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import plotly.graph_objects as go

ColumnKind = Literal["text", "count", "seconds", "share", "number", "bytes"]
"""How the page writes a column's values; share: 0 to 1, written as percent."""

AXIS: dict[str, Any] = {
    "zeroline": False,
    "automargin": True,
    "gridcolor": "#8883",
    "linecolor": "#8886",
    "showline": True,
}
HOVER_LABEL = {"align": "left", "bgcolor": "#16202c", "bordercolor": "#9dabba", "font": {"color": "#fff", "size": 13}}
BASE_LAYOUT: dict[str, Any] = {
    # Colours of text and grid are the page's own, by its style sheet, in light and dark.
    "template": "none",
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#777"},
    "margin": {"l": 8, "r": 12, "t": 12, "b": 8},
    "showlegend": False,
    "hovermode": "closest",
    "hoverlabel": HOVER_LABEL,
    "dragmode": False,
    "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#888", "activecolor": "#555"},
}


@dataclass(frozen=True)
class Ref:
    """A column's values in rows start to end (not included); stands in a trace wherever plotly takes an array."""

    column: str
    start: int
    end: int


@dataclass(frozen=True)
class Rows:
    """The values of several columns row by row, as plotly wants a hover's `customdata`."""

    refs: tuple[Ref, ...]


@dataclass(frozen=True)
class Column:
    """One column. name: the CSV's head, with its unit, as `time_s`; label: the head in the page's table."""

    name: str
    label: str
    kind: ColumnKind
    values: Sequence[Any]
    """None where there is no value; never a NaN or an infinity, which JSON does not have."""


@dataclass(frozen=True)
class Switch:
    """A choice among pictures. options: (key, label) pairs."""

    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Picture:
    """One picture of a figure. key: the chosen option of each switch; text: what it shows, in a sentence."""

    key: tuple[str, ...]
    text: str
    traces: Sequence[Mapping[str, Any]]
    """plotly traces, arrays as `Ref`. `meta`: the index of the case, where the key of cases may hide it."""
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure. id: its element's, fixed, so that the bytes are."""

    id: str
    title: str
    pictures: tuple[Picture, ...]
    """The first is shown first."""
    columns: tuple[Column, ...]
    switches: tuple[Switch, ...] = ()
    note: str = ""
    """How to read it, where that is not plain."""
    key: tuple[tuple[str, str], ...] = ()
    """What the colours mean, as (label, colour), where they are not those of the cases."""
    height_px: int = 380
    log_x: bool = False
    """Whether the reader may make the x axis logarithmic."""
    zoom: bool = False
    """Whether the x axis can be zoomed and moved, by mouse and by buttons."""

    def as_json(self) -> str:
        """Return what the page's script draws, the same text for the same figure."""
        pictures = {}
        for picture in self.pictures:
            data, layout = _replaced(picture.traces, _named), {**BASE_LAYOUT, **picture.layout}
            pictures[" ".join(picture.key)] = {"data": data, "layout": layout, "text": picture.text}
        columns = [[column.name, column.label, column.kind, list(column.values)] for column in self.columns]
        # Named, for JavaScript puts keys that are numbers into their own order.
        first = next(iter(pictures), None)
        content = {"title": self.title, "columns": columns, "pictures": pictures, "first": first}
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def plotly(self, key: Sequence[str] | None = None) -> go.Figure:
        """Return one picture (default: the first) as plotly's own figure, which checks every attribute."""
        import plotly.graph_objects as go

        picture = next(p for p in self.pictures if key is None or p.key == tuple(key))
        columns = {column.name: column.values for column in self.columns}

        def values(ref: Ref | Rows) -> list[Any]:
            if isinstance(ref, Rows):
                return [list(row) for row in zip(*map(values, ref.refs), strict=True)]
            return list(columns[ref.column][ref.start : ref.end])

        traces = [_replaced(trace, values) for trace in picture.traces]
        return go.Figure(data=traces, layout={**BASE_LAYOUT, **picture.layout, "title": None})


@dataclass(frozen=True)
class Section:
    """One section of a page. texts: paragraphs before the figures."""

    id: str
    title: str
    texts: tuple[str, ...]
    figures: tuple[Figure, ...]
    case_key: bool = False
    """Whether the key of cases, which hides and shows them in all figures, stands here."""


def plotly_text(text: str) -> str:
    """Return user text so that plotly shows it literally: it takes `<b>`, `<a href>` for markup, `%{y}` for a value."""
    return html.escape(text, quote=False).replace("%{", "%&#123;")


def _replaced(value: Any, change: Callable[[Ref | Rows], Any]) -> Any:
    """Return something with every reference in it changed."""
    if isinstance(value, Ref | Rows):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _replaced(inner, change) for key, inner in value.items()}
    return [_replaced(inner, change) for inner in value] if isinstance(value, list | tuple) else value


def _named(ref: Ref | Rows) -> dict[str, Any]:
    if isinstance(ref, Rows):
        return {"$rows": [_named(one) for one in ref.refs]}
    return {"$": [ref.column, ref.start, ref.end]}
