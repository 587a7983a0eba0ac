"""Costs of many scenarios as arrays, drawn from the same streams as the engine's, each distinct stream once.

Letters: S scenarios, W workers, R rounds, J phases of a server in a round, K = R J; an axis of one number stands for
the same number all along it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import CostValue
from hsgd_emu.engine.plan import Participation, Plan
from hsgd_emu.timing.costs import ConstantCost, TransferModel, cost_stream, is_constant

Ints = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.bool_)
Draw = Callable[[int], tuple[Ints, ...]]
"""The next so many costs of one kind, or of several kinds at once: (K,) each, or (1,) where all are the same."""


LONGEST_NS = 2**61
"""Where times could come near the end of 64 bits, the engine is asked, whose integers have none."""
_CHAIN = 64
"""More costs than lie one after the other in a phase: some four for each level of servers."""


class TooLongError(Exception):
    """Times may be longer than 64 bits hold."""


class Source:
    """What one node draws in each scenario. Scenarios with the same key share a stream, drawn once."""

    def __init__(self, keys: Iterable[Hashable], open_: Callable[[int], Draw]) -> None:
        """open_: the stream of the scenario with this number."""
        known: dict[Hashable, int] = {}
        self._draws: list[Draw] = []
        index = []
        for place, key in enumerate(keys):
            number = known.setdefault(key, len(known))
            if number == len(self._draws):
                self._draws.append(open_(place))
            index.append(number)
        self._index_S = np.array(index, np.intp)

    def draw(self, num: int) -> tuple[Ints, ...]:
        """Return the next `num` costs of each kind: (S, K)."""
        kinds = zip(*(draw(num) for draw in self._draws), strict=True)
        return tuple(self._of_scenarios(values) for values in kinds)

    def _of_scenarios(self, values: Sequence[Ints]) -> Ints:
        if len(values) == 1:
            return values[0][None]
        longest = max(map(len, values))
        return np.stack([value if len(value) == longest else value.repeat(longest) for value in values])[self._index_S]


class Same:
    """What one node's costs are in each scenario, where they are the same every time: (S, 1) of each kind."""

    def __init__(self, *costs_S1: Ints) -> None:
        self._costs = costs_S1

    def draw(self, num: int) -> tuple[Ints, ...]:
        return self._costs


class ScenarioCosts:
    """The costs of several plans of one schedule with the same routes."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans, self.schedule = plans, plans[0].schedule
        self.nodes, self.routes = plans[0].network.topology.nodes, plans[0].routes
        self.seeds = [plan.seed if plan.network_seed is None else plan.network_seed for plan in plans]
        self._transfers = cache(self._find_transfers)
        self._exchange = cache(self._find_exchange)

    def steps(self, worker: int, period: int) -> Source | Same:
        """Return what `period` steps of a worker take, again and again."""
        values = [plan.network.step_s[worker] for plan in self.plans]
        return self._costs(values, "compute", worker, period)

    def aggregations(self, server: int) -> Source | Same:
        """Return what a server's aggregations take."""
        values = [plan.network.topology.nodes[server].aggregation_s or 0.0 for plan in self.plans]
        return self._costs(values, "aggregation", server, 1)

    def _costs(self, values: Sequence[CostValue], purpose: str, node: int, each: int) -> Source | Same:
        if all(map(is_constant, values)):
            return Same(np.array([ConstantCost(value).take(each) for value in values], np.int64)[:, None])

        def open_(number: int) -> Draw:
            costs = cost_stream(values[number], self.seeds[number], purpose, self.nodes[node].name)
            return lambda num: (costs.sums(num, each),)

        # Models are told apart by identity: hashing long samples takes long.
        names = [value if is_constant(value) else id(value) for value in values]
        return Source(zip(names, self.seeds, strict=True), open_)

    def exchanges(self, node: int) -> Source | Same:
        """Return the exchanges of a node with the server that aggregates it: up and down."""
        route = self.routes[node]
        ways = [self._exchange(hop.link.profile, hop.forward) for hop in route]
        same = [way for way in ways if way is not None]
        if len(same) == len(ways):
            up, down = (np.sum(one, axis=0) for one in zip(*same, strict=True))
            return Same(up, down)

        def open_(number: int) -> Draw:
            hops = []
            for hop in route:
                model, name = self._transfers(hop.link.profile)[number], self.nodes[node].name
                hops.append((hop.forward, model.stream(self.seeds[number], hop.link.name, name)))

            def draw(num: int) -> tuple[Ints, ...]:
                both = [exchanges.many(num)[:: 1 if forward else -1] for forward, exchanges in hops]
                return tuple(sum(one, np.zeros(1, np.int64)) for one in zip(*both, strict=True))

            return draw

        models = [self._transfers(hop.link.profile) for hop in route]
        keys = (
            (seed, *((id(m.profile), m.message_bytes) for m in row))
            for seed, *row in zip(self.seeds, *models, strict=True)
        )
        return Source(keys, open_)

    def _find_transfers(self, ref: object) -> list[TransferModel]:
        return [plan.network.transfers[ref] for plan in self.plans]

    def _find_exchange(self, ref: object, forward: bool) -> tuple[Ints, Ints] | None:
        """Return (up, down) of every exchange over a link, (S, 1) each, or None where some are drawn."""
        models = self._transfers(ref)
        if not all(model.is_constant for model in models):
            return None
        both = np.array([model.constant_ns for model in models], np.int64)
        up, down = both[:, :1], both[:, 1:]
        return (up, down) if forward else (down, up)

    def participation(self, server: int, workers: Sequence[int]) -> Source | None:
        """Return for each of a server's workers whether it takes part, 1 or 0; None where all always do."""
        if self.schedule.participation >= 1 or not workers:
            return None

        def open_(number: int) -> Draw:
            draws = Participation(self.plans[number]).draws(server)

            def draw(num: int) -> tuple[Ints, ...]:
                drawn = [frozenset(next(draws)) for _ in range(num)]
                return tuple(np.array([worker in members for members in drawn], np.int64) for worker in workers)

            return draw

        return Source((plan.seed for plan in self.plans), open_)


def by_phase(several_SK: Sequence[Ints], num_phases: int) -> Ints:
    """Return the costs of several nodes as (J, W, S, R).

    Raises:  TooLongError: their sums over a round may be.
    """
    if max(int(one.max(initial=0)) for one in several_SK) > LONGEST_NS // (_CHAIN * num_phases):
        raise TooLongError
    shape = tuple(max(axis) for axis in zip(*(one.shape for one in several_SK), strict=True))
    values_WSK = np.stack([np.broadcast_to(one, shape) for one in several_SK])
    if shape[1] == 1:
        return values_WSK[None]
    return np.ascontiguousarray(np.moveaxis(values_WSK.reshape(*values_WSK.shape[:2], -1, num_phases), 3, 0))


def at(values: NDArray[Number], phase: int) -> NDArray[Number]:
    """Return the values of one phase of all rounds."""
    one: NDArray[Number] = values[phase if len(values) > 1 else 0]
    return one


def is_alike(plan: Plan, profiles: Sequence[object]) -> bool:
    """Return whether every round takes the same time: costs are constant, and everybody takes part.

    Args:    profiles: of the links on its routes.
    """
    nodes, network = plan.network.topology.nodes, plan.network
    return (
        plan.schedule.participation >= 1
        and all(map(is_constant, network.step_s.values()))
        and all(is_constant(nodes[server].aggregation_s) for server in plan.schedule.children)
        and all(network.transfers[profile].is_constant for profile in profiles)
    )
