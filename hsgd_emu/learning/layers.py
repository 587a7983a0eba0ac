"""Layers with a leading worker axis and their derivatives, written by hand and batched over workers.

Rows are (W, B, F). Images are (B, W x C, H, width), channels last in memory: the workers of a chunk are groups of
channels, so that a grouped convolution computes them all. `backward` gives each parameter's gradient to the
update rule as soon as the layer below no longer needs the old weights.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.learning.dropout import MaskedDropout
from hsgd_emu.learning.models import ChannelNorm
from hsgd_emu.learning.norm import channel_norm, channel_norm_backward
from hsgd_emu.learning.updates import Rule

_aten = torch.ops.aten


@dataclass
class Pass:
    """What the layers of one forward pass share.

    tensors: parameters, buffers and dropout masks (W, *shape) by name; low: the type of products, if not the data's.
    """

    num_workers: int
    tensors: dict[str, torch.Tensor]
    training: bool
    low: torch.dtype | None = None
    saved: dict[int, Any] = field(default_factory=dict)

    def keep(self, layer: Layer, *values: Any) -> None:
        """Keep what the layer's backward needs."""
        if self.training:
            self.saved[layer.number] = values

    def lowered(self, x: torch.Tensor) -> torch.Tensor:
        """Return a factor of a product in the type of products."""
        return x if self.low is None else x.to(self.low)


class Layer:
    """One link of a chain. What `backward` needs of `forward` is kept in `Pass.saved` under the layer's number."""

    overwritable = False
    """Whether the next layer may overwrite this one's output."""

    def __init__(self, number: int, name: str) -> None:
        """number: its place in the chain; name: in the network, "" for what has none."""
        self.number, self.prefix = number, f"{name}." if name else ""

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        raise NotImplementedError

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        """Return the gradient with respect to the input, if needed, and update what the layer trains.

        dy may be overwritten.
        """
        raise NotImplementedError

    def trained(self, name: str, rule: Rule) -> bool:
        return self.prefix + name in rule.weights

    def trains(self, rule: Rule) -> bool:
        """Return whether the layer has anything to train."""
        return self.prefix != "" and (self.trained("weight", rule) or self.trained("bias", rule))


class Linear(Layer):
    """y = x A^T + b. Where the input was folded (`learning.fold`), its weight learns `factor` times as fast."""

    overwritable = True

    def __init__(self, number: int, name: str, module: nn.Linear) -> None:
        super().__init__(number, name)
        self.has_bias = module.bias is not None
        self.factor, self.decaying = 1, ""

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        x = run.lowered(x)
        weight = run.lowered(run.tensors[f"{self.prefix}weight"])
        run.keep(self, x)
        if not self.has_bias:
            return torch.bmm(x, weight.mT)
        bias = run.lowered(run.tensors[f"{self.prefix}bias"])
        if run.num_workers == 1:
            return torch.addmm(bias[0], x[0], weight[0].mT)[None]
        return torch.baddbmm(bias[:, None], x, weight.mT)

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        (x,) = run.saved.pop(self.number)
        dy = run.lowered(dy)
        dx = torch.bmm(dy, run.lowered(run.tensors[f"{self.prefix}weight"])) if need_dx else None
        if self.trained("weight", rule):
            rule.apply_product(f"{self.prefix}weight", dy.mT, x, self.factor)
        if self.has_bias and self.trained("bias", rule):
            rule.apply(f"{self.prefix}bias", dy.sum(1))
        if self.decaying in rule.weights:
            rule.apply(self.decaying, torch.zeros_like(run.tensors[self.decaying]))
        return dx


class Conv2d(Layer):
    """Convolution; the groups are the workers' own."""

    overwritable = True

    def __init__(self, number: int, name: str, module: nn.Conv2d) -> None:
        super().__init__(number, name)
        self.window = [list(module.stride), _pair(module.padding), list(module.dilation)]
        self.groups, self.has_bias = module.groups, module.bias is not None

    def _weight(self, run: Pass) -> torch.Tensor:
        return run.lowered(run.tensors[f"{self.prefix}weight"].flatten(0, 1))

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        x = run.lowered(x)
        run.keep(self, x)
        bias = run.lowered(run.tensors[f"{self.prefix}bias"].flatten()) if self.has_bias else None
        stride, padding, dilation = self.window
        return F.conv2d(x, self._weight(run), bias, stride, padding, dilation, run.num_workers * self.groups)

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        (x,) = run.saved.pop(self.number)
        weight, dy = self._weight(run), run.lowered(dy)
        wants = [need_dx, self.trained("weight", rule), self.has_bias and self.trained("bias", rule)]
        groups = run.num_workers * self.groups
        dx, dw, db = _aten.convolution_backward(
            dy, x, weight, [len(weight)], *self.window, False, [0, 0], groups, wants
        )
        for name, gradient, wanted in (("weight", dw, wants[1]), ("bias", db, wants[2])):
            if wanted:
                rule.apply(self.prefix + name, torch.unflatten(gradient, 0, (run.num_workers, -1)))
        return dx if need_dx else None


class Relu(Layer):
    """max(0, x), in place where the layer below allows it."""

    in_place = False

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        y = x.relu_() if self.in_place else x.relu()
        run.keep(self, y)
        return y

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        (y,) = run.saved.pop(self.number)
        dx: torch.Tensor = _aten.threshold_backward.grad_input(dy, y, 0, grad_input=dy)
        return dx


class MaxPool2d(Layer):
    """Max pooling; of equal entries the first takes the gradient, as in PyTorch."""

    overwritable = True

    def __init__(self, number: int, name: str, module: nn.MaxPool2d) -> None:
        super().__init__(number, name)
        stride = module.stride if module.stride is not None else module.kernel_size
        self.window = [_pair(module.kernel_size), _pair(stride), _pair(module.padding), _pair(module.dilation)]
        self.ceil_mode = module.ceil_mode

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        kernel, stride, padding, dilation = self.window
        if not run.training:
            return F.max_pool2d(x, kernel, stride, padding, dilation, self.ceil_mode)
        y, indices = _aten.max_pool2d_with_indices(x, *self.window, self.ceil_mode)
        run.keep(self, x, indices)
        pooled: torch.Tensor = y
        return pooled

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        x, indices = run.saved.pop(self.number)
        dx: torch.Tensor = _aten.max_pool2d_with_indices_backward(dy, x, *self.window, self.ceil_mode, indices)
        return dx


class Flatten(Layer):
    """Images to rows; rows of any shape to plain rows."""

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        run.keep(self, x.shape)
        if x.dim() == 4:
            x = torch.unflatten(x, 1, (run.num_workers, -1)).transpose(0, 1)
        return x.flatten(2)

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        (shape,) = run.saved.pop(self.number)
        if len(shape) != 4:
            return dy.view(shape)
        _, channels, height, width = shape
        images = dy.view(run.num_workers, -1, channels // run.num_workers, height, width)
        return images.permute(1, 3, 4, 0, 2).flatten(3).permute(0, 3, 1, 2)


class Dropout(Layer):
    """Multiplies by a mask given from outside."""

    def __init__(self, number: int, name: str, module: MaskedDropout) -> None:
        super().__init__(number, name)

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        if not run.training:
            return x
        mask = run.tensors[f"{self.prefix}mask"]
        if x.dim() == 4:  # (W, B, C, ...) -> (B, W x C, ...)
            mask = mask.transpose(0, 1).flatten(1, 2)
        run.keep(self, mask)
        return x * mask

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        (mask,) = run.saved.pop(self.number)
        masked: torch.Tensor = dy * mask
        return masked


class Norm(Layer):
    """Local response normalisation over each worker's own channels."""

    overwritable = True

    def __init__(self, number: int, name: str, module: ChannelNorm | nn.LocalResponseNorm) -> None:
        super().__init__(number, name)
        self.settings = (module.size, module.alpha, module.beta, module.k)

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        images = torch.unflatten(x.permute(0, 2, 3, 1), 3, (run.num_workers, -1))
        y, kept = channel_norm(images, self.settings)
        run.keep(self, images, kept)
        return y.flatten(3).permute(0, 3, 1, 2)

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        images, kept = run.saved.pop(self.number)
        dy = torch.unflatten(dy.permute(0, 2, 3, 1), 3, (run.num_workers, -1))
        return channel_norm_backward(dy, images, kept, self.settings).flatten(3).permute(0, 3, 1, 2)


class ByAutograd(Layer):
    """Any layer without parameters that treats channels (or the entries of a row) apart; PyTorch differentiates it."""

    def __init__(self, number: int, name: str, module: nn.Module) -> None:
        super().__init__(number, name)
        own: Any = copy.copy(module)
        if hasattr(module, "inplace"):
            own.inplace = False
        self.module: nn.Module = own

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        if not run.training:
            y: torch.Tensor = self.module(x)
            return y
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = self.module(leaf)
        run.keep(self, leaf, y)
        return y.detach()

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        leaf, y = run.saved.pop(self.number)
        dx: torch.Tensor = torch.autograd.grad(y, leaf, dy)[0]
        return dx


class BatchNorm(Layer):
    """Normalises each worker's channels over its own batch; running statistics are updated in place.

    Where the network holds it in evaluation mode in training too, it normalises by its running statistics.
    """

    def __init__(self, number: int, name: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(number, name)
        assert module.momentum is not None
        self.eps, self.momentum, self.is_held = module.eps, module.momentum, not module.training

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        flat = x.transpose(0, 1).flatten(1) if x.dim() == 3 else x
        weight, bias, mean, var = (
            run.tensors[self.prefix + name].reshape(-1) for name in ("weight", "bias", "running_mean", "running_var")
        )
        by_batch = run.training and not self.is_held
        if by_batch:
            run.tensors[f"{self.prefix}num_batches_tracked"].add_(1)
        with torch.set_grad_enabled(run.training):
            leaves = [tensor.detach().requires_grad_(run.training) for tensor in (flat, weight, bias)]
            y = F.batch_norm(leaves[0], mean, var, leaves[1], leaves[2], by_batch, self.momentum, self.eps)
        run.keep(self, leaves, y)
        return self._like(y.detach(), x, run)

    def backward(self, dy: torch.Tensor, run: Pass, rule: Rule, need_dx: bool) -> torch.Tensor | None:
        leaves, y = run.saved.pop(self.number)
        flat = dy.transpose(0, 1).flatten(1) if dy.dim() == 3 else dy
        dx, *gradients = torch.autograd.grad(y, leaves, flat)
        for name, gradient in zip(("weight", "bias"), gradients, strict=True):
            if self.trained(name, rule):
                rule.apply(self.prefix + name, gradient.view(run.num_workers, -1))
        return self._like(dx, dy, run)

    @staticmethod
    def _like(flat: torch.Tensor, x: torch.Tensor, run: Pass) -> torch.Tensor:
        return torch.unflatten(flat, 1, (run.num_workers, -1)).transpose(0, 1) if x.dim() == 3 else flat


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
