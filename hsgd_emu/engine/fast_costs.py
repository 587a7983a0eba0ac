"""Costs of many scenarios as arrays, drawn from the same streams as the engine's, each distinct stream once.

Letters: S scenarios, W workers, R rounds, J phases of a server in a round, K = R J; an axis of one number stands for
the same number all along it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.run_schema import MOST_ITERATIONS
from hsgd_emu.config.schema import Ref
from hsgd_emu.engine.messages import Both
from hsgd_emu.engine.plan import Participation, Plan
from hsgd_emu.engine.schedule import Schedule, Stage
from hsgd_emu.timing.costs import Cost, Stream, TooLongError
from hsgd_emu.timing.transfers import Exchanges, Transfer
from hsgd_emu.topology.routes import Pair
from hsgd_emu.topology.tree import Link

Ints = NDArray[np.int64]
Number = TypeVar("Number", np.int64, np.bool_)
Draw = Callable[[int], tuple[Ints, ...]]
"""The next so many costs of one kind, or of several kinds at once: (K,) each, or (1,) where all are the same."""


LONGEST_NS = 2**61
"""Where times could come near the end of 64 bits, the engine is asked, whose integers have none."""
_NOTHING = Cost(0)
_CHAIN = 64
"""More costs than lie one after the other in a phase: some four for each level of servers."""


class Groups:
    """Scenarios told apart by a key."""

    def __init__(self, keys: Iterable[Hashable]) -> None:
        known: dict[Hashable, int] = {}
        self.first: list[int] = []
        """The first scenario of each group."""
        of_scenario = []
        for place, key in enumerate(keys):
            number = known.setdefault(key, len(known))
            if number == len(self.first):
                self.first.append(place)
            of_scenario.append(number)
        self.of_S = np.array(of_scenario, np.intp)


class Source:
    """What one node draws in each scenario. The scenarios of a group share a stream, U groups in all."""

    def __init__(self, groups: Groups, open_: Callable[[int], Draw], num_phases: int) -> None:
        """open_: the stream of the scenario with this number; num_phases: draws in a round, J."""
        self.groups, self.num_phases = groups, num_phases
        self._draws = [open_(number) for number in groups.first]
        self.kinds: list[Ints] = []
        """The costs drawn last of each kind: (J, U, R)."""

    @property
    def num_per_round(self) -> int:
        """How many costs are drawn for a round."""
        return len(self._draws) * self.num_phases

    def draw(self, num_rounds: int) -> None:
        """Draw the costs of the next rounds."""
        num = num_rounds * self.num_phases
        kinds = zip(*(draw(num) for draw in self._draws), strict=True)
        self.kinds = [self._by_phase(values) for values in kinds]

    def _by_phase(self, values: Sequence[Ints]) -> Ints:
        longest = max(map(len, values))
        table_UK = np.stack([value if len(value) == longest else value.repeat(longest) for value in values])
        if int(table_UK.max()) > LONGEST_NS // (_CHAIN * self.num_phases):
            raise TooLongError
        num_phases = self.num_phases if longest > 1 else 1
        return np.ascontiguousarray(np.moveaxis(table_UK.reshape(len(values), -1, num_phases), 2, 0))

    def of(self, part: slice) -> list[Ints]:
        """Return the costs of each kind for some of the scenarios: (J, S, R)."""
        return [one if one.shape[1] == 1 else one[:, self.groups.of_S[part]] for one in self.kinds]


class Same:
    """What one node's costs are in each scenario, where they are the same every time."""

    num_per_round = 0

    def __init__(self, num_phases: int, *costs_S: Ints) -> None:
        if max(int(costs.max()) for costs in costs_S) > LONGEST_NS // (_CHAIN * num_phases):
            raise TooLongError
        alone = [costs[:1] if bool((costs == costs[0]).all()) else costs for costs in costs_S]
        self.kinds = [costs[None, :, None] for costs in alone]

    def draw(self, num_rounds: int) -> None:
        pass

    def of(self, part: slice) -> list[Ints]:
        return [costs if costs.shape[1] == 1 else costs[:, part] for costs in self.kinds]


class Block:
    """What several nodes draw. Where all tell the scenarios apart alike, their costs are looked up together."""

    def __init__(self, sources: Sequence[Source | Same]) -> None:
        self.sources = sources[:1] if all(source is sources[0] for source in sources) else sources
        groups = [source.groups if isinstance(source, Source) else None for source in sources]
        self._groups = groups[0] if all(one is groups[0] for one in groups) else None
        self._kinds_JWUR: list[Ints] = []

    @property
    def num_per_round(self) -> int:
        """How many costs are drawn for a round."""
        return sum(source.num_per_round for source in self.sources)

    def draw(self, num_rounds: int) -> None:
        """Draw the costs of the next rounds."""
        for source in self.sources:
            source.draw(num_rounds)
        if self._groups is not None:
            self._kinds_JWUR = self._stacked([source.kinds for source in self.sources])

    def of(self, part: slice) -> list[Ints]:
        """Return the costs of each kind for some of the scenarios: (J, W, S, R)."""
        if self._groups is None:
            return self._stacked([source.of(part) for source in self.sources])
        return [one if one.shape[2] == 1 else one[:, :, self._groups.of_S[part]] for one in self._kinds_JWUR]

    @staticmethod
    def _stacked(kinds_of_nodes: Sequence[list[Ints]]) -> list[Ints]:
        return [np.stack(np.broadcast_arrays(*nodes), axis=1) for nodes in zip(*kinds_of_nodes, strict=True)]


@dataclass(frozen=True, eq=False)
class _Messages:
    """What one node exchanges in each scenario; equal to itself alone, which is quicker to look up."""

    of: tuple[Both, ...]


class Alike(NamedTuple):
    """Rounds that follow one another and have the same phases."""

    stage: Stage
    length: int
    num_rounds: int


def alike_rounds(schedule: Schedule, num_rounds: int) -> Iterator[Alike]:
    """Yield the first rounds of a schedule, those that are alike together."""
    for stage in schedule.stages:
        of_stage = range(stage.rounds_before, min(num_rounds, stage.num_rounds(stage.end or MOST_ITERATIONS)))
        if stage.rounds.last is None and of_stage:
            yield Alike(stage, stage.period[0], len(of_stage))
        elif of_stage:
            ends = [stage.end_of(number) for number in range(of_stage.start, of_stage.stop + 1)]
            for length, same in groupby(end - begin for begin, end in pairwise(ends)):
                yield Alike(stage, length, len(list(same)))


class ScenarioCosts:
    """The costs of several plans of one schedule with the same routes, in the rounds that `turn_to` says."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plans = plans
        self.nodes, self.routes = plans[0].network.topology.nodes, plans[0].routes
        self.seeds = [plan.cost_seed for plan in plans]
        self._user = plans[0].network.user
        self._pairs: dict[str, list[Pair]] = {}
        """By whose streams of links they use."""
        for pair in plans[0].schedule.pairs:
            self._pairs.setdefault(self._user(*pair), []).append(pair)
        self._messages: dict[tuple[Both, ...], _Messages] = {}
        self._transfers = cache(self._find_transfers)
        self._exchange = cache(self._find_exchange)
        self._groups = cache(lambda *columns: Groups(zip(self.seeds, *columns, strict=True)))
        self._same = cache(self._find_same)
        # What is drawn goes on from rounds to rounds.
        self._steps = cache(lambda worker, number: plans[number].steps(worker))
        self._aggregations = cache(self._open_aggregations)
        self._leg = cache(self._open_leg)
        self._participation = cache(lambda number: Participation(plans[number]))

    def turn_to(self, rounds: Alike) -> None:
        """Go on with these rounds."""
        self.stage, self._length = rounds.stage, rounds.length

    def num_phases(self, server: int) -> int:
        """Return how many phases of a server lie in a round."""
        return self._length // self.stage.period[server] if server else 1

    def steps(self, worker: int) -> Source | Same:
        """Return what the steps of a worker between two aggregations take together."""
        server = self.stage.parent[worker]
        costs = tuple(plan.network.steps[worker] for plan in self.plans)
        num_phases = self.num_phases(server)
        num_steps, shares = self._length // num_phases, tuple(plan.step_probability.get(worker) for plan in self.plans)
        same = self._same(costs, num_phases, num_steps) if not any(shares) else None
        if same is not None:
            return same
        # Which steps are taken is learned: it goes by the trial's own seed.
        seeds = tuple(share and plan.seed for share, plan in zip(shares, self.plans, strict=True))
        columns = (costs, seeds, shares) if any(shares) else (costs,)
        return self._drawn(columns, num_phases, num_steps, partial(self._steps, worker))

    def aggregations(self, server: int) -> Source | Same:
        """Return what a server's aggregations take."""
        costs = tuple(plan.network.aggregations.get(server, _NOTHING) for plan in self.plans)
        num_phases, stream = self.num_phases(server), partial(self._aggregations, server)
        return self._same(costs, num_phases, 1) or self._drawn((costs,), num_phases, 1, stream)

    def _drawn(
        self, columns: tuple[tuple[Hashable, ...], ...], num_phases: int, each: int, stream: Callable[[int], Stream]
    ) -> Source:
        """Return sums of `each` draws; columns: what tells scenarios' streams apart; stream: opens that of one."""

        def open_(number: int) -> Draw:
            opened = stream(number)
            return lambda num: (opened.sums(num, each),)

        return Source(self._groups(*columns), open_, num_phases)

    def _open_aggregations(self, server: int, number: int) -> Stream:
        cost = self.plans[number].network.aggregations.get(server, _NOTHING)
        return cost.stream(self.seeds[number], "aggregation", self.nodes[server].name)

    def _find_same(self, costs: tuple[Cost, ...], num_phases: int, each: int) -> Same | None:
        """Return what nodes of these costs take, or None where some are drawn. Nodes of a class share theirs."""
        if not all(cost.is_constant for cost in costs):
            return None
        return Same(num_phases, np.concatenate([cost.stream(0, "").sums(1, each) for cost in costs]))

    def exchanges(self, node: int) -> Source | Same:
        """Return the exchanges of a node with the server that aggregates it: up and down."""
        server = self.stage.parent[node]
        return self._exchanges((node, server), self.num_phases(server))

    def sending(self, hub: int, other: int) -> Source | Same:
        """Return what a hub sends a neighbour at the end of each round: the way up, and one that nothing goes."""
        return self._exchanges((hub, other), 1)

    def _exchanges(self, pair: Pair, num_phases: int) -> Source | Same:
        route, user, messages = self.routes[pair], self._user(*pair), self._messages_of(pair)
        ways = [self._exchange(hop.link.profile, hop.forward, messages) for hop in route]
        same = [way for way in ways if way is not None]
        if len(same) == len(ways):
            return Same(num_phases, *(_added(one) for one in zip(*same, strict=True)))

        def open_(number: int) -> Draw:
            both, turns = messages.of[number], [1 if hop.forward else -1 for hop in route]
            legs = [self._leg(user, hop.link, number) for hop in route]

            def draw(num: int) -> tuple[Ints, ...]:
                ways = [leg.many(num, *both[::turn])[::turn] for leg, turn in zip(legs, turns, strict=True)]
                return tuple(_added(one) for one in zip(*ways, strict=True))

            return draw

        # By all that is ever drawn of these streams, so that those who share one do so throughout.
        pairs = self._pairs[user]
        transfers = (self._transfers(hop.link.profile) for pair in pairs for hop in self.routes[pair])
        return Source(self._groups(*(self._messages_of(pair).of for pair in pairs), *transfers), open_, num_phases)

    def _open_leg(self, user: str, link: Link, number: int) -> Exchanges:
        transfer = self.plans[number].network.transfers[link.profile]
        return transfer.stream(self.seeds[number], link.name, user)

    def _find_transfers(self, ref: Ref) -> tuple[Transfer, ...]:
        return tuple(plan.network.transfers[ref] for plan in self.plans)

    def _messages_of(self, pair: Pair) -> _Messages:
        """Return what a node exchanges in each plan: the same object for nodes that exchange the same."""
        found = tuple(plan.messages[pair] for plan in self.plans)
        return self._messages.setdefault(found, _Messages(found))

    def _find_exchange(self, ref: Ref, forward: bool, messages: _Messages) -> tuple[Ints, Ints] | None:
        """Return (up, down) of every exchange over a link, (S,) each, or None where some are drawn."""
        transfers = self._transfers(ref)
        if not all(transfer.is_constant for transfer in transfers):
            return None
        groups, turn = Groups(zip(transfers, messages.of, strict=True)), 1 if forward else -1
        streams = [(transfers[place].stream(0, "", ""), messages.of[place]) for place in groups.first]
        pairs = [stream.next(*both[::turn]) for stream, both in streams]
        up, down = np.array(pairs, np.int64)[groups.of_S].T
        return (up, down) if forward else (down, up)

    def participation(self, server: int, workers: Sequence[int]) -> Source | None:
        """Return for each of a server's workers whether it takes part, 1 or 0; None where all always do."""
        if self.stage.participation >= 1 or not workers:
            return None

        def open_(number: int) -> Draw:
            draws = self._participation(number).draws(self.stage, server)

            def draw(num: int) -> tuple[Ints, ...]:
                drawn = [frozenset(next(draws)) for _ in range(num)]
                return tuple(np.array([worker in members for members in drawn], np.int64) for worker in workers)

            return draw

        return Source(Groups(plan.seed for plan in self.plans), open_, self.num_phases(server))


def _added(hops: Sequence[Ints]) -> Ints:
    """Return the sum of the costs of a route's links, those of one number added to all."""
    if sum(int(costs.max()) for costs in hops) > LONGEST_NS:
        raise TooLongError
    return sum(hops, np.zeros(1, np.int64))


def at(values: NDArray[Number], phase: int) -> NDArray[Number]:
    """Return the values of one phase of all rounds."""
    one: NDArray[Number] = values[phase if len(values) > 1 else 0]
    return one
