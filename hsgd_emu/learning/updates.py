"""How a worker's parameters follow from their gradients: rules of a step, as `torch.optim` has them."""

from __future__ import annotations

from typing import Protocol

import torch

from hsgd_emu.config.run_schema import BETAS, EPSILON, TrainSpec, is_adam
from hsgd_emu.learning.stacks import FIRST_MOMENT, MOMENTUM, SECOND_MOMENT, STEPS, Part, Tensors, of

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
    if train.clip_norm:
        without = train.model_copy(update={"clip_norm": None, "proximal": None})
        return Clipped(rule_of(part, without), part, train.clip_norm, train.proximal or 0.0)
    return Adam(part, train) if is_adam(train) else Sgd(part, train)


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
        self.corrections = part.corrections
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
        elif self.weight_decay and not (self.proximal or self.corrections) and isinstance(self.rate, float):
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
        if self.corrections:
            self.weights[name].sub_(self.corrections[name] * self.rate)

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


class Adam:
    """Adam and AdamW (Kingma & Ba; Loshchilov & Hutter), moments corrected for their start.

    Each worker counts its own steps. On a CPU one kernel of PyTorch's goes over all numbers once; elsewhere it is a few
    operations that can be captured.
    """

    def __init__(self, part: Part, train: TrainSpec, by_kernel: bool | None = None) -> None:
        """by_kernel: whether the CPU's kernel is used (default: on a CPU)."""
        self.weights, self.steps = part.trained, part.kept[STEPS]
        self.first, self.second = (
            {name: part.kept[of(kind, name)] for name in self.weights} for kind in (FIRST_MOMENT, SECOND_MOMENT)
        )
        self.betas, self.epsilon = train.betas or BETAS, train.epsilon or EPSILON
        self.weight_decay, self.is_decoupled = train.weight_decay, train.optimizer == "adamw"
        self.anchors, self.proximal = part.anchors, train.proximal or 0.0
        self.rate: Rate = 0.0
        self.by_kernel = self.steps.device.type == "cpu" if by_kernel is None else by_kernel
        self._in_step = self.by_kernel and bool((self.steps == self.steps[0]).all())
        self._products: Tensors = {}

    def begin_step(self, rate: Rate) -> Rate:
        self.rate = rate
        self.steps.add_(1)
        if self.by_kernel:
            steps = self.steps.float()  # as the kernel has them: whole until 2^24, when nothing is left to correct
            self._steps = [steps[0]] if self._in_step else list(steps)
        else:
            first, second = (1 - beta ** self.steps.double() for beta in self.betas)
            self._correction = second.sqrt()
            self._rate = rate * self._correction / first
        return 1.0

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        gradient = _meant(gradient, scale, self.weights[name], self.anchors.get(name), self.proximal)
        if self.by_kernel:
            self._update_by_kernel(name, gradient)
        else:
            self._update(name, gradient)

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        weight = self.weights[name]
        if left.dtype != weight.dtype:
            self.apply(name, torch.bmm(left, right), scale)
            return
        if name not in self._products:  # memory that is used again in each step is several times faster than new one
            self._products[name] = torch.empty_like(weight)
        self.apply(name, torch.bmm(left, right, out=self._products[name]), scale)

    def end_step(self) -> None:
        """All is done already."""

    def _update_by_kernel(self, name: str, gradient: torch.Tensor) -> None:
        weight = self.weights[name]
        if gradient.stride() != weight.stride():  # the kernel goes by memory
            gradient = torch.empty_like(weight).copy_(gradient)
        update = torch._fused_adamw_ if self.is_decoupled else torch._fused_adam_
        update(
            self._rows(weight),
            self._rows(gradient),
            self._rows(self.first[name]),
            self._rows(self.second[name]),
            [],
            self._steps,
            lr=float(self.rate),
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=self.weight_decay,
            eps=self.epsilon,
            amsgrad=False,
            maximize=False,
        )

    def _rows(self, stack: torch.Tensor) -> list[torch.Tensor]:
        """Return what has a count of steps of its own: each worker's, or all at once."""
        return [stack] if self._in_step else list(stack)

    def _update(self, name: str, gradient: torch.Tensor) -> None:
        weight, first, second = self.weights[name], self.first[name], self.second[name]
        if self.is_decoupled:
            weight.mul_(1 - self.rate * self.weight_decay)
        elif self.weight_decay:
            gradient = gradient + self.weight_decay * weight
        first.lerp_(gradient, 1 - self.betas[0])
        second.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        root = second.sqrt().add_(_beside(self._correction, weight) * self.epsilon)
        weight.sub_((first * _beside(self._rate, weight)).div_(root))


class Clipped:
    """Waits for all gradients of a step, and cuts each worker's to a length before another rule has them.

    As torch.nn.utils.clip_grad_norm_; the proximal term counts as a part of the gradient, weight decay does not.
    """

    def __init__(self, rule: Rule, part: Part, longest: float, proximal: float) -> None:
        self.rule, self.weights, self.longest = rule, rule.weights, longest
        self.anchors, self.proximal = part.anchors, proximal
        self._scale: Rate = 1.0
        self._gradients: Tensors = {}

    def begin_step(self, rate: Rate) -> Rate:
        self._scale = self.rule.begin_step(rate)
        return 1.0

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        self._gradients[name] = _meant(gradient, scale, self.weights[name], self.anchors.get(name), self.proximal)

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        self.apply(name, torch.bmm(left, right), scale)

    def end_step(self) -> None:
        norms = [torch.linalg.vector_norm(one.reshape(len(one), -1), dim=1) for one in self._gradients.values()]
        length = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        factor = (self.longest / (length + 1e-6)).clamp_(max=1.0) * self._scale
        for name, gradient in self._gradients.items():
            self.rule.apply(name, gradient * _beside(factor, gradient))
        self._gradients.clear()
        self.rule.end_step()


def _meant(
    gradient: torch.Tensor, scale: float, weight: torch.Tensor, anchor: torch.Tensor | None, proximal: float
) -> torch.Tensor:
    """Return a gradient in its weight's type, scaled, with the proximal term."""
    gradient = gradient.to(weight.dtype)
    if scale != 1:
        gradient = gradient * scale
    return gradient + proximal * (weight - anchor) if anchor is not None and proximal else gradient


def _beside(values: torch.Tensor, stack: torch.Tensor) -> torch.Tensor:
    """Return a number of each worker (W,) so that it meets the worker's tensor in a stack (W, *shape)."""
    return values.to(stack.dtype).view(-1, *(1,) * (stack.dim() - 1))


def _add_product(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, beta: float, alpha: float) -> None:
    if left.dtype != into.dtype:  # products in lower precision, weights as they are
        into.mul_(beta).add_(torch.bmm(left, right), alpha=alpha)
    elif len(into) == 1:
        into[0].addmm_(left[0], right[0], beta=beta, alpha=alpha)
    else:
        into.baddbmm_(left, right, beta=beta, alpha=alpha)
