"""The tables of study.sqlite (a public format), read as pandas frames or exported; also while they are written."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsgd_emu.errors import ConfigError
from hsgd_emu.results import database
from hsgd_emu.results.database import Column, ColumnType, Format, bounded, table_sql
from hsgd_emu.results.folder import STUDY_DATABASE, read_environment, read_study_file
from hsgd_emu.results.read import dtypes, export_tables
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

RESULTS = ("summary", "wins", "best", "crossovers")
"""What is worked out of `times` when all of them are there."""


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


class StudyResults:
    """The results in one study folder, as pandas frames. Each table is read when first asked for, and kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def study(self) -> dict[str, Any]:
        """The study file, everything resolved: `axes` with their values, `run` with its cases and targets."""
        return read_study_file(self.folder)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The versions and the machine that the study used."""
        return read_environment(self.folder)

    @cached_property
    def scenarios(self) -> pd.DataFrame:
        """One row per scenario and axis."""
        return self._frame("scenarios")

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Which trained trial stands behind each scenario, case and seed."""
        return self._frame("trials")

    @cached_property
    def diverged(self) -> pd.DataFrame:
        """Which trained trials diverged, and at which iteration."""
        return self._frame("diverged")

    def diverged_in_words(self) -> str:
        """Say which trials diverged; nothing where none did."""
        found = self.trials.drop_duplicates("trial").merge(self.diverged, on="trial")
        return diverged_in_words(list(found[["case", "seed", "diverged_at"]].itertuples(index=False, name=None)))

    @cached_property
    def times(self) -> pd.DataFrame:
        """When each replication of each trial reached each target; NaN where never."""
        return self._frame("times")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Median, quantiles and confidence interval over seeds and replications."""
        return self._frame("summary")

    @cached_property
    def wins(self) -> pd.DataFrame:
        """The probability that one case reaches a target before another."""
        return self._frame("wins")

    @cached_property
    def best(self) -> pd.DataFrame:
        """The case that reaches a target first, and by how much."""
        return self._frame("best")

    @cached_property
    def crossovers(self) -> pd.DataFrame:
        """Where along an axis the best case changes; `fixed` as JSON (see `fixed_of`)."""
        return self._frame("crossovers")

    def _frame(self, table: str) -> pd.DataFrame:
        import pandas as pd

        columns = [column.name for column in TABLES[table]]
        with contextlib.closing(connect_to_read(self.folder)) as connection:
            frame = pd.DataFrame.from_records(list(select(connection, table)), columns=columns)
        return frame.astype(dtypes(TABLES[table]))


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
