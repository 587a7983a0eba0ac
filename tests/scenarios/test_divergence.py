"""A model that is not finite reaches nothing: in a run, re-timed, resumed, in the library, in a study and in a plan."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

import hsgd_emu
from hsgd_emu.experiment import load_experiment
from hsgd_emu.metrics import Metrics
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import resources, wanted

# Nine of ten samples are of class 0, which a model of NaN alone "predicts": 90% accuracy. With averages every 4
# iterations the rate is far too large, with a smaller one it learns.
OWN = """\
import numpy as np
import torch
from torch import nn


def rare(share=0.9, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(300) > share).astype(np.int64)
    x = (rng.normal(size=(300, 6)) * 3 + 3 * y[:, None]).astype(np.float32)
    return x[:200], y[:200], x[200:], y[200:]


class Growing(nn.Module):
    # A buffer that no figure sees, infinite after the fifth step, and a mask that is infinite from the start.
    def __init__(self, shape, num_classes):
        super().__init__()
        self.out = nn.Linear(shape[0], num_classes)
        self.register_buffer("seen", torch.ones(1))
        self.register_buffer("mask", torch.tensor([-torch.inf, 0.0]))

    def forward(self, x):
        if self.training:
            self.seen = self.seen * 1e9
        return self.out(x)


def growing(input_shape, num_classes):
    return Growing(input_shape, num_classes)
"""
RUN = """\
name: small
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {rtt_s: 0.2}}
compute: {step_s: 0.004}
data: {dataset: "own:rare"}
model: {name: mlp, hidden: [8, 8]}
train: {batch_size: 10, learning_rate: 1.0e+5, iterations: 24}
cases: [{name: "P=2", period: 2}, {name: "P=4", period: 4}]
targets: {test_accuracy: [0.99], test_loss: [0.0001], train_loss: [0.0001]}
seeds: [1, 2]
"""
GROWING = ["model=own:growing", "train.learning_rate=0.01", "seeds=[1]"]
AS = {"device": "cpu", "threads": 1, "engine": "one_by_one:1", "jobs": 1, "library": "none"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "run.yaml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reached(run) -> int:
    return int(run.targets["time_s"].notna().sum())


@pytest.mark.parametrize("engine", ["usual", "one_by_one:1"])
def test_what_diverged_reaches_no_target_and_ends_no_trial(place, engine):
    sets = ["train.until_targets=true", "targets={test_accuracy: [0.5], test_loss: [1.0e+30], train_loss: [1.0e+30]}"]
    run = hsgd_emu.run("run.yaml", "out", sets=sets, **AS | {"engine": engine})
    lost = run.trials[run.trials["diverged_at"].notna()]
    assert set(lost["case"]) >= {"P=4"}
    for case, seed, at in lost[["case", "seed", "diverged_at"]].itertuples(index=False):
        curve = run.curve[(run.curve["case"] == case) & (run.curve["seed"] == seed)]
        before = curve[curve["iteration"] < at]
        at_all = run.targets[(run.targets["case"] == case) & (run.targets["seed"] == seed)]
        assert curve["iteration"].max() == 24, "it goes on to its end"
        # What is reached was reached before, at a row that says so.
        assert set(at_all["iteration"].dropna()) <= set(before["iteration"])
        late = curve[curve["iteration"] >= at]
        assert not late[["train_loss", "test_loss"]].map(lambda loss: math.isfinite(loss)).all(axis=1).any()
    final = run.summary().set_index("case")["final_accuracy"]
    assert final["P=4"].isna().all()


def test_what_is_retimed_or_resumed_diverges_where_it_did(place):
    run = hsgd_emu.run("run.yaml", "out", **AS)
    assert reached(run) == 0
    assert run.trials["diverged_at"].notna().any()
    retime("out", "slow", scales=["far=2"])
    slow = hsgd_emu.read("slow")
    pd.testing.assert_series_equal(slow.trials["diverged_at"], run.trials["diverged_at"])
    assert reached(slow) == 0
    options = Options("cpu", threads=1, engine="one_by_one:1", jobs=1)
    experiment = load_experiment(place / "run.yaml")
    for stop_at in (4, 12, None):  # before, and after it diverged
        run_experiment(experiment, place / "bits", Options(**vars(options) | {"resume": True, "stop_at": stop_at}))
    bits = hsgd_emu.read("bits")
    pd.testing.assert_series_equal(bits.trials["diverged_at"], run.trials["diverged_at"])
    assert bits.trials["weights_hash"].tolist() == run.trials["weights_hash"].tolist()
    assert reached(bits) == 0


def test_a_buffer_that_no_figure_sees_is_enough(place):
    run = hsgd_emu.run("run.yaml", "out", sets=GROWING, **AS)
    assert run.trials["diverged_at"].tolist() == [6, 8], "1e9 to the fifth is no float32; -inf in a mask is no fault"
    assert run.summary()["final_accuracy"].isna().all()


def test_the_library_and_a_study_know(place):
    (place / "few.yaml").write_text(
        "name: few\nrun: run.yaml\naxes: [{name: far, set: profiles.far.rtt_s, values: [0.1, 0.4]}]\n"
    )
    study = hsgd_emu.run_study("few.yaml", "few", sets=GROWING, library=place / "lib", jobs=1)
    assert study.best.empty
    assert study.times["time_s"].isna().all()
    assert set(study.diverged["trial"]) == set(study.trials["trial"])
    assert "2 trials diverged (P=2 seed 1 at iteration 6, P=4 seed 1 at iteration 8)" in study.diverged_in_words()
    experiment = load_experiment(place / "run.yaml", GROWING)
    one = Library(place / "lib").find(wanted(experiment, "P=4", 1, resources("cpu")))
    assert one is not None
    assert one.diverged_at in study.diverged["diverged_at"].tolist()
    assert [metrics.is_finite for metrics in one.metrics.values()] == [at < one.diverged_at for at in one.metrics]


def test_a_plan_recommends_none_of_them_and_says_so(place):
    found = hsgd_emu.plan("run.yaml", ("test_loss", 0.0001), GROWING, budget=1.0, library=place / "lib", jobs=1)
    assert found.best is None
    assert {finding.fate for finding in found.findings} == {"diverged"}
    assert "diverged with some seed" in " ".join(found.lines())


def test_a_trial_that_starts_again_has_not_diverged(tmp_path: Path):
    key = TrialKey("P=2", 1)
    from hsgd_emu.results.rows import CurveRow

    with RunStore.create(tmp_path / "r", RUN, {}, [key], [("test_accuracy", 0.5)]) as store:
        store.commit_round(
            key,
            2,
            CurveRow(1, 2, 1.0, 0.9, 0.1, 0.9, 0.0, 0, 0, Metrics(train_loss=1.0, test_loss=1.0, test_accuracy=0.4)),
            [],
            [],
            [],
        )
        store.commit_round(
            key,
            4,
            CurveRow(
                2, 4, 2.0, 1.9, 0.2, 1.8, 0.0, 0, 0, Metrics(train_loss=math.nan, test_loss=1.0, test_accuracy=0.9)
            ),
            [],
            [],
            [],
        )
        store.commit_round(
            key,
            6,
            CurveRow(3, 6, 3.0, 2.9, 0.3, 2.7, 0.0, 0, 0, Metrics(train_loss=1.0, test_loss=1.0, test_accuracy=0.9)),
            [],
            [],
            [],
        )
        assert [row.metrics.is_finite for row in store.curve_rows(key)] == [True, False, False]
        assert hsgd_emu.read(tmp_path / "r").trials["diverged_at"].tolist() == [4]
        store.restart_trial(key)
        assert hsgd_emu.read(tmp_path / "r").trials["diverged_at"].isna().all()
