"""One open run.sqlite: rounds go in as they happen, each in one transaction with its trial's progress.

SQLite in WAL mode: others can read while it is written, and a kill -9 at any moment leaves whole rounds only.
A power cut may take the last rounds, never half of one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsgd_emu.atomic import write_atomically
from hsgd_emu.errors import RunError
from hsgd_emu.metrics import TARGETS, OfWorker, Target
from hsgd_emu.results.database import create_database
from hsgd_emu.results.folder import (
    DATABASE_FILE,
    RUN_FILE,
    Store,
    is_run_folder,
    new_folder,
    require_run_folder,
    write_environment,
)
from hsgd_emu.results.rows import BarrierRow, CurveRow, TimelineRow, TrialKey, TrialRow, WaitRow, target_row
from hsgd_emu.results.tables import FORMAT, TABLES, curve_rows, insert, quoted, target_levels, trial_rows, worker_rows

_OF_TRIAL = '"case" = ? AND seed = ?'


class RunStore(Store):
    """The results of one run, open for writing."""

    file, format, require = DATABASE_FILE, FORMAT, staticmethod(require_run_folder)

    @classmethod
    def create(
        cls,
        folder: Path,
        run_yaml: str,
        environment: dict[str, Any],
        trials: Sequence[TrialKey],
        targets: Sequence[Target],
    ) -> RunStore:
        """Make a new run in `folder`, every trial waiting.

        Args:    trials: in run order.  targets: of the run file.
        Raises:  RunError: the folder holds a run already (`remove_run` deletes it), or another run writes it.
        """

        def prepare() -> None:
            if is_run_folder(folder):
                raise RunError(f"{folder}: holds a run already; --resume goes on with it, --force replaces it")
            write_atomically(folder / RUN_FILE, run_yaml)
            write_environment(folder, environment)
            create_database(folder / DATABASE_FILE, FORMAT, fill)

        def fill(connection: sqlite3.Connection) -> None:
            insert(connection, "trials", (TrialRow(*key, "waiting") for key in trials))
            connection.executemany("INSERT INTO target_levels VALUES (?, ?)", targets)

        assert all(metric in TARGETS for metric, _ in targets)
        new_folder(folder)
        return cls._prepared(folder, prepare)

    # --- reading ------------------------------------------------------------------------------------

    @property
    def trials(self) -> tuple[TrialKey, ...]:
        """All trials, in run order."""
        return tuple(row.key for row in trial_rows(self.connection))

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets that the run was created with."""
        return target_levels(self.connection)

    def trial_state(self, key: TrialKey) -> TrialRow:
        """Return how far a trial is. Raises KeyError for one that is not of this run."""
        sql = f"SELECT {quoted(TABLES['trials'])} FROM trials WHERE {_OF_TRIAL}"
        row = self.connection.execute(sql, key).fetchone()
        if row is None:
            raise KeyError(key)
        return TrialRow(*row)

    def curve_rows(self, key: TrialKey) -> list[CurveRow]:
        """Return a trial's curve so far, in the order it was written; see `tables.curve_rows`."""
        return [row for _, row in curve_rows(self.connection, 't."case" = ? AND t.seed = ?', key)]

    def worker_rows(self, key: TrialKey) -> dict[int, list[OfWorker]]:
        """Return a trial's figures of workers by iteration."""
        return worker_rows(self.connection, key).get(key, {})

    # --- writing ------------------------------------------------------------------------------------

    def commit_round(
        self,
        key: TrialKey,
        iteration: int,
        curve: CurveRow | None,
        timeline: Sequence[TimelineRow],
        barriers: Sequence[BarrierRow],
        waits: Sequence[WaitRow],
        workers: Sequence[OfWorker] = (),
    ) -> None:
        """Write one round and the trial's progress, all or nothing.

        Args:    iteration: of the round's global aggregation; greater than the last one committed.
                 curve: None where the aggregation was not evaluated.
        """
        with self.transaction() as connection:
            before = self.trial_state(key)
            if before.status == "finished" or iteration <= before.iteration:
                raise ValueError(f"{key}: iteration {iteration} does not follow {before}")
            round_ = curve.round if curve else before.round + 1
            if curve:
                insert(connection, "curve", iter([key + curve.cells]))
            insert(connection, "timeline", (key + row for row in timeline))
            insert(connection, "barriers", (key + row for row in barriers))
            insert(connection, "waits", ((*key, round_, *row) for row in waits))
            insert(connection, "workers", (key + row for row in workers))
            diverged_at = None if curve is None or curve.metrics.is_finite else iteration
            connection.execute(
                "UPDATE trials SET status = 'running', iteration = ?, round = ?, "
                f"diverged_at = coalesce(diverged_at, ?) WHERE {_OF_TRIAL}",
                (iteration, round_, diverged_at, *key),
            )

    def restart_trial(self, key: TrialKey) -> None:
        """Delete all that was written of a trial; it waits again."""
        with self.transaction() as connection:
            for table in (*TABLES, "checkpoints"):
                if table != "trials":
                    connection.execute(f"DELETE FROM {table} WHERE {_OF_TRIAL}", key)
            new = TrialRow(*key, "waiting")
            values = ", ".join(f'"{name}" = ?' for name in new._fields)
            connection.execute(f"UPDATE trials SET {values} WHERE {_OF_TRIAL}", (*new, *key))

    def note_checkpoint(self, key: TrialKey, iteration: int, sha256: str) -> None:
        """Note a checkpoint that is about to be put in its place; the last three of a trial are kept.

        Three, for the third last still lies there if the process is killed before that.
        """
        with self.transaction() as connection:
            connection.execute("INSERT INTO checkpoints VALUES (?, ?, ?, ?)", (*key, iteration, sha256))
            connection.execute(
                f"DELETE FROM checkpoints WHERE {_OF_TRIAL} AND rowid NOT IN "
                f"(SELECT rowid FROM checkpoints WHERE {_OF_TRIAL} ORDER BY rowid DESC LIMIT 3)",
                key * 2,
            )

    def checkpoints(self, key: TrialKey) -> dict[str, int]:
        """Return the iterations of a trial's last checkpoints by SHA-256."""
        sql = f"SELECT sha256, iteration FROM checkpoints WHERE {_OF_TRIAL}"
        return dict(self.connection.execute(sql, key))

    def pause_trial(self, key: TrialKey, wall_s: float) -> None:
        """Add what a trial that stops here, unfinished, has cost this host."""
        with self.transaction() as connection:
            connection.execute(f"UPDATE trials SET wall_s = coalesce(wall_s, 0) + ? WHERE {_OF_TRIAL}", (wall_s, *key))

    def finish_trial(
        self, key: TrialKey, weights_hash: str | None, timeline_hash: str, engine: str, wall_s: float
    ) -> None:
        """Mark a trial finished and write when it reached each target.

        Args:    weights_hash: None where nothing was trained.  wall_s: what the trial cost this host, since it paused.
        """
        with self.transaction() as connection:
            self.trial_state(key)
            connection.execute(f"DELETE FROM targets WHERE {_OF_TRIAL}", key)
            self._write_targets(connection, key)
            connection.execute(
                "UPDATE trials SET status = 'finished', weights_hash = ?, timeline_hash = ?, engine = ?, "
                f"wall_s = coalesce(wall_s, 0) + ? WHERE {_OF_TRIAL}",
                (weights_hash, timeline_hash, engine, wall_s, *key),
            )

    def grow(self, run_yaml: str, trials: Sequence[TrialKey], targets: Sequence[Target], iterations: int) -> None:
        """Make this the run of another run file, which adds trials, targets or iterations to it.

        Args:    trials: in run order, all that are there among them.  iterations: finished trials with fewer are not
                 finished any more.
        """
        if self.folder.joinpath(RUN_FILE).read_text(encoding="utf-8") != run_yaml:
            write_atomically(self.folder / RUN_FILE, run_yaml)
        if (self.trials, self.targets) == (tuple(trials), tuple(targets)) and not self._shorter(iterations):
            return
        with self.transaction() as connection:
            for key in self._shorter(iterations):
                connection.execute(
                    "UPDATE trials SET status = 'running', weights_hash = NULL, timeline_hash = NULL, engine = NULL "
                    f"WHERE {_OF_TRIAL}",
                    key,
                )
            place = {row.key: row for row in trial_rows(connection)}
            connection.execute("DELETE FROM trials")
            insert(connection, "trials", (place.get(key, TrialRow(*key, "waiting")) for key in trials))
            connection.execute("DELETE FROM target_levels")
            connection.executemany("INSERT INTO target_levels VALUES (?, ?)", targets)
            connection.execute("DELETE FROM targets")
            for key in trials:
                if self.trial_state(key).status == "finished":
                    self._write_targets(connection, key)

    def _shorter(self, iterations: int) -> list[TrialKey]:
        found = self.connection.execute(
            "SELECT \"case\", seed FROM trials WHERE status = 'finished' AND iteration < ?", (iterations,)
        )
        return [TrialKey(*row) for row in found]

    def _write_targets(self, connection: sqlite3.Connection, key: TrialKey) -> None:
        curve = self.curve_rows(key)
        insert(connection, "targets", (key + target_row(curve, target) for target in self.targets))
