"""A case's periods on a topology -> who aggregates whom, and when.

Algorithm 1 of Wang et al. 2022 and its multi-level form: a server aggregates its children every P(s) iterations.
Local SGD (`period`) is the schedule in which only the global server aggregates. Nobody else computes with periods:
a schedule tells each server's phases, and which rounds there are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import accumulate, count, pairwise, takewhile
from typing import Any, Literal, NamedTuple

from hsgd_emu.config.reader import Path_
from hsgd_emu.config.run_schema import MOST_ITERATIONS, CaseSpec, LevelPeriod, PhaseSpec, RoundsSpec
from hsgd_emu.engine.mixing import Graph
from hsgd_emu.errors import listed, nearest
from hsgd_emu.topology.tree import Topology

Mistakes = list[tuple[Path_, str]]


class Phase(NamedTuple):
    """The iterations begin + 1 ... end of all workers below a server, at whose end it aggregates.

    round: number of the global server's phase that it lies in.
    """

    server: int
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
class Stage:
    """Some iterations of a case with one aggregation tree: the topology's without the servers that only pass models on.

    A round is a phase of the global server; rounds are numbered from 1, through all stages of a case.
    """

    period: Mapping[int, int]
    """Iterations between two aggregations at each aggregating server (P, G, I_i, P_l of the paper), at the global one
    of the first round."""
    parent: Mapping[int, int]
    children: dict[int, tuple[int, ...]]
    """By aggregating server, depth first."""
    participation: float
    rounds: Rounds
    """Counted from where the stage begins."""
    of_root: Any
    """The global server's period as the case gives it."""
    begin: int = 0
    """The iteration after which it begins."""
    end: int | None = None
    """Its last iteration; None: that of the trial."""
    rounds_before: int = 0

    def by_name(self, topology: Topology) -> dict[str, Any]:
        """Return the keys of a case with this schedule in which every server stands under its own name."""
        periods = {topology.nodes[server].name: self.period.get(server, "none") for server in topology.servers}
        return {"periods": periods | {topology.nodes[0].name: self.of_root}}

    def phases(self, server: int) -> Iterator[Phase]:
        """Yield a server's phases, one after the other without end."""
        if server == 0:
            for number in count(self.rounds_before + 1):
                yield Phase(0, self.end_of(number - 1), self.end_of(number), number)
        period, first_round = self.period[server], self.rounds_before + 1
        for begin in count(0, period):
            round_ = first_round + self.rounds.within(begin + period - 1)
            yield Phase(server, self.begin + begin, self.begin + begin + period, round_)

    def num_phases(self, server: int, iterations: int) -> int:
        """Return how many phases of a server end within so many iterations of the case."""
        within = self._within(iterations)
        if server == 0:
            return self.rounds.within(within)
        return within // self.period[server] if server in self.period else 0

    def _within(self, iterations: int) -> int:
        return max(0, (iterations if self.end is None else min(iterations, self.end)) - self.begin)

    def phases_until(self, server: int, iteration: float) -> Fraction:
        """Return how many phases of a server an iteration, which may be a mean, is the end of; part of one counts."""
        if self.end is not None and iteration >= self.end:
            return Fraction(self.num_phases(server, self.end))
        within = max(Fraction(0), Fraction(iteration) - self.begin)
        if server:
            return within / self.period[server]
        done = self.rounds.within(math.floor(within))
        begin, end = self.rounds.end_of(done), self.rounds.end_of(done + 1)
        return Fraction(done) + ((within - begin) / (end - begin) if end > begin else 0)

    def num_rounds(self, iterations: int) -> int:
        """Return how many rounds of the case end within so many iterations, all before the stage among them."""
        return self.rounds_before + self.num_phases(0, iterations)

    def end_of(self, round_: int) -> int:
        """Return the iteration at which a round of the stage ends."""
        return self.begin + self.rounds.end_of(round_ - self.rounds_before)


@dataclass(frozen=True)
class Schedule:
    """The schedule of one case: its stages, one after the other, mostly one alone."""

    name: str
    stages: tuple[Stage, ...]
    graph: Graph | None = None
    """Of hubs, where the children of the global server mix with neighbours, and it aggregates nothing."""

    @cached_property
    def servers(self) -> tuple[int, ...]:
        """The servers that aggregate in some stage, depth first."""
        return tuple(sorted({server for stage in self.stages for server in stage.children}))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(node, server that aggregates it) of all nodes, in every stage; (sender, receiver) of hubs."""
        pairs = dict.fromkeys(pair for stage in self.stages for pair in stage.parent.items())
        if self.graph is None:
            return tuple(pairs)
        return (*self.graph.pairs(), *(pair for pair in pairs if pair[1]))

    @cached_property
    def senders(self) -> frozenset[int]:
        """The nodes that a server aggregates in some stage."""
        return frozenset(node for node, _ in self.pairs)

    @property
    def participation(self) -> float:
        """The least share of workers that takes part in any stage."""
        return min(stage.participation for stage in self.stages)

    @property
    def is_local_sgd(self) -> bool:
        """Whether only the global server aggregates."""
        return self.servers == (0,)

    def by_name(self, topology: Topology) -> dict[str, Any]:
        """Return the keys of a case with this schedule in which every server stands under its own name."""
        if self.graph is not None:
            return self.stages[0].by_name(topology) | {"mixing": self.graph.by_name(topology)}
        if len(self.stages) == 1:
            return self.stages[0].by_name(topology)
        phases = [stage.by_name(topology) | {"participation": stage.participation} for stage in self.stages]
        for stage, phase in zip(self.stages[:-1], phases, strict=False):
            assert stage.end is not None
            phase["iterations"] = stage.end - stage.begin
        return {"phases": phases}

    def num_phases(self, server: int, iterations: int) -> int:
        """Return how many phases of a server end within so many iterations."""
        return sum(stage.num_phases(server, iterations) for stage in self.stages)

    def phases_until(self, iteration: float) -> dict[tuple[int, int], Fraction]:
        """Return by number of a stage and server what `Stage.phases_until` says."""
        return {
            (number, server): stage.phases_until(server, iteration)
            for number, stage in enumerate(self.stages)
            for server in stage.children
        }

    def num_rounds(self, iterations: int) -> int:
        """Return how many rounds end within so many iterations."""
        return self._stage_at(iterations).num_rounds(iterations)

    def _stage_at(self, iteration: int) -> Stage:
        """Return the stage that an iteration belongs to; it may end there."""
        return next((stage for stage in self.stages if stage.end is None or iteration <= stage.end), self.stages[-1])

    def round_at(self, iteration: int) -> int:
        """Return the number of the round that an iteration belongs to; it may end there."""
        return self.num_rounds(iteration - 1) + 1

    def end_of(self, round_: int) -> int:
        """Return the iteration at which a round ends: that of its global aggregation; 0 for round 0."""
        return next(stage for stage in reversed(self.stages) if stage.rounds_before < max(1, round_)).end_of(round_)

    def next_end(self, iteration: int) -> int:
        """Return the iteration of the first global aggregation at or after this one."""
        return self.end_of(self.round_at(iteration))

    def mistake_at(self, iteration: int) -> str | None:
        """Return why an iteration is not that of a global aggregation, None where it is."""
        end = self.next_end(iteration)
        if end == iteration:
            return None
        if self.rounds_are_alike:
            period = end - self.end_of(self.round_at(iteration) - 1)
            return f"{iteration} is not a multiple of the global period {period}; {_around(iteration, period)}"
        return f"{iteration} is not the end of a round; {end} is"

    @property
    def rounds_are_alike(self) -> bool:
        """Whether each round has the phases of every other."""
        return len(self.stages) == 1 and self.stages[0].rounds.last is None

    @property
    def rounds_in_words(self) -> str:
        """The lengths of the rounds."""
        return ", then ".join(
            _lengths(stage) + (f" until {stage.end:,}" if stage.end is not None else "") for stage in self.stages
        )


def _lengths(stage: Stage) -> str:
    """Return the lengths of a stage's rounds in words."""
    ends = [stage.rounds.end_of(number) for number in range(5)]
    lengths = [end - begin for begin, end in pairwise(ends)]
    if stage.rounds.last is None or not lengths[1]:
        return f"{lengths[0]:,}"
    return ", ".join([*(f"{length:,}" for length in lengths[:3] if length), *(["..."] if lengths[3] else [])])


def as_periods(case: CaseSpec, topology: Topology, mistakes: Mistakes) -> CaseSpec:
    """Return a case whose schedule is said by `period`, `periods` or several `phases`, after adding its mistakes.

    Hier-AVG(K1, K2, S) averages all workers every K2 iterations, and before that each group of S every K1.
    """
    if case.phases is not None and len(case.phases) == 1 and case.phases[0].iterations is None:
        (only,) = case.phases
        said = {name: value for name, value in only if value is not None}
        return case.model_copy(update={"phases": None, **said})
    if case.hier_avg is None:
        return case
    K1, K2, S = case.hier_avg.K1, case.hier_avg.K2, case.hier_avg.S
    lowest: dict[int, int] = {}
    for worker in topology.workers:
        above = topology.nodes[worker].parent or 0
        lowest[above] = lowest.get(above, 0) + 1
    sizes, num_workers = sorted(set(lowest.values())), len(topology.workers)
    if not all(topology.nodes[child].is_worker for server in lowest for child in topology.nodes[server].children):
        sizes = [1, num_workers]  # workers beside servers are no group
    if num_workers == S:
        said = {"period": K1}
    elif S == 1:
        said = {"period": K2}
    elif sizes == [S]:
        names = {server: topology.nodes[server].name for server in topology.servers}
        periods = {name: K1 if server in lowest else "none" for server, name in names.items()}
        said = {"periods": periods | {names[0]: K2}}
        levels = topology.num_levels
        if all(topology.nodes[server].level == levels - 1 for server in lowest):
            said = {"periods": (K2, *["none"] * (levels - 2), K1)}
    else:
        are_alike = len(sizes) == 1
        have = f"have {sizes[0]} worker{'s' * (sizes[0] != 1)}" if are_alike else "are not of one size"
        *some, last = sorted({1, num_workers, *(sizes if are_alike else [])})
        may = f"{listed(some)} or {last}" if some else f"{last}"
        text = f"S is {S}, but the groups of topology '{topology.name}' {have}; S may be {may}"
        mistakes.append((("hier_avg", "S"), text))
        said = {"period": K2}
    return case.model_copy(update={"hier_avg": None, **said})


def build_schedule(
    case: CaseSpec, topology: Topology, iterations: int | None, participation: float, mistakes: Mistakes
) -> Schedule | None:
    """Return the schedule of a case, or None after adding its mistakes (paths relative to the case)."""
    before = len(mistakes)
    of_case = (case.participation, getattr(case.train, "participation", None), participation)
    share = next(share for share in of_case if share is not None)
    if case.phases is None:
        stages = [_stage(case, topology, Span(0, iterations, is_last=True), share, mistakes)]
    else:
        spans = _spans(case.phases, iterations, mistakes)
        stages = []
        for number, (phase, span) in enumerate(zip(case.phases, spans, strict=True)):
            of_stage: Mistakes = []
            stages.append(_stage(phase, topology, span, phase.participation or share, of_stage))
            mistakes += [(("phases", number, *path), text) for path, text in of_stage]
    if len(mistakes) > before:
        return None
    found: list[Stage] = []
    for stage in stages:
        assert stage is not None
        rounds_before = found[-1].num_rounds(stage.begin) if found else 0
        found.append(replace(stage, rounds_before=rounds_before))
    return Schedule(case.name, tuple(found))


class Span(NamedTuple):
    """Where a stage lies; length: None where the trial's is not known."""

    begin: int
    length: int | None
    is_last: bool

    def not_a_multiple(self, period: int) -> str:
        """Return what is wrong with the length where it is no multiple of the global period."""
        length = self.length or 0
        low = length // period * period
        if not self.is_last:
            return f"iterations is {length}, not a multiple of the global period {period}; {_around(length, period)}"
        if not self.begin:
            text = f"train.iterations is {length}, not a multiple of the global period {period}"
            return f"{text}; {_around(length, period)}"
        text = f"the last phase has {length} iterations, not a multiple of the global period {period}"
        return f"{text}; {self.would_do(low, period)}"

    def would_do(self, low: int, step: int) -> str:
        """Return what would make the stage `low` or `low + step` long."""
        field, before = ("train.iterations", self.begin) if self.is_last else ("iterations", 0)
        return f"{field} {f'{before + low} or ' * (low > 0)}{before + low + step} would do"


def _spans(phases: Sequence[PhaseSpec], iterations: int | None, mistakes: Mistakes) -> list[Span]:
    """Return where the phases of a case lie, after adding what is wrong with their lengths."""
    spans: list[Span] = []
    begin = 0
    for number, phase in enumerate(phases):
        is_last, path = number == len(phases) - 1, ("phases", number, "iterations")
        if is_last and phase.iterations is not None:
            text = f"found {phase.iterations}; the last phase lasts to the end, and has none"
            mistakes.append((path, text))
        elif not is_last and phase.iterations is None:
            mistakes.append((path, "is missing; only the last phase has none, which lasts to the end"))
        length = phase.iterations
        if is_last:
            length = None if iterations is None else iterations - begin
        spans.append(Span(begin, length, is_last))
        begin += phase.iterations or 0
    if iterations is not None and begin >= iterations and not any(phase.iterations is None for phase in phases[:-1]):
        text = f"the phases before the last one have {begin} iterations together, and train.iterations is {iterations}"
        mistakes.append((("phases",), f"{text}: nothing is left for the last"))
        spans[-1] = spans[-1]._replace(length=None)
    return spans


def _stage(
    case: CaseSpec | PhaseSpec, topology: Topology, span: Span, participation: float, mistakes: Mistakes
) -> Stage | None:
    """Return a stage without the number of its rounds, or None after adding its mistakes."""
    before, iterations = len(mistakes), span.length
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
        mistakes += [((field,), why) for period in sorted(below) if (why := _does_not_divide(rounds, period, span))]
    elif iterations is not None and iterations % periods[0]:
        mistakes.append(((field,), span.not_a_multiple(periods[0])))
    if len(mistakes) > before:
        return None
    of_case_root = of_root.model_dump(exclude_none=True) if isinstance(of_root, RoundsSpec) else of_root
    end = None if span.is_last or span.length is None else span.begin + span.length
    below_of = {server: tuple(below) for server, below in children.items()}
    return Stage(periods, parent, below_of, participation, rounds, of_case_root, span.begin, end)


def _does_not_divide(rounds: Rounds, period: int, span: Span) -> str | None:
    """Return which round a server's period below does not divide, if there is one."""
    assert rounds.last is not None
    ends = [rounds.end_of(number) for number in range(len(rounds.ends) + 2)]
    for number, (begin, end) in enumerate(pairwise(ends), start=1):
        if end < rounds.last and (end - begin) % period:
            text = f"round {number} has {end - begin} iterations, not a multiple of {period}"
            return f"{text}; {_divisors_around(period, ends, rounds.last)} every round"
    number = rounds.within(rounds.last)
    length = rounds.last - rounds.end_of(number - 1)
    if length % period == 0:
        return None
    low = rounds.last - length % period
    text = f"round {number} is the last one and cut to {length} iterations, not a multiple of {period}"
    return f"{text}; {span.would_do(low, period)}"


def _divisors_around(period: int, ends: Sequence[int], last: int) -> str:
    """Return in words the next smaller and greater period that divides all rounds."""
    common = math.gcd(*(end - begin for begin, end in pairwise(end for end in [*ends, last] if end <= last)))
    low = max(number for number in range(1, period) if common % number == 0)
    high = min((number for number in range(period + 1, common + 1) if common % number == 0), default=None)
    return f"{low} divides" if high is None else f"{low} and {high} divide"


def _periods(
    case: CaseSpec | PhaseSpec, topology: Topology, mistakes: Mistakes
) -> dict[int, int | Literal["once"] | RoundsSpec]:
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
    case: CaseSpec | PhaseSpec,
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


def _path(case: CaseSpec | PhaseSpec, topology: Topology, server: int) -> Path_:
    """Return where a case gives a server's period, as near as that is known."""
    if isinstance(case.periods, dict):
        names = [name for name in reversed(_names(topology, server)) if name in case.periods]
        return ("periods", names[0]) if names else ("periods",)
    return ("periods",)


def _around(number: int, step: int) -> str:
    low = number // step * step
    return f"{low} and {low + step} are" if low else f"{step} is"
