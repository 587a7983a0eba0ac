"""Which way to learn is chosen: the usual one by rule, another only if it is clearly faster, and then remembered."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from hsgd_emu.errors import ConfigError
from hsgd_emu.learning import tuning
from hsgd_emu.learning.models import cifar_cnn, mlp
from hsgd_emu.learning.network import Network
from hsgd_emu.learning.tuning import Choice, choice_of, tuned_choice, usual_choice

from .test_stacked_modules import Branches
from .twins import Trial, synthetic

LONG = tuning.WORTH_STEPS
IMAGE = (3, 32, 32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def network_of(make, shape=(6,), iterations=8, num_workers=4, **train):
    sizes = (6,) * num_workers
    data = synthetic(shape, 6 * num_workers, images=len(shape) == 3)
    trial = Trial(make, data, sizes=sizes, iterations=iterations, dtype="float32", **train)
    return Network(trial.model(), trial.data, trial.setup), trial.data


MLP = partial(mlp, (6,), (8,), 4)
CNN = partial(cifar_cnn, 4)


def wide():
    return nn.Sequential(nn.Linear(6, 3000), nn.ReLU(), nn.Linear(3000, 3000), nn.ReLU(), nn.Linear(3000, 4))


def residual():
    return torchvision_models.resnet18(num_classes=4)


@pytest.mark.parametrize(
    ("make", "shape", "num_workers", "expected"),
    [
        (MLP, (6,), 40, Choice("layered", 40)),  # no convolutions: all at once
        (CNN, IMAGE, 40, Choice("layered", 10)),  # images: as many as the cache holds
        (CNN, IMAGE, 3, Choice("layered", 3)),
        (wide, (6,), 4, Choice("layered", 1)),  # 36 MB of weights: one after the other on a CPU
        (residual, IMAGE, 4, Choice("one_by_one", 1)),  # no chain, and 45 MB
        (Branches, (6,), 4, Choice("one_by_one", 1)),  # cannot be batched
    ],
)
def test_the_usual_choice_follows_from_network_and_device(make, shape, num_workers, expected):
    assert usual_choice(network_of(make, shape, num_workers=num_workers)[0]) == expected


def with_times(monkeypatch, **seconds):
    """Let every way and chunk take the given host seconds, others 1; return what was tried."""
    tried = []

    def take(network, data, choice):
        tried.append(choice.text())
        return seconds.get(f"{choice.way}_{choice.chunk}", 1.0)

    monkeypatch.setattr(tuning, "_try", take)
    return tried


def test_a_clearly_faster_choice_is_taken_and_remembered(monkeypatch):
    network, data = network_of(CNN, IMAGE, LONG, 12)
    tried = with_times(monkeypatch, layered_2=0.5)
    assert tuned_choice(network, data) == Choice("layered", 2)
    assert sorted(set(tried)) == ["layered:1", "layered:10", "layered:12", "layered:2", "layered:5"]
    with_times(monkeypatch, layered_5=0.1)
    assert tuned_choice(network, data) == Choice("layered", 2)


def test_a_slightly_faster_choice_is_not_taken(monkeypatch):
    network, data = network_of(CNN, IMAGE, LONG, 12)
    with_times(monkeypatch, layered_2=0.9)
    assert tuned_choice(network, data) == Choice("layered", 10)


def test_what_fits_another_case_is_not_remembered_for_this_one(monkeypatch):
    with_times(monkeypatch, layered_2=0.5)
    tuned_choice(*network_of(CNN, IMAGE, LONG, 12))
    for other in ({"momentum": 0.9}, {"batch_size": 2}, {"num_workers": 6}):
        network, data = network_of(CNN, IMAGE, LONG, **({"num_workers": 12} | other))
        tried = with_times(monkeypatch)
        assert tuned_choice(network, data).chunk == min(10, network.num_workers)
        assert tried


@pytest.mark.parametrize("content", ["", "{", '{"way": "layered"}', '{"way": "magic", "chunk": 3}', "[1]"])
def test_a_torn_or_foreign_memory_is_not_used(monkeypatch, tmp_path, content):
    network, data = network_of(CNN, IMAGE, LONG, 12)
    with_times(monkeypatch, layered_2=0.5)
    tuned_choice(network, data)
    (file,) = tmp_path.rglob("engines/*.json")
    file.write_text(content)
    with_times(monkeypatch, layered_5=0.5)
    assert tuned_choice(network, data) == Choice("layered", 5)


def test_without_a_place_to_remember_it_is_tried_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("no folder")
    network, data = network_of(CNN, IMAGE, LONG, 12)
    tried = with_times(monkeypatch, layered_2=0.5)
    assert [tuned_choice(network, data).chunk for _ in range(2)] == [2, 2]
    assert tried.count("layered:2") == 2 * (1 + tuning._REPEATS)


@pytest.mark.parametrize(
    ("make", "shape", "iterations"),
    [(CNN, IMAGE, 8), (MLP, (6,), LONG)],  # short; nothing to choose
)
def test_short_trials_and_small_networks_are_not_tried(make, shape, iterations, monkeypatch, tmp_path):
    tried = with_times(monkeypatch)
    tuned_choice(*network_of(make, shape, iterations))
    assert not tried
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [CNN, residual])
def test_trying_for_real_leaves_the_start_as_it_was(make):
    network, data = network_of(make, IMAGE, LONG, num_workers=2, momentum=0.5)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    assert tuned_choice(network, data).way in network.ways()
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layered", Choice("layered", 4)),
        ("layered:2", Choice("layered", 2)),
        ("vmap:3", Choice("vmap", 3)),
        ("one_by_one", Choice("one_by_one", 1)),
        ("one_by_one:7", Choice("one_by_one", 1)),
    ],
)
def test_a_choice_can_be_asked_for(text, expected):
    network, _ = network_of(MLP)
    assert choice_of(text, network) == expected
    assert choice_of(expected.text(), network) == expected


@pytest.mark.parametrize("text", ["", "fast", "layered:0", "layered:-1", "layered:x", "layered:2:3"])
def test_what_is_no_choice_is_explained(text):
    with pytest.raises(ConfigError, match="can be trained by layered, vmap, one_by_one"):
        choice_of(text, network_of(MLP)[0])


def test_a_way_that_the_network_does_not_allow_is_explained():
    with pytest.raises(ConfigError, match=r"can be trained by one_by_one.*cannot be batched"):
        choice_of("vmap", network_of(Branches)[0])
