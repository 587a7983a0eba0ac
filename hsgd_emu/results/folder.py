"""The run folder's files: their names, their lock, and how they are written and removed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsgd_emu.atomic import remove_leftovers, write_atomically
from hsgd_emu.errors import ConfigError, RunError
from hsgd_emu.locks import try_lock
from hsgd_emu.results.database import remove_database

RUN_FILE = "run.yaml"
ENVIRONMENT_FILE = "environment.json"
DATABASE_FILE = "run.sqlite"
REPORT_FILE = "report.html"
TRACE_FILE = "trace.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
LOCK_FILE = "lock"


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
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        _remove_events(folder / TENSORBOARD)


def _remove_events(folder: Path) -> None:
    """Delete the event files of all trials, and the folders that are empty then."""
    for path in folder.glob("*/seed-*/*tfevents*"):
        path.unlink()
    for path in (*folder.glob("*/seed-*"), *folder.glob("*"), folder):
        with contextlib.suppress(OSError):
            path.rmdir()


def write_environment(folder: Path, environment: dict[str, Any]) -> None:
    """Write environment.json with sorted keys."""
    text = json.dumps(environment, sort_keys=True, indent=2, ensure_ascii=False)
    write_atomically(folder / ENVIRONMENT_FILE, text + "\n")


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of environment.json."""
    content = json.loads((folder / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    return dict(content)


def read_run_text(folder: Path) -> str:
    """Return run.yaml as it was written."""
    return (folder / RUN_FILE).read_text(encoding="utf-8")


def read_run_file(folder: Path) -> dict[str, Any]:
    """Return run.yaml as a mapping. It is our own file, validated before it was written."""
    import yaml

    content = yaml.safe_load(read_run_text(folder))
    if not isinstance(content, dict):
        raise ConfigError.of(str(folder / RUN_FILE), "", "is not the run file that `hsgd-emu run` wrote")
    return content


def local_sgd_cases(run: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the cases that are single-level local SGD: those with a `period`."""
    return tuple(case["name"] for case in run.get("cases", ()) if case.get("period") is not None)
