"""A small first convolution and its 2x2 max pooling, computed on blocks of 2x2 pixels.

CPUs compute eight or sixteen channels at a time, so six channels waste most of it. A convolution on blocks has four
times as many: the four pixels of a block become channels of the input, the four outputs that are pooled together
become channels of the output, and the pooling is a maximum over them. For evaluation only: there it takes half the
time; in training the gradient of that maximum costs what the convolution gains (docs/performance.md).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.learning.layers import Layer, Pass

MOST_CHANNELS = 8
"""With more output channels the plain convolution is as fast."""


def blocks_of(x: torch.Tensor) -> torch.Tensor:
    """Return images (N, C, H, width), channels last in memory, as blocks (N, 4 x C, H / 2, width / 2), likewise."""
    num, channels, height, width = x.shape
    apart = x.permute(0, 2, 3, 1).reshape(num, height // 2, 2, width // 2, 2, channels)
    return apart.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)


def can_use_blocks(convolution: nn.Module, pooling: nn.Module, shape: torch.Size) -> bool:
    """Return whether a convolution and a pooling can be computed on blocks, and gain by it.

    shape: of a batch of images (B, C, H, width).
    """
    if type(convolution) is not nn.Conv2d or type(pooling) is not nn.MaxPool2d or len(shape) != 4:
        return False
    size, padding = convolution.kernel_size, convolution.padding
    plain = (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
    pairs = pooling.kernel_size in (2, (2, 2)) and pooling.stride in (2, (2, 2)) and pooling.padding in (0, (0, 0))
    return (
        plain
        and pairs
        and pooling.dilation in (1, (1, 1))
        and not isinstance(padding, str)
        and convolution.padding_mode == "zeros"
        and size[0] == size[1]
        and size[0] % 2 == 1
        and padding[0] == padding[1]
        and padding[0] % 2 == 0
        and shape[2] % 2 == 0
        and shape[3] % 2 == 0
        and convolution.out_channels <= MOST_CHANNELS
    )


@lru_cache(maxsize=8)
def _places(out_channels: int, in_channels: int, size: int) -> torch.Tensor:
    """Return for each entry of the kernel on blocks, flat over (4 out, 4 in, half, half), its place in the flat plain
    kernel, or that one's length where it has none."""
    half = (size + 1) // 2
    plain = torch.arange(out_channels * in_channels * size * size).view(out_channels, in_channels, size, size)
    found = torch.full((2, 2, out_channels, 2, 2, in_channels, half, half), plain.numel())
    for down in range(2):
        for right in range(2):
            # The output at (down, right) of a block reads from (down, right) of the blocks' pixels on.
            wide = torch.full((out_channels, in_channels, 2 * half, 2 * half), plain.numel())
            wide[:, :, down : down + size, right : right + size] = plain
            apart = wide.view(out_channels, in_channels, half, 2, half, 2)
            found[down, right] = apart.permute(0, 3, 5, 1, 2, 4)
    return found.flatten()


class BlockConv(Layer):
    """Convolution and max pooling on blocks of one model's images."""

    overwritable = True

    def __init__(self, number: int, name: str, module: nn.Conv2d) -> None:
        super().__init__(number, name)
        self.shape = (module.out_channels, module.in_channels, module.kernel_size[0])
        self.padding = [int(module.padding[0]) // 2] * 2
        self.has_bias = module.bias is not None

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        (weight,) = run.tensors[f"{self.prefix}weight"]
        out, in_, size = self.shape
        on_blocks = F.pad(weight.reshape(-1), (0, 1))[_places(out, in_, size)]
        kernel = on_blocks.view(4 * out, 4 * in_, (size + 1) // 2, -1)
        bias = run.lowered(run.tensors[f"{self.prefix}bias"][0].repeat(4)) if self.has_bias else None
        y = F.conv2d(run.lowered(x), run.lowered(kernel), bias, 1, self.padding)
        four = torch.split(y, out, 1)
        pooled = torch.maximum(torch.maximum(four[0], four[1]), torch.maximum(four[2], four[3]))
        return pooled.contiguous(memory_format=torch.channels_last)
