"""Trials of one run learned side by side: processes that take trials off the one that holds the run.

Each writes its rounds into the run's database itself, as this process does; SQLite lets one write at a time. The bits
of a trial do not depend on who learned it: all use as many threads of torch, the same engine, the same precision.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.learning.facts import Facts, require_alike
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.spawning import Child, portable
from hsgd_emu.trials import Progress, Team, run_trial

if TYPE_CHECKING:
    from hsgd_emu.experiment import Experiment
    from hsgd_emu.run import Options

PAYS_S = 20.0
"""Helpers are called when this process alone would still learn for so long: starting one takes some seconds."""
_LOOK_S = 1.0  # a pace is believed after so long
_DONE, _OVER = "done", "over"


@dataclass(frozen=True)
class Orders:
    """What a helper needs to learn trials of a run; `options` name threads, engine and precision as this process has
    them."""

    experiment: Experiment
    options: Options
    folder: Path
    end_s: float
    """When to stop, in seconds of `time.monotonic`, which all processes of a machine share."""
    saw: Facts
    """What this process has loaded; helpers must see the same."""


class Helped(Team):
    """This process and its helpers, who share the trials that wait.

    Helpers are called once that pays, or at once where `now` says so.
    """

    def __init__(
        self, inner: Progress, waiting: deque[TrialKey], store: RunStore, orders: Orders, most: int, now: bool
    ) -> None:
        """most: helpers at most."""
        super().__init__(inner, waiting)
        self.store, self.orders, self.most = store, orders, most
        self.iterations = orders.experiment.train.iterations
        self._one_at_a_time = threading.RLock()
        self._helpers: list[_Helper] = []
        self._failed: BaseException | None = None
        self._begin_s, self._learned, self._at = time.monotonic(), 0, 0
        if now:
            self._call_helpers()

    def trials(self) -> Iterator[TrialKey]:
        while True:
            try:
                yield self.waiting.popleft()
            except IndexError:
                self._wait()
                if not self.waiting:  # a helper that dies gives its trial back
                    return

    def __exit__(self, kind: object = None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            for helper in self._helpers:
                helper.stop()

    def _wait(self) -> None:
        for helper in self._helpers:
            while helper.thread.is_alive():
                helper.thread.join(0.1)
                self._look()
        self._look()

    def _look(self) -> None:
        """Raise what went wrong in a helper."""
        if self._failed is not None:
            raise self._failed

    def failed(self, error: BaseException) -> None:
        """Note what went wrong in a helper, for the next look."""
        self._failed = self._failed or error

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        self._at = done
        self.tell("begin", key, iterations, done)

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        self.tell("round", key, record)
        self._learned += record.iteration - self._at
        self._at = record.iteration
        self._look()
        if self.most and self._pays():
            self._call_helpers()

    def _pays(self) -> bool:
        spent_s = time.monotonic() - self._begin_s
        left = len(self.waiting) * self.iterations + self.iterations - self._at
        return spent_s > _LOOK_S and spent_s / self._learned * left > PAYS_S

    def _call_helpers(self) -> None:
        for _ in range(min(self.most, len(self.waiting))):
            self._helpers.append(_Helper(self))
        self.most = 0

    def tell(self, what: str, *arguments: Any) -> None:
        """Tell the progress of the run; one who tells at a time."""
        with self._one_at_a_time:
            getattr(self.inner, what)(*arguments)


class _Helper(Child):
    """A process that learns one trial after the other, and the thread of this process that gives them to it."""

    def __init__(self, team: Helped) -> None:
        super().__init__(_help, _Lock(team.store.lock), team.orders)
        self.team = team
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            while not self.team.is_over():
                try:
                    key = self.team.waiting.popleft()
                except IndexError:
                    break
                if not self._learned(key):
                    break
        except BaseException as error:
            self.team.failed(error)
        finally:
            self.stop()

    def _learned(self, key: TrialKey) -> bool:
        """Let a trial be learned; False where there is no more time, or nobody to learn."""
        try:
            self.pipe.send(key)
            while True:
                said = self.pipe.recv()
                if isinstance(said, BaseException):
                    raise said
                if said in (_DONE, _OVER):
                    return bool(said == _DONE)
                self.team.tell(*said)
        except (EOFError, OSError):
            self.process.join()
            how = f"the process that learned it died (exit code {self.process.exitcode})"
            self.team.tell("warn", f"{key.case}, seed {key.seed}: {how}; it is gone on with here")
            self.team.waiting.appendleft(key)
            return False


class _Lock:
    """The descriptor that holds a run folder's lock, to travel to a new process: the lock lasts as long as either."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.descriptor)

    def __setstate__(self, state: Any) -> None:
        self.descriptor = state.detach()


# --- in the process -----------------------------------------------------------------------------------------


class _Reporting(Progress):
    """Tells the process that holds the run."""

    def __init__(self, pipe: Connection, end_s: float) -> None:
        self.pipe, self.end_s = pipe, end_s

    def warn(self, text: str) -> None:
        self.pipe.send(("warn", text))

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        self.pipe.send(("begin", key, iterations, done))

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        self.pipe.send(("round", key, replace(record, activities=[], barriers=[], waits_ns={})))

    def end(self, key: TrialKey) -> None:
        self.pipe.send(("end", key))


def _help(pipe: Connection, lock: _Lock, orders: Orders) -> None:
    """Learn the trials that the pipe names until it is closed."""
    # Ctrl-C goes to all processes of a terminal; the one that holds the run ends its helpers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked: queue.SimpleQueue[TrialKey] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, asked), daemon=True).start()
    progress = _Reporting(pipe, orders.end_s)
    key = asked.get()
    try:
        from hsgd_emu.run import session_of

        def check(saw: Facts) -> None:
            require_alike(orders.saw, saw, "when the run was begun")

        session = session_of(orders.experiment, orders.options, progress, check)
        with RunStore(orders.folder, lock.descriptor) as store:
            while True:
                run_trial(session, store, key, orders.options.stop_at)
                if progress.is_over():
                    pipe.send(_OVER)
                    return
                progress.end(key)
                pipe.send(_DONE)
                key = asked.get()
    except Exception as error:
        pipe.send(portable(error, f"{key.case}, seed {key.seed}"))


def _listen(pipe: Connection, asked: queue.SimpleQueue[TrialKey]) -> None:
    """Pass on what is asked for; end this process at once when the one that holds the run is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(pipe.recv())
    os._exit(1)
