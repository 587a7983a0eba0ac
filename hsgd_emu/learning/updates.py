"""How a worker's parameters follow from their gradients: rules of a step, as `torch.optim` has them."""

from __future__ import annotations

from typing import Protocol

import torch

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.learning.stacks import MOMENTUM, Part, Tensors, of

Rate = float | torch.Tensor


class Rule(Protocol):
    """Updates parameters (W, *shape) from the gradients of one step after the other.

    Gradients arrive in any order, multiplied by what `begin_step` returned.
    """

    weights: Tensors
    """What it trains, by name."""

    def begin_step(self, rate: Rate) -> Rate:
        """Set the learning rate of the next updates and return the scale of the loss."""
        ...

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x gradient (W, *shape)."""
        ...

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x left (W, m, b) @ right (W, b, n)."""
        ...

    def end_step(self) -> None:
        """Be told that all gradients of the step have arrived."""
        ...


def rule_of(part: Part, train: TrainSpec) -> Rule:
    """Return the rule by which workers step."""
    return Sgd(part, train)


class Sgd:
    """Stochastic gradient descent; updates parameters as soon as their gradients are known.

    The loss is scaled by the learning rate where there is no momentum, so that an update is a subtraction, which can be
    fused into the product that yields the gradient, and that is never stored.
    """

    def __init__(self, part: Part, train: TrainSpec) -> None:
        self.weights = part.trained
        self.momenta = {name: part.kept[of(MOMENTUM, name)] for name in self.weights if train.momentum}
        self.momentum, self.anchors, self.proximal = train.momentum, part.anchors, train.proximal or 0.0
        self.weight_decay = train.weight_decay + self.proximal
        self.rate: Rate = 0.0

    def begin_step(self, rate: Rate) -> Rate:
        self.rate = rate
        return 1.0 if self.momentum else rate

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        weight = self.weights[name]
        if self.momentum:
            self.momenta[name].mul_(self.momentum).add_(gradient, alpha=scale)
            self._follow_momentum(name)
        else:
            self._decay(name)
            weight.sub_(gradient, alpha=scale)

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        weight = self.weights[name]
        if self.momentum:
            _add_product(self.momenta[name], left, right, self.momentum, scale)
            self._follow_momentum(name)
        elif self.weight_decay and not self.proximal and isinstance(self.rate, float):
            _add_product(weight, left, right, 1 - self.rate * self.weight_decay, -scale)
        else:
            self._decay(name)
            _add_product(weight, left, right, 1.0, -scale)

    def end_step(self) -> None:
        """All is done already."""

    def _decay(self, name: str) -> None:
        if self.weight_decay:
            self.weights[name].mul_(1 - self.rate * self.weight_decay)
        if self.proximal:
            self.weights[name].add_(self.anchors[name] * (self.rate * self.proximal))

    def _follow_momentum(self, name: str) -> None:
        weight, momentum = self.weights[name], self.momenta[name]
        if self.weight_decay:
            momentum.add_(weight, alpha=self.weight_decay)
        if self.proximal:
            momentum.sub_(self.anchors[name], alpha=self.proximal)
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
