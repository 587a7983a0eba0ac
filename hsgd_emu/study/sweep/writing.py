"""One open study.sqlite: parts go in as they are worked out, each whole (as results/store.py does with rounds)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hsgd_emu.atomic import write_atomically
from hsgd_emu.errors import HsgdError
from hsgd_emu.results.database import connect_to_write, create_database, fold, remove_database, transaction
from hsgd_emu.results.folder import (
    ENVIRONMENT_FILE,
    REPORT_FILE,
    STUDY_DATABASE,
    STUDY_FILE,
    lock_folder,
    new_folder,
    write_environment,
)
from hsgd_emu.study.sweep.store import FORMAT, TABLES, require_study_folder

Rows = Mapping[str, Iterable[Sequence[Any]]]
"""Rows to write, by table."""


class StudyStore:
    """A study open for writing; holds the folder's lock until it is closed."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self._lock = folder, lock
        self.connection = connect_to_write(folder / STUDY_DATABASE, FORMAT)

    @classmethod
    def create(cls, folder: Path, study_yaml: str, environment: Mapping[str, Any], rows: Rows) -> StudyStore:
        """Make a new study in `folder`, its tables empty but for `rows` (by table)."""
        new_folder(folder)
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
        with transaction(self.connection, self.folder / STUDY_DATABASE) as connection:
            _insert(connection, rows)
            connection.execute("INSERT INTO parts VALUES (?)", (name,))

    def finish(self) -> None:
        """Fold the write-ahead log into study.sqlite, so that the study is one file that can be copied."""
        fold(self.connection)


def finish_writing(folder: Path) -> None:
    """Fold what a killed process left beside the database of a finished study; not while another process writes."""
    if (folder / f"{STUDY_DATABASE}-wal").exists():
        with contextlib.suppress(HsgdError), StudyStore.open(folder) as store:
            store.finish()


def remove_study(folder: Path, locked: bool = False) -> None:
    """Delete a study's own files from `folder` and nothing else that lies there; the database goes first.

    locked: the caller holds the folder's lock.
    """
    if not folder.is_dir():
        return
    lock = None if locked else lock_folder(folder)
    remove_database(folder / STUDY_DATABASE)
    for name in (STUDY_FILE, ENVIRONMENT_FILE, REPORT_FILE):
        (folder / name).unlink(missing_ok=True)
    if lock is not None:
        os.close(lock)


def _create_database(folder: Path, rows: Rows) -> None:
    """Put the database of a new study in its place."""
    create_database(folder / STUDY_DATABASE, FORMAT, lambda connection: _insert(connection, rows))


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    for table, values in rows.items():
        marks = ", ".join("?" * len(TABLES[table]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
