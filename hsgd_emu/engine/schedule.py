"""A case's periods on a topology -> who aggregates whom, and when.

Algorithm 1 of Wang et al. 2022 and its multi-level form: a server aggregates its children every P(s) iterations.
Local SGD (`period`) is the schedule in which only the global server aggregates. Nobody else computes with periods:
a schedule tells each server's phases, and which rounds there are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, count, pairwise, takewhile
from typing import Any, Literal, NamedTuple

from hsgd_emu.config.reader import Path_
from hsgd_emu.config.run_schema import MOST_ITERATIONS, CaseSpec, LevelPeriod, RoundsSpec
from hsgd_emu.errors import listed, nearest
from hsgd_emu.topology.tree import Topology

Mistakes = list[tuple[Path_, str]]


class Phase(NamedTuple):
    """The iterations begin + 1 ... end of all workers below a server, at whose end it aggregates.

    number: of the server's phases, from 1; round: of the global server's phase that it lies in.
    """

    server: int
    number: int
    begin: int
    end: int
    round: int

    @property
    def num_steps(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Rounds:
    """Where rounds end: first at `ends`, then every `period` iterations; `last`: where the last one is cut."""

    period: int
    ends: tuple[int, ...] = ()
    last: int | None = None

    @classmethod
    def of(cls, given: RoundsSpec, iterations: int) -> Rounds:
        """Return the rounds of a trial of so many iterations."""
        lengths = list(given.rounds or ())
        length, end = given.first or lengths[-1], 0
        if given.add or (given.times or 1) > 1:
            while end < iterations and length != given.most:
                lengths.append(length)
                end += length
                length = (
                    length + given.add if given.add else min(length * (given.times or 1), given.most or MOST_ITERATIONS)
                )
        ends = list(takewhile(lambda end: end < iterations, accumulate(lengths)))
        if sum(lengths) >= iterations:
            ends.append(iterations)
        return cls(length, tuple(ends), iterations)

    def end_of(self, number: int) -> int:
        """Return where a round ends; 0 for round 0."""
        after = max(0, number - len(self.ends)) * self.period
        end = after + (self.ends[min(number, len(self.ends)) - 1] if number and self.ends else 0)
        return end if self.last is None else min(end, self.last)

    def within(self, iterations: int) -> int:
        """Return how many rounds end within so many iterations."""
        found = bisect_right(self.ends, iterations)
        if found == len(self.ends):
            found += (iterations - self.end_of(found)) // self.period
        return found + (iterations == self.last != self.end_of(found))


@dataclass(frozen=True)
class Schedule:
    """The aggregation tree of one case: the topology's tree without the servers that only pass models through.

    period: iterations between two aggregations at each aggregating server (P, G, I_i, P_l of the paper), at the global
    one of the first round. A round is a phase of the global server; rounds are numbered from 1.
    """

    name: str
    period: Mapping[int, int]
    parent: Mapping[int, int]
    children: dict[int, tuple[int, ...]]
    """By aggregating server, depth first."""
    participation: float
    rounds: Rounds
    of_root: Any
    """The global server's period as the case gives it."""

    def by_name(self, topology: Topology) -> dict[str, Any]:
        """Return the keys of a case with this schedule in which every server stands under its own name."""
        periods = {topology.nodes[server].name: self.period.get(server, "none") for server in topology.servers}
        return {"periods": periods | {topology.nodes[0].name: self.of_root}}

    def phases(self, server: int) -> Iterator[Phase]:
        """Yield a server's phases, one after the other without end."""
        period = self.period[server]
        for number in count(1):
            begin, end = (number - 1) * period, number * period
            if server == 0:
                begin, end = self.end_of(number - 1), self.end_of(number)
            yield Phase(server, number, begin, end, self.round_at(end))

    def num_phases(self, server: int, iterations: int) -> int:
        """Return how many phases of a server end within so many iterations."""
        return iterations // self.period[server] if server else self.rounds.within(iterations)

    def phases_until(self, server: int, iteration: float) -> Fraction:
        """Return how many phases of a server an iteration, which may be a mean, is the end of; part of one counts."""
        if server:
            return Fraction(iteration) / self.period[server]
        done = self.num_rounds(math.floor(iteration))
        begin, end = self.end_of(done), self.end_of(done + 1)
        return Fraction(done) + ((Fraction(iteration) - begin) / (end - begin) if end > begin else 0)

    def num_rounds(self, iterations: int) -> int:
        """Return how many rounds end within so many iterations."""
        return self.num_phases(0, iterations)

    def round_at(self, iteration: int) -> int:
        """Return the number of the round that an iteration belongs to; it may end there."""
        return self.num_rounds(iteration - 1) + 1

    def end_of(self, round_: int) -> int:
        """Return the iteration at which a round ends: that of its global aggregation; 0 for round 0."""
        return self.rounds.end_of(round_)

    def next_end(self, iteration: int) -> int:
        """Return the iteration of the first global aggregation at or after this one."""
        return self.end_of(self.round_at(iteration))

    def mistake_at(self, iteration: int) -> str | None:
        """Return why an iteration is not that of a global aggregation, None where it is."""
        end, period = self.next_end(iteration), self.period[0]
        if end == iteration:
            return None
        if self.rounds_are_alike:
            return f"{iteration} is not a multiple of the global period {period}; {_around(iteration, period)}"
        return f"{iteration} is not the end of a round; {end} is"

    @property
    def rounds_are_alike(self) -> bool:
        """Whether each round has the phases of every other: what the fast clock's recursion rests on."""
        return self.rounds.last is None

    @property
    def rounds_in_words(self) -> str:
        """The lengths of the rounds."""
        lengths = [self.end_of(number) - self.end_of(number - 1) for number in range(1, 5)]
        if self.rounds_are_alike or not lengths[1]:
            return f"{lengths[0]:,}"
        return ", ".join([*(f"{length:,}" for length in lengths[:3] if length), *(["..."] if lengths[3] else [])])


def build_schedule(
    case: CaseSpec, topology: Topology, iterations: int | None, participation: float, mistakes: Mistakes
) -> Schedule | None:
    """Return the schedule of a case, or None after adding its mistakes (paths relative to the case)."""
    before = len(mistakes)
    given = _periods(case, topology, mistakes)
    for server, value in given.items():
        if server and not isinstance(value, int):
            text = "only the global server's rounds may grow, or be one; give a number of iterations"
            mistakes.append(((*_path(case, topology, server),), text))
    if len(mistakes) > before:
        return None
    of_root = given[0]
    if isinstance(of_root, RoundsSpec):
        rounds = Rounds.of(of_root, iterations or 1)
    else:
        rounds = Rounds(iterations or 1, last=iterations or 1) if of_root == "once" else Rounds(int(of_root))
    periods = {server: value if isinstance(value, int) else rounds.end_of(1) for server, value in given.items()}
    parent = _contracted(topology, periods)
    children: dict[int, list[int]] = {server: [] for server in topology.servers if server in periods}
    for node in topology.nodes[1:]:
        if node.index in parent:
            children[parent[node.index]].append(node.index)
    _check_multiples(case, topology, periods, parent, rounds.last is not None, mistakes)
    field = "period" if case.period is not None else "periods"
    if rounds.last is not None:
        below = {periods[child] for child in children[0] if child in periods}
        mistakes += [((field,), why) for period in sorted(below) if (why := _does_not_divide(rounds, period))]
    elif iterations is not None and iterations % periods[0]:
        text = f"train.iterations is {iterations}, not a multiple of the global period {periods[0]}"
        mistakes.append(((field,), f"{text}; {_around(iterations, periods[0])}"))
    if len(mistakes) > before:
        return None
    of_case = (case.participation, getattr(case.train, "participation", None))
    share = next((share for share in of_case if share is not None), participation)
    of_case_root = of_root.model_dump(exclude_none=True) if isinstance(of_root, RoundsSpec) else of_root
    return Schedule(case.name, periods, parent, {s: tuple(c) for s, c in children.items()}, share, rounds, of_case_root)


def _does_not_divide(rounds: Rounds, period: int) -> str | None:
    """Return which round a server's period below does not divide, if there is one."""
    assert rounds.last is not None
    ends = [rounds.end_of(number) for number in range(len(rounds.ends) + 2)]
    for number, (begin, end) in enumerate(pairwise(ends), start=1):
        if end < rounds.last and (end - begin) % period:
            return f"round {number} has {end - begin} iterations, not a multiple of {period}"
    number = rounds.within(rounds.last)
    length = rounds.last - rounds.end_of(number - 1)
    if length % period == 0:
        return None
    low = rounds.last - length % period
    text = f"round {number} is the last one and cut to {length} iterations, not a multiple of {period}"
    return f"{text}; train.iterations {low} or {low + period} would do"


def _periods(case: CaseSpec, topology: Topology, mistakes: Mistakes) -> dict[int, int | Literal["once"] | RoundsSpec]:
    """Return the period of each server that aggregates."""
    if case.period is not None:
        return {0: case.period}
    assert case.periods is not None
    given: dict[int, LevelPeriod] = {}
    if isinstance(case.periods, dict):
        given = _periods_by_name(case.periods, topology, mistakes)
    elif len(case.periods) != topology.num_levels:
        given_here = f"{len(case.periods)} period{'s' * (len(case.periods) != 1)}"
        text = f"{given_here} for {topology.num_levels} level{'s' * (topology.num_levels != 1)} of servers"
        mistakes.append((("periods",), f"{text}; give one per level from the root down, or `period`"))
    else:
        given = {server: case.periods[topology.nodes[server].level] for server in topology.servers}
    if given.get(0) == "none":
        text = f"found none for {topology.nodes[0].name}; the global server needs a number of iterations"
        mistakes.append((("periods",), text))
    return {server: period for server, period in given.items() if period != "none"}


def _periods_by_name(
    periods: Mapping[str, LevelPeriod], topology: Topology, mistakes: Mistakes
) -> dict[int, LevelPeriod]:
    """Return the period given to each server; a server's own name beats the name of its class."""
    servers = set(topology.servers)
    by_class: dict[int, LevelPeriod] = {}
    by_name: dict[int, LevelPeriod] = {}
    for name, period in periods.items():
        nodes = [node for node in topology.named(name) if node in servers]
        if not nodes:
            known = list(dict.fromkeys(n for s in topology.servers for n in _names(topology, s)))
            what = "is a worker, and only servers aggregate" if topology.named(name) else "is no server of the topology"
            hint = nearest(name, known) or f"; servers are {listed(known)}"
            mistakes.append((("periods", name), f"'{name}' {what}{hint}"))
        for node in nodes:
            (by_name if name in topology.index else by_class)[node] = period
    given = by_class | by_name
    missing = [topology.nodes[server].name for server in topology.servers if server not in given]
    if mistakes:
        return dict(sorted(given.items()))
    if 0 not in given:
        mistakes.append((("periods",), f"no period for {topology.nodes[0].name}, the global server"))
        missing = missing[1:]
    if missing:
        text = f"no period for {listed(missing)}; write `none` for a server that only passes models through"
        mistakes.append((("periods",), text))
    return dict(sorted(given.items()))


def _names(topology: Topology, server: int) -> tuple[str, str]:
    return topology.nodes[server].class_name, topology.nodes[server].name


def _contracted(topology: Topology, periods: Mapping[int, int]) -> dict[int, int]:
    """Return the server that aggregates each worker and each aggregating server."""
    above: dict[int, int] = {}
    parent: dict[int, int] = {}
    for node in topology.nodes[1:]:
        assert node.parent is not None
        above[node.index] = node.parent if node.parent in periods else above[node.parent]
        if node.is_worker or node.index in periods:
            parent[node.index] = above[node.index]
    return parent


def _check_multiples(
    case: CaseSpec,
    topology: Topology,
    periods: Mapping[int, int],
    parent: Mapping[int, int],
    are_unlike: bool,
    mistakes: Mistakes,
) -> None:
    """Report periods that do not divide the one above; are_unlike: the rounds, which are looked at by themselves."""
    told = set()
    for server, period in periods.items():
        if server == 0 or periods[parent[server]] % period == 0 or (parent[server] == 0 and are_unlike):
            continue
        upper, path = periods[parent[server]], _path(case, topology, server)
        if (upper, period, path) not in told:
            told.add((upper, period, path))
            mistakes.append((path, f"{upper} is not a multiple of {period}; {_around(upper, period)}"))


def _path(case: CaseSpec, topology: Topology, server: int) -> Path_:
    """Return where a case gives a server's period, as near as that is known."""
    if isinstance(case.periods, dict):
        names = [name for name in reversed(_names(topology, server)) if name in case.periods]
        return ("periods", names[0]) if names else ("periods",)
    return ("periods",)


def _around(number: int, step: int) -> str:
    low = number // step * step
    return f"{low} and {low + step} are" if low else f"{step} is"
