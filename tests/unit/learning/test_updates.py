"""Rules of a step, and losses, are PyTorch's: every engine against the readable twin, which has its optimisers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import CosineRate, TrainSpec
from hsgd_emu.learning.models import mlp, softmax_regression
from hsgd_emu.learning.stacks import Part
from hsgd_emu.learning.updates import Adam

from .test_stacked_training import HOW
from .twins import Trial, assert_close_metrics, assert_close_models, in_turns, synthetic

MLP = partial(mlp, (6,), (8,), 4)
ADAM = {"optimizer": "adam", "learning_rate": 0.01}
SETTINGS = {
    "adam": ADAM,
    "adam_l2": {**ADAM, "weight_decay": 0.1, "betas": (0.8, 0.9), "epsilon": 1e-3},
    "adamw": {**ADAM, "optimizer": "adamw", "weight_decay": 0.1},
    "adamw_of_a_cosine": {
        **ADAM,
        "optimizer": "adamw",
        "learning_rate": CosineRate(schedule="cosine", initial=0.02, warmup=3),
    },
    "adam_reset": {**ADAM, "state": "reset"},
    "adamw_average": {**ADAM, "optimizer": "adamw", "state": "average"},
    "adam_proximal": {**ADAM, "proximal": 2.0},
    "clipped": {"clip_norm": 0.3},
    "clipped_momentum": {"clip_norm": 0.3, "momentum": 0.9, "weight_decay": 0.1},
    "clipped_decay_proximal": {"clip_norm": 0.3, "weight_decay": 0.1, "proximal": 2.0},
    "clipped_adamw": {**ADAM, "clip_norm": 0.3, "optimizer": "adamw", "proximal": 2.0},
    "squared": {"loss": "squared"},
    "squared_momentum": {"loss": "squared", "momentum": 0.9},
}


def assert_exact_twins(trial: Trial, way, chunk, **schedule) -> None:
    """Hold the stacked learner to the readable one to 1e-12."""
    readable, stacked = trial.readable(), trial.stacked(way, chunk)
    assert_close_metrics(trial.run(stacked, **schedule), trial.run(readable, **schedule), 1e-12)
    stacked.flush()
    for node in trial.setup.slots:
        assert_close_models(stacked.model_of(node), readable.model_of(node), 1e-12)


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("name", SETTINGS)
def test_twins(name, way, chunk):
    assert_exact_twins(Trial(MLP, synthetic((6,)), sizes=(3, 9, 3, 7), **SETTINGS[name]), way, chunk)


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("name", [name for name in SETTINGS if "adam" in name])
def test_twins_where_workers_have_taken_unequal_numbers_of_steps(name, way, chunk):
    trial = Trial(MLP, synthetic((6,)), sizes=(3, 9, 3, 7), **SETTINGS[name])
    assert_exact_twins(trial, way, chunk, members=in_turns)


def conv_net():
    # A norm right behind the convolution would leave its bias no gradient but rounding, of which Adam makes steps.
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("name", ["adam_l2", "adamw_average", "clipped_momentum", "squared"])
@pytest.mark.parametrize("members", [None, in_turns])
def test_twins_of_a_network_with_convolutions(name, way, chunk, members):
    # Weights and gradients there are laid out otherwise in memory.
    trial = Trial(conv_net, synthetic((3, 8, 8), images=True), sizes=(3, 9, 3, 7), **SETTINGS[name])
    trial.assert_twins(way, chunk, members=members)


@pytest.mark.parametrize("name", ["adam_l2", "adamw", "adam_proximal"])
@pytest.mark.parametrize("steps", [(0, 0, 0), (5, 0, 2)])
def test_adam_without_the_kernel_is_the_same(name, steps):
    # As it is on a GPU, where rates are tensors.
    train = TrainSpec(iterations=1, **SETTINGS[name])
    rules = [Adam(part_of(steps), train, by_kernel) for by_kernel in (True, False)]
    for rule, rate in zip(rules, (0.01, torch.tensor(0.01, dtype=torch.float64)), strict=True):
        torch.manual_seed(1)
        for _ in range(4):
            rule.begin_step(rate)
            rule.apply_product("a", torch.rand(3, 2, 5).double(), torch.rand(3, 5, 4).double())
            rule.apply("b", torch.rand(3, 2).double(), 2.0)
            rule.end_step()
    for name in "ab":
        torch.testing.assert_close(rules[0].weights[name], rules[1].weights[name], rtol=1e-13, atol=0)
        torch.testing.assert_close(rules[0].second[name], rules[1].second[name], rtol=1e-13, atol=0)


def part_of(steps: tuple[int, ...]) -> Part:
    torch.manual_seed(0)
    trained = {"a": torch.rand(3, 2, 4).double(), "b": torch.rand(3, 2).double()}
    kinds = ("first moment", "second moment")
    kept = {f"{kind} of {name}": torch.rand_like(one) for kind in kinds for name, one in trained.items()}
    kept["number of steps"] = torch.tensor(steps)
    return Part(trained, {}, {}, kept, True, {name: torch.ones_like(one) for name, one in trained.items()})


def test_a_folded_layer_is_whole_where_the_fold_would_not_be_exact():
    def make():
        return nn.Sequential(nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten(), nn.Linear(48, 4))

    data = synthetic((3, 2, 2), images=True)
    assert Trial(make, data).stacked().network.fold is not None
    for name in ("adam", "clipped"):
        trial = Trial(make, data, **SETTINGS[name])
        assert trial.stacked().network.fold is None
        trial.assert_twins("layered", 4)


def test_a_squared_loss_is_half_the_squared_distance_to_the_label_over_all_outputs():
    # Softmax regression from zero: all outputs are 0, so the loss is 1/2, whatever the label and how many there are.
    trial = Trial(partial(softmax_regression, (6,), 7), synthetic((6,)), loss="squared", learning_rate=0.0001)
    found = trial.run(trial.stacked(), end=4)
    assert found[0].train_loss == pytest.approx(0.5, rel=1e-2)
    assert found[0].test_loss == pytest.approx(0.5, rel=1e-2)


def test_a_squared_loss_of_common_inputs_has_the_same_average_whatever_the_schedule():
    # Equal Hessians: gradients differ by what does not depend on the model, and averages of models step as one model.
    data = synthetic((6,))
    data.train_x[:], data.train_y[:] = np.tile(data.train_x[:6], (4, 1)), np.repeat([0, 0, 1, 2], 6)
    ends = []
    for local, global_ in ((1, 1), (2, 4), (4, 8), (8, 8)):
        trial = Trial(partial(softmax_regression, (6,), 4), data, loss="squared", batch_size="full", learning_rate=0.2)
        learner = trial.stacked()
        trial.run(learner, local=local, global_=global_)
        ends.append(learner.model_of(trial.root))
    for other in ends[1:]:
        for name, tensor in other.items():
            assert float((tensor - ends[0][name]).abs().max()) <= 1e-10 * float(ends[0][name].abs().max())
    assert float(ends[0]["1.weight"].abs().max()) > 0.1


def test_clipping_at_every_step_of_one_worker_is_pytorchs():
    trial = Trial(MLP, synthetic((6,)), clip_norm=0.05, learning_rate=1.0)
    learner = trial.stacked()
    learner.local_steps(1, 0, 3)
    model = trial.model().double()
    for t in range(3):
        ((x, y),) = trial.data.batches(trial.data.draws([1], t, 1))
        model.zero_grad()
        F.cross_entropy(model(x[0]), y[0]).backward()
        assert float(nn.utils.clip_grad_norm_(model.parameters(), 0.05)) > 0.05
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert_close_models(learner.model_of(1), model, 1e-12)
