"""A trial that ends when its targets are reached is, to the bit, one of so many iterations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.metrics import Metrics
from hsgd_emu.results.read import read_run
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.training.wanted import resources, wanted
from hsgd_emu.trials import until_targets

# Fast workers begin with the next round before slow ones hold the model, and some sit out: the end must wait for none.
RUN = """
name: until
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
profiles: {near: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}, far: {rtt_s: 0.3}}
compute: {step_s: {distribution: lognormal, median: 0.01, sigma: 0.5}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [16]}
train: {batch_size: 5, learning_rate: 0.05, iterations: 96, until_targets: true, participation: 0.7}
evaluation: {every_iterations: 12}
cases: [{name: local, period: 4}, {name: hierarchical, periods: [8, 2]}]
targets: {test_accuracy: [0.2, 0.35], test_loss: [2.2]}
seeds: [1, 2]
timeline: full
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("until") / "until.yaml"
    path.write_text(RUN)
    return path


@pytest.fixture(scope="module")
def folder(file: Path) -> Path:
    run(file, file.with_name("run"), device="cpu", threads=1)
    return file.with_name("run")


def of_trial(results, table: str, case: str, seed: int) -> pd.DataFrame:
    frame = getattr(results, table).drop(columns="wall_s", errors="ignore")
    return frame[(frame["case"] == case) & (frame["seed"] == seed)].reset_index(drop=True)


def test_each_trial_is_one_of_as_many_iterations(file, folder, tmp_path):
    found = read_run(folder)
    lengths = found.trials.set_index(["case", "seed"])["iteration"]
    # The budget of 96 is not needed, nor do all trials need the same: otherwise this would show nothing.
    assert (lengths < 96).all()
    assert lengths.nunique() > 1
    for (case, seed), iterations in lengths.items():
        sets = [f"train.iterations={iterations}", "train.until_targets=false", f"seeds=[{seed}]"]
        out = tmp_path / f"{case}-{seed}"
        fixed = run(file, out, sets=sets, device="cpu", threads=1)
        for table in TABLES:
            pd.testing.assert_frame_equal(of_trial(found, table, case, seed), of_trial(fixed, table, case, seed))


def test_a_trial_ends_with_the_last_target_and_not_before(folder):
    found = read_run(folder)
    reached = found.targets.groupby(["case", "seed"], sort=False)["iteration"].max()
    assert list(found.trials["iteration"]) == list(reached)


def test_without_reaching_its_targets_a_trial_uses_its_budget(file, tmp_path):
    found = run(file, tmp_path / "run", sets=["targets={test_accuracy: [1.0]}", "seeds=[1]"], device="cpu", threads=1)
    assert list(found.trials["iteration"]) == [96, 96]
    assert list(found.trials["status"]) == ["finished"] * 2


def test_a_stopped_run_goes_on_to_the_same_end(file, folder, tmp_path):
    experiment = load_experiment(file)
    for stop_at in (16, 40, None):
        options = Options(device="cpu", threads=1, resume=stop_at != 16, stop_at=stop_at)
        run_experiment(experiment, tmp_path / "run", options)
    whole, resumed = read_run(folder), read_run(tmp_path / "run")
    for table in TABLES:
        for case, seed in [(case, seed) for case in ("local", "hierarchical") for seed in (1, 2)]:
            pd.testing.assert_frame_equal(of_trial(whole, table, case, seed), of_trial(resumed, table, case, seed))


def test_re_timed_is_freshly_run(file, folder, tmp_path):
    sets = ["profiles.far.rtt_s=0.9"]
    retimed = read_run(retime(folder, tmp_path / "retimed", sets=sets))
    fresh = run(file, tmp_path / "fresh", sets=sets, device="cpu", threads=1)
    for table in ("curve", "timeline", "targets", "barriers", "waits"):
        pd.testing.assert_frame_equal(getattr(retimed, table), getattr(fresh, table))


def test_re_timing_cannot_change_targets_that_decided_the_end(folder, tmp_path):
    with pytest.raises(ConfigError, match="changes what is learned"):
        retime(folder, tmp_path / "retimed", sets=["targets={test_accuracy: [0.9]}"])


def test_a_study_learns_whole_trials(file):
    # It may ask for targets of its own, so that where these are reached must not end what is learned.
    cpu = resources("cpu")
    whole, until = (load_experiment(file, sets) for sets in (["train.until_targets=false"], []))
    assert wanted(whole, "local", 1, cpu).key == wanted(until, "local", 1, cpu).key


def test_targets_must_be_given(file, tmp_path):
    path = tmp_path / "none.yaml"
    path.write_text(RUN.replace("targets: {test_accuracy: [0.2, 0.35], test_loss: [2.2]}\n", ""))
    with pytest.raises(ConfigError, match=r"none\.yaml:9: train\.until_targets: found true, but there are no targets"):
        load_experiment(path)


def test_targets_may_be_reached_at_different_evaluations():
    is_enough = until_targets([("test_accuracy", 0.5), ("test_loss", 1.0)])
    assert not is_enough(1, Metrics(train_loss=2.0, test_loss=2.0, test_accuracy=0.4))
    assert not is_enough(2, Metrics(train_loss=2.0, test_loss=2.0, test_accuracy=0.5))
    assert not is_enough(3, Metrics(train_loss=2.0, test_loss=1.5, test_accuracy=0.4))
    assert is_enough(4, Metrics(train_loss=2.0, test_loss=1.0, test_accuracy=0.4))
