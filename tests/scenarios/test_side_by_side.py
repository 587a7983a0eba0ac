"""Trials learned side by side in several processes are those learned one after the other, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from hsgd_emu import beside
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import read_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.trials import Progress

RUN = """
name: beside
topology: {levels: [{name: worker, count: 4, uplink: far}]}
profiles: {far: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [16]}
train: {batch_size: 5, learning_rate: 0.05, iterations: %d, momentum: 0.9, participation: 0.5}
cases: [{name: often, period: 4}, {name: rarely, period: 8}]
targets: {test_accuracy: [0.3]}
seeds: [1, 2, 3]
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 80)
    return path


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    (folder / "run.yaml").write_text(RUN % 80)
    return run_experiment(load_experiment(folder / "run.yaml"), folder / "out", Options("cpu", jobs=1))


def assert_same(one: Path, other: Path) -> None:
    for table in TABLES:
        frames = [getattr(read_run(folder), table).drop(columns="wall_s", errors="ignore") for folder in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


class Telling(Progress):
    """Notes what it is told, and by whom; lets trials of this process take their time, so that others get some."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s, self.begun, self.ended, self.warnings = pause_s, [], [], []
        self.others: set[str] = set()

    def begin(self, key, iterations, done):
        self.begun.append(key)

    def round(self, key, record):
        if threading.current_thread() is threading.main_thread():
            time.sleep(self.pause_s)
        else:
            self.others.add(key)

    def end(self, key):
        self.ended.append(key)

    def warn(self, text):
        self.warnings.append(text)


def test_two_processes_learn_what_one_does(path, tmp_path, alone):
    progress = Telling(0.1)
    run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", jobs=2), progress)
    assert_same(tmp_path / "out", alone)
    assert len(progress.ended) == len(set(progress.ended)) == 6
    assert progress.others
    assert not list((tmp_path / "out").glob("run.sqlite-*"))


def test_a_trial_whose_process_dies_is_gone_on_with(path, tmp_path, alone, monkeypatch):
    learned = beside._Helper._learned

    def kill_after_a_round(self, key):
        tell = self.team.tell

        def told(what, *arguments):
            tell(what, *arguments)
            if what == "round" and threading.current_thread() is not threading.main_thread():
                self.process.kill()

        self.team.tell = told
        return learned(self, key)

    monkeypatch.setattr(beside._Helper, "_learned", kill_after_a_round)
    progress = Telling(0.1)
    run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", jobs=2), progress)
    assert_same(tmp_path / "out", alone)
    assert any("died (exit code -9); it is gone on with here" in text for text in progress.warnings)


def test_killed_with_its_helpers_it_goes_on_to_the_same_bits(path, tmp_path, alone):
    command = [sys.executable, "-m", "hsgd_emu.cli", "run", str(path), "--out", "out", "--jobs", "2", "--device", "cpu"]
    killed = subprocess.Popen([*command, "--set", "train.iterations=80"], cwd=tmp_path)
    database, end_s = tmp_path / "out" / "run.sqlite", time.monotonic() + 120
    while not database.exists() and time.monotonic() < end_s:
        time.sleep(0.05)
    time.sleep(1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    # Its helpers end with it, and with the last of them the lock is free.
    while time.monotonic() < end_s:
        try:
            RunStore.open(tmp_path / "out").close()
            break
        except Exception:
            time.sleep(0.05)
    run(path, tmp_path / "out", device="cpu", resume=True, jobs=1)
    assert_same(tmp_path / "out", alone)


def test_what_goes_wrong_in_a_helper_is_told(tmp_path):
    # The second process finds no module where the first had one: own code that is gone meanwhile.
    (tmp_path / "gone.py").write_text(
        "from torch import nn\ndef make(i, o):\n    return nn.Sequential(nn.Flatten(), nn.Linear(i[0], o))\n"
    )
    path = tmp_path / "run.yaml"
    path.write_text((RUN % 80).replace("model: {name: mlp, hidden: [16]}", 'model: "gone:make"'))

    class Removing(Telling):
        def begin(self, key, iterations, done):
            (tmp_path / "gone.py").unlink(missing_ok=True)

    with pytest.raises(ConfigError, match="gone"):
        run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", jobs=2), Removing(0.5))


def test_helpers_are_called_once_that_pays(path, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(beside.Helped, "_call_helpers", lambda self: called.append(self._learned))
    monkeypatch.setattr(beside, "_LOOK_S", 0.2)
    monkeypatch.setattr("hsgd_emu.run.num_cores", lambda: 2)
    run_experiment(load_experiment(path), tmp_path / "short", Options("cpu"), Telling())
    assert not called
    monkeypatch.setattr(beside, "PAYS_S", 1.0)
    run_experiment(load_experiment(path), tmp_path / "long", Options("cpu"), Telling(0.1))
    assert called
    assert called[0] > 0
