"""Everything the clock needs to know of one trial, worked out before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from hsgd_emu.config.schema import CostValue
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import Costs, Exchanges, TransferModel, cost_stream, mean_s
from hsgd_emu.topology.routes import Hop
from hsgd_emu.topology.tree import Topology
from hsgd_emu.units import MOST_NS, NS_PER_S


@dataclass(frozen=True)
class Network:
    """A topology with every profile bound: what each step, transfer and aggregation costs."""

    topology: Topology
    transfers: Mapping[object, TransferModel]
    """By a link's profile reference."""
    step_s: Mapping[int, CostValue]
    """By worker."""


@dataclass(frozen=True)
class Plan:
    """One trial's schedule on a network.

    weight_of: by worker, what it weighs in an average (1 each, or its samples); uniform: children of a server weigh
    the same whatever is below them.
    """

    schedule: Schedule
    network: Network
    routes: Mapping[int, tuple[Hop, ...]]
    """By node: the way to the server that aggregates it."""
    iterations: int
    message_bytes: int
    seed: int
    evaluate_every: int = 1
    weight_of: Mapping[int, float] = field(default_factory=dict)
    uniform: bool = False
    network_seed: int | None = None
    """Seed of the costs where it is not the trial's: another replication of the network under the same learning."""

    @property
    def num_rounds(self) -> int:
        return self.iterations // self.schedule.global_period

    def is_evaluated(self, iteration: int) -> bool:
        """Return whether the global aggregation at `iteration` is evaluated."""
        before = iteration - self.schedule.global_period
        due = iteration // self.evaluate_every > before // self.evaluate_every
        return due or iteration == self.iterations

    @property
    def workers(self) -> tuple[int, ...]:
        """Node indices of the workers, depth first."""
        return self.network.topology.workers

    def sizes(self) -> dict[int, float]:
        """Return by node of the aggregation tree what all workers below it weigh together."""
        size = {worker: self.weight_of.get(worker, 1.0) for worker in self.workers}
        for server in reversed(self.schedule.children):
            size[server] = sum(size[child] for child in self.schedule.children[server])
        return size


class Exchange(NamedTuple):
    """One upload and the download that answers it, over the whole route; costliest: its link of largest up cost."""

    up_ns: int
    down_ns: int
    costliest: str


class Draws:
    """The trial's costs: each entity takes the next draw of its own stream, whatever others do."""

    def __init__(self, plan: Plan) -> None:
        nodes, network = plan.network.topology.nodes, plan.network
        seed = plan.seed if plan.network_seed is None else plan.network_seed
        self._steps: dict[int, Costs] = {
            worker: cost_stream(value, seed, "compute", nodes[worker].name) for worker, value in network.step_s.items()
        }
        # A link may lie on the routes of several nodes; each has its own stream, so that the order in which they
        # use it does not matter.
        self._hops: dict[int, list[tuple[Hop, Exchanges]]] = {
            node: [
                (hop, network.transfers[hop.link.profile].stream(seed, hop.link.name, nodes[node].name))
                for hop in route
            ]
            for node, route in plan.routes.items()
        }
        self._aggregation: dict[int, Costs] = {
            server: cost_stream(value, seed, "aggregation", nodes[server].name)
            for server in plan.schedule.children
            if (value := nodes[server].aggregation_s) is not None
        }

    def steps_ns(self, worker: int, num_steps: int) -> int:
        """Return what the next `num_steps` steps of a worker cost, one draw each."""
        return self._steps[worker].take(num_steps)

    def exchange(self, node: int) -> Exchange:
        """Return a node's next exchange with the server that aggregates it."""
        total_up, total_down, most, costliest = 0, 0, -1, ""
        for hop, exchanges in self._hops[node]:
            up, down = exchanges.next()
            if not hop.forward:
                up, down = down, up
            if up > most:
                most, costliest = up, hop.link.name
            total_up += up
            total_down += down
        return Exchange(total_up, total_down, costliest)

    def aggregation_ns(self, server: int) -> int:
        """Return what the next aggregation of a server costs."""
        costs = self._aggregation.get(server)
        return 0 if costs is None else costs.take(1)


class Participation:
    """Which of a server's workers take part in each of its local periods.

    A fraction of the group, at least one worker, drawn anew without replacement for every local period; stream
    (seed, "participation", server). Servers below a server always take part.
    """

    def __init__(self, plan: Plan) -> None:
        children = plan.schedule.children
        nodes = plan.network.topology.nodes
        self.share = plan.schedule.participation
        self._children = children
        self._workers = {s: [c for c in below if nodes[c].is_worker] for s, below in children.items()}
        self._rng = {s: stream(plan.seed, "participation", nodes[s].name) for s in children}

    def draws(self, server: int) -> Iterator[tuple[int, ...]]:
        """Yield the children that take part, period after period, in node order."""
        workers = self._workers[server]
        if self.share >= 1 or not workers:
            while True:
                yield self._children[server]
        num = max(1, round(self.share * len(workers)))
        while True:
            drawn = {workers[i] for i in self._rng[server].choice(len(workers), num, replace=False)}
            yield tuple(c for c in self._children[server] if c not in workers or c in drawn)


def expected_end_ns(plan: Plan) -> float:
    """Return when a plan is expected to end at the earliest: the time of one worker alone, all others at once.

    Every worker goes through all its steps and exchanges, and through those of the servers above it: the slowest one
    counts, or with partial participation the fastest, for a slow one may sit out.
    """
    schedule, network = plan.schedule, plan.network
    mean_ns, exchange_ns = _expectations(network)
    above: dict[int, float] = {}
    for server in schedule.children:
        num, value = plan.iterations / schedule.period[server], network.topology.nodes[server].aggregation_s
        above[server] = num * mean_ns(value) if value is not None else 0.0
        if server in schedule.parent:
            parent = schedule.parent[server]
            num_above = plan.iterations / schedule.period[parent]
            above[server] += above[parent] + num_above * exchange_ns(plan.routes[server])
    ends = []
    for worker in plan.workers:
        server = schedule.parent[worker]
        exchanges_ns = plan.iterations / schedule.period[server] * exchange_ns(plan.routes[worker])
        ends.append(plan.iterations * mean_ns(network.step_s[worker]) + exchanges_ns + above[server])
    return max(ends) if schedule.participation >= 1 else min(ends)


def _expectations(network: Network) -> tuple[Callable[[CostValue], float], Callable[[Sequence[Hop]], float]]:
    """Return what gives the expectation of a cost, and of an exchange over a route; each is worked out once."""
    means: dict[int, float] = {}
    transfers = cache(lambda ref: network.transfers[ref].expected_ns())

    def mean_ns(value: CostValue) -> float:
        # By identity: hashing long samples takes long.
        if id(value) not in means:
            means[id(value)] = mean_s(value) * NS_PER_S
        return means[id(value)]

    return mean_ns, lambda route: float(sum(transfers(hop.link.profile) for hop in route))


def surely_fits(network: Network, iterations: int) -> bool:
    """Return whether the clock can hold any schedule on a network: each iteration costs the most that one can.

    Far quicker than `check_clock`, for it needs no routes.
    """
    topology = network.topology
    num_hops = topology.num_levels if topology.routing == "tree" else len(topology.nodes)
    costs = {id(node.aggregation_s): node.aggregation_s for node in topology.nodes if node.aggregation_s is not None}
    aggregation_s = max(map(mean_s, costs.values()), default=0.0)
    step_s = max(mean_s(value) for value in {id(value): value for value in network.step_s.values()}.values())
    exchange_s = max((one.expected_ns() for one in network.transfers.values()), default=0) / NS_PER_S
    each_s = step_s + topology.num_levels * (num_hops * exchange_s + aggregation_s)
    return iterations * each_s * NS_PER_S < MOST_NS


def check_clock(plan: Plan) -> None:
    """Refuse a plan whose end the clock cannot hold.

    Raises:  ConfigError: it is expected to end later.
    """
    end_ns = expected_end_ns(plan)
    if end_ns > MOST_NS:
        years = end_ns / NS_PER_S / 31_556_952
        text = f"'{plan.schedule.name}' would take {years:.3g} years of emulated time, and the clock can hold 292"
        raise ConfigError.of("", "train.iterations", f"{text}; costs are in seconds")


def weights(plan: Plan, children: Sequence[int], size: Mapping[int, float]) -> list[float]:
    """Return what each child weighs in its server's average; they sum to 1.

    size: by node, the workers or samples below it. `workers` gives n_i / n, the paper's objective (2).
    """
    sizes = [1.0] * len(children) if plan.uniform else [size[child] for child in children]
    total = sum(sizes)
    return [one / total for one in sizes]
