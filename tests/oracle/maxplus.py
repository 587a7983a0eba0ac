"""DESIGN section 4 as a plain max-plus recursion: no events, no clock, one `max` per barrier."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hsgd_emu.experiment import Experiment
from hsgd_emu.rng import stream
from oracle.ground import aggregator, draws, periods_of, route, trips

Row = tuple[int, str, int, int, int, int, int]
"""(node, kind, start_ns, end_ns, iteration, bytes, peer), as in the timeline."""


class Moment(NamedTuple):
    """A time and what it is made of: compute + communication + aggregation along the critical path."""

    compute: int = 0
    communication: int = 0
    aggregation: int = 0

    @property
    def ns(self) -> int:
        return sum(self)

    def later(self, compute: int = 0, communication: int = 0, aggregation: int = 0) -> Moment:
        return Moment(self.compute + compute, self.communication + communication, self.aggregation + aggregation)


_START = Moment()


@dataclass
class Round:
    """What the recursion says of one global aggregation; the same fields as the engine's record."""

    iteration: int
    time: Moment = _START
    aggregated: Moment = _START
    rows: list[Row] = field(default_factory=list)
    barriers: list[tuple[int, int, int, int, str, int]] = field(default_factory=list)
    waits: dict[int, int] = field(default_factory=dict)


class Recursion:
    """One trial. `at[node]`: when a node has done what it last did."""

    def __init__(self, experiment: Experiment, case: int, seed: int, message_bytes: int) -> None:
        topology, spec = experiment.topology, experiment.cases[case]
        self.nodes, self.bytes = topology.nodes, message_bytes
        self.period = periods_of(spec, topology)
        self.children: dict[int, list[int]] = {server: [] for server in self.period}
        for node in [*self.period, *topology.workers]:
            if node:
                self.children[aggregator(topology, self.period, node)].append(node)
        for below in self.children.values():
            below.sort()
        self.iterations = experiment.train.iterations
        self.share = experiment.train.participation if spec.participation is None else spec.participation
        self.skips = experiment.train.step_probability or 1.0
        self.at = {node.index: _START for node in topology.nodes}
        self._streams(experiment, seed)
        self.round = Round(0)
        self.trip: dict[int, tuple[int, int, str]] = {}

    def _streams(self, experiment: Experiment, seed: int) -> None:
        names = [node.name for node in self.nodes]
        computes, default = experiment.topology_draft.computes, experiment.compute
        self.steps: dict[int, Iterator[int]] = {}
        self.trips: dict[int, Iterator[tuple[int, int, str]]] = {}
        for server, below in self.children.items():
            for child in below:
                hops = route(experiment, child, server, self.bytes)
                self.trips[child] = trips(experiment, hops, child, seed, self.bytes)
                ref = self.nodes[child].compute
                profile = default if ref is None else computes[ref]
                if child not in self.period:
                    assert profile is not None
                    self.steps[child] = draws(profile.step_s, seed, "compute", names[child])
        self.costs = {s: draws(self.nodes[s].aggregation_s, seed, "aggregation", names[s]) for s in self.period}
        self.rng = {s: stream(seed, "participation", names[s]) for s in self.period}
        self.uniforms = {w: stream(seed, "steps", names[w]) for w in self.steps}

    def rounds(self) -> Iterator[Round]:
        for iteration in range(self.period[0], self.iterations + 1, self.period[0]):
            self.round = Round(iteration)
            self.gather(0, iteration)
            self.round.aggregated = self.at[0]
            self.release(0, iteration)
            # max keeps the first of several equal ones: the first worker in node order.
            self.round.time = max((self.at[worker] for worker in self.steps_in_order()), key=lambda at: at.ns)
            self.round.rows.sort(key=lambda row: (row[2], row[0], row[3]))
            self.round.barriers.sort()
            yield self.round

    def steps_in_order(self) -> list[int]:
        return sorted(self.steps)

    def gather(self, server: int, iteration: int) -> None:
        """Bring everything below the server to its aggregation at `iteration`; at[server]: when it is done."""
        arrivals: dict[int, Moment] = {}
        links: dict[int, str] = {}
        members = self.members(server)
        for child in self.children[server]:
            if child in self.period:
                self.catch_up(child, iteration - self.period[server], iteration)
            else:
                self.compute(child, self.period[server], iteration, child in members)
            up, _, link = self.trip[child] = next(self.trips[child])
            if child in members:
                sent = self.at[child]
                self.at[child] = arrivals[child] = sent.later(communication=up)
                links[child] = link
                self.row(child, "upload", sent, iteration, server, self.bytes)
        last = max(arrivals, key=lambda child: arrivals[child].ns)
        times = sorted(moment.ns for moment in arrivals.values())
        slack = times[-1] - times[-2] if len(times) > 1 else 0
        self.round.barriers.append((server, iteration, times[-1], last, links[last], slack))
        self.wait(server, times[0], times[-1], iteration, last)
        self.at[server] = arrivals[last].later(aggregation=next(self.costs[server]))
        self.row(server, "aggregate", arrivals[last], iteration, last)

    def catch_up(self, server: int, before: int, iteration: int) -> None:
        """All of a local server's periods between two aggregations of its parent."""
        for local in range(before + self.period[server], iteration + 1, self.period[server]):
            self.gather(server, local)
            if local < iteration:
                self.release(server, local)

    def compute(self, worker: int, num_steps: int, iteration: int, takes_part: bool) -> None:
        cost = 0
        for _ in range(num_steps):
            drawn = next(self.steps[worker])
            cost += drawn if self.uniforms[worker].random() < self.step_probability(worker) else 0
        if takes_part:
            begun = self.at[worker]
            self.at[worker] = begun.later(compute=cost)
            self.row(worker, "compute", begun, iteration)

    def step_probability(self, worker: int) -> float:
        """Return the probability with which a worker takes a step."""
        if not isinstance(self.skips, dict):
            return self.skips
        node = self.nodes[worker]
        return self.skips.get(node.name, self.skips.get(node.class_name, 1.0))

    def release(self, server: int, iteration: int) -> None:
        """Send the server's model down to every worker below it."""
        sent = self.at[server]
        for child in self.children[server]:
            here = self.at[child]
            self.wait(child, here.ns, sent.ns, iteration, server)
            # One that sat out may still be receiving: it goes on from its own time.
            begun = sent if sent.ns >= here.ns else here
            self.at[child] = begun.later(communication=self.trip[child][1])
            self.row(child, "download", begun, iteration, server, self.bytes)
            if child in self.period:
                self.release(child, iteration)

    def members(self, server: int) -> set[int]:
        """Draw who takes part in the next period of a server: a fraction of its workers, and every server."""
        below = self.children[server]
        workers = [child for child in below if child not in self.period]
        if self.share == 1 or not workers:
            return set(below)
        num = max(1, round(self.share * len(workers)))
        chosen = self.rng[server].choice(len(workers), num, replace=False)
        return {workers[place] for place in chosen} | (set(below) - set(workers))

    def row(self, node: int, kind: str, begun: Moment, iteration: int, peer: int = -1, num_bytes: int = 0) -> None:
        self.round.rows.append((node, kind, begun.ns, self.at[node].ns, iteration, num_bytes, peer))

    def wait(self, node: int, begun_ns: int, until_ns: int, iteration: int, peer: int) -> None:
        if until_ns > begun_ns:
            self.round.rows.append((node, "wait", begun_ns, until_ns, iteration, 0, peer))
            self.round.waits[node] = self.round.waits.get(node, 0) + until_ns - begun_ns


def recursion(experiment: Experiment, case: int = 0, seed: int = 1, message_bytes: int = 1000) -> list[Round]:
    """Return every round of one trial."""
    return list(Recursion(experiment, case, seed, message_bytes).rounds())
