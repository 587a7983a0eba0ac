"""Everything the clock needs to know of one trial, worked out before it starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial

from hsgd_emu.config.server_schema import Direction, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.gates import ClosingGate, Gate
from hsgd_emu.engine.messages import Both, Sends
from hsgd_emu.engine.mixing import drift
from hsgd_emu.engine.network import Draws, Network
from hsgd_emu.engine.schedule import Schedule, Stage
from hsgd_emu.engine.skipped import Taken, TakenOnly
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import Cost, Stream
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Pair, Routes
from hsgd_emu.units import MOST_NS, NS_PER_S


@dataclass(frozen=True)
class Plan:
    """One trial's schedule on a network.

    weight_of: by worker, what it weighs in an average (1 each, or its samples); uniform: children of a server weigh
    the same whatever is below them.
    """

    schedule: Schedule
    network: Network
    routes: Routes
    """The ways of nodes to the servers that aggregate them."""
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
    servers: Mapping[int, ServerSpec] = field(default_factory=dict)
    """What a server does with its average, where that is not just sent on."""
    senders: Mapping[tuple[int, Direction], Sender] = field(default_factory=dict)
    """By node and direction: who compresses what it sends."""
    step_probability: Mapping[int, float] = field(default_factory=dict)
    """By worker that may skip steps: with which probability it takes one."""

    @cached_property
    def mixing(self) -> dict[int, list[float]]:
        """By hub: what it takes of itself and its neighbours, in node order; empty where no hubs mix.

        Raises:  ConfigError: a matrix that is given moves the mean of all.
        """
        graph = self.schedule.graph
        if graph is None:
            return {}
        moves = drift(graph, self.hub_weights, [self.network.topology.nodes[hub].name for hub in graph.hubs])
        if moves:
            raise ConfigError.of("", "mixing.weights", moves)
        return graph.rows(self.hub_weights)

    @cached_property
    def hub_weights(self) -> list[float]:
        """What each child of the global server weighs, all of them together 1."""
        (stage,) = self.schedule.stages
        return weights(self, stage.children[0], self.sizes(stage))

    @cached_property
    def messages(self) -> Mapping[Pair, Both]:
        """What nodes exchange with the servers that aggregate them."""
        return self.sends.messages(self.schedule.pairs, self.message_bytes)

    @property
    def cost_seed(self) -> int:
        """The seed of the costs."""
        return self.seed if self.network_seed is None else self.network_seed

    def draws(self) -> Draws:
        """Return the trial's costs, from their first draw."""
        steps = {worker: self.steps(worker) for worker in self.workers}
        return Draws(self.network, self.routes, self.messages, self.cost_seed, steps)

    def steps(self, worker: int) -> Stream:
        """Return what a worker's iterations cost, from the first one."""
        name = self.network.topology.nodes[worker].name
        costs, share = self.network.steps[worker].stream(self.cost_seed, "compute", name), self.step_probability
        return TakenOnly(costs, self.seed, name, share[worker]) if worker in share else costs

    def taken(self, worker: int) -> Taken:
        """Return which steps a worker takes that may skip some."""
        return Taken(self.seed, self.network.topology.nodes[worker].name, self.step_probability[worker])

    @property
    def num_rounds(self) -> int:
        return self.schedule.num_rounds(self.iterations)

    def is_evaluated(self, iteration: int) -> bool:
        """Return whether the global aggregation at `iteration` is evaluated."""
        before = self.schedule.end_of(self.schedule.round_at(iteration) - 1)
        due = iteration // self.evaluate_every > before // self.evaluate_every
        return due or iteration == self.iterations

    def evaluated_at(self, iteration: int) -> int:
        """Return the first evaluated iteration at or after this one."""
        before = self.schedule.end_of(self.schedule.round_at(iteration) - 1)
        due = (before // self.evaluate_every + 1) * self.evaluate_every
        last = self.iterations
        return min(self.schedule.next_end(max(iteration, due)), last) if due < last else last

    def gates(self) -> list[dict[int, Gate]]:
        """Return for each stage by aggregating server, the global one first, the gate that it begins with."""
        participation = Participation(self)
        return [self._gates(stage, participation) for stage in self.schedule.stages]

    def _gates(self, stage: Stage, participation: Participation) -> dict[int, Gate]:
        sizes, end = self.sizes(stage), self.iterations if stage.end is None else min(stage.end, self.iterations)
        return {
            server: self.gate(
                stage.phases(server),
                children,
                participation.draws(stage, server),
                lru_cache(maxsize=16)(partial(weights, self, size=sizes)),
                end,
            )
            for server, children in stage.children.items()
        }

    @property
    def workers(self) -> tuple[int, ...]:
        """Node indices of the workers, depth first."""
        return self.network.topology.workers

    def sizes(self, stage: Stage) -> dict[int, float]:
        """Return by node of a stage's aggregation tree what all workers below it weigh together."""
        size = {worker: self.weight_of.get(worker, 1.0) for worker in self.workers}
        for server in reversed(stage.children):
            size[server] = sum(size[child] for child in stage.children[server])
        return size


class Participation:
    """Which of a server's workers take part in each of its local periods.

    A fraction of the group, at least one worker, drawn anew without replacement for every local period; stream
    (seed, "participation", server), which goes on from stage to stage. Servers below a server always take part.
    """

    def __init__(self, plan: Plan) -> None:
        self._nodes = nodes = plan.network.topology.nodes
        self._rng = {s: stream(plan.seed, "participation", nodes[s].name) for s in plan.schedule.servers}

    def draws(self, stage: Stage, server: int) -> Iterator[tuple[int, ...]]:
        """Yield the children that take part in a stage, period after period, in node order."""
        children = stage.children[server]
        workers = [child for child in children if self._nodes[child].is_worker]
        if stage.participation >= 1 or not workers:
            while True:
                yield children
        num = max(1, round(stage.participation * len(workers)))
        while True:
            drawn = {workers[i] for i in self._rng[server].choice(len(workers), num, replace=False)}
            yield tuple(c for c in children if c not in workers or c in drawn)


def expected_end_ns(plan: Plan) -> float:
    """Return when a plan is expected to end at the earliest: the time of one worker alone, all others at once.

    Every worker goes through all its steps and exchanges, and through those of the servers above it: the slowest one
    counts, or with partial participation the fastest, for a slow one may sit out.
    """
    stages = [_exchanges_ns(plan, stage) for stage in plan.schedule.stages]
    ends = [
        plan.step_probability.get(worker, 1.0) * plan.iterations * _expected_ns(plan.network.steps[worker])
        + sum(stage[worker] for stage in stages)
        for worker in plan.workers
    ]
    return max(ends) if plan.schedule.participation >= 1 else min(ends)


def _exchanges_ns(plan: Plan, stage: Stage) -> dict[int, float]:
    """Return by worker and server what is expected of all exchanges and aggregations from it to the top in a stage."""
    network = plan.network
    num = {server: stage.num_phases(server, plan.iterations) for server in stage.children}
    aggregations_ns = {server: num[server] * _expected_ns(network.aggregations.get(server)) for server in num}
    found = {0: aggregations_ns[0]}
    for node, server in sorted(stage.parent.items()):
        pair = node, server
        # What hubs send one another is left out: they wait for it less the further they are ahead.
        messages = plan.messages.get(pair, ())
        each_ns = sum(network.expected_ns(plan.routes[pair], message) for message in messages) / 2
        found[node] = found[server] + num[server] * each_ns + aggregations_ns.get(node, 0.0)
    return found


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
