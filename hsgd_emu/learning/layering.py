"""From the modules of a chain to layers batched over workers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from hsgd_emu.learning.blocks import BlockConv, can_use_blocks
from hsgd_emu.learning.dropout import MaskedDropout
from hsgd_emu.learning.fold import Fold
from hsgd_emu.learning.layers import (
    BatchNorm,
    ByAutograd,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Norm,
    Relu,
)
from hsgd_emu.learning.models import ChannelNorm

_CHANNELWISE = (
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    *(nn.Tanh, nn.Sigmoid, nn.SiLU, nn.GELU, nn.ELU, nn.LeakyReLU, nn.Hardswish, nn.ReLU6, nn.Softplus),
)
_KINDS: dict[type[nn.Module], Any] = {
    nn.Linear: Linear,
    nn.Conv2d: Conv2d,
    nn.MaxPool2d: MaxPool2d,
    MaskedDropout: Dropout,
    ChannelNorm: Norm,
    nn.LocalResponseNorm: Norm,
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
}


def layers_of(links: list[tuple[str, nn.Module]], sample: torch.Tensor, fold: Fold | None = None) -> list[Layer] | None:
    """Return the batched layers of a chain, or None where one of them is not known.

    sample: a batch (B, ...), to follow the shapes: rows (B, F) or images (B, C, H, width); fold: of a linear layer,
    the pooling before it left out of the chain.
    """
    links = list(links)
    for place in range(len(links) - 1):
        # A ReLU after the pooling has the same values and gradients, and less to do.
        if isinstance(links[place][1], nn.ReLU) and isinstance(links[place + 1][1], nn.MaxPool2d):
            links[place], links[place + 1] = links[place + 1], links[place]
    parameters = [id(parameter) for _, module in links for parameter in module.parameters()]
    if len(set(parameters)) < len(parameters):  # one used twice: its gradients would have to be added
        return None
    layers: list[Layer] = []
    x = sample.clone()
    with torch.no_grad():
        for number, (name, module) in enumerate(links):
            layer = _layer_of(number, name, module, x.dim())
            if layer is None:
                return None
            if isinstance(layer, Relu):
                layer.in_place = bool(layers) and layers[-1].overwritable
            layers.append(layer)
            if fold and isinstance(layer, Linear) and fold.weight == f"{layer.prefix}weight":
                layer.factor, layer.decaying = fold.factor, fold.kept
                x = x.new_zeros((len(x), len(fold.full)))
            else:
                x = module.eval()(x)
    return layers if x.dim() == 2 else None


def _layer_of(number: int, name: str, module: nn.Module, num_dims: int) -> Layer | None:
    kind = type(module)
    if isinstance(module, nn.Flatten):
        return Flatten(number, name) if (module.start_dim, module.end_dim) == (1, -1) else None
    if kind is nn.ReLU:
        return Relu(number, name)
    if getattr(module, "return_indices", False):
        return None
    if isinstance(module, MaskedDropout) and module.feature_dims == num_dims - 1:  # one draw for a whole sample
        return None
    if kind in _CHANNELWISE:
        return ByAutograd(number, name, module)
    if kind not in _KINDS or num_dims not in (2, 4):
        return None
    is_image = kind in (nn.Conv2d, nn.MaxPool2d, ChannelNorm, nn.LocalResponseNorm, nn.BatchNorm2d)
    if kind is not MaskedDropout and is_image != (num_dims == 4):
        return None
    if isinstance(module, nn.Conv2d) and (isinstance(module.padding, str) or module.padding_mode != "zeros"):
        return None
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and (
        module.momentum is None or not module.affine or not module.track_running_stats
    ):
        return None
    layer: Layer = _KINDS[kind](number, name, module)
    return layer


def evaluation_layers_of(layers: list[Layer], links: list[tuple[str, nn.Module]], sample: torch.Tensor) -> list[Layer]:
    """Return the layers to evaluate with on a CPU: a small first convolution and its pooling on blocks of pixels."""
    modules = [module for _, module in links]
    # What stands between the two is a ReLU, which `layers_of` put behind the pooling.
    pooling = next((module for module in modules[1:3] if isinstance(module, nn.MaxPool2d)), None)
    if pooling is None or not can_use_blocks(modules[0], pooling, sample.shape):
        return layers
    if not isinstance(layers[1], MaxPool2d):
        return layers
    return [BlockConv(0, links[0][0], cast(nn.Conv2d, modules[0])), *layers[2:]]
