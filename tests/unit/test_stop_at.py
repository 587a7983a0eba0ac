"""A trial stopped on purpose goes on to the bits of one that was never stopped; the usual engine is not timed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning import tuning, world
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.trials import Progress

# Evaluated every third global aggregation, momentum, and part of the workers: what a checkpoint must hold.
RUN = """
name: stopped
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
profiles: {near: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}, far: {rtt_s: 0.3}}
compute: {step_s: {distribution: lognormal, median: 0.01, sigma: 0.5}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {batch_size: 5, learning_rate: 0.05, iterations: 48, momentum: 0.9, participation: 0.7}
evaluation: {every_iterations: 12}
cases:
  - {name: local, period: 4}
  - {name: hierarchical, periods: [8, 2]}
seeds: [1, 2]
"""
# One of ten workers takes part in each round; while the slow one still receives a model, others end many rounds.
LATE = """
name: late
topology:
  root: {children: [{name: worker, count: 9, uplink: {rtt_s: 0}}, {name: slow, uplink: {up_s: 0, down_s: 1000}}]}
compute: {step_s: 0.001}
data: {dataset: digits}
model: {name: mlp, hidden: [8]}
train: {iterations: 40, participation: 0.1}
cases: [{name: local, period: 1}]
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


class Counting(Progress):
    def __init__(self) -> None:
        self.rounds, self.warnings = 0, []

    def round(self, key, record):
        self.rounds += 1

    def warn(self, text):
        if not text.startswith("note: "):
            self.warnings.append(text)


def learned(path: Path, out: Path, stop_at: int | None = None, engine: str = "usual") -> Counting:
    progress = Counting()
    options = Options("cpu", engine=engine, resume=True, threads=1, stop_at=stop_at)
    run_experiment(load_experiment(path), out, options, progress)
    return progress


def assert_same(one: RunResults, other: RunResults) -> None:
    for table in TABLES:
        frames = [getattr(run, table).drop(columns="wall_s", errors="ignore") for run in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    return path


def test_stopped_twice_and_gone_on_with_is_as_never_stopped(path, tmp_path, monkeypatch):
    # The checkpoint of the stop is written even where none is due for the time it takes.
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: False)
    assert learned(path, tmp_path / "out", 10).rounds == 2 * 3 + 2 * 2  # to 12 of period 4, to 16 of period 8
    trials = read_run(tmp_path / "out").trials
    assert list(trials["iteration"]) == [12, 12, 16, 16]
    assert set(trials["status"]) == {"running"}
    assert learned(path, tmp_path / "out", 12).rounds == 0
    second = learned(path, tmp_path / "out", 30)
    assert second.rounds == 2 * 5 + 2 * 2  # to 32 both
    spent = read_run(tmp_path / "out").trials["wall_s"]
    assert (spent > trials["wall_s"]).all()
    assert learned(path, tmp_path / "out").warnings == second.warnings == []
    assert (read_run(tmp_path / "out").trials["wall_s"] > spent).all()
    learned(path, tmp_path / "whole")
    assert_same(read_run(tmp_path / "out"), read_run(tmp_path / "whole"))


@pytest.mark.parametrize("stop_at", [41, 48, 1000])
def test_a_stop_at_the_end_or_beyond_finishes(path, tmp_path, stop_at):
    learned(path, tmp_path / "out", stop_at)
    status = read_run(tmp_path / "out").trials.set_index(["case", "seed"])["status"]
    assert status["hierarchical", 1] == "finished"
    # From 41 on the next global aggregation of period 4 is 44, of period 8 the last one.
    assert status["local", 1] == ("running" if stop_at == 41 else "finished")


def test_rounds_begun_before_the_stop_is_over_do_not_push_its_checkpoint_out(tmp_path, monkeypatch):
    # The round is over when the slow worker holds its model too; meanwhile the others average more than two others.
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)
    path = tmp_path / "late.yaml"
    path.write_text(LATE)
    assert learned(path, tmp_path / "out", 3).warnings == []
    kept = [torch.load(file)["iteration"] for file in (tmp_path / "out" / "checkpoints").iterdir()]
    assert max(kept) == 3
    assert learned(path, tmp_path / "out").warnings == []
    learned(path, tmp_path / "whole")
    assert_same(read_run(tmp_path / "out"), read_run(tmp_path / "whole"))


def test_the_usual_engine_is_chosen_without_a_trial(path, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("timed")

    monkeypatch.setattr(tuning, "_try", refuse)
    monkeypatch.setattr(world, "tuned_choice", refuse)
    learned(path, tmp_path / "out", 8)
    # An mlp on a CPU: layered, all six workers' parameters fit into one batch.
    assert read_run(tmp_path / "out").environment["engine"] == "layered:6"


def test_a_command_that_has_no_time_does_one_round_and_says_how_to_go_on(path, tmp_path):
    again = ["run", str(path), "--out", str(tmp_path / "out"), "--threads", "1", "--engine", "usual"]
    told = CliRunner().invoke(app, [*again, "--minutes", "0"])
    assert told.exit_code == 0, told.output
    assert "Stopped, for its time was over; the same command with --resume goes on" in told.output
    trials = read_run(tmp_path / "out").trials
    assert list(trials["iteration"]) == [4, 0, 0, 0]
    told = CliRunner().invoke(app, [*again, "--minutes", "10", "--resume"])
    assert "Stopped" not in told.output
    learned(path, tmp_path / "whole")
    assert_same(read_run(tmp_path / "out"), read_run(tmp_path / "whole"))
