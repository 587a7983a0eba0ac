"""Trials learned in processes of this machine, one at a time in each.

Each process has a pipe of its own: nothing is shared, so that one which is killed harms no other, and one whose parent
is gone finds its pipe broken at the end of the round and goes too.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections import Counter, deque
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.errors import RunError
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.spawning import bare_main, portable
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import Wanted
from hsgd_emu.terminal import say
from hsgd_emu.trials import Progress

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


class Crew:
    """Processes that have nothing to do just now, kept for the trials that are wanted next. To be closed."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self.noted: set[str] = set()
        """What was said already: trials of a study mostly share their data."""

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.stop()
        self._idle.clear()

    def call(self, library: Library, share: float | None) -> _Worker:
        """Return a process for this library; share: of the GPU's memory that it may take."""
        while self._idle:
            worker = self._idle.pop()
            if worker.serves == (library.folder, share) and worker.process.is_alive():
                return worker
            worker.stop()
        return _Worker(library, share)

    def dismiss(self, worker: _Worker) -> None:
        """Take back a process that is done with its trial."""
        self._idle.append(worker)


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
            for worker in _speaking(at_work):
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
                    crew.dismiss(worker)
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


class _Worker:
    """A process that learns one trial after the other, and this side of its pipe."""

    wanted: Wanted

    def __init__(self, library: Library, share: float | None) -> None:
        """share: of the GPU's memory that it may take."""
        context = multiprocessing.get_context("spawn")
        self.library, self.serves = library, (library.folder, share)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, library.folder.absolute(), share), daemon=True)
        with bare_main():
            self.process.start()
        # The process alone holds its end: when it dies, ours is told.
        theirs.close()

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

    def stop(self) -> None:
        """End it now; what it has begun can be gone on with."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _speaking(workers: Sequence[_Worker]) -> list[_Worker]:
    """Return the workers that have something to say, or are dead, as soon as there are any."""
    ready = wait([worker.pipe for worker in workers])
    return [worker for worker in workers if worker.pipe in ready]


# --- in the process -----------------------------------------------------------------------------------------


class _Reporting(Progress):
    """Tells the parent process of every round, and ends this process once there is none."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.wanted: Wanted | None = None

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        try:
            self.pipe.send(Reached(record.iteration, record.metrics.test_accuracy if record.metrics else None))
        except OSError:
            sys.exit(1)

    def note(self, text: str) -> None:
        try:
            self.pipe.send(Noted(text))
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
                    _limit_memory(share)
                library.learn(wanted, progress, progress.while_waiting)
            except Exception as error:
                pipe.send(portable(error, wanted.label))
            else:
                pipe.send(_DONE)


def _limit_memory(share: float) -> None:
    from hsgd_emu.learning.world import limit_memory

    limit_memory(share)
