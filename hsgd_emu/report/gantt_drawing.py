"""The marks of the timeline: bars, aggregations and the rows' names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hsgd_emu.report.figure import AXIS, Ref, Rows, plotly_text
from hsgd_emu.report.gantt_rows import Bar, Window, class_of
from hsgd_emu.report.looks import PART_COLOURS, shortened
from hsgd_emu.report.outline import rest_label, wrapped
from hsgd_emu.report.traffic import bytes_in_words

PARTS = {
    "compute": "compute",
    "upload": "upload",
    "download": "download",
    "aggregate": "aggregation",
    "wait": "waiting",
}
"""What each kind of row is called in `PART_COLOURS`."""
_LABEL = 16
_GROUP_GAP = 0.4
_HEIGHTS = {"wait": 0.34}
"""Of bars; a row has 1. Who waits does nothing: it looks like less."""
_VERBS = {
    "compute": "computes %{hovertext} steps",
    "upload": "uploads to %{hovertext}",
    "download": "receives from %{hovertext}",
    "aggregate": "aggregates; %{hovertext} came last",
    "wait": "waits for %{hovertext}",
}
_TIMES = "<br>%{base:,.7~g} to %{x:,.7~g} s (%{customdata[1]:.3s}s)<br>iteration %{customdata[0]:,}<extra></extra>"
_MOMENT = "<br>at %{x:,.7~g} s, iteration %{customdata:,}<extra></extra>"


def in_order(window: Window) -> list[Bar]:
    """Return the bars kind by kind, the global server's aggregations last: a trace draws one part of the table."""
    kinds = list(PARTS)
    place = {row.node: number for number, row in enumerate(window.places) if not row.rest}

    def order(bar: Bar) -> tuple[float, ...]:
        is_global = bar.kind == "aggregate" and bar.node == window.root
        return kinds.index(bar.kind), is_global, bar.start_s, bar.end_s, place[bar.node]

    return sorted(window.bars, key=order)


class Drawing:
    """One picture; first: the row of the figure's table at which its bars begin."""

    def __init__(self, window: Window, bars: Sequence[Bar], first: int) -> None:
        self.window, self.bars, self.first = window, bars, first
        self._ys: list[float] = []
        self._last: dict[str, float] = {}
        """By server the place of the last row below it."""
        self._place()
        self._row = {p.node: y for p, y in zip(window.places, self._ys, strict=True) if not p.rest}

    def _place(self) -> None:
        """Give each row its place, with a gap before every server."""
        servers = {place.parent for place in self.window.places}
        above: list[str] = []
        y = -1.0
        for place in self.window.places:
            y += 1 + _GROUP_GAP * (place.depth > 0 and not place.rest and place.node in servers)
            self._ys.append(y)
            above = [*above[: place.depth], place.node]
            self._last.update(dict.fromkeys(above, y))

    @property
    def num_rows(self) -> float:
        return self._ys[-1] + 1

    # --- traces -------------------------------------------------------------------------------------

    def traces(self) -> list[dict[str, Any]]:
        """Return the bars, one trace per kind, then the aggregations, which lie above them."""
        return [*self._bars(), *self._lines(), *self._moments()]

    def _part(self, kind: str) -> tuple[int, int]:
        """Return begin and end of a kind's bars."""
        places = [number for number, bar in enumerate(self.bars) if bar.kind == kind]
        return (places[0], places[-1] + 1) if places else (0, 0)

    def _bars(self) -> Iterator[dict[str, Any]]:
        for kind, part in PARTS.items():
            begin, end = self._part(kind)
            bars = self.bars[begin:end]
            if not bars:
                continue
            yield {
                "type": "bar",
                "orientation": "h",
                "base": self._ref("start_s", begin, end),
                "x": self._ref("duration_s", begin, end),
                "y": [self._row[bar.node] for bar in bars],
                "width": _HEIGHTS.get(kind, 0.78),
                "marker": {"color": PART_COLOURS[part], "line": {"width": 0}},
                "text": self._names("node", begin, end),
                "textposition": "none",
                "hovertext": self._ref("steps", begin, end) if kind == "compute" else self._names("peer", begin, end),
                "customdata": Rows((self._ref("iteration", begin, end), self._ref("duration_s", begin, end))),
                "hovertemplate": f"<b>%{{text}}</b> {_VERBS[kind]}{_size(bars)}{_TIMES}",
            }

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Yield a line per aggregation, from its server's row to the last row below it."""
        begin, end = self._part("aggregate")
        split = next((i for i in range(begin, end) if self.bars[i].node == self.window.root), end)
        for width, part in ((1.5, range(begin, split)), (3, range(split, end))):
            xs: list[float | None] = []
            ys: list[float | None] = []
            for bar in (self.bars[i] for i in part):
                xs += [bar.end_s, bar.end_s, None]
                ys += [self._row[bar.node] - 0.5, self._last[bar.node] + 0.5, None]
            line = {"color": PART_COLOURS["aggregation"], "width": width}
            if xs:
                yield {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": line, "hoverinfo": "skip"}

    def _moments(self) -> Iterator[dict[str, Any]]:
        """Yield a mark on the server's row at the end of each aggregation: most take no time at all."""
        begin, end = self._part("aggregate")
        bars = self.bars[begin:end]
        if bars:
            is_root = [bar.node == self.window.root for bar in bars]
            yield {
                "type": "scatter",
                "mode": "markers",
                "cliponaxis": False,
                "x": self._ref("end_s", begin, end),
                "y": [self._row[bar.node] for bar in bars],
                "text": self._names("node", begin, end),
                "hovertext": self._names("peer", begin, end),
                "customdata": self._ref("iteration", begin, end),
                "marker": {
                    "symbol": "diamond",
                    "opacity": 1,
                    "line": {"width": 0},
                    "size": [13 if root else 8 for root in is_root],
                    "color": PART_COLOURS["aggregation"],
                },
                "hovertemplate": f"<b>%{{text}}</b> {_VERBS['aggregate']}{_MOMENT}",
            }

    def _ref(self, column: str, begin: int, end: int) -> Ref:
        return Ref(column, self.first + begin, self.first + end)

    def _names(self, column: str, begin: int, end: int) -> Ref | list[str]:
        """Return names as they stand in the table, unless one is too long or plotly would take it for markup."""
        names = [getattr(bar, column) for bar in self.bars[begin:end]]
        safe = [wrapped(name) for name in names]
        return self._ref(column, begin, end) if safe == names else safe

    # --- layout -------------------------------------------------------------------------------------

    def layout(self) -> dict[str, Any]:
        """Return rows from above to below, and the time from 0 to the end of what is shown."""
        end_s = self.window.end_s or 1e-9
        time = {"title": {"text": "emulated time (s)"}, "range": [0, end_s], "nticks": 7, "showgrid": False}
        rows = {
            "range": [self.num_rows - 0.4, -0.6],
            "tickvals": self._ys,
            "ticktext": [self._label(number) for number in range(len(self._ys))],
            "showgrid": False,
            "fixedrange": True,
            "showline": False,
            # Ticks that are not seen keep the names away from the bars.
            "ticks": "outside",
            "ticklen": 5,
            "tickcolor": "rgba(0,0,0,0)",
        }
        moments = [bar.end_s for bar in self.bars if bar.kind == "aggregate" and bar.node == self.window.root]
        return {
            "barmode": "overlay",
            "margin": {"l": 8, "r": 16, "t": 24, "b": 8},
            "xaxis": {**AXIS, **time},
            "yaxis": {**AXIS, **rows},
            "shapes": [_received(t) for t in self.window.received_s.values() if t <= end_s],
            "annotations": [_global(t) for t in moments],
        }

    def _label(self, number: int) -> str:
        place = self.window.places[number]
        if place.rest:
            return f"<i>{plotly_text(rest_label(place.rest, class_of, 10))}</i>"
        name = plotly_text(shortened(place.node, _LABEL))
        return f"<b>{name}</b>" if place.node in self.window.aggregations else name


def _size(bars: Sequence[Bar]) -> str:
    """Return what each of the transfers sends: all trials of a run send models of one size."""
    sizes = {bar.bytes for bar in bars}
    return f": {bytes_in_words(sizes.pop())}" if len(sizes) == 1 and 0 not in sizes else ""


def _received(time_s: float) -> dict[str, Any]:
    line = {"width": 1.5, "dash": "4px,3px", "color": PART_COLOURS["compute"]}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": time_s, "x1": time_s, "y0": 0, "y1": 1, "line": line}


def _global(time_s: float) -> dict[str, Any]:
    place = {"x": time_s, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "center"}
    return {**place, "text": "global", "showarrow": False, "font": {"size": 12}}
