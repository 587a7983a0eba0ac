"""Skipped steps in the learning: no batch, no loss, rates by the iterations of all."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.models import cifar_cnn

from .twins import Trial, assert_close_metrics, synthetic

SKIPS = {0: 0.5, 2: 0.2, 3: 0.8}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def trial_of(**options: Any) -> Trial:
    return Trial(mlp, synthetic((6,)), skips=SKIPS, **options)


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize("rate", [0.1, {"schedule": "power", "initial": 0.2, "exponent": 0.75}])
def test_all_ways_are_the_readable_twin(way: Any, rate: Any) -> None:
    trial_of(learning_rate=rate, momentum=0.5, proximal=0.1).assert_twins(way)


def test_images_with_augmentation_and_dropout_by_the_workers_own_steps() -> None:
    images, augment = synthetic((3, 32, 32), images=True), Augment(crop=2, flip=True)
    Trial(partial(cifar_cnn, 4), images, augment=augment, skips=SKIPS).assert_twins("layered")
    layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 4))
    Trial(lambda: copy.deepcopy(layers), synthetic((6,)), skips=SKIPS).assert_twins()


def test_a_skipped_step_costs_no_batch() -> None:
    """After so many iterations a worker is where one that skips nothing is after as many steps as it has taken."""
    trial, all_steps = trial_of(), Trial(mlp, synthetic((6,)))
    num = trial.setup.taken[0].before(8)
    assert 0 < num < 8
    skipping, plain = trial.stacked(), all_steps.stacked()
    skipping.local_steps(0, 0, 3)
    skipping.local_steps(0, 3, 5)
    plain.local_steps(0, 0, num)
    for name, tensor in plain.model_of(0).items():
        assert torch.equal(tensor, skipping.model_of(0)[name])


def test_where_nobody_steps_the_model_is_handed_through_and_there_is_no_loss() -> None:
    trial = Trial(mlp, synthetic((6,)), skips=dict.fromkeys(range(4), 1e-9))
    learner = trial.stacked()
    before = learner.weights_hash(0)
    (first, second) = trial.run(learner)
    assert learner.weights_hash(trial.root) == before
    assert (first.train_loss, second.train_loss) == (None, None)


def test_losses_count_for_the_evaluation_they_lie_before() -> None:
    """Two workers are one evaluation ahead when the first is asked for."""
    trial = trial_of()
    trial.setup = replace(trial.setup, evaluated_at=lambda t: -(-t // 4) * 4)
    found = []
    for learner in (trial.stacked(), trial.readable()):
        for worker in range(4):
            learner.local_steps(worker, 0, 4)
        for worker in (0, 3):
            learner.local_steps(worker, 4, 4)
        first = learner.evaluate(0, 4)
        for worker in (1, 2):
            learner.local_steps(worker, 4, 4)
        found.append([first, learner.evaluate(0, 8)])
    in_order = trial.stacked()
    for at in (0, 4):
        for worker in range(4):
            in_order.local_steps(worker, at, 4)
        found[0].append(replace(in_order.evaluate(0, at + 4)))
    assert_close_metrics(found[0][:2], found[1])
    assert [one.train_loss for one in found[0][:2]] == [one.train_loss for one in found[0][2:]]
