"""What a network is trained to make small, per sample, and its derivative by the outputs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional as F

from hsgd_emu.config.run_schema import TrainSpec


class Loss(Protocol):
    """A loss of outputs and labels."""

    def of_samples(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the loss of each sample (N,) of outputs (N, C) and labels (N,)."""
        ...

    def with_gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each worker's mean loss (W,), and for each sample the gradient of its loss (W, B, C).

        outputs: (W, B, C); y: labels (W, B).
        """
        ...


class CrossEntropy:
    """Of the softmax of the outputs."""

    def of_samples(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, y, reduction="none")

    def with_gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Classes come first while they are reduced: on a CPU that is several times faster for few classes.
        first = outputs.flatten(0, 1).T.contiguous()
        log_p = F.log_softmax(first, 0)
        labels = y.reshape(1, -1)
        losses = log_p.gather(0, labels).neg_().view(y.shape).mean(1)
        classes = torch.arange(len(first), device=first.device)[:, None]
        gradient = log_p.exp_().sub_((labels == classes).to(log_p.dtype))
        return losses, gradient.T.contiguous().view(outputs.shape)


class Squared:
    """Half the squared distance of the outputs to 1 at the label and 0 elsewhere."""

    def of_samples(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _from_label(outputs, y).square_().sum(-1).mul_(0.5)

    def with_gradient(self, outputs: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = _from_label(outputs, y)
        return gradient.square().sum(-1).mul_(0.5).mean(1), gradient


def _from_label(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return outputs - F.one_hot(y, outputs.shape[-1]).to(outputs.dtype)


CROSS_ENTROPY = CrossEntropy()
_SQUARED = Squared()


def loss_of(train: TrainSpec) -> Loss:
    """Return what a run trains on."""
    return _SQUARED if train.loss == "squared" else CROSS_ENTROPY
