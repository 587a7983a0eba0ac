"""Hubs: servers below the global one that average with their neighbours instead of all together (MLL-SGD).

Castiglia, Das, Patterson, "Multi-Level Local SGD" (2021). At a global aggregation hub s takes sum_k H[s, k] result_k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.server_schema import MixingSpec
from hsgd_emu.errors import listed, nearest
from hsgd_emu.topology.tree import Topology

_CLOSE = 1e-9
"""How far the numbers of a matrix may be from what they must be."""
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Graph:
    """Who mixes with whom: the hubs in node order, each with its neighbours in node order."""

    neighbours: Mapping[int, tuple[int, ...]]
    spec: MixingSpec

    @property
    def hubs(self) -> tuple[int, ...]:
        return tuple(self.neighbours)

    def pairs(self) -> list[tuple[int, int]]:
        """Return (sender, receiver) of every model that hubs send at a global aggregation."""
        return [(hub, other) for hub, others in self.neighbours.items() for other in others]

    def by_name(self, topology: Topology) -> dict[str, Any]:
        """Return the keys of a mixing with this graph, whatever links there are."""
        names = [[topology.nodes[hub].name for hub in pair] for pair in self.pairs() if pair[0] < pair[1]]
        return self.spec.model_dump(mode="json") | {"graph": names}

    def matrix(self, shares: Sequence[float]) -> Matrix:
        """Return H (N, N): row s tells what hub s takes of each; shares: b, the hubs' weights, which sum to 1.

        Metropolis: H[s, k] = min(1 / (d_s + 1), b_k / b_s / (d_k + 1)) for neighbours, d their degrees; the rest stays.
        b_s H[s, k] = b_k H[k, s], so that b H = b: the weighted mean of all hubs is not moved.
        """
        if not isinstance(self.spec.weights, str):
            return np.array(self.spec.weights, float)
        place = {hub: number for number, hub in enumerate(self.neighbours)}
        found = np.zeros((len(place), len(place)))
        for one, other in self.pairs():
            s, k = place[one], place[other]
            degrees = [len(self.neighbours[hub]) + 1 for hub in (one, other)]
            found[s, k] = min(1 / degrees[0], shares[k] / shares[s] / degrees[1])
        np.fill_diagonal(found, 1 - found.sum(1))
        return found

    def rows(self, shares: Sequence[float]) -> dict[int, list[float]]:
        """Return by hub its weights of itself and its neighbours, in node order."""
        place = {hub: number for number, hub in enumerate(self.neighbours)}
        found = self.matrix(shares)
        return {hub: [float(found[place[hub], place[one]]) for one in self.members(hub)] for hub in self.neighbours}

    def members(self, hub: int) -> list[int]:
        """Return a hub and its neighbours in node order."""
        return sorted([hub, *self.neighbours[hub]])

    def zeta(self, shares: Sequence[float]) -> float:
        """Return the second largest |eigenvalue| of H: 0 where one mixing makes all equal, 1 where some never meet."""
        found = float(sorted(np.abs(np.linalg.eigvals(self.matrix(shares))))[-2])
        return found if found > _CLOSE else 0.0


def build_graph(
    spec: MixingSpec, hubs: Sequence[int], topology: Topology, mistake: Callable[[str, str], None]
) -> Graph | None:
    """Return the graph of a case's hubs, or None after telling its mistakes; mistake: takes a key and what is wrong."""
    names = [topology.nodes[hub].name for hub in hubs]
    workers = [name for hub, name in zip(hubs, names, strict=True) if topology.nodes[hub].is_worker]
    if workers or len(hubs) < 2:
        found = (
            f"the global server aggregates {listed(workers)} directly" if workers else f"'{names[0]}' is the only one"
        )
        mistake("", f"needs two servers or more right below the global one, and only servers there; {found}")
        return None
    edges = _edges(spec, hubs, topology, mistake)
    if edges is None:
        return None
    neighbours = {
        hub: tuple(sorted({*(b for a, b in edges if a == hub), *(a for a, b in edges if b == hub)})) for hub in hubs
    }
    lost = _out_of_reach(neighbours)
    if lost:
        reached = [hub for hub in hubs if hub not in lost]
        text = "no way leads from " + listed(topology.nodes[hub].name for hub in reached)
        mistake("graph", f"{text} to {listed(topology.nodes[hub].name for hub in lost)}; the graph must be connected")
        return None
    graph = Graph(neighbours, spec)
    if not isinstance(spec.weights, str):
        wrong = _wrong_matrix(spec.weights, graph, names)
        if wrong:
            mistake("weights", wrong)
            return None
    return graph


def _edges(
    spec: MixingSpec, hubs: Sequence[int], topology: Topology, mistake: Callable[[str, str], None]
) -> list[tuple[int, int]] | None:
    if spec.graph == "complete":
        return list(combinations(hubs, 2))
    if spec.graph == "ring":
        return list(pairwise([*hubs, hubs[0]]))
    if spec.graph == "links":
        found = [(link.lower, link.upper) for link in topology.links if link.lower in hubs and link.upper in hubs]
        if not found:
            text = f"no link of the topology joins two of the hubs {listed(topology.nodes[hub].name for hub in hubs)}"
            mistake("graph", f"{text}; add `links` between them, or give complete, ring or pairs of names")
        return found or None
    known = {topology.nodes[hub].name: hub for hub in hubs}
    wrong = [name for pair in spec.graph for name in pair if name not in known]
    for name in dict.fromkeys(wrong):
        hint = nearest(name, list(known)) or f"; hubs are {listed(known)}"
        mistake("graph", f"'{name}' is none of the servers below the global one{hint}")
    alone = [one for one, other in spec.graph if one == other]
    for name in dict.fromkeys(alone):
        mistake("graph", f"'{name}' is paired with itself; a hub keeps its own share without that")
    return None if wrong or alone else [(known[one], known[other]) for one, other in spec.graph]


def _out_of_reach(neighbours: Mapping[int, Sequence[int]]) -> list[int]:
    """Return the hubs that no way leads to from the first one."""
    reached, new = set[int](), [next(iter(neighbours))]
    while new:
        hub = new.pop()
        if hub not in reached:
            reached.add(hub)
            new += neighbours[hub]
    return [hub for hub in neighbours if hub not in reached]


def _wrong_matrix(given: Sequence[Sequence[float]], graph: Graph, names: Sequence[str]) -> str:
    """Return what is wrong with a matrix whatever the hubs weigh; empty if nothing is."""
    num = len(names)
    if len(given) != num or any(len(row) != num for row in given):
        shape = f"{len(given)} rows of {listed(dict.fromkeys(str(len(row)) for row in given))}"
        return f"found {shape} numbers; {num} hubs need {num} rows of {num}"
    for name, row in zip(names, given, strict=True):
        if abs(sum(row) - 1) > _CLOSE:
            return f"the row of '{name}' sums to {sum(row):.12g}; each must sum to 1"
    for (hub, others), row in zip(graph.neighbours.items(), given, strict=True):
        for other, name, share in zip(graph.hubs, names, row, strict=True):
            if share and other != hub and other not in others:
                return f"'{names[graph.hubs.index(hub)]}' takes {share:g} of '{name}', which is no neighbour of it"
    return ""


def drift(graph: Graph, shares: Sequence[float], names: Sequence[str]) -> str:
    """Return why the weighted mean of all hubs would move when they mix (b H is not b); empty if it does not."""
    moved = np.array(shares) @ graph.matrix(shares) - np.array(shares)
    worst = int(np.abs(moved).argmax())
    if abs(moved[worst]) <= _CLOSE:
        return ""
    text = f"'{names[worst]}' weighs {shares[worst]:.6g}, and {shares[worst] + moved[worst]:.6g} after mixing"
    return (
        f"{text}: the mean of all would drift; each column's sum, weighted by the hubs' weights, must be the hub's own"
    )
