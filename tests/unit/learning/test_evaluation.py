"""Figures on the test set equal those of the network itself on all samples at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning import evaluation
from hsgd_emu.learning.data.dataset import Dataset
from hsgd_emu.learning.evaluation import evaluate
from hsgd_emu.learning.models import mlp

from .twins import Trial

WAYS = ["layered", "vmap", "one_by_one"]
NUM_TEST, CLASSES = 11, 4


def dataset(shape, as_bytes, normalised) -> Dataset:
    rng = np.random.default_rng(7)
    size = (12 + NUM_TEST, *shape)
    x = rng.integers(0, 256, size, dtype=np.uint8) if as_bytes else rng.normal(size=size).astype(np.float32)
    y = rng.integers(0, CLASSES, len(x))
    channels = shape[0] if len(shape) == 3 else 1
    mean, std = ((0.1, 0.2, 0.3)[:channels], (0.5, 0.7, 0.9)[:channels]) if normalised else ((), ())
    return Dataset(x[:12], y[:12], x[12:], y[12:], CLASSES, mean, std)


DATA = {
    "grey": ((1, 6, 5), True, True),
    "rgb": ((3, 6, 5), True, True),
    "rgb_plain": ((3, 6, 5), True, False),
    "two_channels": ((2, 6, 5), True, True),
    "float_images": ((3, 6, 5), False, True),
    "float_images_plain": ((2, 6, 5), False, False),
    "vectors": ((7,), False, False),
    "vectors_normalised": ((7,), False, True),
}


def conv_net(channels):
    return nn.Sequential(
        *(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.5), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, CLASSES)),
    )


def trial_of(name, **train) -> Trial:
    shape, as_bytes, normalised = DATA[name]
    make = partial(conv_net, shape[0]) if len(shape) == 3 else partial(mlp, shape, (5,), CLASSES)
    augment = Augment(crop=2, flip=True) if len(shape) == 3 else None
    return Trial(make, dataset(shape, as_bytes, normalised), sizes=(3, 3, 3, 3), augment=augment, **train)


def by_hand(trial: Trial, tensors: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Return (mean cross-entropy, share of right answers) of a model on the whole test set at once."""
    data = trial.dataset
    x = data.test_x / (255 if data.test_x.dtype == np.uint8 else 1)
    if data.mean:
        shape = (-1, 1, 1) if x.ndim == 4 else (-1,)
        x = (x - np.reshape(data.mean, shape)) / np.reshape(data.std, shape)
    network = trial.model().double().eval()
    network.load_state_dict(tensors)
    with torch.no_grad():
        logits = network(torch.from_numpy(x.astype(np.float64)))
    y = torch.from_numpy(data.test_y)
    return float(F.cross_entropy(logits, y)), float((logits.argmax(1) == y).double().mean())


def after_some_steps(trial: Trial, way):
    """Return a learner whose four workers have different models and, with BatchNorm, running statistics."""
    learner = trial.stacked(way)
    for worker in range(4):
        learner.local_steps(worker, 0, 1 + worker)
    learner.flush()
    return learner


@pytest.mark.parametrize("batch", [4, NUM_TEST, 500])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DATA)
def test_figures_equal_those_by_hand(name, way, batch, monkeypatch):
    # Batches of 4, 4 and 3; one of 11; one of 500 that is not full. Dropout and augmentation are off.
    monkeypatch.setattr(evaluation, "BATCH", batch)
    trial = trial_of(name)
    learner = after_some_steps(trial, way)
    for worker in (0, 3):
        [found] = evaluate(learner.engine, [learner.stacks.model(worker)], trial.data)
        expected = by_hand(trial, learner.model_of(worker))
        assert (found.test_loss, found.test_accuracy) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["rgb", "float_images_plain", "vectors"])
def test_several_models_at_once_equal_one_at_a_time(name, way, monkeypatch):
    monkeypatch.setattr(evaluation, "BATCH", 4)
    trial = trial_of(name)
    learner = after_some_steps(trial, way)
    models = [learner.stacks.model(worker) for worker in range(4)]
    at_once = evaluate(learner.engine, models, trial.data)
    assert at_once == [evaluate(learner.engine, [model], trial.data)[0] for model in models]
    assert len({found.test_loss for found in at_once}) == 4


@pytest.mark.parametrize("way", WAYS)
def test_the_figures_of_a_row_are_those_of_the_servers_model(way):
    trial = trial_of("rgb")
    learner = trial.stacked(way)
    found = trial.run(learner)[-1]
    assert (found.test_loss, found.test_accuracy) == pytest.approx(
        by_hand(trial, learner.model_of(trial.root)), rel=1e-12
    )


@pytest.mark.parametrize("way", WAYS)
def test_an_evaluation_leaves_models_and_modes_as_they_were(way):
    # BatchNorm must not learn from test samples, and the steps after it must be in training mode again.
    trial = trial_of("rgb")
    learner, other = after_some_steps(trial, way), after_some_steps(trial, way)
    before = learner.weights_hash(0)
    evaluate(learner.engine, [learner.stacks.model(0)], trial.data)
    assert learner.weights_hash(0) == before
    for one in (learner, other):
        one.local_steps(0, 1, 2)
    assert learner.weights_hash(0) == other.weights_hash(0) != before


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.LeakyReLU(0.1, inplace=True), nn.ReLU()], ids=str)
@pytest.mark.parametrize("way", [None, "vmap", "one_by_one"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_first_layer_that_works_in_place_does_not_change_the_samples(way, first, dtype):
    # Each batch is prepared once for all models, and float samples need no preparation at all.
    data = dataset((7,), as_bytes=False, normalised=False)
    train_x, test_x = data.train_x.copy(), data.test_x.copy()
    trial = Trial(lambda: nn.Sequential(first, nn.Linear(7, CLASSES)), data, sizes=(3, 3, 3, 3), dtype=dtype)
    learner = trial.stacked(way)
    engine, model = learner.engine, learner.stacks.model(0)
    one, again = evaluate(engine, [model, model], trial.data)
    assert one == again == evaluate(engine, [model], trial.data)[0]
    np.testing.assert_array_equal(data.test_x, test_x)
    np.testing.assert_array_equal(data.train_x, train_x)


def test_accuracy_and_loss_by_hand():
    # One weight from zero: logits (0, 0), loss log 2; argmax of equal logits is the first class, right in 3 of 5.
    x = np.ones((5, 1), dtype=np.float32)
    data = Dataset(x, np.array([0, 1, 0, 1, 0]), x, np.array([0, 1, 0, 1, 0]), 2)
    network = nn.Sequential(nn.Linear(1, 2))
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    trial = Trial(lambda: network, data, sizes=(2, 3), batch_size=1)
    learner = trial.stacked("layered")
    [found] = evaluate(learner.engine, [learner.stacks.model(0)], trial.data)
    assert (found.test_loss, found.test_accuracy) == (pytest.approx(np.log(2), rel=1e-15), 0.6)
