"""How far a run is: read anew at every look, the curves only where they have grown."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from hsgd_emu.locks import is_held
from hsgd_emu.metrics import Reaching, Target
from hsgd_emu.results.folder import DATABASE_FILE, LOCK_FILE, iterations_of, read_run_file
from hsgd_emu.results.rows import CurveRow, TrialKey, TrialRow, TrialStatus
from hsgd_emu.results.tables import connect_to_read, curve_rows, target_levels, trial_rows


@dataclass
class CurveNow:
    """What is shown of a trial's curve so far; kept up row by row, for it may be long."""

    reaching: Reaching
    last: CurveRow | None = None
    accuracies: list[float | None] = field(default_factory=list)
    least: float = math.inf
    most: float = -math.inf
    """Least and most test accuracy."""
    reached: dict[Target, CurveRow] = field(default_factory=dict)
    """By target: the first row at or beyond it."""

    def add(self, row: CurveRow) -> None:
        accuracy = row.metrics.test_accuracy if row.metrics.is_finite else None
        self.last = row
        self.accuracies.append(accuracy)
        if accuracy is not None:
            self.least, self.most = min(self.least, accuracy), max(self.most, accuracy)
        self.reached |= dict.fromkeys(self.reaching.take(row.metrics), row)


@dataclass(frozen=True)
class TrialNow:
    """One trial: its curve so far, and the host's seconds until it is finished once it runs (None: not known)."""

    key: TrialKey
    status: TrialStatus
    iteration: int
    curve: CurveNow
    left_wall_s: float | None


@dataclass(frozen=True)
class RunNow:
    """A run at one moment. written: somebody writes it; left_wall_s: of all trials, one after the other."""

    name: str
    iterations: int
    trials: tuple[TrialNow, ...]
    targets: tuple[Target, ...]
    written: bool
    left_wall_s: float | None

    @property
    def finished(self) -> bool:
        return self.count("finished") == len(self.trials)

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self.finished or not self.written

    @cached_property
    def accuracies(self) -> tuple[float, float]:
        """The least and the most test accuracy of all trials, for one scale; 0 and 1 where there is none."""
        least, most = min(t.curve.least for t in self.trials), max(t.curve.most for t in self.trials)
        return (least, most) if least <= most else (0.0, 1.0)

    @property
    def share(self) -> float:
        """How much of all iterations is done (0 to 1)."""
        return sum(self.share_of(trial) for trial in self.trials) / max(1, len(self.trials))

    def share_of(self, trial: TrialNow) -> float:
        """Return how much of a trial's iterations is done; a finished one may have ended before the last."""
        return 1.0 if trial.status == "finished" else min(1.0, trial.iteration / self.iterations)

    def count(self, status: TrialStatus) -> int:
        return sum(trial.status == status for trial in self.trials)


def is_written(folder: Path) -> bool:
    """Tell whether a process holds the folder's lock."""
    return is_held(folder / LOCK_FILE)


class RunBoard:
    """Looks at the run in a folder again and again; a run that is begun anew there is read anew."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._clock = folder, clock
        self._identity: Any = None
        self._forget()

    def _forget(self) -> None:
        self._run: dict[str, Any] | None = None
        self._last_row = 0
        self._curves: dict[TrialKey, CurveNow] = {}
        self._iterations: dict[TrialKey, int] = {}
        self._pace = Pace()

    def read(self) -> RunNow:
        """Return the run as it is now.

        Raises:  ConfigError: the folder holds no run.
        """
        # The lock first: a run that finishes in between is finished below, and not one that was left.
        written = is_written(self.folder)
        with contextlib.closing(connect_to_read(self.folder)) as connection:
            connection.execute("BEGIN")
            trials, targets = trial_rows(connection), target_levels(connection)
            self._forget_another(trials, targets)
            self._read_curves(connection, targets)
        self._run = self._run or read_run_file(self.folder)
        iterations = iterations_of(self.folder)
        self._see(trials)
        now = [self._trial(row, iterations, written) for row in trials]
        left = self._left_wall_s(now, iterations) if written else None
        return RunNow(str(self._run["name"]), iterations, tuple(now), targets, written, left)

    def _forget_another(self, trials: Sequence[TrialRow], targets: Sequence[Target]) -> None:
        """Forget all where the run was replaced, has other targets, or a trial was begun anew."""
        now = {trial.key: trial.iteration for trial in trials}
        identity = (os.stat(self.folder / DATABASE_FILE).st_ino, tuple(now), targets)
        if identity != self._identity or any(now[key] < before for key, before in self._iterations.items()):
            self._forget()
        self._identity, self._iterations = identity, now

    def _read_curves(self, connection: sqlite3.Connection, targets: Sequence[Target]) -> None:
        for key, row in curve_rows(connection, "t.rowid > ?", (self._last_row,)):
            self._curves.setdefault(key, CurveNow(Reaching(targets))).add(row)
        self._last_row = connection.execute("SELECT coalesce(max(rowid), 0) FROM curve").fetchone()[0]

    def _see(self, trials: Sequence[TrialRow]) -> None:
        for trial in trials:
            self._pace.see(trial.key, trial.iteration, self._clock())
            if trial.status == "finished" and trial.wall_s is not None and trial.iteration:
                self._pace.finished(trial.key, trial.wall_s / trial.iteration)

    def _trial(self, row: TrialRow, iterations: int, written: bool) -> TrialNow:
        pace = self._pace.wall_s_per_iteration(row.key) if row.status == "running" and written else None
        left = None if pace is None else pace * max(0, iterations - row.iteration)
        curve = self._curves.get(row.key) or CurveNow(Reaching(()))
        return TrialNow(row.key, row.status, row.iteration, curve, left)

    def _left_wall_s(self, trials: list[TrialNow], iterations: int) -> float | None:
        left = 0.0
        for trial in trials:
            if trial.status != "finished":
                pace = self._pace.wall_s_per_iteration(trial.key)
                if pace is None:
                    return None
                left += pace * max(0, iterations - trial.iteration)
        return left


_WINDOW_S = 60.0
"""Only the last minute counts: other work on the host comes and goes."""
_LEAST_S = 2.0
"""Seen for less than this, a pace is mostly the time between two looks."""


class Pace:
    """Wall seconds per iteration of each trial."""

    def __init__(self) -> None:
        self._seen: dict[TrialKey, deque[tuple[float, int]]] = {}
        self._cost: dict[TrialKey, float] = {}

    def see(self, key: TrialKey, iteration: int, wall_s: float) -> None:
        """Note that a trial is at an iteration now (wall_s: of any steady clock)."""
        seen = self._seen.setdefault(key, deque())
        # Its first round counts from when it begins, which nobody sees.
        if iteration and (not seen or iteration > seen[-1][1]):
            seen.append((wall_s, iteration))
        while len(seen) > 2 and seen[0][0] < wall_s - _WINDOW_S:
            seen.popleft()

    def finished(self, key: TrialKey, wall_s_per_iteration: float) -> None:
        """Note what a finished trial has cost."""
        self._cost[key] = wall_s_per_iteration

    def wall_s_per_iteration(self, key: TrialKey) -> float | None:
        """Return a trial's own pace; else the median of its case; else the median of all; None: nothing is known."""
        own = self._observed(key)
        if own is not None:
            return own
        observed = {other: pace for other in self._seen if (pace := self._observed(other)) is not None}
        known = observed | self._cost
        same = [pace for other, pace in known.items() if other.case == key.case]
        return median(same or known.values()) if known else None

    def _observed(self, key: TrialKey) -> float | None:
        seen = self._seen.get(key)
        if not seen or seen[-1][0] - seen[0][0] < _LEAST_S:
            return None
        (begin_s, begin), (end_s, end) = seen[0], seen[-1]
        return (end_s - begin_s) / (end - begin)
