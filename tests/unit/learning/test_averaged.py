"""Polyak-Ruppert averages: the mean of the workers' models after every iteration."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hsgd_emu.learning.checkpoint import Checkpoints

from .twins import Notes, Trial, in_turns, synthetic


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


def flat() -> nn.Module:
    return nn.Linear(6, 4)


def trial_of(make: Any = flat, after: int = 0, **options: Any) -> Trial:
    return Trial(make, synthetic((6,)), averaged_after=after, **options)


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("options", [{}, {"skips": {0: 0.5, 3: 0.2}}, {"momentum": 0.9, "state": "average"}])
@pytest.mark.parametrize("members", [None, in_turns])
def test_all_ways_are_the_readable_twin(way: Any, after: int, options: Any, members: Any) -> None:
    trial = trial_of(with_norm, after, **options)
    stacked = trial.assert_twins(way, members=members)
    found = stacked.evaluate(trial.root, 8)
    assert found.averaged_test_loss not in (None, found.test_loss)


def test_by_hand_with_workers_that_sit_out_and_skip() -> None:
    """Each worker's model after each iteration, as it holds it then, is a term of equal weight."""
    trial, every = trial_of(after=1, skips={1: 0.5}), trial_of(after=1, skips={1: 0.5})
    learner = trial.stacked()
    trial.run(learner, end=6, members=in_turns)
    # The same steps one at a time; who sits out holds what it has received.
    one, models = every.stacked(), []
    for t in range(6):
        for group, (workers, server) in enumerate(zip(every.groups, every.servers, strict=True)):
            present = in_turns(group, t - t % 2)
            for worker in present:
                one.local_steps(worker, t, 1)
            if t >= 1:
                models += [(0.25, copy.deepcopy(one.model_of(worker))) for worker in workers]
            if t % 2:
                one.aggregate(server, present, [1 / len(present)] * len(present))
        if t % 4 == 3:
            one.aggregate(every.root, every.servers, [0.5, 0.5])
            for server in every.servers:
                one.hand_down(every.root, server)
        if t % 2:
            for workers, server in zip(every.groups, every.servers, strict=True):
                for worker in workers:
                    one.hand_down(server, worker)
    learner.aggregate(trial.root, trial.servers, [0.5, 0.5])
    learner.flush()
    found = learner.stacks.averaged(learner.registers.source(learner.versions[trial.root]), 5)
    for name, tensor in found.items():
        expected = sum(weight * model[name] for weight, model in models) / 5
        torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-14)


def test_with_an_average_each_iteration_it_is_the_mean_of_the_global_models() -> None:
    trial = trial_of(learning_rate=0.5)
    learner, total = trial.stacked(), {}
    for t in range(8):
        trial.run(learner, 1, 1, begin=t, end=t + 1, evaluate_every=99)
        for name, tensor in learner.model_of(trial.root).items():
            total[name] = total.get(name, 0) + tensor / 8
    found = learner.stacks.averaged(learner.registers.source(learner.versions[trial.root]), 8)
    for name, tensor in total.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-12, atol=1e-14)


def test_there_is_none_before_its_first_iteration() -> None:
    trial = trial_of(after=4)
    first, second = trial.run(trial.stacked())
    assert (first.averaged_test_loss, first.averaged_test_accuracy) == (None, None)
    assert second.averaged_test_loss is not None


def test_single_precision_sums_do_not_drift() -> None:
    """Weights of one third, rounded to single precision, would grow the sum a little with every average."""
    trial = Trial(flat, synthetic((6,)), averaged_after=0, learning_rate=1e-9, dtype="float32", iterations=400)
    learner = trial.stacked()
    for t in range(0, 400, 2):
        for worker in range(3):
            learner.local_steps(worker, t, 2)
        learner.aggregate(trial.root, [0, 1, 2], [1 / 3] * 3)
        for worker in range(3):
            learner.hand_down(trial.root, worker)
    learner.flush()
    start = dict(trial.model().named_parameters())
    for name, tensor in learner.stacks.averaged(learner.registers.source(learner.versions[trial.root]), 400).items():
        torch.testing.assert_close(tensor, start[name].detach(), rtol=3e-7, atol=1e-7)


def test_it_costs_the_model_nothing() -> None:
    plain, averaged = Trial(with_norm, synthetic((6,))), trial_of(with_norm)
    one, other = plain.stacked(), averaged.stacked()
    found = plain.run(one), averaged.run(other)
    assert one.weights_hash(plain.root) == other.weights_hash(averaged.root)
    assert [m.test_loss for m in found[0]] == [m.test_loss for m in found[1]]


def test_a_restored_learner_goes_on_bit_for_bit(tmp_path: Any) -> None:
    trial = trial_of(with_norm, skips={1: 0.5})
    expected = trial.run(trial.stacked())
    half, resumed = trial.stacked(), trial.stacked()
    found = trial.run(half, end=4)
    checkpoints = Checkpoints(tmp_path / "checkpoints", "one", Notes())
    checkpoints.save(4, half.state())
    resumed.restore(checkpoints.load(4))
    assert found + trial.run(resumed, begin=4) == expected
