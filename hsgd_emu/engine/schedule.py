"""A case's periods on a topology -> who aggregates whom, and when.

Algorithm 1 of Wang et al. 2022 and its multi-level form: a server aggregates its children every P(s) iterations.
Local SGD (`period`) is the schedule in which only the global server aggregates. Nobody else computes with periods:
a schedule tells each server's phases, and which rounds there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, Literal, NamedTuple

from hsgd_emu.config.reader import Path_
from hsgd_emu.config.run_schema import CaseSpec
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
class Schedule:
    """The aggregation tree of one case: the topology's tree without the servers that only pass models through.

    period: iterations between two aggregations at each aggregating server (P, G, I_i, P_l of the paper). A round is a
    phase of the global server; rounds are numbered from 1.
    """

    name: str
    period: Mapping[int, int]
    parent: Mapping[int, int]
    children: dict[int, tuple[int, ...]]
    """By aggregating server, depth first."""
    participation: float

    def by_name(self, topology: Topology) -> dict[str, Any]:
        """Return the keys of a case with this schedule in which every server stands under its own name."""
        periods = {topology.nodes[server].name: self.period.get(server, "none") for server in topology.servers}
        return {"periods": periods}

    def phases(self, server: int) -> Iterator[Phase]:
        """Yield a server's phases, one after the other without end."""
        period = self.period[server]
        for number in count(1):
            end = number * period
            yield Phase(server, number, end - period, end, self.round_at(end))

    def num_phases(self, server: int, iterations: int) -> int:
        """Return how many phases of a server end within so many iterations."""
        return iterations // self.period[server]

    def phases_until(self, server: int, iteration: float) -> Fraction:
        """Return how many phases of a server an iteration, which may be a mean, is the end of; part of one counts."""
        return Fraction(iteration) / self.period[server]

    def num_rounds(self, iterations: int) -> int:
        """Return how many rounds end within so many iterations."""
        return self.num_phases(0, iterations)

    def round_at(self, iteration: int) -> int:
        """Return the number of the round that an iteration belongs to; it may end there."""
        return -(-iteration // self.period[0])

    def end_of(self, round_: int) -> int:
        """Return the iteration at which a round ends: that of its global aggregation; 0 for round 0."""
        return round_ * self.period[0]

    def next_end(self, iteration: int) -> int:
        """Return the iteration of the first global aggregation at or after this one."""
        return self.end_of(self.round_at(iteration))

    def mistake_at(self, iteration: int) -> str | None:
        """Return why an iteration is not that of a global aggregation, None where it is."""
        period = self.period[0]
        if iteration % period == 0:
            return None
        return f"{iteration} is not a multiple of the global period {period}; {_around(iteration, period)}"

    @property
    def rounds_are_alike(self) -> bool:
        """Whether each round has the phases of every other: what the fast clock's recursion rests on."""
        return True


def build_schedule(
    case: CaseSpec, topology: Topology, iterations: int | None, participation: float, mistakes: Mistakes
) -> Schedule | None:
    """Return the schedule of a case, or None after adding its mistakes (paths relative to the case)."""
    before = len(mistakes)
    periods = _periods(case, topology, mistakes)
    if len(mistakes) > before:
        return None
    parent = _contracted(topology, periods)
    children: dict[int, list[int]] = {server: [] for server in topology.servers if server in periods}
    for node in topology.nodes[1:]:
        if node.index in parent:
            children[parent[node.index]].append(node.index)
    _check_multiples(case, topology, periods, parent, mistakes)
    field = "period" if case.period is not None else "periods"
    if iterations is not None and iterations % periods[0]:
        text = f"train.iterations is {iterations}, not a multiple of the global period {periods[0]}"
        mistakes.append(((field,), f"{text}; {_around(iterations, periods[0])}"))
    if len(mistakes) > before:
        return None
    of_case = (case.participation, getattr(case.train, "participation", None))
    share = next((share for share in of_case if share is not None), participation)
    return Schedule(case.name, periods, parent, {s: tuple(c) for s, c in children.items()}, share)


def _periods(case: CaseSpec, topology: Topology, mistakes: Mistakes) -> dict[int, int]:
    """Return the period of each server that aggregates."""
    if case.period is not None:
        return {0: case.period}
    assert case.periods is not None
    given: dict[int, int | Literal["none"]] = {}
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
    periods: Mapping[str, int | Literal["none"]], topology: Topology, mistakes: Mistakes
) -> dict[int, int | Literal["none"]]:
    """Return the period given to each server; a server's own name beats the name of its class."""
    servers = set(topology.servers)
    by_class: dict[int, int | Literal["none"]] = {}
    by_name: dict[int, int | Literal["none"]] = {}
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
    mistakes: Mistakes,
) -> None:
    told = set()
    for server, period in periods.items():
        if server == 0 or periods[parent[server]] % period == 0:
            continue
        upper = periods[parent[server]]
        path: Path_ = ("periods",)
        if isinstance(case.periods, dict):
            names = [n for n in reversed(_names(topology, server)) if n in case.periods]
            path = ("periods", names[0]) if names else path
        if (upper, period, path) not in told:
            told.add((upper, period, path))
            mistakes.append((path, f"{upper} is not a multiple of {period}; {_around(upper, period)}"))


def _around(number: int, step: int) -> str:
    low = number // step * step
    return f"{low} and {low + step} are" if low else f"{step} is"
