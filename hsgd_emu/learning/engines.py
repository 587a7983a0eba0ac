"""Ways to take SGD steps on a chunk of workers; all give the same result up to the order of summation.

`Layered` batches a chain of layers by hand; `ByModule` calls the network itself, for all workers at once (vmap) or for
one worker after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from hsgd_emu.learning.blocks import BlockConv
from hsgd_emu.learning.layers import Layer, Pass
from hsgd_emu.learning.models import logits_of
from hsgd_emu.learning.sgd import Sgd
from hsgd_emu.learning.stacks import Part, Tensors

Way = Literal["layered", "vmap", "one_by_one"]
Precision = Literal["fp32", "tf32", "bf16"]


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
    blocks: bool
    """Whether test images come as blocks of pixels (see `learning.blocks`)."""

    def step(self, part: Part, sgd: Sgd, step: Step) -> torch.Tensor:
        """Take one SGD step and return each worker's mini-batch loss before it (W,)."""
        ...

    def logits(self, model: Tensors, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, C) of a model in evaluation mode."""
        ...


class Layered:
    """A chain of layers, batched over workers (channels of images: by groups), differentiated by hand."""

    grouped = True

    def __init__(
        self, layers: Sequence[Layer], precision: Precision = "fp32", evaluation_layers: Sequence[Layer] | None = None
    ) -> None:
        """evaluation_layers: for evaluation (default: the same)."""
        self.layers, self.evaluation_layers = list(layers), list(evaluation_layers or layers)
        self.blocks = isinstance(self.evaluation_layers[0], BlockConv)
        self.low = torch.bfloat16 if precision == "bf16" else None

    def forward(self, x: torch.Tensor, run: Pass) -> torch.Tensor:
        """Return logits (W, B, C)."""
        for layer in self.layers if run.training else self.evaluation_layers:
            x = layer.forward(x, run)
        return x

    @torch.no_grad()
    def step(self, part: Part, sgd: Sgd, step: Step) -> torch.Tensor:
        run = Pass(len(step.y), part.trained | part.fixed | part.buffers | step.masks, True, self.low)
        logits = self.forward(step.x, run)
        losses, gradient = _cross_entropy(logits.to(step.x.dtype), step.y)
        gradient.mul_(sgd.begin_step(step.rate) / step.y.shape[1])
        self._backward(gradient, run, sgd)
        return losses

    def _backward(self, gradient: torch.Tensor, run: Pass, sgd: Sgd) -> None:
        lowest = next((n for n, layer in enumerate(self.layers) if layer.trains(sgd)), len(self.layers))
        for number in range(len(self.layers) - 1, lowest - 1, -1):
            below = self.layers[number].backward(gradient, run, sgd, need_dx=number > lowest)
            if below is not None:
                gradient = below

    @torch.no_grad()
    def logits(self, model: Tensors, x: torch.Tensor) -> torch.Tensor:
        stacked = {name: tensor[None] for name, tensor in model.items()}
        run = Pass(1, stacked, False, self.low)
        return self.forward(x if x.dim() == 4 else x[None], run)[0].to(x.dtype)


def _cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each worker's mean loss (W,), and for each sample the gradient of its loss (W, B, C).

    logits: (W, B, C). Classes come first while they are reduced: on a CPU that is several times faster for few classes.
    """
    first = logits.flatten(0, 1).T.contiguous()
    log_p = F.log_softmax(first, 0)
    labels = y.reshape(1, -1)
    losses = log_p.gather(0, labels).neg_().view(y.shape).mean(1)
    classes = torch.arange(len(first), device=first.device)[:, None]
    gradient = log_p.exp_().sub_((labels == classes).to(log_p.dtype))
    return losses, gradient.T.contiguous().view(logits.shape)


class ByModule:
    """Calls the network; PyTorch differentiates it."""

    grouped, blocks = False, False

    def __init__(self, model: nn.Module, batched: bool, precision: Precision = "fp32") -> None:
        """batched: all workers at once by vmap, else chunks of one worker."""
        self.model, self.batched, self.low = model, batched, precision == "bf16"

    def step(self, part: Part, sgd: Sgd, step: Step) -> torch.Tensor:
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in part.trained.items()}
        # The network updates its buffers in place.
        tensors = leaves | part.fixed | part.buffers | step.masks
        with torch.autocast(step.x.device.type, torch.bfloat16, enabled=self.low):
            logits = self._forward(tensors, part.buffers, step.x, step.seed).to(step.x.dtype)
        losses = F.cross_entropy(logits.flatten(0, 1), step.y.flatten(), reduction="none").view(step.y.shape).mean(1)
        scale = sgd.begin_step(step.rate)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        with torch.no_grad():
            for name, gradient in zip(leaves, gradients, strict=True):
                # As torch.optim.SGD: a parameter that the loss does not depend on stays as it is, weight decay or not.
                if gradient is not None and isinstance(scale, float):
                    sgd.apply(name, gradient, scale)
                elif gradient is not None:
                    sgd.apply(name, gradient * scale)
        return losses.detach()

    def _forward(self, tensors: Tensors, buffers: Tensors, x: torch.Tensor, seed: int) -> torch.Tensor:
        """Return logits (W, B, C); buffers are updated in place."""
        if self.batched:
            forward: Callable[..., torch.Tensor] = vmap(self._one, randomness="error")
            return forward(tensors, x)
        # Randomness inside the network other than dropout layers comes from torch's global generator.
        with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(seed)
            own = {name: tensor[0] for name, tensor in tensors.items()}
            logits = self._one(own, x[0])[None]
        for name, buffer in buffers.items():
            if own[name].data_ptr() != buffer.data_ptr():  # the network put a new one in its place
                buffer[0] = own[name].detach()
        return logits

    def _one(self, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
        return logits_of(functional_call(self.model, tensors, (x,)))

    @torch.inference_mode()
    def logits(self, model: Tensors, x: torch.Tensor) -> torch.Tensor:
        self.model.eval()
        try:
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.low):
                return self._one(model, x.clone()).to(x.dtype)  # a first layer may work in place
        finally:
            self.model.train()
