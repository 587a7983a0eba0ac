"""SCAFFOLD: against the readable twin, its equalities, and a round by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.metrics import Metrics

from .by_node import ByNode
from .twins import Notes, Trial, assert_close_metrics, assert_close_models, synthetic

POWER = {"schedule": "power", "initial": 0.2, "exponent": 0.6}


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def flat() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


def trial_of(make: Any = flat, **options: Any) -> Trial:
    return Trial(make, synthetic((6,)), **{"correction": "scaffold", **options})


def rounds(trial: Trial, learner: ByNode, ends: Sequence[int], weights: Sequence[float] = (0.25,) * 4) -> list[Metrics]:
    """Let all workers average at the global server at these iterations, the first of which is where they begin."""
    found = []
    for begin, end in pairwise(ends):
        for worker in range(4):
            learner.local_steps(worker, begin, end - begin)
        learner.aggregate(trial.root, range(4), weights)
        found.append(learner.evaluate(trial.root, end))
        for node in learner.nodes:
            learner.hand_down(trial.root, node)
    return found


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate": POWER, "sizes": (3, 9, 3, 7), "batch_size": "full"},
        {"weight_decay": 0.1, "averaged_after": 2},
        {"proximal": 0.5, "clip_norm": 0.7},
    ],
)
def test_all_ways_are_the_readable_twin(way: Any, options: Any) -> None:
    trial = trial_of(with_norm, **options)
    readable, stacked = trial.readable(), trial.stacked(way)
    ends, weights = (0, 1, 4, 8), (0.1, 0.2, 0.3, 0.4)
    assert_close_metrics(rounds(trial, stacked, ends, weights), rounds(trial, readable, ends, weights))
    assert_close_models(stacked.model_of(trial.root), readable.model_of(trial.root), 1e-12)
    plain = trial_of(with_norm, **options | {"correction": None})
    other = plain.stacked(way)
    rounds(plain, other, ends, weights)
    assert stacked.weights_hash(trial.root) != other.weights_hash(plain.root)


@pytest.mark.parametrize("ends", [(0, 8), (0, 1, 2, 3, 4, 5, 6, 7, 8)])
def test_its_first_round_is_local_sgd_and_rounds_of_one_step_are_mini_batch(ends: Sequence[int]) -> None:
    one, other = trial_of(learning_rate=POWER), trial_of(learning_rate=POWER, correction=None)
    scaffold, plain = one.stacked(), other.stacked()
    rounds(one, scaffold, ends), rounds(other, plain, ends)
    for name, tensor in plain.model_of(other.root).items():
        torch.testing.assert_close(scaffold.model_of(one.root)[name], tensor, rtol=1e-12, atol=1e-14)


def test_two_rounds_of_one_step_by_hand() -> None:
    """After a round of one step c_j is the worker's gradient, and c their mean: the second round's steps are known."""
    trial, plain = trial_of(batch_size="full"), trial_of(batch_size="full", correction=None)
    learner, other = trial.stacked(), plain.stacked()
    rounds(trial, learner, (0, 1))
    rounds(plain, other, (0, 1))
    x, start = other.model_of(plain.root), dict(trial.model().double().named_parameters())
    x = {name: tensor.clone() for name, tensor in x.items()}
    other.local_steps(2, 1, 1)  # w - gamma g
    after = {name: tensor.clone() for name, tensor in other.model_of(2).items()}
    other.versions[2] = other.operations.start()
    fresh = plain.stacked()
    fresh.local_steps(2, 0, 1)
    for name, tensor in fresh.model_of(2).items():
        own = (start[name].detach() - tensor) / 0.1
        mean = (start[name].detach() - x[name]) / 0.1
        after[name] -= 0.1 * (mean - own)
    learner.local_steps(2, 1, 1)
    for name, tensor in after.items():
        torch.testing.assert_close(learner.model_of(2)[name], tensor, rtol=1e-11, atol=1e-13)


def test_the_servers_control_variate_is_the_weighted_mean_of_the_workers() -> None:
    trial, weights = trial_of(), (0.1, 0.2, 0.3, 0.4)
    learner = trial.stacked()
    rounds(trial, learner, (0, 2, 5), weights)
    stacks, row = learner.stacks, trial.root
    for name in stacks.trained:
        own = stacks.kept[f"own control of {name}"]
        expected = sum(weight * own[worker] for worker, weight in enumerate(weights))
        torch.testing.assert_close(stacks.extra[f"control of {name}"][row], expected, rtol=1e-12, atol=1e-14)


def test_a_restored_learner_goes_on_bit_for_bit(tmp_path: Any) -> None:
    trial = trial_of(with_norm, learning_rate=POWER)
    whole, half, resumed = trial.stacked(), trial.stacked(), trial.stacked()
    expected = rounds(trial, whole, (0, 2, 4, 8))
    found = rounds(trial, half, (0, 2, 4))
    checkpoints = Checkpoints(tmp_path / "checkpoints", "one", Notes())
    checkpoints.save(4, half.state())
    resumed.restore(checkpoints.load(4))
    assert found + rounds(trial, resumed, (4, 8)) == expected
    assert resumed.weights_hash(trial.root) == whole.weights_hash(trial.root)
