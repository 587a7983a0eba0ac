"""The stacked learner equals its readable twin under every way to train, and plain SGD written out by hand."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import Augment, CosineRate, InverseSqrtRate, StepRate
from hsgd_emu.learning.models import cifar_cnn, mlp, softmax_regression
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.tuning import Choice

from .twins import Trial, assert_close_metrics, assert_close_models, in_turns, steps_away, synthetic

MLP = partial(mlp, (6,), (8,), 4)
FLAT = (6,)
HOW = [("layered", 3), ("layered", 4), ("vmap", 3), ("one_by_one", None)]


def conv_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))


def small_conv_net():
    network = conv_net()
    network(torch.zeros(2, 3, 8, 8))
    return network


SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "weight_decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.9, "weight_decay": 0.01},
    "step_rate": {"learning_rate": StepRate(schedule="step", initial=0.2, milestones=(3, 5), factor=0.5)},
    "cosine_rate": {"learning_rate": CosineRate(schedule="cosine", initial=0.2, final=0.01)},
    "inverse_sqrt_rate": {"learning_rate": InverseSqrtRate(schedule="inverse_sqrt", initial=0.2, scale=2.0)},
    "full_batch": {"batch_size": "full"},
    "batch_larger_than_a_shard": {"batch_size": 10},
}


@pytest.mark.parametrize(
    ("way", "chunk"), [("layered", 1), ("layered", 3), ("layered", 4), ("vmap", 3), ("one_by_one", None)]
)
@pytest.mark.parametrize("name", SETTINGS)
def test_twins_over_uneven_shards(name, way, chunk):
    # Shards of 3, 9, 3 and 7 samples: with `full`, workers 0 and 2 have batches of one size and are no neighbours.
    Trial(MLP, synthetic(FLAT), sizes=(3, 9, 3, 7), **SETTINGS[name]).assert_twins(way, chunk)


@pytest.mark.parametrize(
    ("way", "chunk"), [("layered", 1), ("layered", 2), ("layered", 4), ("vmap", 2), ("one_by_one", None)]
)
@pytest.mark.parametrize("batch_size", [3, "full"])
def test_twins_under_partial_participation(way, chunk, batch_size):
    # In each local period other workers step: rows that are no neighbours, momentum that rests.
    trial = Trial(MLP, synthetic(FLAT), sizes=(3, 9, 3, 7), momentum=0.9, batch_size=batch_size)
    trial.assert_twins(way, chunk, members=in_turns)


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("augment", [Augment(crop=2), Augment(flip=True), Augment(crop=1, flip=True)])
def test_twins_with_augmentation(augment, way, chunk):
    data = synthetic((3, 8, 8), images=True)
    Trial(small_conv_net, data, augment=augment, momentum=0.5).assert_twins(way, chunk)


@pytest.mark.parametrize("evaluate_every", [4, 8])
def test_train_loss_is_the_mean_over_all_steps_since_the_row_before(evaluate_every):
    trial = Trial(MLP, synthetic(FLAT))
    # 4 workers x evaluate_every steps for every row, each worth its own mini-batch loss.
    found = trial.run(trial.stacked(), evaluate_every=evaluate_every)
    readable = trial.readable()
    trial.run(readable, evaluate_every=99)
    rows = np.reshape([loss for _, loss in readable.losses], (-1, 4 * evaluate_every))
    assert len(found) == len(rows) == 8 // evaluate_every
    assert [metrics.train_loss for metrics in found] == pytest.approx(rows.mean(1).tolist(), rel=1e-12)


def test_the_rate_is_that_of_the_iteration():
    # One linear layer from zero, one sample of label 0 and two classes: the first step's gradient in the bias is
    # softmax - onehot = (-1/2, 1/2), so the bias moves by rate(t) / 2; with factor 0.5 after 1 iteration the second
    # step has half the rate.
    rate = StepRate(schedule="step", initial=0.2, milestones=(1,), factor=0.5)
    data = synthetic((1,), 4, num_classes=2)
    data.train_x[:], data.train_y[:] = 0, 0
    layer = partial(softmax_regression, (1,), 2)
    trial = Trial(layer, data, sizes=(2, 2), batch_size=1, learning_rate=rate, iterations=2)
    learner = trial.stacked()
    trial.run(learner, local=1, global_=1, end=1)
    learner.flush()
    bias = learner.model_of(0)["1.bias"].clone()
    assert bias.tolist() == pytest.approx([0.1, -0.1], abs=1e-15)
    trial.run(learner, local=1, global_=1, begin=1)
    learner.flush()
    moved = learner.model_of(0)["1.bias"] - bias
    wrong = 1 / (1 + np.exp(0.2))  # softmax of (0.1, -0.1), class 1
    assert moved.tolist() == pytest.approx([0.1 * wrong, -0.1 * wrong], abs=1e-15)


def run_local_sgd(trial: Trial, learner, period: int):
    workers, found = range(4), []
    for t in range(0, trial.setup.train.iterations, period):
        for worker in workers:
            learner.local_steps(worker, t, period)
        learner.aggregate(trial.root, workers, [1 / 4] * 4)
        found.append(learner.evaluate(trial.root, t + period))
        for worker in workers:
            learner.hand_down(trial.root, worker)
    return found


@pytest.mark.parametrize("period", [1, 2, 4])
def test_hsgd_with_equal_periods_is_local_sgd(period):
    # With I = G an aggregation of equal groups' averages is the average of all.
    trial = Trial(MLP, synthetic(FLAT), momentum=0.5)
    found = trial.run(trial.stacked(), local=period, global_=period, evaluate_every=period)
    assert_close_metrics(found, run_local_sgd(trial, trial.stacked(), period))


def test_hsgd_with_periods_of_one_is_mini_batch_sgd_on_the_union_of_the_batches():
    trial = Trial(MLP, synthetic(FLAT), weight_decay=0.01, momentum=0.9)
    learner = trial.stacked()
    found = trial.run(learner, local=1, global_=1, evaluate_every=1)
    model = trial.model().double()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01, momentum=0.9)
    for t, metrics in enumerate(found):
        union = np.concatenate([trial.data.order.batches(worker, t, 1)[0] for worker in range(4)])
        x, y = torch.from_numpy(trial.dataset.train_x[union]).double(), torch.from_numpy(trial.dataset.train_y[union])
        loss = F.cross_entropy(model(x), y)
        assert metrics.train_loss == pytest.approx(float(loss.detach()), rel=1e-12)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert_close_models(learner.model_of(trial.root), model, relative=1e-12)


def test_averages_follow_the_weights():
    trial = Trial(MLP, synthetic(FLAT))
    learner = trial.stacked()
    for worker in range(4):
        learner.local_steps(worker, 0, 1)
    learner.aggregate(trial.root, [0, 2, 3], [0.2, 0.5, 0.3])
    learner.flush()
    for rows in learner.stacks.trained.values():
        expected = 0.2 * rows[0] + 0.5 * rows[2] + 0.3 * rows[3]
        torch.testing.assert_close(rows[trial.root], expected, rtol=1e-14, atol=1e-16)


def test_requests_wait_until_a_value_is_needed(monkeypatch):
    # Two whole rounds of four workers: 8 iterations in local periods of 2 are 4 batches, not 16.
    trial = Trial(MLP, synthetic(FLAT))
    learner = trial.stacked()
    batches = []
    take = learner._take_chunk

    def noted(requests, num_steps):
        return [request.place for request in requests], [request.iteration for request in requests], num_steps

    monkeypatch.setattr(learner, "_take_chunk", lambda *args: (batches.append(noted(*args)), take(*args))[1])
    trial.run(learner, evaluate_every=99)
    assert batches == []
    learner.evaluate(trial.root, 8)
    assert batches == [([0, 1, 2, 3], [t] * 4, 2) for t in (0, 2, 4, 6)]


def test_seeds_differ_and_schedules_share_the_start():
    trial, other = Trial(MLP, synthetic(FLAT)), Trial(MLP, synthetic(FLAT), seed=4)
    found, again, differs = (t.run(t.stacked())[-1] for t in (trial, trial, other))
    assert found == again
    assert found != differs


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
def test_bf16_products_are_near_those_in_float32(way):
    # bfloat16 has eight bits of mantissa: relative errors of 2^-8 = 0.4% in each factor; weights stay in float32.
    trial = Trial(MLP, synthetic(FLAT), dtype="float32", momentum=0.5, weight_decay=0.01)
    choice = Choice(way, 1 if way == "one_by_one" else 4)
    learner = trial.by_node(StackedLearner(trial.model(), trial.data, trial.setup, choice, "bf16"))
    found, expected = trial.run(learner), trial.run(trial.stacked(way))
    assert found != expected
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=0.02)
        assert one.test_loss == pytest.approx(other.test_loss, rel=0.02)
    assert {tensor.dtype for tensor in learner.stacks.trained.values()} == {torch.float32}


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize(
    "train", [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.1}]
)
def test_a_proximal_term_pulls_to_the_model_received_last(way, train):
    trial = Trial(MLP, synthetic(FLAT), proximal=2.0, **train)
    learner = trial.assert_twins(way, members=in_turns)
    plain = Trial(MLP, synthetic(FLAT), **train).stacked(way)
    trial.run(plain, members=in_turns)
    start = trial.model()
    assert steps_away(learner, start) < steps_away(plain, start)


def test_a_proximal_term_by_hand():
    # One worker, full batch, one parameter vector: w1 = w0 - g0 gamma; w2 = w1 - gamma (g1 + mu (w1 - w0)).
    trial = Trial(MLP, synthetic(FLAT), batch_size="full", proximal=3.0)
    plain = Trial(MLP, synthetic(FLAT), batch_size="full")
    pulled, free = trial.stacked(), plain.stacked()
    for learner, steps in ((pulled, 2), (free, 1)):
        learner.local_steps(0, 0, steps)
    one = free.model_of(0)
    one = {name: tensor.clone() for name, tensor in one.items()}
    free.local_steps(0, 1, 1)
    start = dict(trial.model().double().named_parameters())
    for name, weight in free.model_of(0).items():
        expected = weight - 0.1 * 3.0 * (one[name] - start[name].detach())
        torch.testing.assert_close(pulled.model_of(0)[name], expected, rtol=1e-12, atol=1e-14)


def test_a_proximal_term_on_images_and_with_dropout_and_norms():
    images = Trial(partial(cifar_cnn, 4), synthetic((3, 32, 32), images=True), proximal=1.0, weight_decay=0.01)
    images.assert_twins("layered", evaluate_every=8)
    layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))
    Trial(lambda: copy.deepcopy(layers), synthetic((6,)), proximal=1.0, momentum=0.9).assert_twins()
