"""A run's network as plain data: its nodes and links with what they are expected to cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hsgd_emu.config.schema import LinkProfile, Ref
from hsgd_emu.experiment import Experiment
from hsgd_emu.report.figure import Column, ColumnKind
from hsgd_emu.report.traffic import profile_name
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.tree import Link, Node, Topology

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
            yield self._node_row(node)
        for link in self.further:
            lower, upper, wire = nodes[link.lower], nodes[link.upper], self.wire(link)
            place = (lower.name, "further link", None, lower.class_name, upper.name, link.name)
            yield Row._make((*place, wire.name, wire.up_s, wire.down_s, None, None))

    def _node_row(self, node: Node) -> Row:
        link = self.topology.uplinks.get(node.index)
        wire = self.wire(link) if link else None
        parent = None if node.parent is None else self.topology.nodes[node.parent].name
        costs = (wire.name, wire.up_s, wire.down_s) if wire else (None, None, None)
        step_s = self.step_s(node.index) if node.is_worker else None
        aggregation_s = None if node.is_worker else self.aggregation_s(node)
        place = (node.name, kind_of(node), node.level, node.class_name, parent, link.name if link else None)
        return Row._make((*place, *costs, step_s, aggregation_s))


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
