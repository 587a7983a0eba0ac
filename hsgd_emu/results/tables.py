"""The tables of run.sqlite: their columns (a public format), and reading them while they are written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

from hsgd_emu.metrics import Metrics, OfWorker, Target
from hsgd_emu.results import database
from hsgd_emu.results.database import Column, ColumnType, Format, bounded, table_sql
from hsgd_emu.results.folder import DATABASE_FILE, require_run_folder
from hsgd_emu.results.rows import (
    BarrierRow,
    CurveRow,
    TargetRow,
    TimelineRow,
    TrialKey,
    TrialRow,
    TrialStatus,
    WaitRow,
)

_TYPES: dict[Any, ColumnType] = {str: "TEXT", TrialStatus: "TEXT", int: "INTEGER", float: "REAL"}


def _columns(row: type) -> tuple[Column, ...]:
    """Return the columns of rows of a class: its fields in their order, each of `Metrics` by itself."""
    found: list[Column] = []
    for name, hint in get_type_hints(row).items():
        null = isinstance(hint, UnionType)
        kind = get_args(hint)[0] if null else hint
        found += _columns(Metrics) if kind is Metrics else [Column(name, _TYPES[kind], null)]
    return tuple(found)


_TRIAL = (Column("case", "TEXT"), Column("seed", "INTEGER"))

TABLES: dict[str, tuple[Column, ...]] = {
    "curve": (*_TRIAL, *_columns(CurveRow)),
    "timeline": (*_TRIAL, *_columns(TimelineRow)),
    "targets": (*_TRIAL, *_columns(TargetRow)),
    "trials": _columns(TrialRow),
    "barriers": (*_TRIAL, *_columns(BarrierRow)),
    "waits": (*_TRIAL, Column("round", "INTEGER"), *_columns(WaitRow)),
    "workers": (*_TRIAL, *_columns(OfWorker)),
}

TARGET_LEVELS = (Column("metric", "TEXT"), Column("target", "REAL"))
"""What the run file asks for; `targets` has the answers."""

CHECKPOINTS = (*_TRIAL, Column("iteration", "INTEGER"), Column("sha256", "TEXT"))
"""The last checkpoints of each trial: the iteration, and the hash of the file."""

_OTHERS = {"target_levels": TARGET_LEVELS, "checkpoints": CHECKPOINTS}  # tables that are no results

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


def select(connection: sqlite3.Connection, table: str, where: str = "", values: Sequence[Any] = ()) -> Iterator[Any]:
    """Yield a table's rows, trials in run order and each trial's rows as they were written.

    A row is a named tuple of the table's columns.

    where: an SQL condition on the table (called `t`), for instance ``t.kind = ?``.
    """
    columns = quoted(TABLES[table], "t")
    condition = f"WHERE {where}" if where else ""
    rows = connection.execute(
        f'SELECT {columns} FROM {table} t JOIN trials r ON r."case" = t."case" AND r.seed = t.seed '
        f"{condition} ORDER BY r.rowid, t.rowid",
        values,
    )
    yield from bounded(connection, rows, TABLES[table])


def trial_rows(connection: sqlite3.Connection) -> list[TrialRow]:
    """Return how far each trial is, in run order."""
    return [TrialRow(*row) for row in select(connection, "trials")]


def target_levels(connection: sqlite3.Connection) -> tuple[Target, ...]:
    """Return the targets of the run file."""
    return tuple(connection.execute("SELECT metric, target FROM target_levels ORDER BY rowid"))


def curve_rows(
    connection: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()
) -> Iterator[tuple[TrialKey, CurveRow]]:
    """Yield rows of `curve` as `select` does, with their trials.

    A NaN is kept as null: from where a trial has diverged on, the test loss is NaN unless a loss is infinite.
    """
    diverged_at = {trial.key: trial.diverged_at for trial in trial_rows(connection)}
    for case, seed, *cells in select(connection, "curve", where, values):
        key, row = TrialKey(case, seed), CurveRow.of(cells)
        since = diverged_at[key]
        has_diverged = since is not None and row.iteration >= since
        if has_diverged and row.metrics.is_finite:
            row = row._replace(metrics=row.metrics.diverged())
        yield key, row


def worker_rows(
    connection: sqlite3.Connection, key: TrialKey | None = None
) -> dict[TrialKey, dict[int, list[OfWorker]]]:
    """Return the rows of `workers` by trial (default: of all) and iteration."""
    where = ("", ()) if key is None else ('t."case" = ? AND t.seed = ?', key)
    found: dict[TrialKey, dict[int, list[OfWorker]]] = {}
    for case, seed, *cells in select(connection, "workers", *where):
        row = OfWorker(*cells)
        found.setdefault(TrialKey(case, seed), {}).setdefault(row.iteration, []).append(row)
    return found
