"""Everything the clock needs to know of one trial, worked out before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

from hsgd_emu.engine.gates import ClosingGate, Gate
from hsgd_emu.engine.messages import Both, Sends
from hsgd_emu.engine.network import Draws, Network
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Route
from hsgd_emu.units import MOST_NS, NS_PER_S


@dataclass(frozen=True)
class Plan:
    """One trial's schedule on a network.

    weight_of: by worker, what it weighs in an average (1 each, or its samples); uniform: children of a server weigh
    the same whatever is below them.
    """

    schedule: Schedule
    network: Network
    routes: Mapping[int, Route]
    """By node: the way to the server that aggregates it."""
    iterations: int
    message_bytes: int
    seed: int
    evaluate_every: int = 1
    weight_of: Mapping[int, float] = field(default_factory=dict)
    uniform: bool = False
    network_seed: int | None = None
    """Seed of the costs where it is not the trial's: another replication of the network under the same learning."""

    gate: Callable[..., Gate] = ClosingGate
    """Makes the gates of servers: whom they wait for."""
    depends_on_time: bool = False
    """Whether what is averaged depends on when models arrive."""
    sends: Sends = field(default_factory=Sends)
    """What messages carry."""

    @cached_property
    def messages(self) -> Mapping[int, Both]:
        """By node: what it exchanges with the server that aggregates it."""
        return self.sends.messages(self.schedule.parent, self.message_bytes)

    @property
    def cost_seed(self) -> int:
        """The seed of the costs."""
        return self.seed if self.network_seed is None else self.network_seed

    def draws(self) -> Draws:
        """Return the trial's costs, from their first draw."""
        return Draws(self.network, self.routes, self.messages, self.cost_seed)

    @property
    def num_rounds(self) -> int:
        return self.schedule.num_rounds(self.iterations)

    def is_evaluated(self, iteration: int) -> bool:
        """Return whether the global aggregation at `iteration` is evaluated."""
        before = self.schedule.end_of(self.schedule.round_at(iteration) - 1)
        due = iteration // self.evaluate_every > before // self.evaluate_every
        return due or iteration == self.iterations

    def gates(self) -> dict[int, Gate]:
        """Return by aggregating server, the global one first, the gate that a trial begins with."""
        schedule, participation, sizes = self.schedule, Participation(self), self.sizes()
        return {
            server: self.gate(
                schedule.phases(server),
                children,
                participation.draws(server),
                lru_cache(maxsize=16)(partial(weights, self, size=sizes)),
                self.iterations,
            )
            for server, children in schedule.children.items()
        }

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

    def all_ns(server: int, node: int) -> float:
        """Return what all exchanges of a node with its server are expected to cost."""
        num = schedule.num_phases(server, plan.iterations)
        both = [network.expected_ns(plan.routes[node], message) for message in plan.messages[node]]
        return num * sum(both) / 2

    above: dict[int, float] = {}
    for server in schedule.children:
        num = schedule.num_phases(server, plan.iterations)
        above[server] = num * _expected_ns(network.aggregations.get(server))
        if server in schedule.parent:
            parent = schedule.parent[server]
            above[server] += above[parent] + all_ns(parent, server)
    ends = []
    for worker in plan.workers:
        server = schedule.parent[worker]
        steps_ns = plan.iterations * _expected_ns(network.steps[worker])
        ends.append(steps_ns + all_ns(server, worker) + above[server])
    return max(ends) if schedule.participation >= 1 else min(ends)


def _expected_ns(cost: Cost | None) -> float:
    return 0.0 if cost is None else cost.expected_s * NS_PER_S


def surely_fits(network: Network, message: Message, iterations: int) -> bool:
    """Return whether the clock can hold any schedule on a network: each iteration costs the most that one can.

    Far quicker than `check_clock`, for it needs no routes.
    """
    topology = network.topology
    num_hops = topology.num_levels if topology.routing == "tree" else len(topology.nodes)
    aggregation_ns = max(map(_expected_ns, network.aggregations.values()), default=0.0)
    exchange_ns = max((one.expected_ns(message) for one in network.transfers.values()), default=0)
    each_ns = max(map(_expected_ns, network.steps.values()))
    return iterations * (each_ns + topology.num_levels * (num_hops * exchange_ns + aggregation_ns)) < MOST_NS


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
