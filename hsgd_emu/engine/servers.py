"""What a case's servers do with averages, and what its senders compress: given by name, found by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hsgd_emu.config.reader import Path_
from hsgd_emu.config.server_schema import CompressionSpec, Direction, ServerSpec
from hsgd_emu.engine.schedule import Mistakes, Schedule
from hsgd_emu.errors import listed, nearest
from hsgd_emu.topology.tree import Topology


def servers_by_name(
    given: Mapping[str, ServerSpec], schedule: Schedule, topology: Topology
) -> dict[str, ServerSpec] | None:
    """Return under its own name what each aggregating server does, where that is not just the average."""
    found = {
        topology.nodes[node].name: spec.whole()
        for node, spec in topology.by_node(given).items()
        if node in schedule.servers and not spec.changes_nothing
    }
    return found or None


def compression_by_name(
    given: Mapping[str, CompressionSpec], schedule: Schedule, topology: Topology
) -> dict[str, CompressionSpec] | None:
    """Return under its own name what each sender compresses, where it sends anything else than it would without."""
    found = {
        topology.nodes[node].name: spec.whole()
        for node, spec in topology.by_node(given).items()
        if not spec.changes_nothing and _ways(node, spec, schedule)
    }
    return found or None


def _ways(node: int, spec: CompressionSpec, schedule: Schedule) -> list[Direction]:
    """Return where a node sends something that is to be compressed."""
    return [way for way in spec.directions if _sends([node], way, [schedule])]


def check_servers(given: Mapping[str, ServerSpec], schedules: list[Schedule], topology: Topology) -> Mistakes:
    """Return what is wrong with `servers` that hold for cases of these schedules; paths relative to the section."""
    mistakes: Mistakes = []
    for name in given:
        path: Path_ = (name,)
        named = topology.named(name)
        if not any(node in topology.servers for node in named):
            known = _names(topology, topology.servers)
            what = "is a worker, and only servers aggregate" if named else "is no server of the topology"
            mistakes.append((path, f"'{name}' {what}{nearest(name, known) or f'; servers are {listed(known)}'}"))
        elif not any(node in schedule.servers for schedule in schedules for node in named):
            mistakes.append((path, f"'{name}' averages nothing here: it has no period, and only passes models through"))
    return mistakes


def check_compression(given: Mapping[str, CompressionSpec], schedules: list[Schedule], topology: Topology) -> Mistakes:
    """Return what is wrong with `compression` that holds for cases of these schedules; paths as `check_servers`."""
    mistakes: Mistakes = []
    for name, spec in given.items():
        path: Path_ = (name,)
        named = topology.named(name)
        if not named:
            known = _names(topology, range(len(topology.nodes)))
            hint = nearest(name, known) or f"; its nodes are {listed(known, 6)}"
            mistakes.append((path, f"'{name}' is no node of the topology{hint}"))
            continue
        missing = [way for way in spec.directions if not _sends(named, way, schedules)]
        if missing:
            mistakes.append((path, _sends_nothing(name, named, missing[0], schedules, topology)))
    return mistakes


def _sends(nodes: Sequence[int], way: Direction, schedules: Sequence[Schedule]) -> bool:
    """Return whether any of some nodes sends anything that way; where hubs mix the global server does not."""
    if way == "up":
        return any(node in schedule.senders for schedule in schedules for node in nodes)
    return any(node in s.servers and (node or s.graph is None) for s in schedules for node in nodes)


def _sends_nothing(
    name: str, nodes: tuple[int, ...], way: Direction, schedules: list[Schedule], topology: Topology
) -> str:
    """Return what is said where none of some nodes sends anything that way."""
    text = f"'{name}' sends nothing {way}, and compression stands under the name of the sender"
    other: Direction = "down" if way == "up" else "up"
    if way == "up":
        senders = dict.fromkeys(topology.nodes[n].class_name for s in schedules for n in s.senders)
        text += f", such as {listed(senders, 4)}"
    return f"{text}; or direction: {other}" if _sends(nodes, other, schedules) else text


def _names(topology: Topology, nodes: range | tuple[int, ...]) -> list[str]:
    return list(
        dict.fromkeys(n for node in nodes for n in (topology.nodes[node].class_name, topology.nodes[node].name))
    )
