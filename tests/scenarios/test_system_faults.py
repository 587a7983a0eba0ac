"""What the system refuses is told in a sentence with the path, exit 1; nothing half written is left, and it goes on."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from kills import leftovers
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.errors import RunError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.trials import Progress

RUN = """\
name: mine
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {far: {rtt_s: 0.2}, near: {rtt_s: 0.01}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: 20, learning_rate: 0.05, iterations: 40}
cases: [{name: a, period: 5}, {name: b, periods: [10, 5]}]
message_bytes: 1000
"""
TIMING = ["run", "run.yaml", "--out", "out", "--timing-only"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def assert_told(found: tuple[int, str], path: str, words: str) -> None:
    code, output = found
    assert code == 1, output
    assert path in output
    assert words in output
    assert "failure of hsgd-emu itself" not in output
    assert len(output.strip().splitlines()) == 1


def refusing(number: int, allowed: int, function: Any) -> Any:
    """Return a function of the system that works so often, and then is refused."""
    left = iter(range(allowed))

    def refuse(*arguments: Any, **named: Any) -> Any:
        if next(left, None) is None:
            raise OSError(number, os.strerror(number))
        return function(*arguments, **named)

    return refuse


@pytest.mark.parametrize(
    ("name", "number"), [("fsync", errno.ENOSPC), ("replace", errno.EIO), ("open", errno.EROFS), ("open", errno.EACCES)]
)
def test_a_write_that_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    for allowed in range(1, 6):
        shutil.rmtree(here / "out", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refusing(number, allowed, getattr(os, name)))
            found = invoke(*TIMING)
        if found[0] == 0:
            break
        assert_told(found, "out", os.strerror(number))
        assert leftovers([here / "out"]) in ([], [str(here / "out" / f"run.sqlite{end}") for end in ("-shm", "-wal")])
        again = ["--resume"] if (here / "out" / "run.sqlite").exists() else []
        assert invoke(*TIMING, *again)[0] == 0
        assert leftovers([here / "out"]) == []


class Filling(Progress):
    """Lets the disk be full after a round, as far as SQLite can tell."""

    def __init__(self, store: list[RunStore]) -> None:
        self.stores = store

    def round(self, key: Any, record: Any) -> None:
        if record.iteration == 10:
            connection = self.stores[-1].connection
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")


def test_a_full_disk_in_mid_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores: list[RunStore] = []
    create = RunStore.create

    def kept(*arguments: Any) -> RunStore:
        stores.append(create(*arguments))
        return stores[-1]

    monkeypatch.setattr(RunStore, "create", kept)
    experiment = load_experiment("run.yaml", ["train.iterations=1000"])
    with pytest.raises(RunError, match=r"out/run\.sqlite: cannot be written \(database or disk is full\)"):
        run_experiment(experiment, Path("out"), Options(timing_only=True), Filling(stores))
    with closing(connect_to_read(Path("out"))) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    run_experiment(experiment, Path("out"), Options(timing_only=True, resume=True))
    run_experiment(experiment, Path("whole"), Options(timing_only=True))
    dumps = []
    for folder in ("out", "whole"):
        with closing(sqlite3.connect(f"{folder}/run.sqlite")) as connection:
            dumps.append(connection.execute('SELECT "case", timeline_hash FROM trials').fetchall())
    assert dumps[0] == dumps[1]


class Removing(Progress):
    def round(self, key: Any, record: Any) -> None:
        if record.iteration == 10:
            shutil.rmtree("out")


@pytest.mark.parametrize("timing_only", [True, False])
def test_a_folder_removed_in_mid_run(here: Path, timing_only: bool) -> None:
    options = Options("cpu", timing_only=timing_only, threads=1, jobs=1, engine="layered:2")
    with pytest.raises((RunError, OSError), match=r"out"):
        run_experiment(load_experiment("run.yaml"), Path("out"), options, Removing())
    assert not (here / "out" / "run.sqlite").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EPERM])
def test_a_file_system_without_locks(here: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert_told(invoke(*TIMING), "out", "its file system gives no locks")
    assert_told(invoke(*TIMING), "out", "HSGD_EMU_NO_LOCKS=1")
    monkeypatch.setenv("HSGD_EMU_NO_LOCKS", "1")
    assert invoke(*TIMING)[0] == 0
    assert leftovers([here / "out"]) == []
    assert invoke("watch", "out", "--once")[0] == 0


def test_a_folder_that_another_process_writes_is_still_told_so(here: Path) -> None:
    run("run.yaml", "out", timing_only=True)
    with RunStore.open(Path("out")):
        code, output = invoke(*TIMING, "--force")
    assert code == 1
    assert "another run is writing this folder" in output


@pytest.mark.parametrize("words", ["", "CUDA out of memory. Tried 2 GiB", "can't allocate memory: 12 bytes"])
def test_memory_that_is_used_up(here: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(words) if words else MemoryError

    monkeypatch.setattr("hsgd_emu.run.run_experiment", refuse)
    code, output = invoke(*TIMING)
    assert (code, output.startswith("hsgd-emu: memory is used up")) == (1, True)


def test_a_failure_of_ours_is_still_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("run.yaml", "out", timing_only=True)

    def fail(*_: object, **__: object) -> None:
        raise KeyError("mine")

    monkeypatch.setattr("hsgd_emu.report.write_report", fail)
    code, output = invoke("report", "out")
    assert code == 1
    assert "a failure of hsgd-emu itself: KeyError" in output
