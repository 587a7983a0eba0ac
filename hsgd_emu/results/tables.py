"""The tables of run.sqlite: their columns (a public format), and reading them while they are written."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsgd_emu.results import database
from hsgd_emu.results.database import Column, Format, bounded, table_sql
from hsgd_emu.results.folder import DATABASE_FILE, require_run_folder
from hsgd_emu.results.rows import CurveRow, TrialKey

__all__ = ["FORMAT", "TABLES", "Column", "connect_to_read", "curve_rows", "insert", "quoted", "select"]


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
        # The first evaluated global aggregation at which the global model, or a loss, was not finite.
        *_integer("diverged_at", null=True),
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

CHECKPOINTS = (*_TRIAL, *_integer("iteration"), *_text("sha256"))
"""The last checkpoints of each trial: the iteration, and the hash of the file."""

_OTHERS = {"target_levels": TARGET_LEVELS, "checkpoints": CHECKPOINTS}
"""Tables that are no results."""

FORMAT = Format(
    "a run",
    {
        name: table_sql(name, columns, *(['UNIQUE ("case", seed)'] if name == "trials" else []))
        for name, columns in {**TABLES, **_OTHERS}.items()
    },
    {**{name: TABLES[name] for name in ("trials", "curve", "targets")}, **_OTHERS},
    {
        # All of curve is held in memory: not what a stranger has put in there without end.
        "more rows in table curve than iterations": "SELECT 1 WHERE (SELECT count(*) FROM curve) > "
        "(SELECT total(iteration) FROM trials)",
        "a row in table curve beyond its trial": 'SELECT 1 FROM curve c LEFT JOIN trials t ON t."case" = c."case" '
        "AND t.seed = c.seed WHERE t.iteration IS NULL OR c.iteration > t.iteration",
    },
)


def quoted(columns: Sequence[Column], table: str = "") -> str:
    """Return the column names for SQL; quoted, for `case` is a keyword."""
    prefix = f"{table}." if table else ""
    return ", ".join(f'{prefix}"{column.name}"' for column in columns)


def insert(connection: sqlite3.Connection, table: str, rows: Iterator[tuple[Any, ...]]) -> None:
    """Insert whole rows, in table column order."""
    marks = ", ".join("?" * len(TABLES[table]))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)


def connect_to_read(folder: Path) -> sqlite3.Connection:
    """Return a read-only connection to a run, finished or still being written.

    Raises:  ConfigError: the folder holds no run, or its database is damaged or none of ours.
    """
    require_run_folder(folder)
    return database.connect_to_read(folder / DATABASE_FILE, FORMAT)


def select(
    connection: sqlite3.Connection, table: str, where: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[Any, ...]]:
    """Yield a table's rows, trials in run order and each trial's rows as they were written.

    where: an SQL condition on the table (called `t`), for instance ``t.kind = ?``.
    """
    columns = quoted(TABLES[table], "t")
    condition = f"WHERE {where}" if where else ""
    rows = connection.execute(
        f'SELECT {columns} FROM {table} t JOIN trials r ON r."case" = t."case" AND r.seed = t.seed '
        f"{condition} ORDER BY r.rowid, t.rowid",
        values,
    )
    yield from bounded(connection, rows, len(TABLES[table]))


def curve_rows(
    connection: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[TrialKey, CurveRow]]:
    """Yield rows of `curve` as `select` does, with their trials.

    A NaN is kept as null: from where a trial has diverged on, the test loss is NaN unless a loss is infinite.
    """
    diverged_at = {TrialKey(*row[:2]): row[-1] for row in select(connection, "trials")}
    for case, seed, *values_ in select(connection, "curve", where, values):
        key, row = TrialKey(case, seed), CurveRow(*values_)
        since = diverged_at[key]
        has_diverged = since is not None and row.iteration >= since
        yield key, replace(row, test_loss=math.nan) if has_diverged and row.is_finite else row
