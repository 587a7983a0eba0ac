"""What everything on a topology costs, and a trial's draws of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from hsgd_emu.config.schema import ComputeProfile, LinkProfile, Ref
from hsgd_emu.engine.messages import Both
from hsgd_emu.errors import ConfigError
from hsgd_emu.timing.costs import Cost, Stream
from hsgd_emu.timing.transfers import Exchanges, Message, Transfer, bound
from hsgd_emu.topology.routes import Links, Pair, Route, Routes
from hsgd_emu.topology.tree import Topology


@dataclass(frozen=True, eq=False)
class Network:
    """A topology with every profile bound: what each step, transfer and aggregation costs."""

    topology: Topology
    transfers: Mapping[Ref, Transfer]
    """By profile."""
    steps: Mapping[int, Cost]
    """By worker."""
    aggregations: Mapping[int, Cost]
    """By server; one that is absent aggregates in no time."""

    @cached_property
    def is_constant(self) -> bool:
        """Whether nothing is drawn."""
        costs: set[Cost | Transfer] = {*self.steps.values(), *self.aggregations.values(), *self.transfers.values()}
        return all(cost.is_constant for cost in costs)

    @classmethod
    def of(cls, topology: Topology, profiles: Mapping[Ref | None, LinkProfile | ComputeProfile]) -> Network:
        """Return a topology with its profiles bound, by reference (None: of steps where the topology names none)."""
        unbound = cls(topology, {}, dict.fromkeys(topology.workers, Cost(0)), _aggregations(topology))
        return unbound.rebound({ref: bound(profile) for ref, profile in profiles.items()})

    def rebound(self, costs: Mapping[Ref | None, Transfer | Cost]) -> Network:
        """Return the network with other costs for some of its profiles, by reference."""
        transfers = {ref: cost for ref, cost in costs.items() if isinstance(cost, Transfer) and ref is not None}
        of_steps = {ref: cost for ref, cost in costs.items() if isinstance(cost, Cost)}
        steps, nodes = self.steps, self.topology.nodes
        if of_steps:
            steps = {worker: of_steps.get(nodes[worker].compute, cost) for worker, cost in steps.items()}
        return replace(self, transfers={**self.transfers, **transfers}, steps=steps)

    def at_expectation(self) -> Network:
        """Return the network on which every step and transfer takes what is expected of it."""
        transfers = {ref: transfer.at_expectation() for ref, transfer in self.transfers.items()}
        return replace(
            self, transfers=transfers, steps={worker: cost.at_expectation() for worker, cost in self.steps.items()}
        )

    def expected_ns(self, route: Route, message: Message) -> int:
        """Return the expected cost of an exchange over a route."""
        return sum(self.transfers[hop.link.profile].expected_ns(message) for hop in route)

    def legs(self, pair: Pair, route: Route, seed: int) -> list[Leg]:
        """Return a node's exchanges over its route, link by link.

        A link may lie on the routes of several nodes; each has its own streams, so that the order in which they use it
        does not matter.
        """
        name = self.user(*pair)
        streams = (self.transfers[hop.link.profile].stream(seed, hop.link.name, name) for hop in route)
        return [Leg(hop.link.name, hop.forward, stream) for hop, stream in zip(route, streams, strict=True)]

    def user(self, node: int, server: int) -> str:
        """Return by what name a node's streams of links are known; a hub has some for each one that it sends to."""
        nodes = self.topology.nodes
        above = nodes[node].parent
        while above is not None and above != server:
            above = nodes[above].parent
        return nodes[node].name if above is not None else f"{nodes[node].name} to {nodes[server].name}"

    def links(self, message: Message) -> Links:
        """Return the links by their two ends, as routes are found over them."""
        used = {link.profile for link in self.topology.links}
        return Links(self.topology, {ref: self.transfers[ref].expected_ns(message) for ref in used})

    def check(self, message: Message) -> None:
        """Raise ConfigError where a link takes longer for a message than any run may."""
        try:
            for transfer in self.transfers.values():
                transfer.expected_ns(message)
        except ValueError as error:
            raise ConfigError.of("", "profiles", str(error)) from None


def _aggregations(topology: Topology) -> dict[int, Cost]:
    """Return what aggregations cost, by server; servers of one line of the file share theirs."""
    of_line = {node.path: Cost(node.aggregation_s) for node in topology.nodes if node.aggregation_s is not None}
    return {node.index: of_line[node.path] for node in topology.nodes if node.path in of_line}


class Leg(NamedTuple):
    """One link of a route; forward: as uploads go from its lower to its upper end."""

    link: str
    forward: bool
    exchanges: Exchanges


class Exchange(NamedTuple):
    """One upload and the download that answers it, over the whole route; costliest: its link of largest up cost."""

    up_ns: int
    down_ns: int
    costliest: str
    up_bytes: int
    down_bytes: int


def _shared(legs: Mapping[Pair, list[Leg]], network: Network) -> dict[Pair, list[Leg]]:
    """Return routes on which a node's streams of a link are one, whichever server it goes to."""
    first: dict[tuple[str, str], Exchanges] = {}
    return {
        pair: [
            leg._replace(exchanges=first.setdefault((network.user(*pair), leg.link), leg.exchanges)) for leg in route
        ]
        for pair, route in legs.items()
    }


class Draws:
    """A trial's costs: each entity takes the next draw of its own stream, whatever others do."""

    def __init__(
        self,
        network: Network,
        routes: Routes,
        messages: Mapping[Pair, Both],
        seed: int,
        steps: Mapping[int, Stream],
    ) -> None:
        """steps: by worker, what its iterations cost."""
        nodes = network.topology.nodes
        self._messages, self._steps = messages, steps
        self._legs = {pair: network.legs(pair, route, seed) for pair, route in routes.items()}
        if len({node for node, _ in routes}) < len(routes):
            self._legs = _shared(self._legs, network)
        self._same = {
            pair: self._next_exchange(*pair)
            for pair, route in routes.items()
            if all(network.transfers[hop.link.profile].is_constant for hop in route)
        }
        """By (node, server): what costs the same each time."""
        # What is kept for thousands of workers costs time at each of the garbage collector's rounds.
        for pair in self._same:
            del self._legs[pair]
        self._aggregations = {
            s: cost.stream(seed, "aggregation", nodes[s].name) for s, cost in network.aggregations.items()
        }

    def steps_ns(self, worker: int, num_steps: int) -> int:
        """Return what the next `num_steps` iterations of a worker cost, one draw each, whether spent or skipped."""
        return self._steps[worker].take(num_steps)

    def exchange(self, node: int, server: int) -> Exchange:
        """Return a node's next exchange with a server that aggregates it."""
        return self._same.get((node, server)) or self._next_exchange(node, server)

    def _next_exchange(self, node: int, server: int) -> Exchange:
        total_up, total_down, most, costliest = 0, 0, -1, ""
        messages = self._messages[node, server]
        for link, forward, exchanges in self._legs[node, server]:
            up, down = exchanges.next(*messages) if forward else exchanges.next(*messages[::-1])
            if not forward:
                up, down = down, up
            if up > most:
                most, costliest = up, link
            total_up += up
            total_down += down
        return Exchange(total_up, total_down, costliest, messages.up.num_bytes, messages.down.num_bytes)

    def aggregation_ns(self, server: int) -> int:
        """Return what the next aggregation of a server costs."""
        costs = self._aggregations.get(server)
        return 0 if costs is None else costs.take(1)
