"""Learn the trials that a study lacks: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import json
import signal
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import numpy as np

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.errors import ConfigError, RunError
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.spawning import Child, num_cores, portable
from hsgd_emu.study.training.library import Learned, Library
from hsgd_emu.study.training.wanted import CASE, Wanted
from hsgd_emu.terminal import say
from hsgd_emu.trials import Progress

ExecutorName = Literal["local", "ray"]


def train(
    wanted: Sequence[Wanted],
    library: Library,
    executor: ExecutorName = "local",
    jobs: int | None = None,
    progress: TrainingProgress | None = None,
    ray_address: str | None = None,
    crew: Crew | None = None,
) -> dict[str, Learned]:
    """Learn what is wanted and not yet in the library, and return all of it by key.

    A killed study goes on where it was: what is finished is not learned again, what was begun is continued. Of two
    studies that want the same trial at once, one learns it and the other waits.

    Args:    jobs: trials at a time (default: one for each core that this process may use, on CUDA one; on Ray as many
             as the cluster takes, and on CUDA this many share a GPU).
             ray_address: of the cluster (default: RAY_ADDRESS, else the one on this machine).
             crew: processes of this machine to be used again, for those who come back.
    Raises:  ConfigError: data or model do not fit, no Ray cluster; RunError: a trial's process dies again and again.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError.of(f"--jobs {jobs}", "", "at least one trial is learned at a time")
    progress = progress or TrainingProgress()
    furthest: dict[str, Wanted] = {}
    for one in wanted:
        known = furthest.get(one.key)
        furthest[one.key] = one if known is None or known.until < one.until else known
    found = {key: library.find(one) for key, one in furthest.items()}
    missing = [one for key, one in furthest.items() if found[key] is None]
    if missing and executor == "ray":
        from hsgd_emu.study.training.on_ray import train_on_ray

        train_on_ray(missing, library, jobs, progress, ray_address)
    elif missing:
        train_here(missing, library, jobs or default_jobs(missing), progress, crew)
    learned = {key: found[key] or library.find(one) for key, one in furthest.items()}
    for key, one in furthest.items():
        if learned[key] is None:
            raise RunError(f"{library.folder_of(one)}: {one.label} was learned and is not there; removed meanwhile?")
    return {key: one for key, one in learned.items() if one is not None}


def default_jobs(wanted: Sequence[Wanted]) -> int:
    """Return how many trials this machine learns at a time: one for each core, one where there is a GPU."""
    return 1 if any(one.resources.device == "cuda" for one in wanted) else num_cores()


MOST_DEATHS = 3
"""A trial whose process died is begun again as often."""
_DONE = "done"


class Reached(NamedTuple):
    """How far a trial is; accuracy: of its global model, where it was evaluated."""

    iteration: int
    accuracy: float | None


class Noted(NamedTuple):
    """What `Progress.note` is told where a trial is learned."""

    text: str


class TrainingProgress:
    """Told how training goes, and does nothing with it. Trials that were found are not told of."""

    def begin(self, wanted: Wanted, learned: int) -> None:
        """A trial begins, or goes on after `learned` iterations."""

    def round(self, wanted: Wanted, reached: Reached) -> None:
        """A trial is learned up to an iteration."""

    def end(self, wanted: Wanted) -> None:
        """A trial is learned as far as it is wanted."""

    def warn(self, text: str) -> None:
        """Something that must not be overlooked."""

    def say(self, text: str) -> None:
        """Something takes a while."""


class Crew:
    """Processes that have nothing to do just now, kept for the trials that are wanted next. To be closed."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.noted: set[str] = set()
        """What was said already: trials of a study mostly share their data."""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.idle:
            worker.stop()
        self.idle.clear()

    def call(self, library: Library, share: float | None) -> _Worker:
        """Return a process for this library; share: of the GPU's memory that it may take."""
        while self.idle:
            worker = self.idle.pop()
            if worker.serves == (library.folder, share) and worker.process.is_alive():
                return worker
            worker.stop()
        return _Worker(library, share)


def train_here(
    missing: Sequence[Wanted], library: Library, jobs: int, progress: TrainingProgress, crew: Crew | None = None
) -> None:
    """Learn trials, `jobs` at a time; see `executors.train`. Whatever goes wrong, no process is left behind.

    crew: takes the processes back when all is learned.
    """
    if crew is None:
        with Crew() as crew:
            return train_here(missing, library, jobs, progress, crew)
    waiting, deaths = deque(missing), Counter[str]()
    on_cuda = any(one.resources.device == "cuda" for one in missing)
    share = 1 / jobs if on_cuda and jobs > 1 else None
    at_work: list[_Worker] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                at_work.append(crew.call(library, share))
                at_work[-1].give(waiting.popleft(), progress)
            ready = wait([worker.pipe for worker in at_work])  # those that have something to say, or are dead
            for worker in [one for one in at_work if one.pipe in ready]:
                said = worker.hear()
                if isinstance(said, BaseException):
                    raise said
                if isinstance(said, Reached):
                    progress.round(worker.wanted, said)
                    continue
                if isinstance(said, Noted):
                    if said.text not in crew.noted:
                        crew.noted.add(said.text)
                        progress.warn(f"note: {said.text}")
                    continue
                at_work.remove(worker)
                if said == _DONE:
                    progress.end(worker.wanted)
                    crew.idle.append(worker)
                else:
                    waiting.appendleft(_again(worker, deaths, progress))
                    worker.stop()
    finally:
        for worker in at_work:
            worker.stop()


def _again(worker: _Worker, deaths: Counter[str], progress: TrainingProgress) -> Wanted:
    """Return the trial of a process that died, to be gone on with in a new one.

    Raises:  RunError: it has died too often.
    """
    wanted = worker.wanted
    worker.process.join()
    deaths[wanted.key] += 1
    how = f"its process died (exit code {worker.process.exitcode})"
    if deaths[wanted.key] > MOST_DEATHS:
        text = f"{wanted.label}: {how}, {deaths[wanted.key]} times; where memory is short, fewer --jobs help"
        raise RunError(text)
    progress.warn(f"{wanted.label}: {how}; a new one goes on with it")
    return wanted


class _Worker(Child):
    """A process that learns one trial after the other, and this side of its pipe.

    Nothing is shared, so that one which is killed harms no other, and one whose parent is gone finds its pipe broken at
    the end of the round and goes too.
    """

    wanted: Wanted

    def __init__(self, library: Library, share: float | None) -> None:
        """share: of the GPU's memory that it may take."""
        super().__init__(_work, library.folder.absolute(), share)
        self.library, self.serves = library, (library.folder, share)

    def give(self, wanted: Wanted, progress: TrainingProgress) -> None:
        """Let it learn a trial."""
        self.wanted = wanted
        known = self.library.progress_of(wanted)
        progress.begin(wanted, known.iteration if known else 0)
        # To a dead process nothing can be said; that it is dead is heard next.
        with contextlib.suppress(OSError):
            self.pipe.send(wanted)

    def hear(self) -> Reached | Noted | str | BaseException | None:
        """Return how far it has come, _DONE, what went wrong, or None where it is dead."""
        try:
            said: Reached | Noted | str | BaseException = self.pipe.recv()
        except (EOFError, OSError):
            return None
        return said


# --- in the process -----------------------------------------------------------------------------------------


class _Reporting(Progress):
    """Tells the parent process of every round, and ends this process once there is none."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.wanted: Wanted | None = None

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        self._tell(Reached(record.iteration, record.metrics.test_accuracy if record.metrics else None))

    def note(self, text: str) -> None:
        self._tell(Noted(text))

    def _tell(self, said: Reached | Noted) -> None:
        try:
            self.pipe.send(said)
        except OSError:
            sys.exit(1)

    def while_waiting(self) -> None:
        # The parent says nothing to a process at work: what can be read now is that it is gone.
        if self.pipe.poll():
            sys.exit(1)

    def warn(self, text: str) -> None:
        if self.wanted is not None:  # by the name that the user knows
            own = f"{self.wanted.trial.case}, seed {self.wanted.seed}"
            text = text.replace(own, self.wanted.label, 1)
        say(f"hsgd-emu: {text}", file=sys.stderr)


def _work(pipe: Connection, folder: Path, share: float | None) -> None:
    """Learn what the parent asks for until it closes the pipe."""
    # Ctrl-C goes to all processes of a terminal; the parent ends its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    library, progress = Library(folder), _Reporting(pipe)
    with contextlib.suppress(EOFError, OSError):
        while True:
            wanted: Wanted = pipe.recv()
            progress.wanted = wanted
            try:
                if share is not None:
                    from hsgd_emu.learning.world import limit_memory

                    limit_memory(share)
                library.learn(wanted, progress, progress.while_waiting)
            except Exception as error:
                pipe.send(portable(error, wanted.label))
            else:
                pipe.send(_DONE)


Cost = tuple[int, int, float]
"""Iterations, evaluations and host seconds of something learned."""
_PERIODS = (2, 10)
_ROUNDS = 200
_ENOUGH_S = 0.5


def estimate_wall_s(wanted: Sequence[Wanted], library: Library) -> float:
    """Return about how many host seconds learning the missing trials takes, one after the other.

    From trials in the library that differ in schedule, seed or length only; where there are none, a few rounds are
    learned and thrown away. Not modelled: aggregations at local servers, the start of processes, and that trials
    learned side by side slow each other down.
    """
    kinds: dict[str, dict[str, Wanted]] = {}
    for one in wanted:
        if library.find(one) is None:
            kinds.setdefault(one.kind, {})[one.key] = one
    total_s = 0.0
    for alike in kinds.values():
        first = next(iter(alike.values()))
        step_s, evaluation_s = fitted(library.alike(first) or [_probed(first, period) for period in _PERIODS])
        for one in alike.values():
            known = library.progress_of(one)
            left = one.until - (known.iteration if known else 0)
            total_s += left * (step_s + evaluation_s / one.evaluated_every)
    return total_s


def fitted(costs: Sequence[Cost]) -> tuple[float, float]:
    """Return the host seconds of an iteration (of all workers) and of an evaluation that explain the costs best.

    Each cost counts alike, large or small. Where one of the two came out below nothing, it is taken to be nothing.
    """
    table = np.array(costs, dtype=float)
    table = table[:, :2] / table[:, 2:]
    both = np.linalg.lstsq(table, np.ones(len(table)), rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    kept = int(both.argmax())
    alone = float(table[:, kept].sum() / (table[:, kept] ** 2).sum())
    return (alone, 0.0) if kept == 0 else (0.0, alone)


class _EnoughError(Exception):
    """The probe has told what it was made for."""


class _Stopwatch(TrainingProgress):
    def __init__(self) -> None:
        self.rounds_s: list[float] = []

    def round(self, wanted: Wanted, reached: Reached) -> None:
        self.rounds_s.append(time.perf_counter())
        if len(self.rounds_s) > 2 and self.rounds_s[-1] - self.rounds_s[0] > _ENOUGH_S:
            raise _EnoughError


def _probed(wanted: Wanted, period: int) -> Cost:
    """Return what a round of `period` iterations costs, without the first one, which warms up."""
    run = json.loads(wanted.run_yaml)
    run["cases"] = [{"name": CASE, "period": period}]
    run["train"]["iterations"] = iterations = period * _ROUNDS
    run["evaluation"] = {"every_iterations": 1}
    probe = replace(wanted, key=f"period-{period}", run_yaml=json.dumps(run), iterations=iterations, until=iterations)
    watch = _Stopwatch()
    with TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        train_here([probe], Library(Path(folder)), 1, watch)
    spans = [end - start for start, end in pairwise(watch.rounds_s)]
    return period, 1, statistics.median(spans)
