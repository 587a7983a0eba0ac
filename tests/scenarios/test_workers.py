"""Figures of workers: held to what a full batch at every step must show, re-timed, found again, resumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from oracle.drive import experiment_of

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime

RUN = """
name: workers
topology: {name: t, levels: [{name: w, count: 4, uplink: near}]}
profiles: {near: {rtt_s: 0.02}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: full, iterations: 6, learning_rate: 0.2, dtype: float64}
cases: [{name: every, period: 1}, {name: second, period: 2}]
evaluation: {workers: true}
"""


def run(path: Path, out: Path, sets: Sequence[str] = (), **options: Any) -> RunResults:
    run_experiment(load_experiment(path, sets), out, Options("cpu", engine="usual", threads=1, **options))
    return read_run(out)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("workers") / "run.yaml"
    path.write_text(RUN)
    return path


@pytest.fixture(scope="module")
def whole(path: Path) -> RunResults:
    return run(path, path.parent / "out")


def of_case(results: RunResults, case: str, column: str) -> pd.DataFrame:
    rows = results.workers.query("case == @case")
    return rows.pivot(index="iteration", columns="worker", values=column)


def test_a_full_batch_begins_where_the_evaluation_ended(whole: RunResults) -> None:
    """With P = 1 a worker's mini-batch loss is that of the last global model on all its data."""
    losses, train_losses = (of_case(whole, "every", column).to_numpy() for column in ("loss", "train_loss"))
    np.testing.assert_allclose(train_losses[1:], losses[:-1], rtol=1e-12)
    assert not np.allclose(of_case(whole, "second", "train_loss").to_numpy()[1:], losses[1::2][:-1], rtol=1e-3)


def test_the_training_set_is_all_that_workers_have(whole: RunResults) -> None:
    """Its loss is the mean over workers by samples; so is what `curve` says of steps, where each takes as many."""
    curve = whole.curve.query("case == 'every'")
    sizes = experiment_sizes()
    losses = of_case(whole, "every", "loss")
    np.testing.assert_allclose(losses.to_numpy() @ sizes / sum(sizes), curve.training_set_loss, rtol=1e-12)
    np.testing.assert_allclose(of_case(whole, "every", "train_loss").mean(axis=1), curve.train_loss, rtol=1e-12)
    accuracies = of_case(whole, "every", "accuracy").to_numpy()
    assert ((accuracies >= 0) & (accuracies <= 1)).all()
    np.testing.assert_allclose(accuracies * sizes, np.rint(accuracies * sizes), atol=1e-9)


def experiment_sizes() -> list[int]:
    from hsgd_emu.run import session_of
    from hsgd_emu.trials import Progress

    world = session_of(experiment_of(RUN), Options("cpu", threads=1), Progress()).world
    assert world is not None
    return world.num_samples(1)


def test_retimed_resumed_and_not_asked_for(whole: RunResults, path: Path, tmp_path: Path) -> None:
    retime(path.parent / "out", tmp_path / "retimed", ["profiles.near.rtt_s=1"])
    assert read_run(tmp_path / "retimed").workers.equals(whole.workers)
    run(path, tmp_path / "out", stop_at=3)
    resumed = run(path, tmp_path / "out", resume=True)
    assert resumed.workers.equals(whole.workers)
    assert resumed.curve.equals(whole.curve)
    without = run(path, tmp_path / "without", ["evaluation.workers=false"])
    assert without.workers.empty
    assert without.curve.training_set_loss.isna().all()
    assert list(without.trials.weights_hash) == list(whole.trials.weights_hash)


def test_a_target_that_nothing_is_evaluated_for() -> None:
    with pytest.raises(ConfigError, match=r"training_set_loss: is of the whole training set, which `evaluation: {wor"):
        experiment_of(RUN.replace("workers: true", "every_iterations: 2") + "targets: {training_set_loss: [1]}")
