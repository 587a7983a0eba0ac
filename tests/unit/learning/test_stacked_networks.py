"""The stacked learner takes the same steps as its readable twin, for every kind of network we ship."""

from __future__ import annotations

from functools import partial

import pytest
from torch import nn
from torchvision import models as torchvision_models

from hsgd_emu.learning import models

from .twins import Trial, steps_away, synthetic

OWN = {
    "softmax_regression": (partial(models.softmax_regression, (7,), 4), (7,), False),
    "mlp": (partial(models.mlp, (7,), (9, 5), 4), (7,), False),
    "cifar_cnn": (partial(models.cifar_cnn, 4), (3, 32, 32), True),
    "femnist_cnn": (partial(models.femnist_cnn, 4), (1, 28, 28), True),
}
HOW = [("layered", 1), ("layered", 3), ("layered", 4), ("vmap", 1), ("vmap", 3), ("vmap", 4), ("one_by_one", None)]


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("name", OWN)
def test_own_networks_equal_the_readable_twin(name, way, chunk):
    make, shape, images = OWN[name]
    rates = {"cifar_cnn": 0.05, "femnist_cnn": 0.05}
    trial = Trial(make, synthetic(shape, images=images), learning_rate=rates.get(name, 0.1))
    learner = trial.assert_twins(way, chunk)
    assert learner.way == way
    assert steps_away(learner, trial.model()) > 1e-4


@pytest.mark.parametrize("name", OWN)
def test_own_networks_are_batched_by_hand_by_default(name):
    make, shape, images = OWN[name]
    assert Trial(make, synthetic(shape, images=images)).stacked().way == "layered"


def slim_vgg11():
    """vgg11 with its own convolutions, pools and dropout; only its two hidden layers of 4096 are 16 wide here."""
    network = torchvision_models.vgg11(num_classes=6, init_weights=False)
    network.classifier = nn.Sequential(
        *(nn.Linear(512 * 49, 16), nn.ReLU(True), nn.Dropout()),
        *(nn.Linear(16, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 6)),
    )
    return network


VGG11 = {"local": 1, "global_": 2, "evaluate_every": 2}


@pytest.fixture(scope="module")
def vgg11():
    """The trial, its readable learner after it, and the figures on the way."""
    data = synthetic((3, 32, 32), 8, images=True)
    trial = Trial(slim_vgg11, data, sizes=(2, 2), batch_size=1, iterations=2, learning_rate=0.05)
    readable = trial.readable()
    return trial, readable, trial.run(readable, **VGG11)


@pytest.mark.parametrize(("way", "chunk"), [("layered", 1), ("layered", 3), ("vmap", 3), ("one_by_one", None)])
def test_vgg11(vgg11, way, chunk):
    trial, readable, expected = vgg11
    learner = trial.assert_is(readable, expected, way, chunk, **VGG11)
    assert len(learner.network.masks.names) == 2


TORCHVISION = {
    "resnet18": ("vmap", {}),
    "squeezenet1_1": ("vmap", {}),
    "mobilenet_v3_small": ("vmap", {}),
    "efficientnet_b0": ("one_by_one", {}),  # StochasticDepth draws inside the network
    "googlenet": ("vmap", {"aux_logits": False, "init_weights": False}),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_by_the_way_they_choose(name):
    way, options = TORCHVISION[name]
    make = partial(torchvision_models.get_model, name, weights=None, num_classes=4, **options)
    data = synthetic((3, 32, 32), 8, images=True)
    trial = Trial(make, data, sizes=(2, 2, 2, 2), batch_size=2, iterations=2, learning_rate=0.01)
    # Large networks are taken one by one on a CPU for speed; asked for, both ways must work.
    learner = trial.assert_twins(way, local=1, global_=2, evaluate_every=2)
    assert learner.way == way
    if name == "resnet18":
        counters = [b for b in learner.stacks.buffers.values() if not b.is_floating_point()]
        assert len(counters) == 20  # one counter per BatchNorm
