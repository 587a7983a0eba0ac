"""The run folder's files: their names, their lock, and how they are written and removed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import typing
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hsgd_emu.atomic import is_leftover, remove_leftovers, write_atomically
from hsgd_emu.errors import ConfigError, HsgdError, Problem, Problems, RunError, unwritable
from hsgd_emu.files import read_text_bounded
from hsgd_emu.locks import is_marked, try_lock
from hsgd_emu.results.database import Format, connect_to_write, fold, has_tables, remove_database, transaction

if TYPE_CHECKING:
    from hsgd_emu.config.reader import Source
    from hsgd_emu.engine.messages import ModelShape

RUN_FILE = "run.yaml"
ENVIRONMENT_FILE = "environment.json"
DATABASE_FILE = "run.sqlite"
REPORT_FILE = "report.html"
TRACE_FILE = "trace.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
STUDY_FILE = "study.yaml"
LOCK_FILE = "lock"
STUDY_DATABASE = "study.sqlite"
_OURS = {DATABASE_FILE: ("curve", "trials", "targets"), STUDY_DATABASE: ("scenarios", "trials", "times")}
"""By database: tables that one of any version has."""
MODEL_SHAPE = "model_shape"
_KINDS: dict[str, type] = {MODEL_SHAPE: str, "timing_only": bool, "message_bytes": int, "threads": int}
_KINDS |= dict.fromkeys(("parent", "retimed_with", "saw", "weights"), dict)
_KINDS |= dict.fromkeys(
    ("name", "run_sha256", "precision", "engine", "device", "command", "commit", "python", "platform"), str
)
"""Of the values in environment.json that something depends on."""
_MOST_BYTES, _MOST_DEPTH, _MOST_MESSAGE, _MOST_THREADS = 2**23, 40, 2**53, 2**16
_EVENTS = re.compile(r"events\.out\.tfevents\.[0-9]+\.[0-9]+")


def is_run_folder(folder: Path) -> bool:
    """Tell whether `folder` holds a run. The database is put in place last, so it vouches for the rest."""
    return (folder / DATABASE_FILE).is_file()


def require_run_folder(folder: Path) -> None:
    """Raise ConfigError unless `folder` holds a run."""
    if is_run_folder(folder):
        return
    right = "the folder that `hsgd-emu run` wrote (runs/out/NAME)"
    if (folder / "study.sqlite").is_file():
        found = "is the folder of a study, and a run's is needed"
    elif folder.is_dir():
        found = f"has no {DATABASE_FILE}"
    else:
        found = "is a file" if folder.exists() else "is no folder"
        right = str(folder.parent) if is_run_folder(folder.parent) else right
    raise ConfigError.of(str(folder), "", f"{found}; right would be {right}")


def new_folder(folder: Path) -> None:
    """Make a folder, those around it too, where there is none. Raises as `unwritable`: it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error


def lock_folder(folder: Path) -> int:
    """Return the descriptor that holds the folder's lock; closing it, or dying, releases the lock.

    Raises:  RunError: another process (or another store of this one) writes the folder, or it cannot be locked.
    """
    descriptor = try_lock(folder / LOCK_FILE)
    if descriptor is None:
        raise RunError(f"{folder}: another run is writing this folder; wait for it, stop it, or give another --out")
    remove_leftovers(folder)
    return descriptor


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        os.close(descriptor)


class Store:
    """One database of ours, open for writing; holds its folder's lock until it is closed."""

    file: ClassVar[str]
    format: ClassVar[Format]
    require: ClassVar[staticmethod[[Path], None]]
    """Raises ConfigError unless a folder holds one."""

    def __init__(self, folder: Path, lock: int) -> None:
        """lock: the descriptor that holds the folder's lock, which another process may hold too."""
        self.folder, self.lock = folder, lock
        self.connection = connect_to_write(folder / self.file, self.format)
        self._closing = contextlib.ExitStack()
        self._closing.callback(os.close, lock)
        self._closing.callback(self.connection.close)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open what is in `folder` to go on with it.

        Raises:  ConfigError: it is not there.  RunError: another process writes it.
        """
        cls.require(folder)
        return cls._prepared(folder, lambda: None)

    @classmethod
    def _prepared(cls, folder: Path, prepare: Callable[[], None]) -> Self:
        """Return the store of a folder that is locked before it is prepared."""
        lock = lock_folder(folder)
        try:
            prepare()
            return cls(folder, lock)
        except BaseException:
            os.close(lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and release the lock; a second call does nothing."""
        self._closing.close()

    def transaction(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Write all or nothing; see `database.transaction`."""
        return transaction(self.connection, self.folder / self.file)

    def finish(self) -> None:
        """Fold the write-ahead log into the database, so that it is one file that can be copied."""
        fold(self.connection)

    @classmethod
    def finish_writing(cls, folder: Path) -> None:
        """Fold what a killed process left beside a database that needs nothing more; not while another one writes."""
        if (folder / f"{cls.file}-wal").exists():
            with contextlib.suppress(HsgdError), cls.open(folder) as store:
                store.finish()


def check_free(folder: Path, database: str, force: bool, advice: str) -> None:
    """Raise ConfigError where a new run or study would overwrite what is in a folder: names tell nothing.

    Args:    database: of what is to be written.  force: what hsgd-emu wrote there may be replaced.
             advice: what to do where that is there.
    """
    what = _whose(database)
    for other in _OURS:
        if other != database and (folder / other).exists():
            text = f"holds {_whose(other)}, and this is {what}; --out writes elsewhere"
            raise ConfigError.of(str(folder), "", text)
    if (folder / database).is_file():
        if not force:
            raise ConfigError.of(str(folder), "", f"holds {what} already; {advice}")
        if not is_marked(folder / LOCK_FILE) and not has_tables(folder / database, _OURS[database]):
            text = f"is no database of hsgd-emu, and --force replaces only {what} that it wrote; --out writes elsewhere"
            raise ConfigError.of(str(folder / database), "", text)
    elif not _is_free(folder):
        text = f"exists and holds no {what.removeprefix('a ')}; choose another folder with --out"
        raise ConfigError.of(str(folder), "", text)


def check_inputs(folder: Path, inputs: Iterable[Path]) -> None:
    """Raise ConfigError where a file that is read would be removed or overwritten by what is written to a folder."""
    names = (RUN_FILE, STUDY_FILE, ENVIRONMENT_FILE, REPORT_FILE, TRACE_FILE, LOCK_FILE, *_OURS)
    taken = {(folder / name).resolve() for name in names}
    within = [(folder / name).resolve() for name in (CHECKPOINTS, TENSORBOARD)]
    for path in inputs:
        real = path.resolve()
        if real in taken or any(real.is_relative_to(inner) for inner in within):
            text = f"is read here, and what is written to {folder} would take its place; give another folder with --out"
            raise ConfigError.of(str(path), "", text)


def _whose(database: str) -> str:
    return "a run" if database == DATABASE_FILE else "a study"


def _is_free(folder: Path) -> bool:
    """Tell whether a folder is not there, empty, or ours: of a run killed at its very start or as it was removed."""
    if not os.path.lexists(folder):
        return True
    if not folder.is_dir():
        return False
    rest = {entry.name: entry for entry in folder.iterdir() if not is_leftover(entry.name)}
    lock = rest.pop(LOCK_FILE, None)
    if not rest:
        # Killed as it was made, the lock does not say yet whose it is.
        return lock is None or is_marked(lock) or (lock.is_file() and not lock.stat().st_size)
    return lock is not None and is_marked(lock)


def remove_run(folder: Path) -> None:
    """Delete a run's own files from `folder` and nothing else that lies there; the database goes first.

    Raises:  RunError: a run is writing the folder.
    """
    if not folder.is_dir():
        return
    with locked(folder):
        remove_database(folder / DATABASE_FILE)
        for name in (RUN_FILE, ENVIRONMENT_FILE, REPORT_FILE, TRACE_FILE):
            (folder / name).unlink(missing_ok=True)
        remove_folder(folder / CHECKPOINTS)
        _remove_events(folder / TENSORBOARD)


def remove_folder(folder: Path) -> None:
    """Delete a folder of ours with all that is in it; of a link only the link."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_events(folder: Path) -> None:
    """Delete the event files of all trials, and the folders that are empty then; links are not followed."""
    if folder.is_symlink():
        folder.unlink()
        return
    trials = [trial for case in _folders_in(folder) for trial in _folders_in(case) if trial.name.startswith("seed-")]
    for trial in trials:
        remove_events(trial)
    for path in (*trials, *_folders_in(folder), folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def remove_events(trial: Path) -> None:
    """Delete the event files that we wrote in the folder of a trial: others have a host in their names."""
    for path in trial.iterdir():
        if _EVENTS.fullmatch(path.name) and not path.is_symlink():
            path.unlink()


def _folders_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


def write_environment(folder: Path, environment: dict[str, Any]) -> None:
    """Write environment.json with sorted keys."""
    text = json.dumps(environment, sort_keys=True, indent=2, ensure_ascii=False)
    write_atomically(folder / ENVIRONMENT_FILE, text + "\n")


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of environment.json.

    Raises:  ConfigError: it is not there, or not what `hsgd-emu run` writes.
    """
    path = folder / ENVIRONMENT_FILE
    text = read_text_bounded(path, _MOST_BYTES, "what a run was made with")
    try:
        content = json.loads(text, parse_constant=int)  # which refuses NaN and Infinity
        wrong = _wrong(content)
    except (TypeError, ValueError, RecursionError):
        wrong = "it is no JSON, or nested too deep"
    if wrong:
        raise ConfigError.of(str(path), "", f"is not what hsgd-emu wrote: {wrong}")
    return dict(content)


def _wrong(content: Any) -> str:
    """Return what is wrong with the data of environment.json, empty where nothing is."""
    if not isinstance(content, dict):
        return "expected names with values"
    if not 0 < content.get("message_bytes", 1) <= _MOST_MESSAGE or not 0 < content.get("threads", 1) <= _MOST_THREADS:
        return "message_bytes or threads is out of all bounds"
    return next(_wrong_values(content, _MOST_DEPTH), "")


def _wrong_values(values: dict[str, Any], depth: int) -> Iterator[str]:
    for key, value in values.items():
        if type(value) is not _KINDS.get(key, type(value)) or not isinstance(value, dict | str | int | float | None):
            yield f"{key} is no value of its kind"
        elif isinstance(value, dict) and key != "weights":
            yield from _wrong_values(value, depth - 1) if depth else ["it is nested too deep"]


def recorded_message_bytes(folder: Path) -> int:
    """Return the size of a message of the run in a folder.

    Raises:  ConfigError: environment.json does not tell.
    """
    found = read_environment(folder).get("message_bytes")
    if found is None:
        raise ConfigError.of(str(folder / ENVIRONMENT_FILE), "message_bytes", "is missing; every run has it")
    return int(found)


def recorded_shape(folder: Path) -> ModelShape | None:
    """Return what the model of the run in a folder is made of; only runs that compress messages tell.

    Raises:  ConfigError: it is not what hsgd-emu wrote.
    """
    from hsgd_emu.engine.messages import ModelShape

    text = read_environment(folder).get(MODEL_SHAPE)
    try:
        return None if text is None else ModelShape.of_text(text)
    except ValueError:
        raise ConfigError.of(str(folder / ENVIRONMENT_FILE), MODEL_SHAPE, "is not what hsgd-emu wrote") from None


def read_run_text(folder: Path) -> str:
    """Return run.yaml as it was written."""
    return read_text_bounded(folder / RUN_FILE, _MOST_BYTES, "a run file")


def read_run_file(folder: Path) -> dict[str, Any]:
    """Return run.yaml as a mapping, checked as any run file.

    Raises:  ConfigError: it is not there, or not what `hsgd-emu run` wrote.
    """
    return _checked_run(read_run_text(folder), folder / RUN_FILE)


@lru_cache(maxsize=8)
def _checked_run(text: str, path: Path) -> dict[str, Any]:
    from hsgd_emu.config.reader import read_text

    document = read_text(text, str(path), path.parent)
    problems = list(_wrong_sections(document.data, document.source))
    if problems:
        raise ConfigError(problems[:1])
    return dict(document.data)


def _wrong_sections(data: Any, source: Source) -> Iterator[Problem]:
    """Yield what no run file has; what is missing is not asked for: only who builds the run needs all of it."""
    from hsgd_emu.config.run_schema import CaseSpec, RunSpec
    from hsgd_emu.config.validate import check

    if not isinstance(data, dict) or "name" not in data:
        yield source.problem((), "is not the run file that `hsgd-emu run` wrote")
        return
    problems = Problems()
    hints = typing.get_type_hints(RunSpec, include_extras=True)
    # What a profile is, of links or of steps, only the topology tells: who builds the run checks that.
    for key in data.keys() & hints.keys() - {"cases", "profiles"}:
        check(hints[key], data[key], source.at(key), problems)
    cases = data.get("cases", [])
    if not isinstance(cases, list):
        yield source.problem(("cases",), "is no list of cases")
        return
    for number, case in enumerate(cases):
        check(CaseSpec, case, source.at("cases", number), problems)
    yield from problems


def iterations_of(folder: Path) -> int:
    """Return how many iterations the run file of a folder asks for. Raises ConfigError: it does not tell."""
    train = read_run_file(folder).get("train")
    if not isinstance(train, dict):
        raise ConfigError.of(str(folder / RUN_FILE), "train", "is missing; every run has it")
    return int(train["iterations"])


def read_study_file(folder: Path) -> dict[str, Any]:
    """Return study.yaml as a mapping.

    Raises:  ConfigError: it is not there, or no mapping.
    """
    from hsgd_emu.config.reader import read_text

    path = folder / STUDY_FILE
    data = read_text(read_text_bounded(path, _MOST_BYTES, "a study file"), str(path), folder).data
    if not isinstance(data, dict):
        raise ConfigError.of(str(path), "", "is not the study file that `hsgd-emu study` wrote")
    return data


def mixing_cases(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the cases in which hubs mix with neighbours."""
    of_run = run.get("mixing")
    return tuple(case["name"] for case in run.get("cases", ()) if case.get("mixing") or of_run)


def own_settings_cases(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the cases that are told from others by more than their schedules: hubs, and what has a
    section of its own."""
    from hsgd_emu.config.run_schema import WHOLE_SECTIONS

    sections = ("train", *WHOLE_SECTIONS)
    hubs = mixing_cases(run)
    of_their_own = (case for case in run.get("cases", ()) if any(case.get(key) is not None for key in sections))
    return tuple(dict.fromkeys((*hubs, *(case["name"] for case in of_their_own))))


def local_sgd_cases(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the cases that are single-level local SGD: those without `periods`, in all their phases."""
    return tuple(
        case["name"]
        for case in run.get("cases", ())
        if all(part.get("periods") is None for part in (case, *(case.get("phases") or ())))
    )
