"""What is wrong with a study folder, once a command has failed on it (as results/verify.py for runs)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.database import complaint_on
from hsgd_emu.results.folder import STUDY_DATABASE, STUDY_FILE, read_environment
from hsgd_emu.study.sweep.store import FORMAT
from hsgd_emu.study.sweep.study_file import Study, load_study


def study_complaint(folder: Path) -> ConfigError | None:
    """Return what is wrong with the study in a folder; None where it is as hsgd-emu writes it, or there is none."""

    def read() -> Study:
        study = load_study(folder / STUDY_FILE)
        read_environment(folder)
        return study

    return complaint_on(folder / STUDY_DATABASE, FORMAT, read, _contradictions)


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
