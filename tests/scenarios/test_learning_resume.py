"""A run killed with -9 at twenty random moments goes on to the results of one that was never killed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.run import Options, Progress, run, run_experiment

# Evaluated every third global aggregation: most checkpoints hold losses of a row that is not yet written.
RUN = """
name: killed
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
profiles: {near: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}, far: {rtt_s: 0.3}}
compute: {step_s: {distribution: lognormal, median: 0.01, sigma: 0.5}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [16]}
train: {batch_size: 5, learning_rate: 0.05, iterations: %d, momentum: 0.9, participation: 0.7}
evaluation: {every_iterations: 12}
cases:
  - {name: local, period: 4}
  - {name: hierarchical, periods: [4, 2]}
targets: {test_accuracy: [0.3, 0.5]}
seeds: [1, 2]
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")

# One parent that has imported everything, so that the kills fall into the run and not into imports: it forks a run,
# kills it after a random while, and again, until a run reaches its end after twenty kills. On a fast machine a run may
# be over before: then the next one begins.
PARENT = """
import os, random, signal, time
from pathlib import Path
import sklearn.datasets, torch
import hsgd_emu.learning.world, hsgd_emu.results.read
import hsgd_emu.run
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.folder import is_run_folder

torch.set_num_threads(1)
moments, kills, finished = random.Random(11), 0, 0
while True:
    folder = Path(f"out-{finished}")
    child = os.fork()
    if child == 0:
        options = hsgd_emu.run.Options(device="cpu", threads=1, resume=is_run_folder(folder))
        hsgd_emu.run.run_experiment(load_experiment("run.yaml"), folder, options)
        os._exit(0)
    end = time.monotonic() + (moments.uniform(0.05, 0.9) if kills < 20 else 200)
    done = 0
    while not done and time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)
    if done:
        assert status == 0, status
        finished += 1
        if kills == 20:
            break
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
print(finished)
"""


def frames(results) -> dict[str, pd.DataFrame]:
    """Return all tables; what a trial cost this host is no result."""
    return {name: getattr(results, name).drop(columns="wall_s", errors="ignore") for name in TABLES}


def assert_same(one, other) -> None:
    for name, frame in frames(one).items():
        pd.testing.assert_frame_equal(frame, frames(other)[name], check_exact=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_leave_no_trace(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 400)
    killed = subprocess.run(
        [sys.executable, "-c", PARENT], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    assert killed.returncode == 0, killed.stderr
    whole = run(path, tmp_path / "whole", device="cpu")
    for number in range(int(killed.stdout)):
        folder = tmp_path / f"out-{number}"
        assert_same(whole, run(path, folder, device="cpu", resume=True))  # finished: changes nothing
        assert len(list(folder.rglob("*.pt"))) == 4  # the last of each trial


class InterruptedRunError(Exception):
    """Stands for a kill."""


class Interrupting(Progress):
    """Stops a run after some rounds, and remembers how far it was when it went on."""

    def __init__(self, rounds: int) -> None:
        self.left, self.begun = rounds, []

    def begin(self, key, iterations, done):
        self.begun.append(done)

    def round(self, key, record):
        self.left -= 1
        if not self.left:
            raise InterruptedRunError


def interrupted(path: Path, folder: Path, rounds: int, resume: bool = False) -> list[int]:
    progress = Interrupting(rounds)
    with pytest.raises(InterruptedRunError):
        run_experiment(load_experiment(path), folder, Options("cpu", resume=resume, threads=1), progress)
    return progress.begun


def test_a_resumed_trial_goes_on_where_it_was(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)  # 12 rounds for each of four trials
    assert interrupted(path, tmp_path / "out", 5) == [0]
    assert interrupted(path, tmp_path / "out", 5, resume=True) == [20]
    assert interrupted(path, tmp_path / "out", 5, resume=True) == [40, 0]
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))


@pytest.mark.parametrize(
    "step",
    [
        "momentum: 0.9, state: reset",
        "momentum: 0.9, state: average",
        "optimizer: adam, state: keep",
        "optimizer: adamw, state: average, weight_decay: 0.1",
        "momentum: 0.5, proximal: 0.1, clip_norm: 0.5, loss: squared",
    ],
)
def test_what_workers_keep_goes_on_as_it_was(tmp_path, step):
    path = tmp_path / "run.yaml"
    path.write_text((RUN % 24).replace("momentum: 0.9", step).replace("seeds: [1, 2]", "seeds: [1]"))
    assert interrupted(path, tmp_path / "out", 4) == [0]
    assert interrupted(path, tmp_path / "out", 5, resume=True) == [16, 0]
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))


def test_a_kill_between_the_last_round_and_the_end_of_a_trial_loses_nothing(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)  # 12 rounds for each of four trials
    assert interrupted(path, tmp_path / "out", 12) == [0]
    assert interrupted(path, tmp_path / "out", 3, resume=True) == [48, 0]
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))


def test_a_run_goes_on_with_the_threads_it_was_begun_with(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 8)
    with pytest.raises(InterruptedRunError):
        run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", threads=2), Interrupting(1))
    assert run(path, tmp_path / "out", device="cpu", resume=True).environment["threads"] == 2
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_rounds_without_a_checkpoint_are_learned_again(tmp_path, monkeypatch):
    # Only every fourth round is kept: stopped after seven, a trial goes on from the fourth; none of its rows is lost.
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)  # 12 rounds for each of four trials
    asked = itertools.count(1)
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: next(asked) % 4 == 0)
    assert interrupted(path, tmp_path / "out", 7) == [0]
    (kept,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert torch.load(kept)["iteration"] == 16
    assert interrupted(path, tmp_path / "out", 2, resume=True) == [28]
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))


def test_a_run_goes_on_with_the_engine_and_precision_it_was_begun_with(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)
    begun = Options("cpu", precision="bf16", engine="vmap:2")
    with pytest.raises(InterruptedRunError):
        run_experiment(load_experiment(path), tmp_path / "out", begun, Interrupting(5))
    with pytest.raises(ConfigError, match="engine is layered:6 and not vmap:2"):
        run(path, tmp_path / "out", device="cpu", resume=True, engine="layered")
    resumed = run(path, tmp_path / "out", device="cpu", resume=True)
    whole = run(path, tmp_path / "whole", device="cpu", precision="bf16", engine="vmap:2")
    assert_same(resumed, whole)
    assert (resumed.environment["engine"], resumed.environment["precision"]) == ("vmap:2", "bf16")
    assert set(resumed.trials["engine"]) == {"vmap:2"}


def test_a_trial_goes_on_from_the_checkpoint_that_is_whole_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)
    interrupted(path, tmp_path / "out", 5)
    newest = max((tmp_path / "out" / "checkpoints").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    progress = Hearing()
    run_experiment(load_experiment(path), tmp_path / "out", Options("cpu", resume=True, threads=1), progress)
    (said,) = progress.said
    assert said.startswith(f"local, seed 1: {newest} is not as it was written")
    assert said.endswith(": goes on from the older one, of iteration 16")
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))


class Hearing(Progress):
    """Remembers what must not be overlooked."""

    def __init__(self):
        self.said = []

    def warn(self, text):
        self.said.append(text)


@pytest.mark.parametrize("harm", ["lost", "torn"])
def test_a_trial_without_its_checkpoint_starts_again(tmp_path, harm):
    path = tmp_path / "run.yaml"
    path.write_text(RUN % 48)
    interrupted(path, tmp_path / "out", 5)
    for file in (tmp_path / "out" / "checkpoints").iterdir():
        file.unlink() if harm == "lost" else file.write_bytes(file.read_bytes()[:200])
    assert interrupted(path, tmp_path / "out", 3, resume=True) == [0]
    assert_same(run(path, tmp_path / "out", device="cpu", resume=True), run(path, tmp_path / "whole", device="cpu"))
