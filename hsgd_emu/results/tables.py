"""The tables of run.sqlite: their columns (a public format), and reading them while they are written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import DATABASE_FILE, require_run_folder

ColumnType = Literal["TEXT", "INTEGER", "REAL"]


class Column(NamedTuple):
    """One column; `null` tells whether it can be null."""

    name: str
    type: ColumnType
    null: bool = False


def _text(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, "TEXT") for name in names)


def _integer(*names: str, null: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, "INTEGER", null) for name in names)


def _real(*names: str, null: bool = False) -> tuple[Column, ...]:
    return tuple(Column(name, "REAL", null) for name in names)


_TRIAL = (Column("case", "TEXT"), Column("seed", "INTEGER"))

TABLES: dict[str, tuple[Column, ...]] = {
    "curve": (
        *_TRIAL,
        *_integer("round", "iteration"),
        *_real("time_s", "aggregated_s", "compute_s", "communication_s", "aggregation_s"),
        *_real("train_loss", "test_loss", "test_accuracy", null=True),
    ),
    "timeline": (
        *_TRIAL,
        *_text("node", "kind"),
        *_real("start_s", "end_s"),
        *_integer("iteration", "bytes"),
        *_text("peer"),
    ),
    "targets": (
        *_TRIAL,
        *_text("metric"),
        *_real("target"),
        *_real("time_s", null=True),
        *_integer("iteration", "round", null=True),
    ),
    "trials": (
        *_TRIAL,
        *_text("status"),
        *_integer("iteration", "round"),
        *(Column(name, "TEXT", True) for name in ("weights_hash", "timeline_hash", "engine")),
        *_real("wall_s", null=True),
    ),
    "barriers": (
        *_TRIAL,
        *_text("server"),
        *_integer("iteration"),
        *_real("ready_s"),
        *_text("waited_for", "link"),
        *_real("slack_s"),
    ),
    "waits": (*_TRIAL, *_integer("round"), *_text("node"), *_real("wait_s")),
}

TARGET_LEVELS = (*_text("metric"), *_real("target"))
"""What the run file asks for; `targets` has the answers."""


def quoted(columns: Sequence[Column], table: str = "") -> str:
    """Return the column names for SQL; quoted, for `case` is a keyword."""
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{column.name}"' for column in columns)


def create_tables(connection: sqlite3.Connection) -> None:
    """Create all tables. STRICT, so that a NumPy integer is an error here and not a blob in the file."""
    for name, columns in {**TABLES, "target_levels": TARGET_LEVELS}.items():
        parts = [f'"{c.name}" {c.type}{"" if c.null else " NOT NULL"}' for c in columns]
        if name == "trials":
            parts.append('UNIQUE ("case", seed)')
        connection.execute(f"CREATE TABLE {name} ({', '.join(parts)}) STRICT")


def insert(connection: sqlite3.Connection, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    """Insert whole rows, in table column order."""
    marks = ", ".join("?" * len(TABLES[table]))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def connect_to_read(folder: Path) -> sqlite3.Connection:
    """Return a read-only connection to a run, finished or still being written.

    Raises:  ConfigError: the folder holds no run, or its database cannot be read.
    """
    require_run_folder(folder)
    return open_to_read(folder / DATABASE_FILE, "trials", "a run")


def open_to_read(path: Path, table: str, whose: str) -> sqlite3.Connection:
    """Return a read-only connection to the database of a run or a study, which must have this table.

    Raises:  ConfigError: it cannot be read.
    """
    path = path.absolute()
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60, isolation_level=None)
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    except sqlite3.Error as error:
        raise ConfigError.of(str(path), "", f"cannot be read as {whose}'s database ({error})") from error
    return connection


def select(
    connection: sqlite3.Connection, table: str, where: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yield a table's rows, trials in run order and each trial's rows as they were written.

    where: an SQL condition on the table (called `t`), for instance ``t.kind = ?``.
    """
    columns = quoted(TABLES[table], "t")
    condition = f"WHERE {where}" if where else ""
    yield from connection.execute(
        f'SELECT {columns} FROM {table} t JOIN trials r ON r."case" = t."case" AND r.seed = t.seed '
        f"{condition} ORDER BY r.rowid, t.rowid",
        values,
    )
