"""A small first convolution and its 2x2 max pooling, computed on blocks of 2x2 pixels.

CPUs compute eight or sixteen channels at a time, so six channels waste most of it. A convolution on blocks has four
times as many: the four pixels of a block become channels of the input, the four outputs that are pooled together
become channels of the output, and the pooling is a maximum over them. The larger kernel is mostly the same numbers
(36 of the 25 for a 5x5 one), yet forward and backward take two thirds of the time (docs/performance.md).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.learning.layers import Layer, Pass
from hsgd_emu.learning.sgd import Sgd

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
def _places(out_channels: int, in_channels: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each entry of the kernel on blocks which one of the plain kernel it is, and the way back.

    The first, flat over (4 out, 4 in, size', size'): an index into the flat plain kernel, or its length where there
    is none. The second (out x in x size x size, 4): where each plain entry stands, once for each of the four outputs.
    """
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
    flat = found.flatten()
    back = torch.argsort(flat, stable=True)[: 4 * plain.numel()].view(plain.numel(), 4)
    return flat, back


class BlockConv(Layer):
    """Convolution and max pooling on blocks; the input is given as blocks and needs no gradient."""

    overwritable = True

    def __init__(self, number: int, name: str, module: nn.Conv2d) -> None:
        super().__init__(number, name)
        self.shape = (module.out_channels, module.in_channels, module.kernel_size[0])
        self.half = (module.kernel_size[0] + 1) // 2
        self.padding = [int(module.padding[0]) // 2] * 2
        self.has_bias = module.bias is not None

    def _weight(self, run: Pass) -> torch.Tensor:
        """Return the workers' kernels on blocks (W x 4 out, 4 in, half, half)."""
        out, in_, _ = self.shape
        flat = F.pad(run.tensors[f"{self.prefix}weight"].reshape(run.num_workers, -1), (0, 1))
        weight = flat.index_select(1, _places(*self.shape)[0])
        return run.lowered(weight.view(run.num_workers * 4 * out, 4 * in_, self.half, self.half))

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        x = run.lowered(x)
        weight, bias = self._weight(run), None
        if self.has_bias:
            own = run.lowered(run.tensors[f"{self.prefix}bias"])
            bias = own[:, None].expand(run.num_workers, 4, self.shape[0]).flatten()
        y = F.conv2d(x, weight, bias, 1, self.padding, 1, run.num_workers)
        four = self._apart(y, run)
        upper, lower = torch.maximum(four[0], four[1]), torch.maximum(four[2], four[3])
        run.keep(self, x, weight, four, upper, lower)
        return torch.maximum(upper, lower).flatten(3).permute(0, 3, 1, 2)

    def _apart(self, y: torch.Tensor, run: Pass) -> tuple[torch.Tensor, ...]:
        """Return the four outputs of each block, each (B, H', width', W, out)."""
        return torch.unflatten(y.permute(0, 2, 3, 1), 3, (run.num_workers, 4, self.shape[0])).unbind(4)

    def backward(self, dy: torch.Tensor, run: Pass, sgd: Sgd, need_dx: bool) -> torch.Tensor | None:
        x, weight, four, upper, lower = run.saved.pop(self.number)
        gradient = torch.unflatten(run.lowered(dy).permute(0, 2, 3, 1), 3, (run.num_workers, self.shape[0]))
        num, height, width = gradient.shape[:3]
        dy_blocks = gradient.new_empty(num, height, width, len(weight)).permute(0, 3, 1, 2)
        into = self._apart(dy_blocks, run)
        # Of equal outputs the first takes the gradient, as in PyTorch.
        to_upper = gradient * (upper >= lower)
        for first, part in ((0, to_upper), (2, gradient - to_upper)):
            torch.mul(part, four[first] >= four[first + 1], out=into[first])
            torch.sub(part, into[first], out=into[first + 1])
        wants = [False, self.trained("weight", sgd), self.has_bias and self.trained("bias", sgd)]
        _, dw, db = torch.ops.aten.convolution_backward(
            dy_blocks, x, weight, [len(weight)], [1, 1], self.padding, [1, 1], False, [0, 0], run.num_workers, wants
        )
        if wants[1]:
            back = _places(*self.shape)[1]
            plain = dw.reshape(run.num_workers, -1).index_select(1, back.flatten())
            whole = run.tensors[f"{self.prefix}weight"]
            sgd.apply(f"{self.prefix}weight", plain.view(run.num_workers, -1, 4).sum(2).view(whole.shape))
        if wants[2]:
            sgd.apply(f"{self.prefix}bias", db.view(run.num_workers, 4, -1).sum(1))
        return None
