"""Ways to take steps on a chunk of workers; all give the same result up to the order of summation.

`Layered` batches a chain of layers by hand; `ByModule` calls the network itself, for all workers at once (vmap) or for
one worker after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn
from torch.func import functional_call, vmap

from hsgd_emu.learning.blocks import BlockConv
from hsgd_emu.learning.examine import dense
from hsgd_emu.learning.layers import Layer, Pass
from hsgd_emu.learning.losses import CROSS_ENTROPY, Loss
from hsgd_emu.learning.outputs import logits_of
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.learning.stacks import Part, Tensors
from hsgd_emu.learning.updates import Rule

Way = Literal["layered", "vmap", "one_by_one"]
Precision = Literal["fp32", "tf32", "bf16"]
Gradients = Mapping[str, torch.Tensor | None]


@dataclass(frozen=True)
class Step:
    """One mini-batch of W workers: labels y (W, B), dropout masks (W, *shape) by name, the learning rate, and the seed
    of all other randomness inside the network."""

    x: torch.Tensor
    y: torch.Tensor
    masks: Tensors
    rate: float | torch.Tensor
    seed: int


class Engine(Protocol):
    """Takes steps and computes logits."""

    grouped: bool
    """Whether images come as groups of channels (see `ResidentData.batches`)."""
    loss: Loss
    blocks: bool
    """Whether test images come as blocks of pixels (see `learning.blocks`)."""

    def step(self, part: Part, rule: Rule, step: Step) -> torch.Tensor:
        """Take one step and return each worker's mini-batch loss before it (W,)."""
        ...

    def logits(self, model: Tensors, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
        """Return the logits (B, C) of a model in evaluation mode; seed: of what the network draws there."""
        ...


class Layered:
    """A chain of layers, batched over workers (channels of images: by groups), differentiated by hand."""

    grouped = True

    def __init__(
        self,
        layers: Sequence[Layer],
        precision: Precision = "fp32",
        evaluation_layers: Sequence[Layer] | None = None,
        loss: Loss = CROSS_ENTROPY,
    ) -> None:
        """evaluation_layers: for evaluation (default: the same)."""
        self.loss = loss
        self.layers, self.evaluation_layers = list(layers), list(evaluation_layers or layers)
        self.blocks = isinstance(self.evaluation_layers[0], BlockConv)
        self.low = torch.bfloat16 if precision == "bf16" else None

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        """Return logits (W, B, C)."""
        for layer in self.layers if run.training else self.evaluation_layers:
            x = layer.forward(x, run)
        return x

    @torch.no_grad()
    def step(self, part: Part, rule: Rule, step: Step) -> torch.Tensor:
        run = Pass(len(step.y), part.trained | part.fixed | part.buffers | step.masks, True, self.low)
        logits = self.forward(step.x, run)
        losses, gradient = self.loss.with_gradient(logits.to(step.x.dtype), step.y)
        gradient.mul_(rule.begin_step(step.rate) / step.y.shape[1])
        self._backward(gradient, run, rule)
        rule.end_step()
        return losses

    def _backward(self, gradient: torch.Tensor, run: Pass, rule: Rule) -> None:
        lowest = next((n for n, layer in enumerate(self.layers) if layer.trains(rule)), len(self.layers))
        for number in range(len(self.layers) - 1, lowest - 1, -1):
            below = self.layers[number].backward(gradient, run, rule, need_dx=number > lowest)
            if below is not None:
                gradient = below

    @torch.no_grad()
    def logits(self, model: Tensors, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
        stacked = {name: tensor[None] for name, tensor in model.items()}
        run = Pass(1, stacked, False, self.low)
        return self.forward(x if x.dim() == 4 else x[None], run)[0].to(x.dtype)


class ByModule:
    """Calls the network; PyTorch differentiates it."""

    grouped, blocks = False, False

    def __init__(
        self, model: nn.Module, batched: bool, precision: Precision = "fp32", loss: Loss = CROSS_ENTROPY
    ) -> None:
        """batched: all workers at once by vmap, else chunks of one worker."""
        self.model, self.batched, self.low, self.loss = model, batched, precision == "bf16", loss
        self._parameters = dict(model.named_parameters())
        names = [*self._parameters, *dict(model.named_buffers())]
        # Of a module with two names functional_call leaves the tensors that it worked on.
        modules = dict(model.named_modules(remove_duplicate=False))
        self._twice = [
            (modules[name.rpartition(".")[0]], name.rpartition(".")[2], tensor)
            for name, tensor in _with_all_names(model)
            if name not in names
        ]
        self._places = {name: (modules[name.rpartition(".")[0]], name.rpartition(".")[2]) for name in names}

    def step(self, part: Part, rule: Rule, step: Step) -> torch.Tensor:
        losses, gradients = self._batched(part, step) if self.batched else self._alone(part, step)
        scale = rule.begin_step(step.rate)
        with torch.no_grad():
            for name, gradient in gradients.items():
                # As torch.optim.SGD: a parameter that the loss does not depend on stays as it is, weight decay or not.
                if gradient is not None and isinstance(scale, float):
                    rule.apply(name, gradient, scale)
                elif gradient is not None:
                    rule.apply(name, gradient * scale)
            rule.end_step()
        return losses.detach()

    def _batched(self, part: Part, step: Step) -> tuple[torch.Tensor, Gradients]:
        """Return each worker's loss (W,) and its gradients (W, *shape); buffers are updated in place."""
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in part.trained.items()}
        tensors = leaves | part.fixed | part.buffers | step.masks
        with torch.autocast(step.x.device.type, torch.bfloat16, enabled=self.low):
            forward: Callable[..., torch.Tensor] = vmap(self._one, randomness="error")
            logits = forward(tensors, step.x).to(step.x.dtype)
        for module, own_name, tensor in self._twice:
            setattr(module, own_name, tensor)
        losses = self.loss.of_samples(logits.flatten(0, 1), step.y.flatten()).view(step.y.shape).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        return losses, dict(zip(leaves, gradients, strict=True))

    def _one(self, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
        return logits_of(functional_call(self.model, tensors, (x,)))

    def _alone(self, part: Part, step: Step) -> tuple[torch.Tensor, Gradients]:
        """Return the loss and gradients of one worker, found by the network itself with that worker's tensors in it."""
        tensors = {name: t[0] for name, t in (part.trained | part.fixed | part.buffers | step.masks).items()}
        self.model.zero_grad()
        with self._lent(tensors), seeded_generators(step.seed):
            with torch.autocast(step.x.device.type, torch.bfloat16, enabled=self.low):
                logits = logits_of(self.model(step.x[0])).to(step.x.dtype)
            losses = self.loss.of_samples(logits, step.y[0]).view(step.y.shape).mean(1)
            if losses.requires_grad:
                torch.autograd.backward(losses.sum())
            found = {name: dense(self._tensor(name).grad) for name in part.trained}
            self.model.zero_grad()
        return losses, {name: None if gradient is None else gradient[None] for name, gradient in found.items()}

    def _tensor(self, name: str) -> torch.Tensor:
        module, own_name = self._places[name]
        found = getattr(module, own_name)
        assert isinstance(found, torch.Tensor)
        return found

    @contextmanager
    def _lent(self, tensors: Tensors) -> Iterator[None]:
        """Let the network work on these parameters and buffers, in place; what it replaces is copied back."""
        mine = {name: self._tensor(name) for name in tensors}
        before = {name: tensor.data for name, tensor in mine.items()}
        for name, tensor in tensors.items():
            mine[name].data = tensor.detach()
        try:
            yield
            for name, tensor in tensors.items():
                now = self._tensor(name)
                if now.data_ptr() != tensor.data_ptr():
                    tensor.copy_(now.detach())
        finally:
            for name, tensor in mine.items():
                tensor.data = before[name]
                module, own_name = self._places[name]
                if getattr(module, own_name) is not tensor:
                    setattr(module, own_name, tensor)

    def logits(self, model: Tensors, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
        self.model.eval()
        try:
            # Copies, as an evaluation changes no model: a network may update its buffers then too.
            own = {name: t if name in self._parameters else t.clone() for name, t in model.items()}
            low = torch.autocast(x.device.type, torch.bfloat16, enabled=self.low)
            with torch.no_grad(), self._lent(own), seeded_generators(seed), low:
                return logits_of(self.model(x.clone())).to(x.dtype)  # a first layer may work in place
        finally:
            self.model.train()


def _with_all_names(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters and buffers, those that have several names under each."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
