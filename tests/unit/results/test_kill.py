"""A run killed with -9 at random moments leaves whole rounds, and its lock is free again."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, select

ROWS_PER_ROUND = 40
WRITER = f"""
import sys
from pathlib import Path
from hsgd_emu.results.rows import CurveRow, TimelineRow, TrialKey, WaitRow
from hsgd_emu.metrics import Metrics
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.folder import is_run_folder

folder, key = Path(sys.argv[1]), TrialKey("case", 1)
new = not is_run_folder(folder)
store = RunStore.create(folder, "name: x", {{}}, [key], []) if new else RunStore.open(folder)
print("ready", flush=True)
for n in range(store.trial_state(key).iteration + 1, 1_000_000):
    metrics = Metrics(train_loss=1.0, test_loss=1.0, test_accuracy=0.5)
    row = CurveRow(n, n, float(n), float(n), 0.0, float(n), 0.0, 0, 0, metrics)
    timeline = [TimelineRow(f"w-{{i}}", "compute", 0.0, 1.0, n, 0, "") for i in range({ROWS_PER_ROUND})]
    store.commit_round(key, n, row, timeline, [], [WaitRow("w-0", 0.5)])
"""


def kill_while_writing(folder: Path, after_s: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def assert_whole(folder: Path) -> int:
    with closing(connect_to_read(folder)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        last = reader.execute("SELECT iteration FROM trials").fetchone()[0]
        assert [row.iteration for row in select(reader, "curve")] == list(range(1, last + 1))
        per_round = reader.execute("SELECT iteration, count(*) FROM timeline GROUP BY iteration").fetchall()
        assert per_round == [(n, ROWS_PER_ROUND) for n in range(1, last + 1)]
        assert len(list(select(reader, "waits"))) == last
    return int(last)


def test_killed_run_is_whole_and_goes_on(tmp_path: Path) -> None:
    moments = random.Random(7)
    folder, rounds = tmp_path / "run", [0]
    for _ in range(8):
        kill_while_writing(folder, moments.uniform(0.0, 0.15))
        rounds.append(assert_whole(folder))
    assert rounds == sorted(rounds)
    assert rounds[-1] > 0
    with RunStore.open(folder) as store:
        assert store.trial_state(TrialKey("case", 1)).iteration == rounds[-1]


def test_run_killed_while_it_is_created_can_be_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        # The last act of creating is to put the database in its place.
        patch.setattr("hsgd_emu.results.database.write_atomically", kill)
        with pytest.raises(Killed):
            RunStore.create(tmp_path, "name: x", {}, [], [])
    with RunStore.create(tmp_path, "name: x", {}, [TrialKey("a", 1)], []) as store:
        assert store.trials == (TrialKey("a", 1),)
    with closing(sqlite3.connect(tmp_path / "run.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_reader_sees_whole_rounds_while_they_are_written(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "run")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20):
            with closing(connect_to_read(tmp_path / "run")) as reader:
                reader.execute("BEGIN")
                last = reader.execute("SELECT iteration FROM trials").fetchone()[0]
                assert reader.execute("SELECT count(*) FROM timeline").fetchone()[0] == last * ROWS_PER_ROUND
    finally:
        process.kill()
        process.communicate()
