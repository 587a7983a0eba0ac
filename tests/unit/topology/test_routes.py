"""Routes over the tree, straight to the server, or of least cost through anything; and how ties are decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hsgd_emu.topology.routes import Hop, Links
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
    found = Links(topology, costs).routes([(node, server)])
    hops = found.get((node, server))
    return None if hops is None else walked(hops, node)


def least(topology: Topology) -> Topology:
    return replace(topology, routing="least_cost")


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
        # Never through n2, which does not lie between n3 and the root, however cheap.
        ({"a": 5, "b": 1, "c": 5, "d": 1, "e": 11}, [3, 1, 0]),
        ({"a": 9, "b": 1, "c": 9, "d": 1, "e": 11}, [3, 0]),
        # Equal costs: the tree.
        ({"a": 5, "b": 5, "c": 5, "d": 5, "e": 10}, [3, 1, 0]),
        ({"a": 0, "b": 0, "c": 0, "d": 0, "e": 0}, [3, 1, 0]),
    ],
)
def test_up_the_tree_or_straight_to_the_server_where_that_costs_less(costs: Costs, path: list[int]) -> None:
    assert way(topology_of(PARENTS, LINKS), costs, 3) == path
    assert way(topology_of(PARENTS, LINKS[::-1]), costs, 3) == path


def test_a_server_does_not_go_through_its_own_worker() -> None:
    # n1 -> n3 -> n0 costs 2, its own uplink 100: a changed cost must not send a site's models over a phone.
    costs = {"a": 100, "b": 100, "c": 1, "d": 1, "e": 1}
    assert way(topology_of(PARENTS, LINKS), costs, 1) == [1, 0]
    assert way(least(topology_of(PARENTS, LINKS)), costs, 1) == [1, 3, 0]


def test_a_further_link_skips_servers_only_where_it_ends_at_the_one_that_aggregates() -> None:
    # 3 below 2 below 1 below 0, and a link from 3 to 1. For 1 it is straight; for 0 the way is the whole tree.
    topology = topology_of([None, 0, 1, 2], [(1, 0, "up"), (2, 1, "up"), (3, 2, "up"), (3, 1, "skip")])
    assert way(topology, {"up": 5, "skip": 1}, 3, 1) == [3, 1]
    assert way(topology, {"up": 5, "skip": 1}, 3, 0) == [3, 2, 1, 0]
    assert way(topology, {"up": 5, "skip": 11}, 3, 1) == [3, 2, 1]
    assert way(least(topology), {"up": 5, "skip": 1}, 3, 0) == [3, 1, 0]


def test_without_an_uplink_there_is_the_straight_link_or_nothing() -> None:
    # n1 has no uplink; n3 reaches the root directly, n4 only through n3.
    topology = topology_of([None, 0, 0, 1, 1], [(2, 0, "a"), (3, 1, "c"), (4, 1, "c"), (3, 0, "e")])
    costs = {"a": 1, "c": 1, "e": 100}
    assert way(topology, costs, 3) == [3, 0]
    assert way(topology, costs, 4) is None
    assert way(least(topology), costs, 4) == [4, 1, 3, 0]
    # A further link to the parent stands for the uplink.
    assert way(topology_of([None, 0, 1], [(0, 1, "x"), (2, 1, "c")]), {"x": 1, "c": 1}, 2) == [2, 1, 0]


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
    assert way(least(topology_of(PARENTS, LINKS)), costs, 3) == path
    assert way(least(topology_of(PARENTS, LINKS[::-1])), costs, 3) == path


def test_node_order_is_seen_from_the_node_up() -> None:
    # Two ways of equal cost and three hops, 5-1-4-0 and 5-2-3-0: at the first fork 1 comes before 2.
    parents: list[int | None] = [None, 0, 0, 0, 0, 0]
    links = [(5, 1, "x"), (1, 4, "x"), (4, 0, "x"), (5, 2, "x"), (2, 3, "x"), (3, 0, "x"), (5, 0, "dear")]
    links += [(1, 0, "dear"), (2, 0, "dear")]
    assert way(least(topology_of(parents, links)), {"x": 1, "dear": 9}, 5) == [5, 1, 4, 0]


def test_hops_outweigh_no_nanosecond() -> None:
    # Thirty links of nothing are cheaper than one of a nanosecond.
    parents: list[int | None] = [None, *range(30)]
    links = [(node, node - 1, "free") for node in range(1, 31)] + [(30, 0, "one")]
    assert way(least(topology_of(parents, links)), {"free": 0, "one": 1}, 30) == list(range(30, -1, -1))


def test_of_parallel_links_the_cheapest_is_taken_and_the_first_of_equals() -> None:
    links = [(1, 0, "dear"), (1, 0, "first"), (0, 1, "second")]
    topology = topology_of([None, 0], links)
    for routed in (topology, least(topology)):
        (hop,) = Links(routed, {"dear": 3, "first": 2, "second": 2}).routes([(1, 0)])[1, 0]
        assert (hop.link.profile, hop.forward) == ("first", True)
        (hop,) = Links(routed, {"dear": 3, "first": 2, "second": 1}).routes([(1, 0)])[1, 0]
        # Written from the root down, it is travelled against its direction when uploading.
        assert (hop.link.profile, hop.forward) == ("second", False)


def test_parallel_links_count_on_the_way_up_the_tree_too() -> None:
    topology = topology_of([None, 0, 1], [(1, 0, "dear"), (2, 1, "near"), (1, 0, "cheap"), (2, 0, "straight")])
    costs = {"dear": 9, "cheap": 1, "near": 1, "straight": 3}
    hops = Links(topology, costs).routes([(2, 0)])[2, 0]
    assert [hop.link.profile for hop in hops] == ["near", "cheap"]


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
    topology = least(topology_of(PARENTS, LINKS))
    pairs = [(3, 0), (1, 0), (2, 0)]
    found = Links(topology, costs).routes(pairs)
    assert {pair: walked(hops, pair[0]) for pair, hops in found.items()} == {
        (3, 0): [3, 2, 0],
        (1, 0): [1, 0],
        (2, 0): [2, 0],
    }
