"""The marks of the tree: rows, curves and labels."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR, PART_COLOURS, shortened
from hsgd_emu.report.outline import Place, duration, outline, rest_label, wrapped
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.tree_data import View, Wire, kind_of
from hsgd_emu.topology.tree import Link, Node

MOST_PLACES = 46
MOST_FURTHER = 12
"""Links beside the tree that are drawn; of more, none is."""
SERVER_COLOUR = PART_COLOURS["aggregation"]
WORKER_COLOUR = PART_COLOURS["compute"]
_ROW_PX = 24
_GROUP_GAP = 0.5
_CURVE_POINTS = 12
_CHAR_PX = 7.6
"""Width of a label's character, about; of a full-width one it is twice that."""
_MOST_MARGIN_PX = 200

Point = tuple[float, float]


class Drawing:
    """One network drawn. x is the level (workers all at the right), y counts rows downwards."""

    def __init__(self, view: View, colour_of: Mapping[str, str]) -> None:
        self.view, self.colour_of = view, colour_of
        self.nodes = view.topology.nodes
        self.places = outline(0, lambda node: self.nodes[node].children, self._class_of, MOST_PLACES)
        self.depth = view.topology.num_levels

    def _class_of(self, node: int) -> str:
        return self.nodes[node].class_name

    @property
    def num_left_out(self) -> int:
        """Children of servers that are not drawn."""
        return sum(len(place.rest) for place in self.places)

    @property
    def draws_further(self) -> bool:
        """Whether all links beside the tree are drawn."""
        at = self.at
        both = all((link.lower, False) in at and (link.upper, False) in at for link in self.view.further)
        return both and len(self.view.further) <= MOST_FURTHER

    @cached_property
    def at(self) -> dict[tuple[int, bool], Point]:
        """Where each place stands, by node and whether it stands for a rest: leaves one below the other, with a gap
        between groups, and servers in the middle of their children."""
        found: dict[tuple[int, bool], Point] = {}
        below: dict[int, list[float]] = {}
        y, before = -1.0, self.places[0].parent
        for place in self.places:
            if place.rest or not self.nodes[place.node].children:
                y += 1 + _GROUP_GAP * (y >= 0 and place.parent != before)
                before = place.parent
                found[_id(place)] = (self._x(place), y)
        for place in reversed(self.places):
            if _id(place) not in found:
                rows = below[place.node]
                found[_id(place)] = (float(place.depth), (min(rows) + max(rows)) / 2)
            if place.parent is not None:
                below.setdefault(place.parent, []).append(found[_id(place)][1])
        return found

    def _x(self, place: Place[int]) -> float:
        return float(self.depth if self.nodes[place.node].is_worker else place.depth)

    @property
    def num_rows(self) -> float:
        return max(y for _, y in self.at.values()) + 1

    # --- traces -------------------------------------------------------------------------------------

    def traces(self) -> list[dict[str, Any]]:
        """Return links, then nodes: what comes later lies above."""
        return [*self._further(), *self._edges(), *self._nodes()]

    def _edges(self) -> Iterator[dict[str, Any]]:
        by_name: dict[str | None, list[tuple[Point, Point]]] = {}
        middles: dict[str, list[tuple[Point, str]]] = {}
        for place in self.places[1:]:
            assert place.parent is not None
            ends = self.at[place.parent, False], self.at[_id(place)]
            link = None if place.rest else self.view.topology.uplinks.get(place.node)
            name = self.view.wire(link).name if link else None
            by_name.setdefault(name, []).append(ends)
            if link and name is not None:
                middle = ((ends[0][0] + ends[1][0]) / 2, (ends[0][1] + ends[1][1]) / 2)
                middles.setdefault(name, []).append((middle, self._about_link(link)))
        for name, curves in by_name.items():
            line = {"width": 2, "color": self.colour_of[name]} if name is not None else _GREY
            yield _lines(curves, line)
        for name, marks in middles.items():
            marker = {"size": 7, "color": self.colour_of[name]}
            yield _marks([point for point, _ in marks], [text for _, text in marks], marker)

    def _further(self) -> Iterator[dict[str, Any]]:
        if not self.draws_further:
            return
        for link in self.view.further:
            ends = self.at[link.upper, False], self.at[link.lower, False]
            line = {"width": 1, "dash": "4px,4px", "color": self.colour_of[self.view.wire(link).name]}
            yield {**_lines([ends], line), "opacity": 0.65}

    def _nodes(self) -> Iterator[dict[str, Any]]:
        kinds: dict[str, list[Place[int]]] = {}
        for place in self.places:
            kinds.setdefault("rest" if place.rest else kind_of(self.nodes[place.node]), []).append(place)
        for kind, places in kinds.items():
            texts = [self._about_rest(p) if p.rest else self._about_node(self.nodes[p.node]) for p in places]
            yield _marks([self.at[_id(place)] for place in places], texts, _MARKERS[kind])

    # --- words --------------------------------------------------------------------------------------

    def _about_link(self, link: Link) -> str:
        wire = self.view.wire(link)
        lines = [
            f"<b>{wrapped(link.name)}</b>",
            f"profile {wrapped(wire.name)}",
            f"round trip {duration(wire.rtt_s)} expected ({duration(wire.up_s)} up, {duration(wire.down_s)} down)",
        ]
        if wire.profile.rates_bps is not None:
            up, down = wire.profile.rates_bps
            lines.append(_rate(up) if up == down else f"{_rate(up)} up, {_rate(down)} down")
        return "<br>".join([*lines, *_origin(wire)])

    def _about_node(self, node: Node) -> str:
        lines = [f"<b>{wrapped(node.name)}</b>", f"{kind_of(node)}, level {node.level}"]
        if node.is_worker:
            lines.append(f"a step takes {duration(self.view.step_s(node.index))} expected")
        else:
            seconds = self.view.aggregation_s(node)
            lines.append(f"{len(node.children):,} child{'ren' * (len(node.children) != 1)}")
            lines.append(f"an aggregation takes {duration(seconds)} expected" if seconds else "aggregates in no time")
        if node.parent is not None and node.index not in self.view.topology.uplinks:
            lines.append("no link to its parent: other links lead there")
        return "<br>".join(lines)

    def _about_rest(self, place: Place[int]) -> str:
        classes = Counter(map(self._class_of, place.rest))
        links = [self.view.topology.uplinks[node] for node in place.rest if node in self.view.topology.uplinks]
        lines = ["not drawn: " + wrapped(listed([f"{num:,} {name}" for name, num in classes.items()]))]
        if links:
            names = dict.fromkeys(self.view.wire(link).name for link in links)
            lines.append(f"profile {wrapped(listed([*names]))}")
        return "<br>".join(lines)

    # --- layout -------------------------------------------------------------------------------------

    def layout(self) -> dict[str, Any]:
        """Return a layout whose margins hold the labels of root and leaves, whatever the width."""
        left = _width_px(self._label(self.places[0])) / 2
        right = max(_width_px(self._label(p)) for p in self.places if self.at[_id(p)][0] >= self.depth)
        axis = {"visible": False, "fixedrange": True, "automargin": False}
        return {
            "xaxis": {**axis, "range": [0, self.depth]},
            "yaxis": {**axis, "range": [self.num_rows - 0.4, -1.2]},
            "margin": {"l": round(12 + left), "r": round(18 + right), "t": 24, "b": 4},
            "annotations": list(self._labels()),
        }

    def _most(self) -> int:
        """Return how many characters a server's label may have, so that two levels' do not touch on a phone."""
        return max(6, 30 // self.depth) if self.depth > 1 else 18

    def _label(self, place: Place[int]) -> str:
        if place.rest:
            return rest_label(place.rest, self._class_of, 12)
        node = self.nodes[place.node]
        return shortened(node.name, 18 if node.is_worker else self._most())

    def _labels(self) -> Iterator[dict[str, Any]]:
        for place in self.places:
            x, y = self.at[_id(place)]
            text = {"x": x, "y": y, "showarrow": False, "font": {"size": 12}, "text": plotly_text(self._label(place))}
            if place.rest or self.nodes[place.node].is_worker:
                yield {**text, "xanchor": "left", "xshift": 9}
            elif place.parent is None:
                yield {**text, "xanchor": "center", "yshift": 18}
            elif self.depth <= 5:
                # On the side that the link from above does not come from.
                below = y > self.at[place.parent, False][1]
                yield {**text, "xanchor": "right", "xshift": 16, "yshift": -16 if below else 16}


_GREY = {"width": 1.5, "dash": "2px,3px", "color": OTHER_COLOUR}
_MARKERS: dict[str, dict[str, Any]] = {
    "global server": {"size": 16, "symbol": "square", "color": SERVER_COLOUR},
    "local server": {"size": 13, "symbol": "square", "color": SERVER_COLOUR},
    "worker": {"size": 11, "symbol": "circle", "color": WORKER_COLOUR},
    "rest": {"size": 9, "symbol": "circle-open", "color": OTHER_COLOUR},
}


def height_px(drawing: Drawing) -> int:
    """Return the height that gives each row its place, within what a page bears."""
    return min(900, max(220, round(_ROW_PX * (drawing.num_rows + 1) + 20)))


def _id(place: Place[int]) -> tuple[int, bool]:
    return place.node, bool(place.rest)


def _lines(curves: Sequence[tuple[Point, Point]], line: Mapping[str, Any]) -> dict[str, Any]:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for ends in curves:
        for x, y in _curve(*ends):
            xs.append(round(x, 3))
            ys.append(round(y, 3))
        xs.append(None)
        ys.append(None)
    smooth = {"shape": "spline", **line}
    return {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": smooth, "hoverinfo": "skip"}


def _curve(start: Point, end: Point) -> Iterator[Point]:
    """Yield points of a Bezier curve that leaves and arrives horizontally."""
    for step in range(_CURVE_POINTS + 1):
        t = step / _CURVE_POINTS
        x = start[0] + (end[0] - start[0]) * (1.5 * t * (1 - t) + t**3)
        yield x, start[1] + (end[1] - start[1]) * (3 - 2 * t) * t * t


def _marks(points: Sequence[Point], texts: Sequence[str], marker: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "cliponaxis": False,
        "x": [round(x, 3) for x, _ in points],
        "y": [round(y, 3) for _, y in points],
        "text": list(texts),
        "marker": {"opacity": 1, **marker},
        "hovertemplate": "%{text}<extra></extra>",
    }


def _origin(wire: Wire) -> list[str]:
    """Return what the profile says of itself, and where its figures come from."""
    texts = [wire.profile.description, f"Source: {wire.profile.source.strip()}" if wire.profile.source else None]
    return [wrapped(text, 240) for text in texts if text]


def _width_px(label: str) -> float:
    cells = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in label)
    return min(_MOST_MARGIN_PX, _CHAR_PX * cells)


def _rate(rate_bps: float) -> str:
    unit, size = next(
        (u for u in (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)) if rate_bps >= u[1]), ("bit/s", 1)
    )
    return f"{rate_bps / size:.3g} {unit}"
