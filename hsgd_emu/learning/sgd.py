"""Plain SGD with momentum and weight decay (torch.optim.SGD's rule) on stacked parameters, fused where it can be."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]


class Sgd:
    """Updates parameters (W, *shape) as soon as their gradients are known.

    Gradients arrive multiplied by `loss_scale`: the learning rate where there is no momentum, so that an update is a
    subtraction, which can be fused into the product that yields the gradient.
    """

    def __init__(self, weights: Tensors, momenta: Tensors, momentum: float, weight_decay: float) -> None:
        """momenta: by name of the parameter, in place; empty without momentum."""
        self.weights, self.momenta, self.momentum, self.weight_decay = weights, momenta, momentum, weight_decay
        self.rate: float | torch.Tensor = 0.0

    def begin_step(self, rate: float | torch.Tensor) -> float | torch.Tensor:
        """Set the learning rate of the next updates and return the scale of the loss."""
        self.rate = rate
        return 1.0 if self.momentum else rate

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x gradient (W, *shape)."""
        weight = self.weights[name]
        if self.momentum:
            self.momenta[name].mul_(self.momentum).add_(gradient, alpha=scale)
            self._follow_momentum(name)
        else:
            self._decay(weight)
            weight.sub_(gradient, alpha=scale)

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x left (W, m, b) @ right (W, b, n), which is never stored."""
        weight = self.weights[name]
        if self.momentum:
            _add_product(self.momenta[name], left, right, self.momentum, scale)
            self._follow_momentum(name)
        elif self.weight_decay and isinstance(self.rate, float):
            _add_product(weight, left, right, 1 - self.rate * self.weight_decay, -scale)
        else:
            self._decay(weight)
            _add_product(weight, left, right, 1.0, -scale)

    def _decay(self, weight: torch.Tensor) -> None:
        if self.weight_decay:
            weight.mul_(1 - self.rate * self.weight_decay)

    def _follow_momentum(self, name: str) -> None:
        weight, momentum = self.weights[name], self.momenta[name]
        if self.weight_decay:
            momentum.add_(weight, alpha=self.weight_decay)
        if isinstance(self.rate, float):
            weight.sub_(momentum, alpha=self.rate)
        else:
            weight.addcmul_(momentum, self.rate, value=-1)


def _add_product(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, beta: float, alpha: float) -> None:
    if left.dtype != into.dtype:  # products in lower precision, weights as they are
        into.mul_(beta).add_(torch.bmm(left, right), alpha=alpha)
    elif len(into) == 1:
        into[0].addmm_(left[0], right[0], beta=beta, alpha=alpha)
    else:
        into.baddbmm_(left, right, beta=beta, alpha=alpha)
