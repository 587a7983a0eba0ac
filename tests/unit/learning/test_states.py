"""What becomes of a worker's momentum, or Adam's moments, when it receives a model: they stay, are as new, or
are averaged with the models."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from hsgd_emu.learning.models import mlp

from .test_stacked_training import HOW
from .twins import Trial, assert_close_models, in_turns, synthetic

MLP = partial(mlp, (6,), (8,), 4)
STATES = ["keep", "reset", "average"]


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("members", [None, in_turns])
def test_twins(state, way, chunk, members):
    # Where some sit out, who steps again has its own momentum, none, or the one that came with the model.
    trial = Trial(MLP, synthetic((6,)), sizes=(3, 9, 3, 7), momentum=0.9, weight_decay=0.01, state=state)
    trial.assert_twins(way, chunk, members=members)


def gradient(trial: Trial, weights: torch.Tensor, worker: int, t: int) -> torch.Tensor:
    """Return the gradient of softmax regression without a bias, by its formula."""
    ((x, y),) = trial.data.batches(trial.data.draws([worker], t, 1))
    p = torch.softmax(x[0] @ weights.T, 1) - F.one_hot(y[0], 4)
    return p.T @ x[0] / len(y[0])


def by_hand(trial: Trial, state: str) -> torch.Tensor:
    """Return the global model after two-level averaging every 2 and 4 of momentum SGD at 0.1, 0.9."""
    models = torch.zeros(4, 4, 6, dtype=torch.float64)
    momenta = torch.zeros_like(models)
    for t in range(8):
        for worker in range(4):
            momenta[worker] = 0.9 * momenta[worker] + gradient(trial, models[worker], worker, t)
            models[worker] -= 0.1 * momenta[worker]
        groups = [[0, 1, 2, 3]] if t % 4 == 3 else [[0, 1], [2, 3]] if t % 2 == 1 else []
        for group in groups:
            models[group] = models[group].mean(0)
            if state == "reset":
                momenta[group] = 0
            elif state == "average":
                momenta[group] = momenta[group].mean(0)
    return models[0]


@pytest.mark.parametrize(("way", "chunk"), HOW)
def test_each_state_is_its_recursion(way, chunk):
    ends = []
    for state in STATES:
        trial = Trial(without_bias, synthetic((6,)), momentum=0.9, state=state)
        learner = trial.stacked(way, chunk)
        trial.run(learner)
        (found,) = [t for name, t in learner.model_of(trial.root).items() if "weight" in name]
        expected = by_hand(trial, state)
        assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())
        ends.append(found)
    assert not any(torch.allclose(ends[a], ends[b], rtol=1e-3) for a, b in ((0, 1), (0, 2), (1, 2)))


def without_bias() -> torch.nn.Module:
    linear = torch.nn.Linear(6, 4, bias=False)
    torch.nn.init.zeros_(linear.weight)
    return torch.nn.Sequential(torch.nn.Flatten(), linear)


@pytest.mark.parametrize("state", ["keep", "average"])
def test_averaging_after_every_step_is_momentum_sgd_in_one_place(state):
    trial = Trial(MLP, synthetic((6,)), momentum=0.9, weight_decay=0.01, state=state)
    learner = trial.stacked()
    trial.run(learner, local=1, global_=1)
    model = trial.model().double()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for t in range(8):
        ((x, y),) = trial.data.batches(trial.data.draws([0, 1, 2, 3], t, 1))
        optimiser.zero_grad()
        F.cross_entropy(model(x.flatten(0, 1)), y.flatten()).backward()
        optimiser.step()
    assert_close_models(learner.model_of(trial.root), model, 1e-12)


def alone(state: str, period: int, **train) -> str:
    """Return the hash of one worker's model after 8 iterations, sent up and down every `period`."""
    trial = Trial(MLP, synthetic((6,)), sizes=(6, 6), state=state, **train)
    learner = trial.stacked()
    for t in range(0, 8, period):
        learner.local_steps(0, t, period)
        learner.aggregate(trial.root, [0], [1.0])
        learner.hand_down(trial.root, 0)
    return learner.weights_hash(trial.root)


def test_one_worker_alone_learns_the_same_whatever_the_period():
    assert len({alone(state, period, momentum=0.9) for state in ("keep", "average") for period in (1, 2, 8)}) == 1
    # Momentum that begins anew is another thing, unless there is none or one round alone.
    assert alone("reset", 8, momentum=0.9) == alone("keep", 8, momentum=0.9) != alone("reset", 4, momentum=0.9)
    assert len({alone(state, period) for state in STATES for period in (1, 2, 8)}) == 1


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
def test_what_is_sent_beside_a_model_is_no_part_of_it(way):
    trial = Trial(MLP, synthetic((6,)), momentum=0.9, state="average")
    learner = trial.stacked(way)
    start, figures = learner.versions[trial.root], learner.evaluate(trial.root, 0)
    trial.run(learner)  # the start is set aside, with its momentum
    assert not isinstance(learner.registers.source(start), int)
    assert list(learner.learner.model_of(start)) == list(learner.model_of(0)) == list(trial.model().state_dict())
    assert list(learner.stacks.model(learner.registers.source(start))) == list(learner.stacks.model(0))
    assert learner.learner.evaluate(start, 0).test_loss == figures.test_loss
