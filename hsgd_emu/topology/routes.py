"""Routes to the servers that aggregate: over the tree or straight there, or of least cost over anything; the only
importer of networkx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

from hsgd_emu.config.schema import Ref
from hsgd_emu.topology.tree import Link, Topology

_HOP_BITS = 20  # costs are shifted by this many bits, so that among equal costs fewer hops win, and no weight is zero

Route = tuple["Hop", ...]
Pair = tuple[int, int]
"""(node, server above it)."""
Pairs = Sequence[Pair]


@dataclass(frozen=True)
class Hop:
    """One link of a route; forward: travelled from the link's lower to its upper end when uploading."""

    link: Link
    forward: bool


Routes = Mapping[Pair, Route]


class Links:
    """The links of a topology by their two ends: of parallel ones that of least expected cost, of equals the first.

    expected_ns: for every profile of a link, the expected up plus down cost of one exchange.
    """

    def __init__(self, topology: Topology, expected_ns: Mapping[Ref, int]) -> None:
        self.topology = topology
        self._best: dict[tuple[int, int], tuple[int, Link]] = {}
        for link in topology.links:
            cost, ends = expected_ns[link.profile], (min(link.lower, link.upper), max(link.lower, link.upper))
            if ends not in self._best or cost < self._best[ends][0]:
                self._best[ends] = cost, link

    def routes(self, pairs: Pairs) -> dict[Pair, Route]:
        """Return for each (node, server) the route that the topology's `routing` gives; absent where there is none."""
        return self._least_cost(pairs) if self.topology.routing == "least_cost" else self._tree(pairs)

    def _tree(self, pairs: Pairs) -> dict[tuple[int, int], Route]:
        """Return routes over the tree, or over a link straight to the server where that is expected to cost less."""
        routes = {}
        for node, server in pairs:
            way = self._over_tree(node, server)
            straight = [(node, server)] if self._of(node, server) is not None else None
            if way is None or (straight is not None and self._cost_ns(straight) < self._cost_ns(way)):
                way = straight
            if way is not None:
                routes[node, server] = self._hops(way)
        return routes

    def _over_tree(self, node: int, server: int) -> list[tuple[int, int]] | None:
        """Return the ends of the links from parent to parent, and from where the two meet down again, or None where one
        is missing."""
        nodes, up, down = self.topology.nodes, list[tuple[int, int]](), list[tuple[int, int]]()
        while node != server:
            if nodes[node].level >= nodes[server].level:
                up.append((node, nodes[node].parent or 0))
                node = up[-1][1]
            else:
                down.append((nodes[server].parent or 0, server))
                server = down[-1][0]
        way = up + down[::-1]
        return way if all(self._of(*ends) is not None for ends in way) else None

    def _least_cost(self, pairs: Pairs) -> dict[tuple[int, int], Route]:
        """Return routes of least expected cost through any nodes.

        Equal costs: fewer hops, then the lexicographically least node order seen from the node.
        """
        graph: nx.Graph[int] = nx.Graph()
        graph.add_nodes_from(range(len(self.topology.nodes)))
        for (one, other), (cost, _) in self._best.items():
            graph.add_edge(one, other, weight=(cost << _HOP_BITS) + 1)
        by_server: dict[int, list[int]] = {}
        for node, server in pairs:
            by_server.setdefault(server, []).append(node)
        routes = {}
        for server, nodes in by_server.items():
            direct = [graph.get_edge_data(node, server) for node in nodes]
            known = [edge["weight"] for edge in direct if edge is not None]
            # When every node has a direct link, no route is longer than the longest of these.
            cutoff = max(known) if len(known) == len(nodes) else None
            before, _ = nx.dijkstra_predecessor_and_distance(graph, server, cutoff=cutoff)
            for node in nodes:
                if node in before:
                    path = [node]
                    while path[-1] != server:
                        path.append(min(before[path[-1]]))
                    routes[node, server] = self._hops(list(pairwise(path)))
        return routes

    def _of(self, one: int, other: int) -> tuple[int, Link] | None:
        return self._best.get((min(one, other), max(one, other)))

    def _cost_ns(self, way: Sequence[tuple[int, int]]) -> int:
        return sum(self._best[min(ends), max(ends)][0] for ends in way)

    def _hops(self, way: Sequence[tuple[int, int]]) -> Route:
        links = (self._best[min(ends), max(ends)][1] for ends in way)
        return tuple(Hop(link, forward=link.lower == here) for link, (here, _) in zip(links, way, strict=True))
