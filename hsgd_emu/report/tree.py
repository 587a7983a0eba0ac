"""The network as a picture: a tree from the global server at the left to the workers at the right."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hsgd_emu.config.schema import LinkProfile, Ref
from hsgd_emu.experiment import Experiment
from hsgd_emu.report.bars import MARKS
from hsgd_emu.report.content import Content
from hsgd_emu.report.figure import Column, ColumnKind, Figure, Picture, Switch, plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR, PART_COLOURS, colours, shortened
from hsgd_emu.report.outline import Place, duration, outline, rest_label, wrapped
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.traffic import bytes_in_words, profile_name
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.tree import Link, Node, Topology


def network(content: Content) -> Figure | None:
    """Return the runs' networks, a picture each; runs on the same network share one."""
    views = _views(content)
    if not views:
        return None
    names = list(dict.fromkeys(name for _, view in views for name in view.wires))
    colour_of = dict(zip(names, colours(len(names)), strict=True))
    drawings = [Drawing(view, colour_of) for _, view in views]
    several = len(views) > 1
    keys = [(str(number),) if several else () for number in range(len(views))]
    pictures = tuple(Picture(k, _text(d.view), d.traces(), d.layout()) for k, d in zip(keys, drawings, strict=True))
    options = tuple((str(number), name) for number, (name, _) in enumerate(views))
    return Figure(
        id="network",
        title="Topology, links and their expected times",
        pictures=pictures,
        columns=columns(views),
        switches=(Switch("Run", options),) if several else (),
        note=_note(views, drawings),
        key=_key([view for _, view in views], colour_of),
        height_px=max(map(height_px, drawings)),
    )


def _views(content: Content) -> list[tuple[str, View]]:
    """Return each network with the names of the runs on it; a run whose file could not be read has none."""
    found: dict[int, tuple[list[str], View]] = {}
    for run in content.runs:
        if run.experiment is None:
            continue
        view = View(run.experiment, run.message_bytes)
        # Rows by themselves would be much to keep: networks of thousands of nodes are told apart by a hash of theirs.
        names, _ = found.setdefault(hash((view.message_bytes, tuple(view.rows()))), ([], view))
        names.append(run.name)
    return [(listed(names), view) for names, view in found.values()]


def _key(views: Sequence[View], colour_of: dict[str, str]) -> tuple[tuple[str, str], ...]:
    entries = []
    for name, colour in colour_of.items():
        wires = [view.wires[name] for view in views if name in view.wires]
        times = " or ".join(dict.fromkeys(duration(wire.rtt_s) for wire in wires))
        called = f"{shortened(name, 40)}: " if wires[0].named else ""
        entries.append((f"{called}{times} RTT expected", colour))
    return (*entries, ("server", SERVER_COLOUR), ("worker", WORKER_COLOUR))


def _note(views: Sequence[tuple[str, View]], drawings: Sequence[Drawing]) -> str:
    parts = ["Dots on links and marks of nodes tell more when pointed at."]
    sizes = dict.fromkeys(view.message_bytes for _, view in views if view.message_bytes)
    if sizes:
        parts.append(f"RTT: up plus down transfer of one model message ({listed([*map(bytes_in_words, sizes)])}).")
    if any(place.rest for drawing in drawings for place in drawing.places):
        parts.append("Of each server the first children are drawn; the data count all.")
    if any(view.further for _, view in views):
        drawn = all(drawing.draws_further for drawing in drawings)
        parts.append("Dashed: links beside the tree." if drawn else "Links beside the tree are in the data only.")
    return " ".join(parts)


def _text(view: View) -> str:
    """Say how many nodes there are and what a round trip between them costs."""
    text = _counts(view.topology)
    hops = _hops(view)
    trips = [f"{time} {ends}{f' ({profile})' if profile else ''}" for profile, time, ends in hops["tree"]]
    if trips:
        text += f"; a round trip is expected to take {listed(trips)}"
    beside = [
        f"{_num(num, 'link')} {ends} ({profile}{', ' * bool(profile)}{time})"
        for (profile, time, ends), num in hops["beside"].items()
    ]
    are = "is" if next(iter(hops["beside"].values()), 0) == 1 else "are"
    return f"{text}; beside the tree there {are} {listed(beside)}." if beside else f"{text}."


def _counts(topology: Topology) -> str:
    """Return how many workers there are, and where."""
    num_local = len(topology.servers) - 1
    direct = sum(topology.nodes[child].is_worker for child in topology.nodes[0].children)
    groups = len(topology.groups()) - (direct > 0)
    if not num_local:
        return f"{_num(direct, 'worker')} directly at the global server"
    text = f"in {_num(groups, 'group')} behind {_num(num_local, 'local server')}"
    text += f" on {topology.num_levels - 1} levels" if topology.num_levels > 2 else ""
    behind = f"{_num(len(topology.workers) - direct, 'worker')} {text}"
    return f"{behind} and {direct:,} directly at the global server" if direct else behind


def _num(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def _hops(view: View) -> dict[str, Counter[tuple[str, str, str]]]:
    """Return (profile, RTT, classes of the ends) and their number, the nearest to the workers first."""
    nodes = view.topology.nodes
    found: dict[str, Counter[tuple[str, str, str]]] = {"tree": Counter(), "beside": Counter()}
    ordered = sorted(view.topology.uplinks.values(), key=lambda link: -nodes[link.lower].level)
    for place, links in (("tree", ordered), ("beside", view.further)):
        for link in links:
            wire = view.wire(link)
            lower, upper = (shortened(nodes[end].class_name, 30) for end in (link.lower, link.upper))
            profile = shortened(wire.name, 30) if wire.named else ""
            found[place][profile, duration(wire.rtt_s), f"from {lower} to {upper}"] += 1
    return found


# --- the data ---------------------------------------------------------------------------------------

MOST_ROWS = 2_000
"""Rows of data node by node; of more nodes and links, one row for all that are alike."""


class Wire(NamedTuple):
    """What a message costs over the links of one profile; up_s, down_s: expected."""

    name: str
    up_s: float
    down_s: float
    profile: LinkProfile
    named: bool
    """False: written inline without a name; `name` tells its RTT."""

    @property
    def rtt_s(self) -> float:
        return self.up_s + self.down_s


class Row(NamedTuple):
    """One row of the data: a node with the link to its parent, or a further link beside the tree."""

    node: str
    kind: str
    level: int | None
    name: str
    """The class: the name in the topology file, which may stand for several nodes."""
    parent: str | None
    link: str | None
    profile: str | None
    up_s: float | None
    down_s: float | None
    step_s: float | None
    aggregation_s: float | None


@dataclass(frozen=True)
class View:
    """One run's network and the size of a model message on it; 0 where it is not known."""

    experiment: Experiment
    message_bytes: int

    @property
    def topology(self) -> Topology:
        return self.experiment.topology

    @cached_property
    def _wires(self) -> dict[Ref, Wire]:
        found: dict[Ref, Wire] = {}
        for link in self.topology.links:
            if link.profile not in found:
                transfer = self.experiment.network.transfers[link.profile]
                profile, (up_s, down_s) = transfer.profile, transfer.expected_s(Message(self.message_bytes))
                named = isinstance(link.profile, str) or profile.name is not None
                name = profile_name(link.profile, profile, up_s + down_s)
                found[link.profile] = Wire(name, up_s, down_s, profile, named)
        return found

    def wire(self, link: Link) -> Wire:
        """Return what a link costs."""
        return self._wires[link.profile]

    @cached_property
    def wires(self) -> dict[str, Wire]:
        """The profiles by name, in the order of first use."""
        found: dict[str, Wire] = {}
        for wire in self._wires.values():
            found.setdefault(wire.name, wire)
        return found

    @cached_property
    def further(self) -> tuple[Link, ...]:
        """The links beside the tree."""
        taken = set(self.topology.uplinks.values())
        return tuple(link for link in self.topology.links if link not in taken)

    def step_s(self, worker: int) -> float:
        """Return the expected seconds of a worker's step."""
        return self.experiment.network.steps[worker].expected_s

    def aggregation_s(self, server: Node) -> float:
        """Return the expected seconds of a server's aggregation."""
        cost = self.experiment.network.aggregations.get(server.index)
        return 0.0 if cost is None else cost.expected_s

    def rows(self) -> Iterator[Row]:
        """Yield every node, depth first, then the further links."""
        nodes = self.topology.nodes
        for node in nodes:
            parent = None if node.parent is None else nodes[node.parent].name
            place = (node.name, kind_of(node), node.level, node.class_name, parent)
            costs = (self.step_s(node.index), None) if node.is_worker else (None, self.aggregation_s(node))
            yield Row._make((*place, *self._of_link(self.topology.uplinks.get(node.index)), *costs))
        for link in self.further:
            lower, upper = nodes[link.lower], nodes[link.upper]
            ends = (lower.name, "further link", None, lower.class_name, upper.name)
            yield Row._make((*ends, *self._of_link(link), None, None))

    def _of_link(self, link: Link | None) -> tuple[str | float | None, ...]:
        if link is None:
            return (None, None, None, None)
        wire = self.wire(link)
        return link.name, wire.name, wire.up_s, wire.down_s


def kind_of(node: Node) -> str:
    """Return what a node is, in words."""
    return "worker" if node.is_worker else "global server" if node.parent is None else "local server"


_COLUMNS: dict[str, tuple[str, str, ColumnKind]] = {
    "node": ("node", "node", "text"),
    "name": ("class", "class", "text"),
    "num": ("num", "number", "count"),
    "kind": ("kind", "kind", "text"),
    "level": ("level", "level", "count"),
    "parent": ("parent", "linked to", "text"),
    "link": ("link", "link", "text"),
    "profile": ("profile", "profile", "text"),
    "up_s": ("expected_up_s", "up (expected)", "seconds"),
    "down_s": ("expected_down_s", "down (expected)", "seconds"),
    "step_s": ("step_s", "step (expected)", "seconds"),
    "aggregation_s": ("aggregation_s", "aggregation (expected)", "seconds"),
}


def columns(views: Sequence[tuple[str, View]]) -> tuple[Column, ...]:
    """Return the networks' data as one table; with names before the rows where there are several."""
    alike = any(len(view.topology.nodes) + len(view.further) > MOST_ROWS for _, view in views)
    table: list[tuple[str, dict[str, Any]]] = []
    for name, view in views:
        found = _alike(view) if alike else (row._asdict() for row in view.rows())
        table += [(name, row) for row in found]
    keys = [key for key in _COLUMNS if key not in (("node", "link") if alike else ("num",))]
    made = [Column(*_COLUMNS[key], [row[key] for _, row in table]) for key in keys]
    if len(views) > 1:
        made.insert(0, Column("run", "run", "text", [name for name, _ in table]))
    return tuple(made)


def _alike(view: View) -> Iterator[dict[str, Any]]:
    """Yield one row for all nodes, or further links, of one class that cost the same."""
    class_of = {node.name: node.class_name for node in view.topology.nodes}
    found = Counter(
        row._replace(node="", link=None, parent=None if row.parent is None else class_of[row.parent])
        for row in view.rows()
    )
    for row, num in found.items():
        yield {**row._asdict(), "num": num}


# --- the marks --------------------------------------------------------------------------------------

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
    def draws_further(self) -> bool:
        """Whether all links beside the tree are drawn."""
        both = all((end, False) in self.at for link in self.view.further for end in (link.lower, link.upper))
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
        lines = [f"<b>{wrapped(link.name)}</b>", f"profile {wrapped(wire.name)}"]
        ways = f"{duration(wire.up_s)} up, {duration(wire.down_s)} down"
        lines.append(f"round trip {duration(wire.rtt_s)} expected ({ways})")
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
        x, y = {**axis, "range": [0, self.depth]}, {**axis, "range": [self.num_rows - 0.4, -1.2]}
        margin = {"l": round(12 + left), "r": round(18 + right), "t": 24, "b": 4}
        return {"xaxis": x, "yaxis": y, "margin": margin, "annotations": list(self._labels())}

    def _label(self, place: Place[int]) -> str:
        if place.rest:
            return rest_label(place.rest, self._class_of, 12)
        node = self.nodes[place.node]
        # Servers' shorter, so that two levels' do not touch on a phone.
        short = not node.is_worker and self.depth > 1
        return shortened(node.name, max(6, 30 // self.depth) if short else 18)

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
    nothing: tuple[None, None] = (None, None)
    spots = [spot for ends in curves for spot in (*_curve(*ends), nothing)]
    place = {"x": [x for x, _ in spots], "y": [y for _, y in spots]}
    return {"type": "scatter", "mode": "lines", **place, "line": {"shape": "spline", **line}, "hoverinfo": "skip"}


def _curve(start: Point, end: Point) -> Iterator[Point]:
    """Yield points of a Bezier curve that leaves and arrives horizontally."""
    for step in range(_CURVE_POINTS + 1):
        t = step / _CURVE_POINTS
        x = start[0] + (end[0] - start[0]) * (1.5 * t * (1 - t) + t**3)
        yield round(x, 3), round(start[1] + (end[1] - start[1]) * (3 - 2 * t) * t * t, 3)


def _marks(points: Sequence[Point], texts: Sequence[str], marker: Mapping[str, Any]) -> dict[str, Any]:
    place = {"x": [round(x, 3) for x, _ in points], "y": [round(y, 3) for _, y in points], "text": list(texts)}
    look = {"marker": {"opacity": 1, **marker}, "hovertemplate": "%{text}<extra></extra>"}
    return {**MARKS, "cliponaxis": False, **place, **look}


def _origin(wire: Wire) -> list[str]:
    """Return what the profile says of itself, and where its figures come from."""
    texts = [wire.profile.description, f"Source: {wire.profile.source.strip()}" if wire.profile.source else None]
    return [wrapped(text, 240) for text in texts if text]


def _width_px(label: str) -> float:
    cells = sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in label)
    return min(_MOST_MARGIN_PX, _CHAR_PX * cells)


def _rate(rate_bps: float) -> str:
    units = (("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3))
    unit, size = next((u for u in units if rate_bps >= u[1]), ("bit/s", 1))
    return f"{rate_bps / size:.3g} {unit}"
