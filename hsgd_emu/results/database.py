"""SQLite files as we keep them: born in WAL mode, folded into one file in the end, read as what a stranger sent.

No rollback journal is ever written: a kill leaves a database with its write-ahead log, which the next one who opens it
reads. One that an earlier version left is rolled back, by writers and by readers.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hsgd_emu.atomic import write_atomically
from hsgd_emu.errors import ConfigError, RunError, listed
from hsgd_emu.units import MOST_NS, to_s

ColumnType = Literal["TEXT", "INTEGER", "REAL"]

_BESIDE = ("-journal", "-wal", "-shm")
_MOST_TEXT = 2**20  # bytes of a single value that are read
_LEAST_ROW = 5  # bytes that a row takes in the file, at least, beside one for each column
_PATIENCE_S = 10  # for reading what tables there are
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""At the end of a journal that names another file, which SQLite might delete; ours never do."""
_LATEST_S = to_s(MOST_NS)  # the clock counts nanoseconds in 63 bits


class Column(NamedTuple):
    """One column; `null` tells whether it can be null."""

    name: str
    type: ColumnType
    null: bool = False


class Format(NamedTuple):
    """What a database of ours holds. whose: as in "a run". sql: by table, how it is created."""

    whose: str
    sql: Mapping[str, str]
    checked: Mapping[str, Sequence[Column]]
    """Tables whose every value is looked at when the database is opened to read: those that are small."""
    rules: Mapping[str, str] = {}
    """What must not be found, by what is wrong then; looked at too."""


def table_sql(name: str, columns: Sequence[Column], *rules: str) -> str:
    """Return how a table is created. STRICT, so that a NumPy integer is an error here and not a blob in the file."""
    parts = [f'"{c.name}" {c.type}{"" if c.null else " NOT NULL"}' for c in columns]
    return f"CREATE TABLE {name} ({', '.join([*parts, *rules])}) STRICT"


# --- writing ------------------------------------------------------------------------------------------


def create_database(path: Path, format: Format, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Put a new database, filled, in its place whole; what lies beside that place from another one goes before."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for sql in format.sql.values():
            connection.execute(sql)
        fill(connection)
        connection.execute("COMMIT")
        content = bytearray(connection.serialize())
    # https://sqlite.org/fileformat.html: 2 is WAL. Switched to it later, a file would need a rollback journal.
    content[18:20] = b"\x02\x02"
    remove_database(path)
    write_atomically(path, bytes(content))


def remove_database(path: Path) -> None:
    """Delete a database. It goes first: without it, what is beside it means nothing, and is removed by the next one."""
    for name in (path, *_beside(path)):
        name.unlink(missing_ok=True)


def connect_to_write(path: Path, format: Format) -> sqlite3.Connection:
    """Open a database that is there to write; what a killed process left undone is rolled back or taken in.

    Raises:  ConfigError: it is none of ours, or damaged.
    """
    with _readable(path, format):
        _refuse_foreign(path)
        connection = sqlite3.connect(_uri(path, "rw"), uri=True, timeout=60, isolation_level=None)
        with _closed_if_failing(connection):
            _guard(connection)
            _check(connection, path, format)
            # From the mode of one that was folded straight to WAL, SQLite would write a rollback journal.
            if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    """Write to a database, all or nothing.

    Raises:  RunError: the disk is full, the folder is gone, or the like; what was written before is kept.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except BaseException as error:
        # Where the disk is full, SQLite has rolled back by itself.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            raise RunError(f"{path}: cannot be written ({error}); what was written before is kept") from error
        raise
    if not path.exists():
        raise RunError(f"{path}: is gone; somebody removed or moved it while it was written")


def fold(connection: sqlite3.Connection) -> None:
    """Fold the write-ahead log into the database, so that it is one file that can be copied."""
    # Busy: somebody reads just now. The log stays then, which is whole too.
    # In memory: what it takes is one page, written at once, and no journal that a kill could leave.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = MEMORY")


# --- reading ------------------------------------------------------------------------------------------


def connect_to_read(path: Path, format: Format) -> sqlite3.Connection:
    """Return a read-only connection to a database, finished or still being written, whoever it is from.

    Raises:  ConfigError: it is none of ours, damaged, or cannot be read where it lies.
    """
    with _readable(path, format):
        _refuse_foreign(path)
        connection = _opened(path)
        with _closed_if_failing(connection):
            _check(connection, path, format)
        return connection


def most_rows(path: Path, num_columns: int) -> int:
    """Return how many rows a table could have at most: a hostile file can make SQLite find more, without end."""
    log = path.with_name(f"{path.name}-wal")
    sizes = [name.stat().st_size for name in (path, log) if name.exists()]
    return sum(sizes) // (_LEAST_ROW + num_columns)


def bounded(
    connection: sqlite3.Connection, rows: Iterator[tuple[Any, ...]], columns: tuple[Column, ...]
) -> Iterator[Any]:
    """Yield rows of one table as named tuples, as many as the file of its database can hold.

    Raises:  ConfigError: there are more, or the database is damaged.
    """
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2])
    try:
        yield from map(_row_class(columns)._make, islice(rows, most_rows(path, len(columns))))
        if next(rows, None) is None:
            return
    except sqlite3.DatabaseError as error:
        raise _damaged(path, str(error)) from error
    raise _damaged(path, "a table has more rows than the file can hold")


@cache
def _row_class(columns: tuple[Column, ...]) -> Any:
    make: Any = namedtuple  # mypy would have the names written here
    return make("Row", [column.name for column in columns])


def has_tables(path: Path, tables: Sequence[str]) -> bool:
    """Tell whether this is a database with tables of these names, of whatever form."""
    marks = ", ".join("?" * len(tables))
    try:
        _refuse_foreign(path)
        with contextlib.closing(sqlite3.connect(_uri(path, "ro"), uri=True, isolation_level=None)) as connection:
            _guard(connection)
            with _in_time(connection):
                sql = f"SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ({marks})"
                return bool(connection.execute(sql, tables).fetchone()[0] == len(tables))
    except (sqlite3.Error, ConfigError):
        return False


def complaint_on(
    path: Path,
    format: Format,
    read: Callable[[], Any],
    contradictions: Callable[[sqlite3.Connection, Any], Iterator[str]],
) -> ConfigError | None:
    """Return what is wrong with a database, all of which is looked at, and what goes with it; None: nothing.

    read: what goes with it, of which there is none where there is no database.
    contradictions: to what is read, in words.
    """
    if not path.is_file():
        return None
    try:
        beside = read()
        with contextlib.closing(connect_to_read(path, format)) as connection:
            with _readable(path, format):
                found = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
            if found != ["ok"]:
                raise _damaged(path, listed(found))
            wrong = next(contradictions(connection, beside), None)
    except ConfigError as error:
        return error
    except sqlite3.Error as error:
        return _damaged(path, str(error))
    return None if wrong is None else ConfigError.of(str(path), "", f"is not as hsgd-emu wrote it: {wrong}")


def _opened(path: Path) -> sqlite3.Connection:
    """Return a read-only connection that has read something; a forgotten rollback journal is rolled back before."""
    try:
        return _reading(_uri(path, "ro"))
    except sqlite3.OperationalError:
        journal, log = (path.with_name(f"{path.name}{end}") for end in ("-journal", "-wal"))
        if journal.exists():
            _roll_back(path)
            return _reading(_uri(path, "ro"))
        if log.exists() and log.stat().st_size:
            raise
        # In WAL mode SQLite makes files beside it: not where it must not write. Nobody else can write there either.
        if os.access(path.parent, os.W_OK):
            raise
        return _reading(f"{_uri(path, 'ro')}&immutable=1")


def _roll_back(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(_uri(path, "rw"), uri=True, timeout=60)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        text = (
            f"a killed process left it half written, and putting it right with {path.name}-journal needs to write in "
            f"{path.parent} ({error}); make that folder writable, or copy it whole to where it is"
        )
        raise ConfigError.of(str(path), "", text) from error


def _reading(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
    with _closed_if_failing(connection):
        _guard(connection)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _guard(connection: sqlite3.Connection) -> None:
    """Let nothing that the file itself says be run, nor make us hold any size of value."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_TEXT)


def _check(connection: sqlite3.Connection, path: Path, format: Format) -> None:
    """Raise ConfigError unless the database has our tables as we create them, nothing else, and values in bounds."""
    with _in_time(connection):
        rows = connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 1000").fetchall()
    found = {str(name): sql for kind, name, sql in rows if not (kind == "index" and sql is None)}
    wrong = [f"{kind} {name}" for kind, name, sql in rows if name in found and sql != format.sql.get(name)]
    wrong += [f"no table {name}" for name in format.sql if name not in found]
    if wrong:
        text = f"is not {format.whose} of this version of hsgd-emu, but of another one, or of none ({listed(wrong, 4)})"
        raise ConfigError.of(str(path), "", text)
    _check_values(connection, path, format)


@contextlib.contextmanager
def _in_time(connection: sqlite3.Connection) -> Iterator[None]:
    end = time.monotonic() + _PATIENCE_S
    connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    yield
    connection.set_progress_handler(None, 0)


def _check_values(connection: sqlite3.Connection, path: Path, format: Format) -> None:
    """Raise ConfigError where a value is not of its column's type, or out of all bounds."""
    for table, columns in format.checked.items():
        # Some 25 steps of SQLite a column and row: a table with more rows than the file can hold never ends.
        budget = repeat(0, most_rows(path, len(columns)) // 1000 + 100)
        connection.set_progress_handler(partial(next, budget, 1), 25_000 * len(columns))
        wrong = " OR ".join(f"NOT ({_is_right(column)})" for column in columns)
        row = connection.execute(f"SELECT rowid FROM {table} WHERE {wrong} LIMIT 1").fetchone()
        connection.set_progress_handler(None, 0)
        if row is not None:
            raise _damaged(path, f"table {table}, row {row[0]}: a value that {format.whose} cannot have")
    for text, sql in format.rules.items():
        if connection.execute(sql).fetchone() is not None:
            raise _damaged(path, text)


def _is_right(column: Column) -> str:
    """Return the SQL condition that a value meets. `+` keeps SQLite from trusting the column's declaration."""
    value = f'+"{column.name}"'
    kind = f"typeof({value}) = '{column.type.lower()}'"
    if column.name.endswith("_s"):
        kind += f" AND {value} BETWEEN 0 AND {_LATEST_S!r}"
    elif column.type == "INTEGER" and column.name != "seed":
        kind += f" AND {value} BETWEEN 0 AND {2**53}"
    return f"({kind}) OR typeof({value}) = 'null'" if column.null else kind


def _refuse_foreign(path: Path) -> None:
    """Raise ConfigError where SQLite would follow a link, block, or delete what a journal names."""
    for name in (path, *_beside(path)):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.lstat(name).st_mode):
                raise ConfigError.of(str(name), "", "is no regular file, so it is none of ours")
    journal = path.with_name(f"{path.name}-journal")
    with contextlib.suppress(FileNotFoundError), journal.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - len(_SUPER_JOURNAL)))
        if file.read() == _SUPER_JOURNAL:
            raise ConfigError.of(str(journal), "", "names another file, which ours never do; remove it")


@contextlib.contextmanager
def _readable(path: Path, format: Format) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        text = f"cannot be read as {format.whose}'s database ({error})"
        raise ConfigError.of(str(path), "", text) from error
    except OSError as error:
        raise ConfigError.of(str(path), "", f"cannot be read ({error.strerror})") from error


@contextlib.contextmanager
def _closed_if_failing(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _damaged(path: Path, how: str) -> ConfigError:
    return ConfigError.of(str(path), "", f"is damaged ({how})")


def _beside(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{end}") for end in _BESIDE]


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"
