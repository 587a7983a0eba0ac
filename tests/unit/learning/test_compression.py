"""Senders that compress: what arrives of a model, and what waits for the next time."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from hsgd_emu.config.server_schema import CompressionSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.learning.compression import Compressor, compressed
from hsgd_emu.learning.models import cifar_cnn, mlp

from .test_stacked_training import HOW
from .twins import Trial, in_turns, synthetic

MLP = partial(mlp, (6,), (8,), 4)
SPECS = {
    "top_k": CompressionSpec(method="top_k", fraction=0.1),
    "top_k without feedback": CompressionSpec(method="top_k", fraction=0.1, error_feedback=False),
    "random_k": CompressionSpec(method="random_k", fraction=0.3),
    "random_k without feedback": CompressionSpec(method="random_k", fraction=0.3, error_feedback=False),
    "stochastic": CompressionSpec(method="quantize", bits=4),
    "nearest": CompressionSpec(method="quantize", bits=3, rounding="nearest"),
}


def senders(spec: CompressionSpec, *both: tuple[int, str]) -> dict:
    return {(node, way): Sender(f"node-{node}", spec) for node, way in both}


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("members", [None, in_turns])
def test_twins(spec, way, chunk, members):
    # Two workers and a local server up, the other local server both ways, the global one down.
    who = senders(SPECS[spec], (0, "up"), (3, "up"), (4, "up"), (5, "up"), (5, "down"), (6, "down"))
    Trial(MLP, synthetic((6,)), senders=who).assert_twins(way, chunk, members=members)


def test_images_and_buffers_and_frozen_parameters():
    top = senders(SPECS["top_k"], (0, "up"), (2, "up"), (6, "down"))
    Trial(partial(cifar_cnn, 4), synthetic((3, 32, 32), images=True), senders=top).assert_twins()
    layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    Trial(lambda: copy.deepcopy(layers), synthetic((6,)), senders=top).assert_twins()
    layers[2].weight.requires_grad_(False)
    Trial(lambda: copy.deepcopy(layers), synthetic((6,)), senders=top).assert_twins()


def code(spec: CompressionSpec, *values: float) -> list[float]:
    return compressed(spec, {"w": torch.tensor(values).double()}, np.random.default_rng(1))["w"].tolist()


def test_by_hand():
    half = CompressionSpec(method="top_k", fraction=0.5)
    assert code(half, 1, -3, 2, 0) == [0, -3, 2, 0]
    assert code(half, 1, -1, 1, 1) == [1, -1, 0, 0]  # of equal ones the first
    assert code(half, 1, 2, 3, 4, 5) == [0, 0, 0, 4, 5]  # 2.5 is 2
    assert code(CompressionSpec(method="top_k", fraction=0.01), 1, 2) == [0, 2]  # one at least
    # Three bits are three steps on each side: halves go to the even one.
    nearest = CompressionSpec(method="quantize", bits=3, rounding="nearest")
    assert code(nearest, 6, -1, 3, 5, 0) == [6, 0, 4, 4, 0]
    assert code(nearest, 0, 0) == [0, 0]


def test_random_ones_are_right_in_the_mean():
    rng, u = np.random.default_rng(2), {"w": torch.tensor([1.0, -2.0, 0.3, 4.0]).double()}
    random_k = CompressionSpec(method="random_k", fraction=0.5, error_feedback=False)
    for spec in (random_k, CompressionSpec(method="quantize", bits=2)):
        mean = torch.stack([compressed(spec, u, rng)["w"] for _ in range(4000)]).mean(0)
        torch.testing.assert_close(mean, u["w"], rtol=0, atol=0.2)


def test_what_is_not_sent_waits():
    one = Compressor(Sender("a", CompressionSpec(method="top_k", fraction=0.5)), "up", 1)
    base, model = {"w": torch.zeros(2)}, {"w": torch.tensor([2.0, 1.5])}
    assert one.send(model, base)["w"].tolist() == [2, 0]
    assert one.send(model, base)["w"].tolist() == [0, 3]  # 1.5 and as much from before
    assert one.memory["w"].tolist() == [2, 0]
    none = Compressor(Sender("a", CompressionSpec(method="top_k", fraction=0.5, error_feedback=False)), "up", 1)
    assert [none.send(model, base)["w"].tolist() for _ in range(2)] == [[2, 0], [2, 0]]


def test_each_sender_direction_and_turn_has_its_own_draws():
    spec, u = CompressionSpec(method="random_k", fraction=0.1), {"w": torch.ones(200)}
    zero = {"w": torch.zeros(200)}
    seen = set()
    for name, way in (("a", "up"), ("b", "up"), ("a", "down")):
        one = Compressor(Sender(name, spec.model_copy(update={"error_feedback": False})), way, 1)
        seen |= {tuple(one.send(u, zero)["w"].nonzero().flatten().tolist()) for _ in range(3)}
    assert len(seen) == 9


def test_a_model_that_has_diverged_shows():
    for name in ("top_k", "stochastic", "nearest"):
        spec = SPECS[name]
        assert not all(np.isfinite(code(spec, *[1.0] * 20, float("nan"))))
