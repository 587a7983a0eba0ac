"""Routes of least expected cost through the topology's graph; the only importer of networkx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from hsgd_emu.config.schema import LinkProfile
from hsgd_emu.topology.tree import Link, Topology

_HOP_BITS = 20
"""Costs are shifted by this many bits, so that among equal costs fewer hops win, and no weight is zero."""


@dataclass(frozen=True)
class Hop:
    """One link of a route; forward: travelled from the link's lower to its upper end when uploading."""

    link: Link
    forward: bool


def network(topology: Topology, expected_ns: Mapping[str | LinkProfile, int]) -> nx.Graph[int]:
    """Return the topology as a networkx graph; of parallel links the one of least expected cost is kept.

    expected_ns: for every profile of a link, the expected up plus down cost of one exchange.
    """
    graph: nx.Graph[int] = nx.Graph()
    graph.add_nodes_from(range(len(topology.nodes)))
    for link in topology.links:
        cost = expected_ns[link.profile]
        known = graph.get_edge_data(link.lower, link.upper)
        if known is None or cost < known["cost"]:
            graph.add_edge(link.lower, link.upper, link=link, cost=cost, weight=(cost << _HOP_BITS) + 1)
    return graph


def find_routes(
    topology: Topology, graph: nx.Graph[int], pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[Hop, ...]]:
    """Return for each (node, server) the route of least expected up plus down cost; absent where there is none.

    Equal costs: fewer hops, then the lexicographically least node order seen from the node.
    """
    routes: dict[tuple[int, int], tuple[Hop, ...]] = {}
    is_tree = graph.number_of_edges() < len(topology.nodes) and all(
        graph.has_edge(node.index, node.parent) for node in topology.nodes if node.parent is not None
    )
    if is_tree:
        for node, server in pairs:
            path = [node]
            while path[-1] != server:
                path.append(topology.nodes[path[-1]].parent or 0)
            routes[node, server] = _hops(graph, path)
        return routes
    by_server: dict[int, list[int]] = {}
    for node, server in pairs:
        by_server.setdefault(server, []).append(node)
    for server, nodes in by_server.items():
        before = _predecessors(graph, server, nodes)
        for node in nodes:
            if node in before:
                path = [node]
                while path[-1] != server:
                    path.append(min(before[path[-1]]))
                routes[node, server] = _hops(graph, path)
    return routes


def _predecessors(graph: nx.Graph[int], server: int, nodes: Sequence[int]) -> dict[int, list[int]]:
    """Return, for the nodes near enough to matter, their neighbours on shortest paths to the server."""
    direct = [graph.get_edge_data(node, server) for node in nodes]
    known = [edge["weight"] for edge in direct if edge is not None]
    # When every node has a direct link, no route is longer than the longest of these.
    cutoff = max(known) if len(known) == len(nodes) else None
    before, _ = nx.dijkstra_predecessor_and_distance(graph, server, cutoff=cutoff)
    return dict(before)


def _hops(graph: nx.Graph[int], path: Sequence[int]) -> tuple[Hop, ...]:
    hops = []
    for here, there in pairwise(path):
        link: Link = graph.edges[here, there]["link"]
        hops.append(Hop(link, forward=link.lower == here))
    return tuple(hops)
