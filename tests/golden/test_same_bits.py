"""What the clock says of the shipped networks, to the nanosecond, as it was said before: recorded in same_bits.json.

Nothing is learned, so that no machine and no torch matters. To record anew, when times are meant to change:
`RECORD_SAME_BITS=1 pytest tests/golden/test_same_bits.py`. What is learned is compared, tree against tree, by
benchmarks/same_bits.py.
"""

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hsgd_emu.cli import app

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_suffix(".json")
RANDOM = """
name: random
topology: uneven
compute: phone
model: softmax_regression
train: {iterations: 200}
cases:
  - {name: "P=10", period: 10}
  - {name: "50,5", periods: [50, 5]}
  - {name: "50,5, half", periods: [50, 5], participation: 0.5}
evaluation: {every_iterations: 20}
seeds: [1, 2]
"""
WORKS = {
    "demo": ("runs/demo.yaml", "train.iterations=400", "seeds=[1]"),
    "demo, half": ("runs/demo.yaml", "train.iterations=400", "seeds=[1]", "train.participation=0.5"),
    "three levels": ("runs/three_levels.yaml", "train.iterations=200"),
    "five cities": ("runs/femnist.yaml", "train.iterations=100", "data={dataset: digits, partition: iid}", "model=mlp"),
    "random": ("random.yaml",),
}
SAME = ("message_bytes=60040", "timeline=full")
"""Of all works: how large a model is is none of the clock's business."""

TABLES = {
    "curve": "round, iteration, time_s, aggregated_s, compute_s, communication_s, aggregation_s",
    "timeline": "node, kind, start_s, end_s, iteration, bytes, peer",
    "barriers": "server, iteration, ready_s, waited_for, link, slack_s",
    "waits": "round, node, wait_s",
}
"""What is hashed of each table: seconds as whole nanoseconds."""


def trials(folder: Path) -> dict[str, dict[str, object]]:
    """Return what is golden of each trial: its end and traffic, for a reader, and hashes of all its rows."""
    with closing(sqlite3.connect(folder / "run.sqlite")) as connection:
        keys = connection.execute('SELECT "case", seed, timeline_hash FROM trials ORDER BY rowid').fetchall()
        return {f"{case}, seed {seed}": {"events": hash_} | told(connection, case, seed) for case, seed, hash_ in keys}


def told(connection: sqlite3.Connection, case: str, seed: int) -> dict[str, object]:
    def rows(table: str, columns: str) -> list[list[object]]:
        found = connection.execute(
            f'SELECT {columns} FROM {table} WHERE "case" = ? AND seed = ? ORDER BY rowid', (case, seed)
        )
        return [[round(cell * 1e9) if isinstance(cell, float) else cell for cell in row] for row in found]

    tables = {table: rows(table, columns) for table, columns in TABLES.items()}
    hashes = {name: hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16] for name, found in tables.items()}
    end_ns = tables["curve"][-1][2]
    return {"rounds": len(tables["curve"]), "end_ns": end_ns, "bytes": rows("timeline", "sum(bytes)")[0][0], **hashes}


@pytest.fixture(scope="module")
def golden() -> dict[str, object]:
    return json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {}


@pytest.mark.parametrize("work", WORKS)
def test_the_clock_says_what_it_has_always_said(work, golden, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file, *sets = WORKS[work]
    (tmp_path / "random.yaml").write_text(RANDOM)
    words = [word for one in [*SAME, *sets] for word in ("--set", one)]
    path = file if Path(file).is_file() else str(tmp_path / file)
    done = CliRunner().invoke(app, ["run", path, "--timing-only", "--out", str(tmp_path / "out"), *words])
    assert done.exit_code == 0, done.output
    found = trials(tmp_path / "out")
    if "RECORD_SAME_BITS" in os.environ:
        golden[work] = found
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    assert found == golden[work]
