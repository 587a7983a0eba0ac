"""What the recursion stands on: who aggregates whom, which way messages go, and what each thing costs.

Taken from the package: the parsed files, the keyed random streams and `Cost.draw_ns` (draw k of a stream, nanoseconds).
Written anew here: contraction of skipped servers, routes, how a link's profile becomes up and down costs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import pairwise, repeat
from statistics import NormalDist, fmean

from hsgd_emu.config.run_schema import CaseSpec
from hsgd_emu.config.schema import Bandwidth, CostValue, Gamma, LinkProfile, Lognormal, Normal, Samples, Uniform
from hsgd_emu.experiment import Experiment
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import BLOCK, Cost
from hsgd_emu.topology.tree import Link, Topology

NS = 1_000_000_000
Hops = list[tuple[Link, bool]]


def periods_of(case: CaseSpec, topology: Topology) -> dict[int, int]:
    """Return the period of each server that aggregates in this case."""
    if case.period is not None:
        return {0: case.period}
    found: dict[int, int] = {}
    for server in topology.servers:
        node = topology.nodes[server]
        if isinstance(case.periods, dict):
            named = case.periods.get(node.name)
            period = case.periods[node.class_name] if named is None else named
        else:
            assert case.periods is not None
            period = case.periods[node.level]
        if period != "none":
            found[server] = int(period)
    return found


def aggregator(topology: Topology, periods: dict[int, int], node: int) -> int:
    """Return the nearest server above a node that aggregates."""
    above = topology.nodes[node].parent
    while above not in periods:
        assert above is not None
        above = topology.nodes[above].parent
    return above


def mean(value: CostValue) -> float:
    """Return the expectation of a cost in seconds."""
    match value:
        case Samples():
            return fmean(value.samples)
        case Lognormal():
            return value.median * math.exp(value.sigma * value.sigma / 2)
        case Normal():
            law = NormalDist(value.mean, value.std)
            # E[X | X > 0] = mean + std^2 f(0) / P(X > 0)
            return value.mean + value.std**2 * law.pdf(0) / (1 - law.cdf(0))
        case Gamma():
            return value.shape * value.scale
        case Uniform():
            return (value.low + value.high) / 2
        case _:
            return float(value)  # type: ignore[arg-type]


def wire_ns(profile: LinkProfile, message_bytes: int) -> tuple[int, int]:
    """Return the nanoseconds a message spends on the wire, up and down; 0 where no bandwidth is given."""
    rate = profile.bandwidth_bps
    if rate is None:
        return 0, 0
    up, down = (rate.up, rate.down) if isinstance(rate, Bandwidth) else (rate, rate)
    return round(8 * message_bytes / up * NS), round(8 * message_bytes / down * NS)


def expected_ns(profile: LinkProfile, message_bytes: int) -> int:
    """Return the expected cost of one exchange, up plus down."""
    if profile.rtt_s is not None:
        return round(mean(profile.rtt_s) * NS)
    if profile.latency_s is not None:
        return round(2 * mean(profile.latency_s) * NS) + sum(wire_ns(profile, message_bytes))
    assert profile.up_s is not None
    assert profile.down_s is not None
    return round((mean(profile.up_s) + mean(profile.down_s)) * NS)


def route(experiment: Experiment, node: int, server: int, message_bytes: int) -> Hops:
    """Return the way up the tree or, where it costs less, the link straight to the server."""
    best = links_between(experiment, message_bytes)
    if experiment.topology_draft.spec.routing == "least_cost":
        return least_cost(best, node, server)
    nodes, here, climb = experiment.topology.nodes, node, []
    while here != server:
        above = nodes[here].parent
        climb.append(best.get((here, above)))
        here = above
    ways = [climb] if None not in climb else []
    ways += [[best[node, server]]] if (node, server) in best else []
    # The first of equals: the tree.
    way, at, hops = min(ways, key=lambda way: sum(cost for cost, _ in way)), node, []
    for _, link in way:
        hops.append((link, link.lower == at))
        at = link.upper if link.lower == at else link.lower
    return hops


def links_between(experiment: Experiment, message_bytes: int) -> dict[tuple[int, int], tuple[int, Link]]:
    """Return by two nodes, either way round, the cheapest link between them and what it is expected to cost."""
    best: dict[tuple[int, int], tuple[int, Link]] = {}
    for link in experiment.topology.links:
        profile = experiment.topology_draft.links[link.profile]
        assert profile is not None
        cost, ends = expected_ns(profile, message_bytes), (link.lower, link.upper)
        if ends not in best or cost < best[ends][0]:
            best[ends] = best[ends[::-1]] = cost, link
    return best


def least_cost(best: dict[tuple[int, int], tuple[int, Link]], node: int, server: int) -> Hops:
    """Return the way of least (expected cost, hops, node order): Dijkstra over whole labels."""
    frontier: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (node,))]
    done: set[int] = set()
    while frontier:
        cost, hops, path = heapq.heappop(frontier)
        here = path[-1]
        if here == server:
            return [(best[pair][1], best[pair][1].lower == pair[0]) for pair in pairwise(path)]
        if here in done:
            continue
        done.add(here)
        for (one, other), (more, _) in best.items():
            if one == here and other not in done:
                heapq.heappush(frontier, (cost + more, hops + 1, (*path, other)))
    raise AssertionError(f"no way from {node} to {server}")


def draws(value: CostValue | None, seed: int, *key: str) -> Iterator[int]:
    """Yield the draws of the stream (seed, *key) in nanoseconds."""
    if value is None:
        value = 0.0
    if isinstance(value, int | float):
        yield from repeat(round(value * NS))
    rng = stream(seed, *key)
    while True:
        yield from Cost(value).draw_ns(rng, BLOCK).tolist()


def exchanges(profile: LinkProfile, link: str, node: str, seed: int, message_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (up, down) of one node's exchanges over one link."""
    if profile.rtt_s is not None:
        share = 0.5 if profile.up_share is None else profile.up_share
        for rtt in draws(profile.rtt_s, seed, "rtt", link, node):
            up = round(rtt * share)
            yield up, rtt - up
    up_value, down_value = profile.up_s, profile.down_s
    if profile.latency_s is not None:
        up_value = down_value = profile.latency_s
    wire = wire_ns(profile, message_bytes)
    ups, downs = draws(up_value, seed, "up", link, node), draws(down_value, seed, "down", link, node)
    for up, down in zip(ups, downs, strict=False):
        yield up + wire[0], down + wire[1]


def trips(experiment: Experiment, hops: Hops, node: int, seed: int, size: int) -> Iterator[tuple[int, int, str]]:
    """Yield (up, down, costliest link upwards) of a node's exchanges over its whole route."""
    profiles, name = experiment.topology_draft.links, experiment.topology.nodes[node].name
    parts = [exchanges(profiles[link.profile], link.name, name, seed, size) for link, _ in hops]  # type: ignore[arg-type]
    while True:
        costs = [next(part) for part in parts]
        ups = [cost[0] if forward else cost[1] for cost, (_, forward) in zip(costs, hops, strict=True)]
        all_ns = sum(map(sum, costs))
        yield sum(ups), all_ns - sum(ups), hops[ups.index(max(ups))][0].name
