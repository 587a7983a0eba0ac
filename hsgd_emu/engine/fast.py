"""The fast clock: the engine's times of many scenarios at once, as a max-plus recursion over arrays.

DESIGN section 4 for synchronous schedules on private links, from the engine's own random streams: equal to the SimPy
engine to the nanosecond (tests/properties/test_fast_clock.py). Letters of arrays: S scenarios, R rounds, W workers of
one server; an axis of one number stands for the same number all along it. A server's phases are numbered within a
round.

Where everybody takes part, a round depends on the one before only through the moment at which the global server sends
down: rounds are computed from there, side by side, and then added up. Those that have not the same phases, since they
grow or have another tree, come one kind after the other; with constant costs all of a kind but the first take the same.
With partial participation a worker that sat out may still be receiving, and hubs drift apart: rounds are computed one
after the other.

Not modelled: events; there is no timeline here, and no blame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.engine.fast_costs import LONGEST_NS, Block, Ints, ScenarioCosts, alike_rounds, at
from hsgd_emu.engine.mixing import Graph
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.times import Times
from hsgd_emu.timing.costs import TooLongError
from hsgd_emu.topology.routes import Pair, Route

_ELEMENTS = 2**19
"""Numbers in one array of a chunk, for all of its workers; also scenarios x workers that share their streams."""
_DRAWS = 2**24
"""Random costs held at once, 128 MiB of them."""
_ZERO = np.zeros((1, 1), np.int64)


class Moment(NamedTuple):
    """A time and what of it, along the critical path, was compute and aggregation; the rest is communication."""

    time: Ints
    compute: Ints
    aggregation: Ints

    def later(self, delay: Ints) -> Moment:
        """Return the moment `delay` of communication later."""
        return self._replace(time=self.time + delay)

    def where(self, condition: Any, other: Moment) -> Moment:
        """Return this moment where the condition holds, and the other elsewhere."""
        return Moment(*(np.where(condition, mine, its) for mine, its in zip(self, other, strict=True)))


def fast_times(plans: Sequence[Plan]) -> Times:
    """Return the times of plans of one schedule and one number of iterations.

    Raises:  TooLongError: only the engine can.
    """
    schedule, num_rounds, num_workers = plans[0].schedule, plans[0].num_rounds, len(plans[0].workers)
    assert all(plan.schedule == schedule and plan.num_rounds == num_rounds for plan in plans)
    times = np.empty((4, len(plans), num_rounds), np.int64)
    size = max(1, _ELEMENTS // num_workers)
    for are_alike, places in _grouped(plans):
        for begin in range(0, len(places), size):
            chosen = places[begin : begin + size]
            times[:, chosen] = _Recursion([plans[place] for place in chosen], are_alike).times()
    return Times(schedule, *times)


def applies(plan: Plan) -> bool:
    """Return whether the recursion has a plan's times: servers wait for all who take part."""
    return not plan.depends_on_time


def _grouped(plans: Sequence[Plan]) -> Iterator[tuple[bool, list[int]]]:
    """Yield the places of plans with the same routes, those whose rounds of a length take the same apart."""
    signatures: dict[int, tuple[tuple[Pair, Route], ...]] = {}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, plan in enumerate(plans):
        # Scenarios often share the routes themselves; all of them are alive, so that their identities differ.
        signature = signatures.setdefault(id(plan.routes), ())
        if not signature:
            signature = signatures[id(plan.routes)] = tuple(plan.routes.items())
        are_alike = _is_in_step(plan) and plan.network.is_constant and not plan.step_probability
        groups.setdefault((are_alike, signature), []).append(place)
    for (are_alike, _), places in groups.items():
        yield are_alike, places


def _is_in_step(plan: Plan) -> bool:
    """Return whether a round depends on the one before only through the moment of the global aggregation."""
    return plan.schedule.participation >= 1 and plan.schedule.graph is None


class _Recursion:
    """The rounds of scenarios of one schedule."""

    def __init__(self, plans: Sequence[Plan], take_the_same: bool) -> None:
        """take_the_same: whether rounds of one length do, but for the first of them, since nothing is drawn."""
        self.num_scenarios, self.num_rounds, self.num_workers = len(plans), plans[0].num_rounds, len(plans[0].workers)
        self.take_the_same, self.is_in_step = take_the_same, _is_in_step(plans[0])
        self.schedule = plans[0].schedule
        self.rounds = list(alike_rounds(self.schedule, self.num_rounds))
        self.costs = ScenarioCosts(plans)
        self.held = _Held(plans[0].workers, self.num_scenarios)

    def times(self) -> Ints:
        """Return (4, S, R): time, aggregated, compute, aggregation."""
        times = np.empty((4, self.num_scenarios, self.num_rounds), np.int64)
        begin = 0
        for rounds in self.rounds:
            self.costs.turn_to(rounds)
            graph = self.schedule.graph
            self.root = _Server(self.costs, 0, self.held) if graph is None else _Hubs(self.costs, graph, self.held)
            end = begin + rounds.num_rounds
            known = min(begin + 2, end) if self.take_the_same else end
            self._fill(times[:, :, begin:known])
            if not self.is_in_step:
                self.root.keep()
            times[:, :, known:end] = times[:, :, known - 1 : known]
            begin = end
        if float(times.max()) * (self.num_rounds if self.is_in_step else 1) > LONGEST_NS:
            raise TooLongError
        if self.is_in_step:
            # Each round from the moment the global server sent down: added up, when it aggregates. The way down of
            # the last round comes on top.
            times[1:].cumsum(axis=2, out=times[1:])
            times[0] += times[1]
        return times

    def _fill(self, times: Ints) -> None:
        """Write the next rounds, which are alike."""
        num_rounds = times.shape[2]
        rounds = self._rounds_at_once(num_rounds)
        scenarios = max(1, _ELEMENTS // (self.num_workers * rounds))
        for begin in range(0, num_rounds, rounds):
            num = min(rounds, num_rounds - begin)
            self.root.draw(num)
            for first in range(0, self.num_scenarios, scenarios):
                part = slice(first, first + scenarios)
                self.root.use(part)
                moments = self._side_by_side() if self.is_in_step else self._next()
                for place, moment in enumerate(moments):
                    times[place, part, begin : begin + num] = moment

    def _rounds_at_once(self, num_rounds: int) -> int:
        """Return how many of some rounds to draw the costs of, and to compute side by side."""
        if not self.is_in_step:
            return 1
        most = min(_ELEMENTS // self.num_workers, _DRAWS // max(1, self.root.num_per_round()))
        return max(1, min(most, num_rounds))

    def _side_by_side(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return the way down after each round, and the rounds from where the global server sent down before."""
        way_down = self.root.way_down(_ZERO)
        return way_down, *self.root.phase(0)

    def _next(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return the round that follows the one before."""
        aggregated = self.root.phase(0)
        self.root.release(0, aggregated)
        last = self.root.held()
        return last.time, aggregated.time, last.compute, last.aggregation


class _Held:
    """What is kept of workers from round to round, whoever aggregates them: (W, S, 1) each, W of all workers."""

    def __init__(self, workers: Sequence[int], num_scenarios: int) -> None:
        self.place = {worker: place for place, worker in enumerate(workers)}
        self.now = Moment(*np.zeros((3, len(workers), num_scenarios, 1), np.int64))
        """When they did what they did last; where rounds are side by side, from where the global server sent down."""

    def of(self, workers: Sequence[int]) -> Moment:
        """Return the part of some workers that follow one another, to be written to."""
        first = self.place[workers[0]]
        return Moment(*(part[first : first + len(workers)] for part in self.now))


class _Server:
    """An aggregating server and all below it."""

    def __init__(self, costs: ScenarioCosts, server: int, held: _Held) -> None:
        stage, nodes = costs.stage, costs.nodes
        self.num_phases = costs.num_phases(server)
        self.aggregation = costs.aggregations(server)
        below = stage.children[server]
        workers = [child for child in below if nodes[child].is_worker]
        self.takes_part = costs.participation(server, workers)
        self.children: list[_Workers | _LocalServer] = []
        for is_worker, run in groupby(below, key=lambda child: nodes[child].is_worker):
            if is_worker:
                self.children.append(_Workers(costs, list(run), held))
            else:
                self.children += [_LocalServer(costs, child, held, self.num_phases) for child in run]

    def num_per_round(self) -> int:
        """Return how many costs are drawn for a round."""
        return self.aggregation.num_per_round + sum(child.num_per_round() for child in self.children)

    def draw(self, num_rounds: int) -> None:
        """Draw all costs of the next rounds."""
        self.aggregation.draw(num_rounds)
        if self.takes_part is not None:
            self.takes_part.draw(num_rounds)
        for child in self.children:
            child.draw(num_rounds)

    def use(self, part: slice) -> None:
        """Go on with some of the scenarios."""
        (self.aggregation_ns,) = self.aggregation.of(part)
        for child in self.children:
            child.use(part)
        if self.takes_part is not None:
            drawn = np.stack(self.takes_part.of(part), axis=1) > 0
            for child in self.children:
                if isinstance(child, _Workers):
                    child.members, drawn = np.split(drawn, [child.num_workers], axis=1)

    def phase(self, number: int) -> Moment:
        """Return when the server has aggregated at a phase."""
        ready, cost = _last(child.arrive(number) for child in self.children), at(self.aggregation_ns, number)
        return ready._replace(time=ready.time + cost, aggregation=ready.aggregation + cost)

    def through(self, first: int, last: int) -> Moment:
        """Return when the server has aggregated at the last of some phases; it sends down after those before."""
        for number in range(first, last):
            self.release(number, self.phase(number))
        return self.phase(last)

    def release(self, number: int, sent: Moment) -> None:
        """Send down what was aggregated at a phase."""
        for child in self.children:
            child.receive(number, sent)

    def way_down(self, sent: Ints) -> Ints:
        """Return when the last worker has a round's global model, and let each begin the next round at that."""
        ways = [child.way_down(sent) for child in self.children]
        return ways[0] if len(ways) == 1 else np.maximum.reduce(np.broadcast_arrays(*ways))

    def held(self) -> Moment:
        """Return when the last worker received a model."""
        return _last(child.held() for child in self.children)

    def keep(self) -> None:
        """Let the rounds of another tree begin from where the workers are."""
        for child in self.children:
            child.keep()


class _LocalServer(_Server):
    """A server below another one: several of its phases lie in one phase above."""

    def __init__(self, costs: ScenarioCosts, server: int, held: _Held, num_above: int) -> None:
        super().__init__(costs, server, held)
        self.per_phase = self.num_phases // num_above
        self.exchanges = costs.exchanges(server)

    def num_per_round(self) -> int:
        return super().num_per_round() + 2 * self.exchanges.num_per_round

    def draw(self, num_rounds: int) -> None:
        super().draw(num_rounds)
        self.exchanges.draw(num_rounds)

    def use(self, part: slice) -> None:
        super().use(part)
        self.up, self.down = self.exchanges.of(part)

    def arrive(self, above: int) -> Moment:
        """Return when its model arrives at the server above, at the end of a phase there."""
        first = above * self.per_phase
        return self.through(first, first + self.per_phase - 1).later(at(self.up, above))

    def receive(self, above: int, sent: Moment) -> None:
        self.release((above + 1) * self.per_phase - 1, sent.later(at(self.down, above)))

    def way_down(self, sent: Ints) -> Ints:
        return super().way_down(sent + at(self.down, -1))


class _Hubs(_Server):
    """Servers that mix with neighbours; there is none above them."""

    def __init__(self, costs: ScenarioCosts, graph: Graph, held: _Held) -> None:
        self.members = [graph.members(hub) for hub in graph.hubs]
        self.hubs = {hub: _Server(costs, hub, held) for hub in graph.hubs}
        self.sending = {pair: costs.sending(*pair) for pair in graph.pairs()}
        self.ready: list[Moment] = []

    def num_per_round(self) -> int:
        sends = sum(2 * sending.num_per_round for sending in self.sending.values())
        return sends + sum(hub.num_per_round() for hub in self.hubs.values())

    def draw(self, num_rounds: int) -> None:
        for one in (*self.hubs.values(), *self.sending.values()):
            one.draw(num_rounds)

    def use(self, part: slice) -> None:
        for hub in self.hubs.values():
            hub.use(part)
        self.ways = {pair: sending.of(part)[0] for pair, sending in self.sending.items()}

    def phase(self, number: int) -> Moment:
        """Return when the last hub has all that it takes."""
        results = {place: hub.through(0, hub.num_phases - 1) for place, hub in self.hubs.items()}
        self.ready = [
            _last(results[one] if one == hub else results[one].later(at(self.ways[one, hub], 0)) for one in members)
            for hub, members in zip(self.hubs, self.members, strict=True)
        ]
        return _last(self.ready)

    def release(self, number: int, sent: Moment) -> None:
        for hub, ready in zip(self.hubs.values(), self.ready, strict=True):
            hub.release(hub.num_phases - 1, ready)

    def held(self) -> Moment:
        return _last(hub.held() for hub in self.hubs.values())

    def keep(self) -> None:
        for hub in self.hubs.values():
            hub.keep()


class _Workers:
    """Workers of one server that follow one another in node order. now: (W, S, R), when they did what they did last."""

    def __init__(self, costs: ScenarioCosts, workers: Sequence[int], held: _Held) -> None:
        self.members: NDArray[np.bool_] | None = None
        """(J, W, S, R): who takes part; None: all do."""
        self.num_workers = len(workers)
        self.steps = Block([costs.steps(worker) for worker in workers])
        self.exchanges = Block([costs.exchanges(worker) for worker in workers])
        self.now = self.before = held.of(workers)

    def num_per_round(self) -> int:
        return self.steps.num_per_round + 2 * self.exchanges.num_per_round

    def draw(self, num_rounds: int) -> None:
        self.num_rounds = num_rounds
        self.steps.draw(num_rounds)
        self.exchanges.draw(num_rounds)

    def use(self, part: slice) -> None:
        self.part = part
        (self.step,) = self.steps.of(part)
        self.up, self.down = self.exchanges.of(part)

    def arrive(self, number: int) -> Moment:
        """Return when the last model arrives at the server; every worker is then where it has uploaded."""
        step, up = at(self.step, number), at(self.up, number)
        arrived = Moment(self.now.time + step + up, self.now.compute + step, self.now.aggregation)
        if self.members is None:
            self.now = arrived
            return _first_of_last(arrived, arrived.time)
        members = at(self.members, number)
        self.now = arrived.where(members, self.now)
        # Before all others where none of these takes part: a server may stand between a server's workers.
        times = np.where(members, self.now.time, -1)
        return _first_of_last(self.now._replace(time=times), times)

    def receive(self, number: int, sent: Moment) -> None:
        if self.members is not None:
            # One that sat out may still be receiving: it goes on from its own time.
            sent = sent.where(sent.time >= self.now.time, self.now)
        self.now = sent.later(at(self.down, number))

    def way_down(self, sent: Ints) -> Ints:
        before = self.before.time[:, self.part]
        held = np.broadcast_to(sent + at(self.down, -1), (*before.shape[:2], self.num_rounds))
        self.now = _begin(np.concatenate([before, held[:, :, :-1]], axis=2))
        before[:] = held[:, :, -1:]
        return np.asarray(held.max(axis=0))

    def held(self) -> Moment:
        return _first_of_last(self.now, self.now.time)

    def keep(self) -> None:
        for before, now in zip(self.before, self.now, strict=True):
            before[:] = now


def _begin(time: Ints) -> Moment:
    return Moment(time, _ZERO, _ZERO)


def _first_of_last(workers: Moment, times: Ints) -> Moment:
    """Return the last of several workers' moments, of equal ones the first in node order."""
    place = times.argmax(axis=0)[None]
    parts = (np.broadcast_to(part, times.shape) for part in workers)
    return Moment(*(np.take_along_axis(part, place, axis=0)[0] for part in parts))


def _last(children: Iterable[Moment]) -> Moment:
    """Return the last of the moments, of equal ones the first."""
    first, *others = children
    for other in others:
        first = first.where(first.time >= other.time, other)
    return first
