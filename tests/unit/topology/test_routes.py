"""Routes of least expected cost, and how ties between them are decided."""

from __future__ import annotations

import pytest

from hsgd_emu.topology.routes import Hop, find_routes, network
from hsgd_emu.topology.tree import Link, Node, Topology

Costs = dict[str, int]


def topology_of(parents: list[int | None], links: list[tuple[int, int, str]]) -> Topology:
    """Return nodes n0, n1, ... with these parents, and these links (lower, upper, profile)."""
    children = [tuple(i for i, parent in enumerate(parents) if parent == place) for place in range(len(parents))]
    nodes = tuple(
        Node(place, f"n{place}", "n", parent, 0, children[place], None, None, ())
        for place, parent in enumerate(parents)
    )
    made = tuple(Link(f"n{a}--n{b}:{p}", a, b, p) for a, b, p in links)
    return Topology("t", nodes, made, {}, {})


def way(topology: Topology, costs: Costs, node: int, server: int = 0) -> list[int] | None:
    """Return the nodes of the route, or None where there is none."""
    found = find_routes(topology, network(topology, costs), [(node, server)])
    hops = found.get((node, server))
    return None if hops is None else walked(hops, node)


def walked(hops: tuple[Hop, ...], node: int) -> list[int]:
    path = [node]
    for hop in hops:
        ends = (hop.link.lower, hop.link.upper) if hop.forward else (hop.link.upper, hop.link.lower)
        assert path[-1] == ends[0]
        path.append(ends[1])
    return path


# n0 is the root, n1 and n2 are its children, n3 is below n1; n3 also reaches n2 and n0 directly.
PARENTS: list[int | None] = [None, 0, 0, 1]
LINKS = [(1, 0, "a"), (2, 0, "b"), (3, 1, "c"), (3, 2, "d"), (3, 0, "e")]


@pytest.mark.parametrize(
    ("costs", "path"),
    [
        ({"a": 5, "b": 9, "c": 5, "d": 9, "e": 9}, [3, 0]),
        ({"a": 5, "b": 9, "c": 5, "d": 9, "e": 11}, [3, 1, 0]),
        ({"a": 5, "b": 1, "c": 5, "d": 1, "e": 11}, [3, 2, 0]),
        # Equal costs: fewer hops.
        ({"a": 5, "b": 5, "c": 5, "d": 5, "e": 10}, [3, 0]),
        # Equal costs and hops: the first in node order.
        ({"a": 5, "b": 5, "c": 5, "d": 5, "e": 11}, [3, 1, 0]),
        ({"a": 0, "b": 0, "c": 0, "d": 0, "e": 0}, [3, 0]),
        ({"a": 0, "b": 0, "c": 0, "d": 0, "e": 1}, [3, 1, 0]),
    ],
)
def test_least_cost_then_fewer_hops_then_node_order(costs: Costs, path: list[int]) -> None:
    assert way(topology_of(PARENTS, LINKS), costs, 3) == path
    assert way(topology_of(PARENTS, LINKS[::-1]), costs, 3) == path


def test_node_order_is_seen_from_the_node_up() -> None:
    # Two ways of equal cost and three hops, 5-1-4-0 and 5-2-3-0: at the first fork 1 comes before 2.
    parents: list[int | None] = [None, 0, 0, 0, 0, 0]
    links = [(5, 1, "x"), (1, 4, "x"), (4, 0, "x"), (5, 2, "x"), (2, 3, "x"), (3, 0, "x"), (5, 0, "dear")]
    links += [(1, 0, "dear"), (2, 0, "dear")]
    assert way(topology_of(parents, links), {"x": 1, "dear": 9}, 5) == [5, 1, 4, 0]


def test_hops_outweigh_no_nanosecond() -> None:
    # Thirty links of nothing are cheaper than one of a nanosecond.
    parents: list[int | None] = [None, *range(30)]
    links = [(node, node - 1, "free") for node in range(1, 31)] + [(30, 0, "one")]
    assert way(topology_of(parents, links), {"free": 0, "one": 1}, 30) == list(range(30, -1, -1))


def test_of_parallel_links_the_cheapest_is_taken_and_the_first_of_equals() -> None:
    links = [(1, 0, "dear"), (1, 0, "first"), (0, 1, "second")]
    topology = topology_of([None, 0], links)
    graph = network(topology, {"dear": 3, "first": 2, "second": 2})
    (hop,) = find_routes(topology, graph, [(1, 0)])[1, 0]
    assert (hop.link.profile, hop.forward) == ("first", True)
    graph = network(topology, {"dear": 3, "first": 2, "second": 1})
    (hop,) = find_routes(topology, graph, [(1, 0)])[1, 0]
    # Written from the root down, it is travelled against its direction when uploading.
    assert (hop.link.profile, hop.forward) == ("second", False)


def test_where_no_link_leads_there_is_no_route() -> None:
    topology = topology_of([None, 0, 0], [(1, 0, "a")])
    assert way(topology, {"a": 1}, 1) == [1, 0]
    assert way(topology, {"a": 1}, 2) is None


def test_a_plain_tree_is_walked_up() -> None:
    topology = topology_of([None, 0, 1, 2], [(1, 0, "a"), (2, 1, "a"), (3, 2, "a")])
    assert way(topology, {"a": 7}, 3) == [3, 2, 1, 0]
    assert way(topology, {"a": 7}, 3, 1) == [3, 2, 1]


def test_many_pairs_at_once_are_the_same_as_one_by_one() -> None:
    # With a direct link for every node the search stops early; that may not change a route.
    costs = {"a": 5, "b": 2, "c": 5, "d": 3, "e": 7}
    topology = topology_of(PARENTS, LINKS)
    pairs = [(3, 0), (1, 0), (2, 0)]
    found = find_routes(topology, network(topology, costs), pairs)
    assert {pair: walked(hops, pair[0]) for pair, hops in found.items()} == {
        (3, 0): [3, 2, 0],
        (1, 0): [1, 0],
        (2, 0): [2, 0],
    }
