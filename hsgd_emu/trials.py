"""The trials of a run: drive the engine, commit every round, keep checkpoints; with learning, recorded or silent."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from hsgd_emu.engine.emulate import IsEnough, emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan, check_clock, surely_fits
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.experiment import Experiment
from hsgd_emu.metrics import Metrics, OfWorker, Reaching, Target
from hsgd_emu.results.folder import CHECKPOINTS
from hsgd_emu.results.rows import BarrierRow, CurveRow, TimelineRow, TrialKey, WaitRow
from hsgd_emu.results.store import RunStore
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Routes
from hsgd_emu.units import to_s

if TYPE_CHECKING:
    from hsgd_emu.learning.stacked import StackedLearner
    from hsgd_emu.learning.world import World


class Progress:
    """Told how a run goes, and does nothing with it; the command line's draws it."""

    end_s = math.inf
    """When the run is to stop unfinished, in seconds of `time.monotonic`."""

    def is_over(self) -> bool:
        """Asked after each global aggregation: whether the run is to stop there, to be gone on with later.

        A run does one round at least, so that a time too short for anything is no endless loop of commands.
        """
        return time.monotonic() >= self.end_s

    def say(self, text: str) -> None:
        """Something takes a while."""

    def warn(self, text: str) -> None:
        """Something that must not be overlooked."""

    def note(self, text: str) -> None:
        """Something in files or data that must not be overlooked. All processes of a run find it; the first says it."""

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        """A trial of so many iterations begins, or goes on after `done` of them."""

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        """A global aggregation is written."""

    def end(self, key: TrialKey) -> None:
        """A trial is finished, or as far as it is to go, now or before."""


class Passing(Progress):
    """Passes all it is told on to another progress."""

    def __init__(self, inner: Progress) -> None:
        self.inner, self.end_s = inner, inner.end_s

    def is_over(self) -> bool:
        return self.inner.is_over()

    def say(self, text: str) -> None:
        self.inner.say(text)

    def warn(self, text: str) -> None:
        self.inner.warn(text)

    def note(self, text: str) -> None:
        self.inner.note(text)

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        self.inner.begin(key, iterations, done)

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        self.inner.round(key, record)

    def end(self, key: TrialKey) -> None:
        self.inner.end(key)


class Team(Passing):
    """Who learns the trials that wait: this process, one after the other."""

    def __init__(self, inner: Progress, waiting: deque[TrialKey]) -> None:
        super().__init__(inner)
        self.waiting = waiting

    def trials(self) -> Iterator[TrialKey]:
        """Yield the trials that this process is to learn, until nobody learns any more."""
        while self.waiting:
            yield self.waiting.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody at work."""


@dataclass(frozen=True)
class Recorded:
    """What a finished trial has learned: its figures by iteration, and the hash of its last global model."""

    metrics: Mapping[int, Metrics]
    weights_hash: str
    workers: Mapping[int, Sequence[OfWorker]] = field(default_factory=dict)
    """By iteration, where the run asks for figures of workers."""


@dataclass
class Session:
    """What all trials of a run share. They replay what is `recorded`, learn in `world`, or (neither) only take time."""

    experiment: Experiment
    progress: Progress
    message_bytes: int
    environment: dict[str, Any]
    cases: dict[str, tuple[Schedule, Routes]]
    """By name: the schedule, and every node's route to the server that aggregates it."""
    world: World | None = None
    recorded: Mapping[TrialKey, Recorded] = field(default_factory=dict)
    is_for_others: bool = False
    """What is learned will be found by others under what it saw: nothing is kept if that changed meanwhile."""

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        progress: Progress,
        message_bytes: int,
        environment: dict[str, Any],
        world: World | None = None,
        recorded: Mapping[TrialKey, Recorded] | None = None,
    ) -> Session:
        """Return the session with every route found.

        Raises:  ConfigError: a link, or a whole case, takes longer for this message than any may.
        """
        most = Message(message_bytes * experiment.most_sent)
        experiment.network.check(most)
        cases = {s.name: (s, experiment.routes(s, message_bytes)) for s in experiment.schedules}
        fits = surely_fits(experiment.network, most, experiment.train.iterations)
        for schedule, routes in () if fits else cases.values():
            check_clock(experiment.plan(schedule, routes, message_bytes, experiment.seeds[0]))
        return cls(experiment, progress, message_bytes, environment, cases, world, recorded or {})

    def learning(self) -> AbstractContextManager[None]:
        """Let own code find its modules; all learning is done inside."""
        return self.world.material.active() if self.world else contextlib.nullcontext()

    def plan(self, key: TrialKey) -> Plan:
        """Return the plan of one trial."""
        schedule, routes = self.cases[key.case]
        samples = self.world.num_samples(key.seed) if self.world else None
        return self.experiment.plan(schedule, routes, self.message_bytes, key.seed, samples)


def trial_keys(experiment: Experiment) -> list[TrialKey]:
    """Return the trials of a run in its order: case by case."""
    return [TrialKey(case.name, seed) for case in experiment.cases for seed in experiment.seeds]


def until_targets(targets: Sequence[Target]) -> IsEnough:
    """Return what tells whether all targets have been reached, each at this evaluation of a trial or at one before."""
    reaching = Reaching(targets)

    def is_enough(iteration: int, metrics: Metrics) -> bool:
        reaching.take(metrics)
        return not reaching.left

    return is_enough


class _StoppedError(Exception):
    """A trial is as far as it is to go for now."""


def run_trials(
    session: Session,
    store: RunStore,
    stop_at: int | None = None,
    team_of: Callable[[deque[TrialKey], RunStore], Team] | None = None,
) -> None:
    """Run every trial that is not finished, and finish the run, unless the progress says that its time is over.

    stop_at: leave a trial unfinished after the first global aggregation at or after this iteration; team_of: makes
    the team that shares the waiting trials (default: this process learns one after the other).
    """
    experiment, waiting = session.experiment, deque[TrialKey]()
    # Seed by seed, so that what the cases of a seed share is made once.
    for key in sorted(trial_keys(experiment), key=lambda key: experiment.seeds.index(key.seed)):
        state = store.trial_state(key)
        if state.status == "finished" or (stop_at is not None and state.iteration >= stop_at):
            session.progress.end(key)
        elif key in session.recorded:
            run_trial(session, store, key, stop_at)
            session.progress.end(key)
        else:
            waiting.append(key)
    make = team_of or (lambda waiting, store: Team(session.progress, waiting))
    with make(waiting, store) as team:
        session = replace(session, progress=team)
        for key in team.trials():
            run_trial(session, store, key, stop_at)
            if team.is_over():
                break
            team.end(key)
    store.finish()


def run_trial(session: Session, store: RunStore, key: TrialKey, stop_at: int | None = None) -> None:
    """Run one trial to its end, or as far as `run_trials` says."""
    _Trial(session, store, key, stop_at).run()


@dataclass(frozen=True)
class _Ledger:
    """The hashes of one trial's checkpoints, kept in the run's database."""

    store: RunStore
    key: TrialKey

    def note(self, iteration: int, sha256: str) -> None:
        self.store.note_checkpoint(self.key, iteration, sha256)

    def known(self) -> Mapping[str, int]:
        return self.store.checkpoints(self.key)


class _Trial:
    """One case and seed: drives the engine, checkpoints and commits every round."""

    def __init__(self, session: Session, store: RunStore, key: TrialKey, stop_at: int | None = None) -> None:
        self.session, self.store, self.key = session, store, key
        self.plan = session.plan(key)
        last = self.plan.iterations if stop_at is None else self.plan.schedule.next_end(stop_at)
        # At its end a trial is finished, not stopped.
        self.stops_after = last if last < self.plan.iterations else None
        self.names = [node.name for node in session.experiment.topology.nodes]
        self.done = store.trial_state(key).iteration
        self.begun = 0
        self.has_diverged = False
        self.real: StackedLearner | None = None

    def run(self) -> None:
        with self.session.learning():
            self._run()

    def _run(self) -> None:
        begin = time.perf_counter()
        recorded = self.session.recorded.get(self.key)
        self.operations = self._operations(self.session.world, recorded)
        self.session.progress.begin(self.key, self.plan.iterations, self.done)
        keep = self.session.experiment.timeline
        try:
            timeline_hash = emulate(
                self.plan, self.operations, self._commit, keep, self._checkpoint, self._until(recorded)
            )
        except _StoppedError:
            self._check_unchanged()
            self.store.pause_trial(self.key, time.perf_counter() - begin)
            return
        self._check_unchanged()
        weights_hash, engine = recorded.weights_hash if recorded else None, "recorded" if recorded else "silent"
        if self.real and self.operations.final is not None:
            weights_hash, engine = self.real.weights_hash(self.operations.final), self.real.choice.text()
        self.store.finish_trial(self.key, weights_hash, timeline_hash, engine, time.perf_counter() - begin)
        if self.real and self.session.experiment.train.until_targets:
            self.checkpoints.remove()
        elif self.real:
            self.checkpoints.keep_last()

    def _check_unchanged(self) -> None:
        """Raise ConfigError, and keep nothing of the trial, where what others would find it under is not true."""
        changed = self.session.world.material.changed() if self.session.is_for_others and self.session.world else []
        if changed:
            self.store.restart_trial(self.key)
            self.checkpoints.remove()
            text = f"while the trial was learned: {listed(changed)}; nothing of it is kept"
            raise ConfigError.of(f"{self.key.case}, seed {self.key.seed}", "", text)

    def _until(self, recorded: Recorded | None) -> IsEnough | None:
        experiment = self.session.experiment
        if not experiment.train.until_targets:
            return None
        if recorded:
            last = max(recorded.metrics)
            return lambda iteration, metrics: iteration == last
        return until_targets(experiment.target_levels())

    def _operations(self, world: World | None, recorded: Recorded | None) -> Operations:
        if world is None or recorded is not None:
            return Operations(recorded=None if recorded is None else recorded.metrics)
        from hsgd_emu.learning.checkpoint import Checkpoints

        ledger = _Ledger(self.store, self.key)
        self.checkpoints = Checkpoints(self.store.folder / CHECKPOINTS, _file_name(self.key), ledger)
        servers = self.plan.schedule.servers
        slots = {node: slot for slot, node in enumerate([*self.plan.workers, *servers])}
        experiment = self.session.experiment
        train, evaluation = experiment.effects(self.key.case).train, experiment.evaluation
        self.real = world.learner(self.key.seed, slots, train, self.plan, evaluation)
        if not self.done:
            return Operations(self.real)
        rows = self.store.curve_rows(self.key)
        state = self.checkpoints.load(self.done)
        # Finished with fewer iterations, it may have been evaluated at its end alone.
        if state is not None and not all(self.plan.is_evaluated(row.iteration) for row in rows):
            state = None
        self._tell_of_damage(state)
        if state is None:
            self.checkpoints.remove()
            self.store.restart_trial(self.key)
            self.done = 0
            return Operations(self.real)
        self.begun = state["iteration"]
        return Operations(self.real, {row.iteration: row.metrics for row in rows}, state)

    def _tell_of_damage(self, state: dict[str, Any] | None) -> None:
        if state is not None and not self.checkpoints.damaged:
            return
        text = "no whole checkpoint, from the start"
        if state is not None:
            text = f"goes on from the older one, of iteration {state['iteration']}"
        if self.checkpoints.damaged:
            text = f"{listed(self.checkpoints.damaged)} is not as it was written (damaged, or exchanged): {text}"
        self.session.progress.warn(f"{self.key.case}, seed {self.key.seed}: {text}")

    def _checkpoint(self, iteration: int) -> None:
        if self.real is None or iteration <= self.begun:
            return
        # Where some workers sit out, rounds may begin before the one to stop after is over: they must not push it out.
        if self.stops_after is not None and iteration > self.stops_after:
            return
        if self.stops_after is None and iteration < self.plan.iterations and self.session.progress.is_over():
            self.stops_after = iteration
        if iteration in (self.stops_after, self.plan.iterations) or self.checkpoints.is_due():
            self.checkpoints.save(iteration, {"operations": self.operations.count, **self.real.state()})

    def _commit(self, record: RoundRecord) -> None:
        if record.iteration <= self.done:
            return
        name = self.names
        timeline = [
            TimelineRow(
                name[row.node],
                row.kind,
                to_s(row.start_ns),
                to_s(row.end_ns),
                row.iteration,
                row.bytes,
                name[row.peer] if row.peer >= 0 else "",
            )
            for row in record.activities
        ]
        barriers = [
            BarrierRow(name[b.server], b.iteration, to_s(b.ready_ns), name[b.waited_for], b.link, to_s(b.slack_ns))
            for b in record.barriers
        ]
        keep = self.session.experiment.timeline
        waits = [WaitRow(name[n], to_s(w)) for n, w in record.waits_ns.items() if keep != "none"]
        workers = self._of_workers(record.iteration)
        self.store.commit_round(self.key, record.iteration, curve_row(record), timeline, barriers, waits, workers)
        self._tell_of_divergence(record)
        self.session.progress.round(self.key, record)
        if record.iteration == self.stops_after:
            raise _StoppedError

    def _of_workers(self, iteration: int) -> Sequence[OfWorker]:
        """Return the figures of workers at an evaluation, where the run asks for them."""
        if self.real is not None:
            return self.real.of_workers.pop(iteration, ())
        recorded = self.session.recorded.get(self.key)
        return () if recorded is None else recorded.workers.get(iteration, ())

    def _tell_of_divergence(self, record: RoundRecord) -> None:
        if self.real is None or self.has_diverged or record.metrics is None or record.metrics.is_finite:
            return
        self.has_diverged = True
        text = "the model or its loss is NaN or infinite, which reaches no target"
        self.session.progress.warn(
            f"{self.key.case}, seed {self.key.seed}: from iteration {record.iteration:,} on {text}"
        )


def _file_name(key: TrialKey) -> str:
    """Return what a trial's files are called, whatever other trials the run has."""
    return f"{hashlib.sha256(key.case.encode()).hexdigest()[:12]}-{key.seed}"


def curve_row(record: RoundRecord) -> CurveRow | None:
    metrics, split = record.metrics, record.split
    if metrics is None:
        return None
    return CurveRow(
        record.round,
        record.iteration,
        to_s(record.time_ns),
        to_s(record.aggregated_ns),
        to_s(split.compute_ns),
        to_s(split.communication_ns),
        to_s(split.aggregation_ns),
        record.uploaded_bytes,
        record.downloaded_bytes,
        metrics,
    )
