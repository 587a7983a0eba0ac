"""A run's tables as pandas frames and as files; also while the run is still written."""

from __future__ import annotations

import contextlib
import csv
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hsgd_emu.atomic import refuse_foreign, replacing, replacing_text
from hsgd_emu.errors import ConfigError, nearest, unwritable
from hsgd_emu.results.database import Column
from hsgd_emu.results.folder import read_environment, read_run_file, require_run_folder
from hsgd_emu.results.summary import summarise
from hsgd_emu.results.tables import TABLES, connect_to_read, select

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet")
_PARQUET_MARK = "exported by hsgd_emu"  # in the metadata of a table that we write
_FORMULA = re.compile("'*[=+@\t\r-]")
_ARMED = re.compile("^'(?='*[=+@\t\r-])")
_BATCH = 100_000  # rows held at a time while exporting: a timeline can have millions


class Table(cached_property["pd.DataFrame"]):
    """A table of `Results`: a frame that is read when it is first asked for, and kept. Its name is the attribute's."""

    def __init__(self, doc: str) -> None:
        super().__init__(lambda results: results._frame(self.attrname))
        self.__doc__ = doc


class Results:
    """The results in one folder, as pandas frames."""

    tables: ClassVar[Mapping[str, tuple[Column, ...]]]
    connect: ClassVar[staticmethod[[Path], sqlite3.Connection]]
    select: ClassVar[staticmethod[[sqlite3.Connection, str], Iterator[tuple[Any, ...]]]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def environment(self) -> dict[str, Any]:
        """The versions and the machine that the results were made with."""
        return read_environment(self.folder)

    def _frame(self, table: str) -> pd.DataFrame:
        import pandas as pd

        columns = self.tables[table]
        with contextlib.closing(self.connect(self.folder)) as connection:
            rows = list(self.select(connection, table))
        return pd.DataFrame.from_records(rows, columns=[column.name for column in columns]).astype(dtypes(columns))


class RunResults(Results):
    """The results in one run folder. Each table is read when it is first asked for, and kept."""

    tables, connect, select = TABLES, staticmethod(connect_to_read), staticmethod(select)
    curve = Table("One row per evaluated global aggregation.")
    timeline = Table("One row per activity of a node.")
    targets = Table("When each finished trial reached each target; NaN where never.")
    trials = Table("One row per case and seed: status, progress, hashes, cost on the host.")
    barriers = Table("What each aggregation waited for.")
    waits = Table("How long each node waited in each round.")
    workers = Table("One row per worker and evaluation, where the run asks for them.")

    @cached_property
    def run(self) -> dict[str, Any]:
        """The run file, everything resolved."""
        return read_run_file(self.folder)

    def summary(self) -> pd.DataFrame:
        """Return the time-to-target table: one row per case and target, medians over the finished seeds.

        Columns: case, local_sgd, metric, target, num_seeds, num_reached, time_s, least_time_s, most_time_s,
        iterations, communication_share, published_time_s, final_accuracy. A run without targets has one row per case.
        """
        import pandas as pd

        nothing = (None, None, 0, 0, None, None, None, None, None, None)
        rows = []
        for case in summarise(self.folder):
            targets: list[tuple[Any, ...]] = [tuple(vars(target).values()) for target in case.targets]
            for values in targets or [nothing]:
                rows.append((case.case, case.local_sgd, *values, case.final_accuracy))
        frame = pd.DataFrame(rows, columns=list(_SUMMARY))
        floats = dict.fromkeys([name for name in _SUMMARY if name not in _NOT_FLOAT], "float64")
        return frame.astype({"case": "str", "metric": "str", **floats})


_SUMMARY = (
    *("case", "local_sgd", "metric", "target", "num_seeds", "num_reached"),
    *("time_s", "least_time_s", "most_time_s", "iterations", "communication_share"),
    *("published_time_s", "final_accuracy"),
)
_NOT_FLOAT = ("case", "local_sgd", "metric", "num_seeds", "num_reached")


def dtypes(columns: Sequence[Column]) -> dict[str, str]:
    """Return pandas dtypes. An integer that can be null is float64, whether or not one happens to be."""
    names = {"TEXT": "str", "INTEGER": "int64", "REAL": "float64"}
    return {
        column.name: "float64" if column.null and column.type == "INTEGER" else names[column.type] for column in columns
    }


def read_run(folder: Path | str) -> RunResults:
    """Return the results in a run folder, finished or not.

    Raises:  ConfigError: the folder holds no run.
    """
    require_run_folder(Path(folder))
    return RunResults(Path(folder))


def export(folder: Path, format: str, out: Path, force: bool = False) -> list[Path]:
    """Write one file per table into `out` and return their paths.

    CSV: floats with all their digits, nulls and empty strings as nothing. Texts that a spreadsheet would take for a
    formula (they begin with = + - @, a tab or a carriage return) have an apostrophe before them, which `read_csv` here
    takes away again; Parquet has them as they are. A node may be called NA, which
    `pandas.read_csv` takes for a null unless told `keep_default_na=False`: `read_csv` here reads them right.

    Args:    format: csv or parquet.  force: overwrite files that are no such tables.
    Raises:  ConfigError: another format, the folder holds no run, or `out` cannot be written.
    """
    with contextlib.closing(connect_to_read(folder)) as connection:
        return export_tables(connection, TABLES, select, format, out, force)


def export_tables(
    connection: sqlite3.Connection,
    tables: Mapping[str, Sequence[Column]],
    rows_of: Callable[[sqlite3.Connection, str], Iterator[tuple[Any, ...]]],
    format: str,
    out: Path,
    force: bool = False,
) -> list[Path]:
    """Write one file per table, as `export` does, from a database that is open to read."""
    if format not in FORMATS:
        raise ConfigError.of("--format", "", f"{format!r} is not csv or parquet{nearest(format, FORMATS)}")
    write = _write_csv if format == "csv" else _write_parquet
    paths = [out / f"{table}.{format}" for table in tables]
    for path, columns in zip(paths, tables.values(), strict=True):
        refuse_foreign(path, _header(columns) if format == "csv" else _PARQUET_MARK, force)
    connection.execute("BEGIN")  # one snapshot for all tables
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path, (table, columns) in zip(paths, tables.items(), strict=True):
            write(path, columns, rows_of(connection, table))
    except OSError as error:
        raise unwritable(out, error) from error
    return paths


def read_csv(path: Path) -> pd.DataFrame:
    """Return an exported CSV table as `RunResults` gives it: a node called NA stays a node."""
    import pandas as pd

    # Text first, then numbers by Python's own rule: pandas' fast parsers may miss the last digit.
    frame = pd.read_csv(path, keep_default_na=False, dtype="str")
    for column in TABLES[path.stem]:
        if column.type == "TEXT":
            frame[column.name] = frame[column.name].str.replace(_ARMED, "", regex=True)
        if column.null:
            frame[column.name] = frame[column.name].mask(frame[column.name] == "")
    return frame.astype(dtypes(TABLES[path.stem]))


def _write_csv(path: Path, columns: Sequence[Column], rows: Iterator[tuple[Any, ...]]) -> None:
    with replacing_text(path, newline="") as file:
        file.write(_header(columns))
        writer = csv.writer(file, lineterminator="\n")
        texts = [number for number, column in enumerate(columns) if column.type == "TEXT"]
        for row in rows:
            writer.writerow(_disarmed(row, texts))


def _disarmed(row: tuple[Any, ...], texts: Sequence[int]) -> Sequence[Any]:
    """Return a row whose texts no spreadsheet takes for formulas: an apostrophe stands before them (OWASP)."""
    if not any(row[number] and _FORMULA.match(row[number]) for number in texts):
        return row
    disarmed = list(row)
    for number in texts:
        if row[number] and _FORMULA.match(row[number]):
            disarmed[number] = f"'{row[number]}"
    return disarmed


def _header(columns: Sequence[Column]) -> str:
    return f"{','.join(column.name for column in columns)}\n"


def _write_parquet(path: Path, columns: Sequence[Column], rows: Iterator[tuple[Any, ...]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"TEXT": pa.string(), "INTEGER": pa.int64(), "REAL": pa.float64()}
    fields = [pa.field(c.name, types[c.type], nullable=c.null) for c in columns]
    schema = pa.schema(fields, metadata={"generator": _PARQUET_MARK})
    with replacing(path) as file, pq.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            arrays = [
                pa.array(values, field.type) for values, field in zip(zip(*batch, strict=True), schema, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
