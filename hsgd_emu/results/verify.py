"""What is wrong with a run folder: all of it looked at, once a command has failed on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsgd_emu.errors import ConfigError
from hsgd_emu.metrics import TARGETS
from hsgd_emu.results.database import complaint_on
from hsgd_emu.results.folder import DATABASE_FILE, read_environment, read_run_file
from hsgd_emu.results.tables import FORMAT, TABLES

_STATUSES = ("waiting", "running", "finished")


def complaint(folder: Path) -> ConfigError | None:
    """Return what is wrong with the run in a folder; None where it is as hsgd-emu writes it, or there is none.

    What opening a run does not look at, for it would take too long each time: the large tables, and whether all goes
    together. Whoever failed on a run asks, to tell a folder that is damaged or hostile from a fault of its own.
    """

    def read() -> tuple[dict[str, Any], bool]:
        return read_run_file(folder), bool(read_environment(folder).get("timing_only"))

    format = FORMAT._replace(checked={**FORMAT.checked, **TABLES})
    return complaint_on(folder / DATABASE_FILE, format, read, _contradictions)


def _contradictions(connection: sqlite3.Connection, beside: tuple[dict[str, Any], bool]) -> Iterator[str]:
    run, timing_only = beside
    cases = [case["name"] for case in run.get("cases", ())]
    trials = set(connection.execute('SELECT "case", seed FROM trials'))
    if trials != {(case, seed) for case in cases for seed in run.get("seeds", [1])}:
        yield "its trials are not those of run.yaml"
    most = run.get("train", {}).get("iterations", 0)
    learned = "0" if timing_only else "weights_hash IS NULL"
    for text, sql in {
        "a trial of no known status": f"SELECT 1 FROM trials WHERE status NOT IN {_STATUSES}",
        "a trial with more iterations than run.yaml": f"SELECT 1 FROM trials WHERE iteration > {int(most)}",
        "a trial with more rounds than iterations": "SELECT 1 FROM trials WHERE round > iteration",
        "a finished trial that learned nothing": f"SELECT 1 FROM trials WHERE status = 'finished' AND ({learned} OR "
        'NOT EXISTS (SELECT 1 FROM curve c WHERE c."case" = trials."case" AND c.seed = trials.seed))',
        "a row of curve beyond its trial": 'SELECT 1 FROM curve c LEFT JOIN trials t ON t."case" = c."case" AND '
        "t.seed = c.seed WHERE t.iteration IS NULL OR c.iteration > t.iteration",
        "an iteration that is twice in a curve": 'SELECT 1 FROM curve GROUP BY "case", seed, iteration '
        "HAVING count(*) > 1",
        "a target of no known metric": f"SELECT 1 FROM target_levels WHERE metric NOT IN {TARGETS}",
        "a target that is no number": "SELECT 1 FROM target_levels WHERE NOT abs(target) < 1e300",
    }.items():
        if connection.execute(f"{sql} LIMIT 1").fetchone():
            yield text
