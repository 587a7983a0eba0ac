"""One open study.sqlite: parts go in as they are worked out, each whole (as results/store.py does with rounds)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import ENVIRONMENT_FILE, REPORT_FILE, lock_folder, write_atomically, write_environment
from hsgd_emu.study.sweep.store import STUDY_DATABASE, STUDY_FILE, TABLES, require_study_folder

Rows = Mapping[str, Iterable[Sequence[Any]]]
"""Rows to write, by table."""


class StudyStore:
    """A study open for writing; holds the folder's lock until it is closed."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self._lock = folder, lock
        path = folder / STUDY_DATABASE
        try:
            self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.execute("PRAGMA synchronous = NORMAL")
            self.connection.execute("SELECT part FROM parts").fetchone()
        except sqlite3.Error as error:
            raise ConfigError.of(str(path), "", f"cannot be read as a study's database ({error})") from error

    @classmethod
    def create(cls, folder: Path, study_yaml: str, environment: Mapping[str, Any], rows: Rows) -> StudyStore:
        """Make a new study in `folder`, its tables empty but for `rows` (by table)."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder)
        try:
            remove_study(folder, locked=True)
            write_atomically(folder / STUDY_FILE, study_yaml)
            write_environment(folder, dict(environment))
            _create_database(folder, rows)
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, folder: Path) -> StudyStore:
        """Open the study in `folder` to go on with it."""
        require_study_folder(folder)
        lock = lock_folder(folder)
        try:
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> StudyStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and release the lock."""
        self.connection.close()
        os.close(self._lock)

    def done(self) -> set[str]:
        """Return the names of the parts that are written."""
        return {name for (name,) in self.connection.execute("SELECT part FROM parts")}

    def write_part(self, name: str, rows: Rows) -> None:
        """Write the rows (by table) of one part of the study, all or nothing."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            _insert(self.connection, rows)
            self.connection.execute("INSERT INTO parts VALUES (?)", (name,))
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def finish(self) -> None:
        """Fold the write-ahead log into study.sqlite, so that the study is one file that can be copied."""
        # Busy: somebody reads just now. The log stays then, which is whole too.
        with contextlib.suppress(sqlite3.OperationalError):
            self.connection.execute("PRAGMA journal_mode = DELETE")


def remove_study(folder: Path, locked: bool = False) -> None:
    """Delete a study's own files from `folder` and nothing else that lies there; the database goes first.

    locked: the caller holds the folder's lock.
    """
    if not folder.is_dir():
        return
    lock = None if locked else lock_folder(folder)
    for name in (
        *(f"{STUDY_DATABASE}{end}" for end in ("", "-wal", "-shm")),
        STUDY_FILE,
        ENVIRONMENT_FILE,
        REPORT_FILE,
    ):
        (folder / name).unlink(missing_ok=True)
    if lock is not None:
        os.close(lock)


def _create_database(folder: Path, rows: Rows) -> None:
    """Build the database beside its place and put it there whole."""
    beside = folder / f"{STUDY_DATABASE}.new"
    for name in (beside, Path(f"{beside}-journal")):
        name.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for table, columns in TABLES.items():
            parts = ", ".join(f'"{c.name}" {c.type}{"" if c.null else " NOT NULL"}' for c in columns)
            connection.execute(f"CREATE TABLE {table} ({parts}) STRICT")
        connection.execute("CREATE TABLE parts (part TEXT PRIMARY KEY) STRICT")
        _insert(connection, rows)
        connection.execute("COMMIT")
    os.replace(beside, folder / STUDY_DATABASE)


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    for table, values in rows.items():
        marks = ", ".join("?" * len(TABLES[table]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
