"""What of a run file does not go together: mistakes that no key has by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hsgd_emu.config.load import RunDraft
from hsgd_emu.config.reader import Path_
from hsgd_emu.config.run_schema import CaseSpec
from hsgd_emu.engine.messages import UNKNOWN_BYTES
from hsgd_emu.engine.schedule import Mistakes, Schedule
from hsgd_emu.engine.servers import check_compression, check_servers
from hsgd_emu.engine.skipped import mistakes_in
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.metrics import AVERAGED
from hsgd_emu.topology.tree import Topology

if TYPE_CHECKING:
    from hsgd_emu.experiment import Experiment


def path_of(section: str, case: CaseSpec | None, number: int) -> Path_:
    """Return where a section that holds for a case is given: there, or for the run."""
    return ("cases", number, section) if getattr(case, section, None) is not None else (section,)


def check_mixing(experiment: Experiment, draft: RunDraft) -> None:
    """Report matrices that move the mean of all hubs, as far as it is known what they weigh."""
    for number, (case, schedule) in enumerate(zip(experiment.cases, experiment.schedules, strict=True)):
        if schedule.graph is None or experiment.effects(case.name).sections["averaging"].by == "samples":
            continue
        try:
            _ = experiment.plan(schedule, {}, 1, experiment.seeds[0]).mixing
        except ConfigError as error:
            path = (*path_of("mixing", case, number), "weights")
            draft.problems += [draft.source.problem(path, one.message) for one in error.problems]


_Check = Callable[[Any, list[Schedule], Topology], Mistakes]
_CHECKS: dict[str, _Check] = {"servers": check_servers, "compression": check_compression}


def check_whole_sections(draft: RunDraft, topology: Topology, schedules: Sequence[Schedule | None]) -> None:
    """Report servers and senders that the run or a case names wrongly, in what holds for each."""
    for key, check in _CHECKS.items():
        of_cases = [getattr(case, key, None) for case in draft.cases]
        of_run = [schedule for schedule, own in zip(schedules, of_cases, strict=True) if own is None]
        places: list[tuple[Path_, Any, Sequence[Schedule | None]]] = [((key,), draft.sections[key], of_run)]
        places += [(("cases", n, key), own, schedules[n : n + 1]) for n, own in enumerate(of_cases)]
        for path, given, these in places:
            known = [schedule for schedule in these if schedule is not None]
            if given and known and len(known) == len(these):
                mistakes = check(given, known, topology)
                draft.problems += [draft.source.problem((*path, *inner), text) for inner, text in mistakes]


def check_evaluation(draft: RunDraft) -> None:
    """Report targets that nothing is evaluated for, and iterations left out beyond the last one."""
    evaluation, targets, train = (draft.sections[key] for key in ("evaluation", "targets", "train"))
    if evaluation is None:
        return
    for metric in AVERAGED if targets is not None and evaluation.averaged is None else ():
        if getattr(targets, metric):
            text = "is of the averaged model, which `evaluation: {averaged: {after: 0}}` asks for"
            draft.problems.append(draft.source.problem(("targets", metric), text))
    if targets is not None and targets.training_set_loss and not evaluation.workers:
        text = "is of the whole training set, which `evaluation: {workers: true}` asks for"
        draft.problems.append(draft.source.problem(("targets", "training_set_loss"), text))
    if evaluation.averaged is not None and train is not None and evaluation.averaged.after >= train.iterations:
        text = f"found {evaluation.averaged.after}, and train.iterations is {train.iterations}: nothing is left"
        draft.problems.append(draft.source.problem(("evaluation", "averaged", "after"), text))


def check_step_probability(draft: RunDraft, topology: Topology) -> None:
    trains: list[tuple[Path_, Any]] = [(("train",), draft.sections["train"])]
    trains += [(("cases", number, "train"), case.train) for number, case in enumerate(draft.cases) if case is not None]
    for path, train in trains:
        for place, text in mistakes_in(getattr(train, "step_probability", None), topology):
            draft.problems.append(draft.source.problem((*path, "step_probability", *place), text))


def check_together(experiment: Experiment, draft: RunDraft) -> None:
    """Report cases whose sections do not go together."""
    for number, case in enumerate(experiment.cases):
        alone = experiment.alone(case.name)
        path = path_of("compression", case, number)
        if alone.compression and alone.train.state == "average":
            text = "beside train.state: average, whose momentum would go uncompressed; leave out one of the two"
            draft.problems.append(draft.source.problem(path, text))
        if len(alone.schedules[0].stages) > 1 and any(
            way == "down" and node for node, way in alone.effects(case.name).senders
        ):
            # What a server's children know after a phase, those of the next phase's tree do not.
            text = "beside phases only the global server may compress what it sends down"
            draft.problems.append(draft.source.problem(path, text))
        at: Path_ = ("cases", number) if getattr(case.train, "correction", None) else ()
        for text in _beside_scaffold(alone):
            draft.problems.append(draft.source.problem((*at, "train", "correction"), text))
        wrong = _beside_mixing(alone)
        draft.problems += [draft.source.problem(path_of("mixing", case, number), text) for text in wrong]


def of_no_use(experiment: Experiment) -> Iterator[Problem]:
    """Yield a note for each case whose compression saves no time, for a message of any size costs the same."""
    for number, (case, schedule) in enumerate(zip(experiment.cases, experiment.schedules, strict=True)):
        coded = experiment.effects(case.name).senders
        if not coded:
            continue
        routes = experiment.routes(schedule, experiment.message_bytes or UNKNOWN_BYTES)
        ways = [route for (node, server), route in routes.items() if (node, "up") in coded or (server, "down") in coded]
        links = {hop.link.profile: hop.link.name for route in ways for hop in route}
        names = [
            str(ref) if isinstance(ref, str) else name
            for ref, name in links.items()
            if not experiment.network.transfers[ref].needs_bytes
        ]
        if names:
            path = path_of("compression", case, number)
            text = f"saves bytes, but no time over {listed(names)}, where a message of any size takes as long"
            yield experiment.source.problem(path, f"{text}; latency_s and bandwidth_bps would tell them apart")


def misfits(alone: Experiment) -> list[str]:
    """Return why the schedule of one case (`Experiment.alone`) does not go together with what else holds for it."""
    return [*_beside_scaffold(alone), *_beside_mixing(alone)]


def _beside_scaffold(alone: Experiment) -> Iterator[str]:
    """Yield what a case has that SCAFFOLD is not defined for."""
    (schedule,), train = alone.schedules, alone.train
    if not train.correction:
        return
    found = "found scaffold with"
    if not schedule.is_local_sgd:
        below = "servers that average below the global one"
        yield f"{found} {below}; it is of one level: give `period` instead of `periods`"
    if train.momentum or train.optimizer:
        other = f"momentum {train.momentum:g}" if train.momentum else f"optimizer {train.optimizer}"
        yield f"{found} {other}; its steps are plain SGD"
    if schedule.participation < 1:
        yield f"{found} participation {schedule.participation:g}; all workers take part in it"
    if train.step_probability:
        yield f"{found} step_probability; all workers take all steps in it"
    if alone.compression:
        yield f"{found} compression; its control variates would go uncompressed: leave out one of the two"


def _beside_mixing(alone: Experiment) -> Iterator[str]:
    """Yield what a case has that does not go together with its mixing."""
    (schedule,), topology = alone.schedules, alone.topology
    if schedule.graph is None:
        return
    named = [name for name in alone.servers or () if 0 in topology.named(name)]
    if named:
        yield f"beside servers.{named[0]}, which aggregates nothing where hubs mix; leave out one of the two"
    if alone.train.state == "average":
        yield "beside train.state: average, which would have to be mixed too; leave out one of the two"
    for name in alone.compression or ():
        if set(topology.named(name)).intersection(schedule.graph.hubs):
            yield f"beside compression.{name}: what hubs send one another is not compressed; leave out one of the two"
