"""A convolution and its pooling on blocks of pixels are the plain ones: values, gradients and ties."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from hsgd_emu.learning.blocks import BlockConv, blocks_of, can_use_blocks
from hsgd_emu.learning.layers import Pass
from hsgd_emu.learning.models import cifar_cnn
from hsgd_emu.learning.sgd import Sgd

from .twins import Trial, synthetic

KINDS = {
    "5x5": {"kernel_size": 5},
    "5x5_padded": {"kernel_size": 5, "padding": 2},
    "3x3": {"kernel_size": 3},
    "1x1": {"kernel_size": 1},
    "no_bias": {"kernel_size": 3, "padding": 2, "bias": False},
}


def stacked(modules: list[nn.Module]) -> dict[str, torch.Tensor]:
    names = dict(modules[0].named_parameters())
    return {f"0.{name}": torch.stack([m.get_parameter(name).detach() for m in modules]) for name in names}


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_equal_pytorch(kind, constant):
    # Where a whole region of the image is constant, all outputs of a window tie: the first takes the gradient.
    torch.manual_seed(0)
    modules = [nn.Conv2d(3, 4, **KINDS[kind]).double() for _ in range(2)]
    x = torch.randn(2, 5, 3, 8, 10, dtype=torch.float64)
    if constant:
        x[:, :, :, :6] = 0.25
    layer, weights = BlockConv(0, "0", modules[0]), stacked(modules)
    run, sgd = Pass(2, weights, True), Sgd(weights, {}, 0.0, 0.0)
    grouped = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    found = layer.forward(blocks_of(grouped.unflatten(1, (2, 3)).flatten(0, 1)).unflatten(0, (5, 2)).flatten(1, 2), run)
    plain = [nn.functional.max_pool2d(module(x[w]), 2) for w, module in enumerate(modules)]
    torch.testing.assert_close(found, torch.cat(plain, 1), rtol=1e-13, atol=1e-13)
    dy = torch.randn_like(found)
    expected = {}
    for w, module in enumerate(modules):
        gradients = torch.autograd.grad(plain[w], list(module.parameters()), dy[:, 4 * w : 4 * w + 4])
        for (name, start), gradient in zip(module.named_parameters(), gradients, strict=True):
            expected[name, w] = start.detach() - 0.1 * gradient
    sgd.begin_step(0.1)
    layer.backward(0.1 * dy, run, sgd, need_dx=False)
    for (name, w), value in expected.items():
        torch.testing.assert_close(weights[f"0.{name}"][w], value, rtol=1e-12, atol=1e-12)


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


def frozen(bias: bool):
    network = cifar_cnn(4)
    network[0].weight.requires_grad_(bias)
    network[0].bias.requires_grad_(not bias)
    return network


@pytest.mark.parametrize("make", [partial(cifar_cnn, 4), partial(frozen, True), partial(frozen, False)])
def test_networks_that_begin_with_one_use_blocks(make):
    trial = Trial(make, synthetic((3, 32, 32), images=True), momentum=0.5, weight_decay=0.1)
    learner = trial.assert_twins("layered", 3)
    assert isinstance(learner.engine.layers[0], BlockConv)
    assert learner.engine.form == "blocks"
