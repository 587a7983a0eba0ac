"""A convolution and its pooling on blocks of pixels have the values of the plain ones."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from hsgd_emu.learning.blocks import BlockConv, blocks_of, can_use_blocks
from hsgd_emu.learning.layers import Pass
from hsgd_emu.learning.models import cifar_cnn

from .twins import Trial, synthetic

KINDS = {
    "5x5": {"kernel_size": 5},
    "5x5_padded": {"kernel_size": 5, "padding": 2},
    "3x3": {"kernel_size": 3},
    "1x1": {"kernel_size": 1},
    "no_bias": {"kernel_size": 3, "padding": 2, "bias": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_pytorch(kind):
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, **KINDS[kind]).double()
    x = torch.randn(5, 3, 8, 10, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    tensors = {f"0.{name}": parameter.detach()[None] for name, parameter in module.named_parameters()}
    found = BlockConv(0, "0", module).forward(blocks_of(x), Pass(1, tensors, False))
    torch.testing.assert_close(found, nn.functional.max_pool2d(module(x), 2).detach(), rtol=1e-13, atol=1e-13)


POOL = nn.MaxPool2d(2)


@pytest.mark.parametrize(
    ("convolution", "pooling", "shape"),
    [
        (nn.Conv2d(3, 9, 5), POOL, (2, 3, 8, 8)),  # enough channels of its own
        (nn.Conv2d(3, 4, 4), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, (3, 5)), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 5, padding=1), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 5, padding="same"), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 5, padding=2, padding_mode="circular"), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3, stride=2), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3, dilation=2), POOL, (2, 3, 8, 8)),
        (nn.Conv2d(4, 4, 3, groups=2), POOL, (2, 4, 8, 8)),
        (nn.Conv2d(3, 4, 3), POOL, (2, 3, 7, 8)),
        (nn.Conv2d(3, 4, 3), nn.MaxPool2d(3), (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, 1), (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, padding=1), (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2, dilation=2), (2, 3, 8, 8)),
        (nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), (2, 3, 8, 8)),
    ],
)
def test_other_convolutions_and_poolings_stay_plain(convolution, pooling, shape):
    assert can_use_blocks(nn.Conv2d(3, 4, 5, padding=2), POOL, torch.Size((2, 3, 8, 8)))
    assert not can_use_blocks(convolution, pooling, torch.Size(shape))


@pytest.mark.parametrize("seed", [1, 2])
def test_networks_that_begin_with_one_are_evaluated_on_blocks(seed):
    trial = Trial(partial(cifar_cnn, 4), synthetic((3, 32, 32), images=True), seed=seed)
    learner = trial.assert_twins("layered", 3)
    assert isinstance(learner.engine.evaluation_layers[0], BlockConv)
    assert not isinstance(learner.engine.layers[0], BlockConv)
