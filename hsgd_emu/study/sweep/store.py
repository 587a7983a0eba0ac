"""The tables of study.sqlite (a public format): written part by part, read as pandas frames or exported."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsgd_emu.atomic import write_atomically
from hsgd_emu.errors import ConfigError
from hsgd_emu.results import database
from hsgd_emu.results.database import (
    Column,
    ColumnType,
    Format,
    bounded,
    create_database,
    remove_database,
    table_sql,
)
from hsgd_emu.results.folder import (
    REPORT_FILE,
    STUDY_DATABASE,
    STUDY_FILE,
    Store,
    new_folder,
    read_study_file,
    write_environment,
)
from hsgd_emu.results.read import Results, Table, export_tables
from hsgd_emu.results.tables import quoted
from hsgd_emu.results.wording import diverged_in_words
from hsgd_emu.study.sweep.crossover import Crossover

if TYPE_CHECKING:
    import pandas as pd


def _columns(*names: str) -> tuple[Column, ...]:
    """Return columns out of names such as `time_s REAL?` (`?`: can be null); text where no type is given."""
    types: dict[str, ColumnType] = {"": "TEXT", "TEXT": "TEXT", "INTEGER": "INTEGER", "REAL": "REAL"}
    split = [text.partition(" ") for text in names]
    return tuple(Column(name, types[kind.rstrip("?")], kind.endswith("?")) for name, _, kind in split)


_SCENARIO, _TARGET = "scenario INTEGER", ("metric", "target REAL")

TABLES: dict[str, tuple[Column, ...]] = {
    # One row per scenario and axis, scenarios from 0, axes in the order of the file. number: null for what is none.
    "scenarios": _columns(_SCENARIO, "axis", "value", "number REAL?"),
    # trial: the key of the trained trial in the library; equal for those that share what is learned.
    "trials": _columns(_SCENARIO, "case", "seed INTEGER", "trial"),
    # The trained trials that diverged, and the first evaluated iteration at which they had.
    "diverged": _columns("trial", "diverged_at INTEGER"),
    # Null: never reached. communication_s and compute_s: of time_s, along the critical path.
    "times": _columns(
        *(_SCENARIO, "case", "seed INTEGER", "replication INTEGER", *_TARGET),
        *("time_s REAL?", "iteration INTEGER?", "communication_s REAL?", "compute_s REAL?"),
    ),
    # Over seeds and replications: q10 and q90 are quantiles, low and high the 95% interval of the median. Null: never.
    "summary": _columns(
        *(_SCENARIO, "case", *_TARGET, "num INTEGER", "num_reached INTEGER"),
        *("median_s REAL?", "q10_s REAL?", "q90_s REAL?", "low_s REAL?", "high_s REAL?"),
    ),
    # probability: that `case` reaches the target before `other`, ties half; every ordered pair.
    "wins": _columns(_SCENARIO, *_TARGET, "case", "other", "probability REAL"),
    # The case of least median; no row where none reaches the target. margin: second best median / best; null: alone.
    "best": _columns(_SCENARIO, *_TARGET, "case", "margin REAL?"),
    # Along `axis` the best case changes from `below` to `above` at `value`; fixed: the other axes' values, as JSON.
    "crossovers": _columns(*_TARGET, "axis", "fixed", "below", "above", "value REAL"),
}

FORMAT = Format(
    "a study",
    {
        **{name: table_sql(name, columns) for name, columns in TABLES.items()},
        "parts": "CREATE TABLE parts (part TEXT PRIMARY KEY) STRICT",
    },
    TABLES,
)


def is_study_folder(folder: Path) -> bool:
    """Tell whether `folder` holds a study. The database is put in place last, so it vouches for the rest."""
    return (folder / STUDY_DATABASE).is_file()


def require_study_folder(folder: Path) -> None:
    """Raise ConfigError unless `folder` holds a study."""
    if not is_study_folder(folder):
        found = f"has no {STUDY_DATABASE}" if folder.is_dir() else "is no folder"
        text = f"{found}; right would be the folder that `hsgd-emu study` wrote (runs/out/NAME)"
        raise ConfigError.of(str(folder), "", text)


def connect_to_read(folder: Path) -> sqlite3.Connection:
    require_study_folder(folder)
    return database.connect_to_read(folder / STUDY_DATABASE, FORMAT)


def select(connection: sqlite3.Connection, table: str) -> Iterator[Any]:
    """Yield a table's rows as they were written, each a named tuple of the table's columns."""
    rows = connection.execute(f"SELECT {quoted(TABLES[table])} FROM {table} ORDER BY rowid")
    yield from bounded(connection, rows, TABLES[table])


class StudyResults(Results):
    """The results in one study folder, as pandas frames. Each table is read when first asked for, and kept."""

    tables, connect, select = TABLES, staticmethod(connect_to_read), staticmethod(select)
    scenarios = Table("One row per scenario and axis.")
    trials = Table("Which trained trial stands behind each scenario, case and seed.")
    diverged = Table("Which trained trials diverged, and at which iteration.")
    times = Table("When each replication of each trial reached each target; NaN where never.")
    summary = Table("Median, quantiles and confidence interval over seeds and replications.")
    wins = Table("The probability that one case reaches a target before another.")
    best = Table("The case that reaches a target first, and by how much.")
    crossovers = Table("Where along an axis the best case changes; `fixed` as JSON (see `fixed_of`).")

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study file, everything resolved: `axes` with their values, `run` with its cases and targets."""
        return read_study_file(self.folder)

    def diverged_in_words(self) -> str:
        """Say which trials diverged; nothing where none did."""
        found = self.trials.drop_duplicates("trial").merge(self.diverged, on="trial")
        return diverged_in_words(list(found[["case", "seed", "diverged_at"]].itertuples(index=False, name=None)))


def fixed_of(text: str) -> dict[str, Any]:
    """Return what `crossovers.fixed` holds: the values of the other axes by name."""
    return dict(json.loads(text))


def crossovers_of(frame: pd.DataFrame) -> tuple[Crossover, ...]:
    """Return the rows of the table `crossovers`."""
    rows: Iterator[Any] = frame.itertuples()
    return tuple(
        Crossover(row.metric, row.target, row.axis, fixed_of(row.fixed), row.below, row.above, row.value)
        for row in rows
    )


def read_study(folder: Path | str) -> StudyResults:
    """Return the results in a study folder, finished or not.

    Raises:  ConfigError: the folder holds no study.
    """
    require_study_folder(Path(folder))
    return StudyResults(Path(folder))


def export_study(folder: Path, format: str, out: Path, force: bool = False) -> list[Path]:
    """Write one file per table of a study into `out` (format: csv or parquet) and return their paths."""
    with contextlib.closing(connect_to_read(folder)) as connection:
        return export_tables(connection, TABLES, select, format, out, force)


Rows = Mapping[str, Iterable[Sequence[Any]]]
"""Rows to write, by table."""


class StudyStore(Store):
    """A study open for writing: parts go in as they are worked out, each whole (as rounds do into a run)."""

    file, format, require = STUDY_DATABASE, FORMAT, staticmethod(require_study_folder)

    @classmethod
    def create(cls, folder: Path, study_yaml: str, environment: Mapping[str, Any], rows: Rows) -> StudyStore:
        """Make a new study in `folder`, in the place of one that is there; its tables are empty but for `rows`."""

        def prepare() -> None:
            remove_database(folder / STUDY_DATABASE)  # goes first: it vouches for the rest
            (folder / REPORT_FILE).unlink(missing_ok=True)
            write_atomically(folder / STUDY_FILE, study_yaml)
            write_environment(folder, dict(environment))
            create_database(folder / STUDY_DATABASE, FORMAT, lambda connection: _insert(connection, rows))

        new_folder(folder)
        return cls._prepared(folder, prepare)

    def done(self) -> set[str]:
        """Return the names of the parts that are written."""
        return {name for (name,) in self.connection.execute("SELECT part FROM parts")}

    def write_part(self, name: str, rows: Rows) -> None:
        """Write the rows (by table) of one part of the study, all or nothing."""
        with self.transaction() as connection:
            _insert(connection, rows)
            connection.execute("INSERT INTO parts VALUES (?)", (name,))


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    for table, values in rows.items():
        marks = ", ".join("?" * len(TABLES[table]))
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
