"""What a plan chooses from: schedules on one or several variants of a run, with their clocks known beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.run_schema import CaseSpec
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.engine.times import seconds
from hsgd_emu.experiment import Experiment
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.study.changes import Changes, changed_experiment
from hsgd_emu.study.clock import ClockName, times
from hsgd_emu.study.planning.candidates import Periods, oftener, with_candidates
from hsgd_emu.study.planning.search import Entrant
from hsgd_emu.study.sweep.race import network_seed
from hsgd_emu.timing.transfers import Message

_ANY_CASE = ("cases=[{name: any, period: 1}]", "published=null")
"""Stands for the run's own cases on another topology, which may mean nothing there; published times are of those."""


@dataclass(frozen=True)
class Variant:
    """The run on one topology with one grouping; its schedules are what is chosen from.

    label: what is not the run's own, empty for the run itself.  num_own: cases of the run file, which come first.
    """

    label: str
    experiment: Experiment
    num_own: int


@dataclass(frozen=True)
class Candidate:
    """One schedule on one variant. case: as a run file has it.  is_own: it is one of the run file itself."""

    name: str
    variant: Variant
    case: CaseSpec
    schedule: Schedule
    is_own: bool

    @property
    def is_local_sgd(self) -> bool:
        """Whether only the global server aggregates."""
        return len(self.schedule.children) == 1


def variants(
    path: Path,
    sets: Sequence[str] = (),
    topologies: Sequence[str] = (),
    groupings: Sequence[str] = (),
    periods: Periods | None = None,
) -> list[Variant]:
    """Return the run itself, then the run on other topologies and with other groupings of the data, all combined.

    Raises:  ConfigError: the run file, a topology, a grouping or a period is wrong.
    """
    found: list[Variant] = []
    for topology in (None, *dict.fromkeys(topologies)):
        for grouping in (None, *dict.fromkeys(groupings)):
            changes = [*sets] if grouping is None else [*sets, f"data.grouping={grouping}"]
            changes += [] if topology is None else _ANY_CASE
            experiment = changed_experiment(path, Changes(topology, (), changes))
            if grouping is not None and experiment.data.grouping == found[0].experiment.data.grouping:
                continue
            named = {"topology": topology, "grouping": grouping}
            label = ", ".join(f"{what} {value}" for what, value in named.items() if value is not None)
            num_own = len(experiment.cases) if topology is None else 0
            found.append(Variant(label, with_candidates(experiment, periods, keep=num_own > 0), num_own))
    return found


def candidates(of: Sequence[Variant]) -> list[Candidate]:
    """Return the candidates of all variants, in order."""
    return [
        Candidate(", ".join(filter(None, [case.name, variant.label])), variant, case, schedule, place < variant.num_own)
        for variant in of
        for place, (case, schedule) in enumerate(
            zip(variant.experiment.cases, variant.experiment.schedules, strict=True)
        )
    ]


def entrants(of: Sequence[Variant], replications: int, clock: ClockName = "auto") -> Iterator[Entrant]:
    """Yield what is known of each candidate before it learns, in the order of `candidates`.

    Args:    replications: draws of the network for each seed; the first is what a run has, and where nothing of the
             network is random there is no other.
    Raises:  ConfigError: a link takes longer for a message than any run may.
    """
    begin = 0
    for variant in of:
        experiment = variant.experiment
        often = oftener(experiment.schedules, experiment.topology, experiment.train.iterations)
        for entrant, those in zip(_timed(experiment, replications, clock), often, strict=True):
            yield replace(entrant, oftener=tuple(begin + place for place in those))
        begin += len(often)


def _timed(experiment: Experiment, replications: int, clock: ClockName) -> Iterator[Entrant]:
    num_bytes = experiment.message_bytes or timing_message_bytes(experiment)
    experiment.network.check(Message(num_bytes))
    draws = range(1 if experiment.network.is_constant else replications)
    num_seeds, num_workers = len(experiment.seeds), len(experiment.topology.workers)
    for schedule in experiment.schedules:
        routes = experiment.routes(schedule, num_bytes)
        first = experiment.plan(schedule, routes, num_bytes, experiment.seeds[0])
        plans = [replace(first, seed=s, network_seed=network_seed(s, k)) for s in experiment.seeds for k in draws]
        iterations = _evaluated(first)
        time_ns = times(plans, clock=clock).time_ns_SR[:, [schedule.num_rounds(one) - 1 for one in iterations.tolist()]]
        yield Entrant(iterations, seconds(time_ns).reshape(num_seeds, len(draws), -1), (), num_workers)


def _evaluated(plan: Plan) -> NDArray[np.int64]:
    """Return the iterations whose global aggregation is evaluated."""
    iterations = (plan.schedule.end_of(number + 1) for number in range(plan.num_rounds))
    return np.array([iteration for iteration in iterations if plan.is_evaluated(iteration)], np.int64)
