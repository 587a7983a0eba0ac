"""Captured periods equal steps taken one by one; too little memory means smaller chunks.

The capture is a stand-in here, which runs the work again: what a CUDA graph adds is tested in test_gpu.py.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from hsgd_emu.config.run_schema import Augment, CosineRate
from hsgd_emu.learning.graphs import Period, Periods
from hsgd_emu.learning.models import cifar_cnn, mlp
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.steps import Taker
from hsgd_emu.learning.tuning import Choice

from .twins import Trial, assert_close_metrics, assert_close_models, in_turns, synthetic


def again(bodies):
    def replay():
        for body in bodies:
            body()

    return replay


def with_dropout():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 4))


COSINE = CosineRate(schedule="cosine", initial=0.2, final=0.01)
TRIALS = {
    "mlp": (partial(mlp, (6,), (8,), 4), (6,), {"weight_decay": 0.1}),
    "dropout": (with_dropout, (6,), {"momentum": 0.5, "weight_decay": 0.1}),
    "adam": (partial(mlp, (6,), (8,), 4), (6,), {"optimizer": "adamw", "weight_decay": 0.1, "state": "average"}),
    "scaffold": (partial(mlp, (6,), (8,), 4), (6,), {"correction": "scaffold", "weight_decay": 0.1}),
    "clipped": (with_dropout, (6,), {"clip_norm": 0.1, "loss": "squared"}),
    "images": (partial(cifar_cnn, 4), (3, 32, 32), {"augment": Augment(crop=4, flip=True), "momentum": 0.9}),
}


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("name", TRIALS)
def test_captured_periods_equal_the_readable_twin(name, chunk, monkeypatch):
    # A rate that changes with every step, new batches, masks and crops: all must reach the captured period, which is
    # used from the second period on. On CUDA rates are tensors; here they are made to be.
    make, shape, options = TRIALS[name]
    trial = Trial(make, synthetic(shape, images=len(shape) == 3), learning_rate=COSINE, **options)
    rates = Taker.rates
    monkeypatch.setattr(Taker, "rates", lambda self, *of: torch.tensor(rates(self, *of), dtype=torch.float64))
    replays = []
    take = Period.take
    monkeypatch.setattr(Period, "take", lambda self, t: (replays.append(t), take(self, t))[1])
    learner, readable = trial.stacked("layered", chunk), trial.readable()
    learner.periods = Periods(learner.taker, again)
    assert_close_metrics(trial.run(learner), trial.run(readable))
    for slot in trial.setup.slots:
        model = readable.model_of(slot)
        assert_close_models(learner.model_of(slot), model, relative=1e-11)
    assert replays == [[t] * 4 for t in (2, 4, 6)]


def test_periods_with_gaps_or_other_members_are_taken_step_by_step():
    trial = Trial(TRIALS["mlp"][0], synthetic((6,)), momentum=0.9)
    learner, readable = trial.stacked("layered"), trial.readable()
    learner.periods = Periods(learner.taker, again)
    options = {"members": in_turns}
    assert_close_metrics(trial.run(learner, **options), trial.run(readable, **options))


def short_of_memory(learner: StackedLearner, most: int, monkeypatch) -> list[int]:
    """Let chunks of more than `most` workers run out of memory after their first step; return the sizes tried."""
    tried = []
    take = Taker.take

    def refuse(self, workers, iteration, num_steps, holds):
        tried.append(len(workers))
        if len(workers) > most:
            take(self, workers, iteration, 1, holds[:1])
            raise torch.OutOfMemoryError("too little memory")
        return take(self, workers, iteration, num_steps, holds)

    monkeypatch.setattr(Taker, "take", refuse)
    return tried


def test_too_little_memory_means_smaller_chunks_and_the_same_result(monkeypatch):
    trial = Trial(TRIALS["dropout"][0], synthetic((6,)), momentum=0.5, averaged_after=1)
    expected = trial.run(trial.stacked("layered", 1))
    learner = trial.stacked("layered", 4)
    monkeypatch.setattr(learner, "_can_run_out", True)
    tried = short_of_memory(learner, 1, monkeypatch)
    assert_close_metrics(trial.run(learner), expected)
    assert tried[:3] == [4, 2, 1]
    assert set(tried[3:]) == {1}
    assert learner.choice == Choice("layered", 1)


def test_too_little_memory_for_one_worker_is_said(monkeypatch):
    learner = Trial(TRIALS["mlp"][0], synthetic((6,))).stacked("layered", 4)
    monkeypatch.setattr(learner, "_can_run_out", True)
    short_of_memory(learner, 0, monkeypatch)
    learner.local_steps(0, 0, 1)
    with pytest.raises(torch.OutOfMemoryError):
        learner.flush()
