"""What is wrong with a study folder, once a command has failed on it (as results/verify.py for runs)."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hsgd_emu.errors import ConfigError
from hsgd_emu.results import database
from hsgd_emu.results.folder import STUDY_DATABASE, STUDY_FILE, read_environment
from hsgd_emu.study.sweep.store import FORMAT, is_study_folder
from hsgd_emu.study.sweep.study_file import Study, load_study


def study_complaint(folder: Path) -> ConfigError | None:
    """Return what is wrong with the study in a folder; None where it is as hsgd-emu writes it, or there is none."""
    path = folder / STUDY_DATABASE
    try:
        if not is_study_folder(folder):
            return None
        study = load_study(folder / STUDY_FILE)
        read_environment(folder)
        database.check_whole(path, FORMAT)
        with contextlib.closing(database.connect_to_read(path, FORMAT)) as connection:
            wrong = next(_contradictions(connection, study), None)
    except ConfigError as error:
        return error
    except sqlite3.Error as error:
        return ConfigError.of(str(path), "", f"is damaged ({error})")
    return None if wrong is None else ConfigError.of(str(path), "", f"is not as hsgd-emu wrote it: {wrong}")


def _contradictions(connection: sqlite3.Connection, study: Study) -> Iterator[str]:
    axes = [axis.name for axis in study.axes]
    expected = [(number, axis) for number in range(len(study.scenarios)) for axis in axes]
    if connection.execute("SELECT scenario, axis FROM scenarios ORDER BY rowid").fetchall() != expected:
        yield "its scenarios are not those of study.yaml"
    last = len(study.scenarios) - 1
    for table in ("trials", "times", "summary", "wins", "best"):
        if connection.execute(f"SELECT 1 FROM {table} WHERE scenario > {last} LIMIT 1").fetchone():
            yield f"table {table} has scenarios that study.yaml has not"
    if connection.execute("SELECT 1 FROM scenarios WHERE NOT abs(number) < 1e300 LIMIT 1").fetchone():
        yield "a value of an axis is no number"
    for (fixed,) in connection.execute("SELECT fixed FROM crossovers"):
        try:
            is_mapping = isinstance(json.loads(fixed), dict)
        except (ValueError, RecursionError):
            is_mapping = False
        if not is_mapping:
            yield "crossovers.fixed is no mapping"
