"""The port where the clock plane meets the learning plane. No torch on this side, no clock on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Metrics:
    """Figures of one evaluated global model; None where the learner does not learn.

    train_loss: mean mini-batch loss over all workers' steps since the last evaluation; test figures: of the global
    model on the whole test set, accuracy 0 to 1. The test loss of a model with a weight or buffer that is NaN or
    infinite is NaN.
    """

    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None

    @property
    def is_finite(self) -> bool:
        """Whether both losses are finite: what is not has diverged, and reaches no target."""
        return are_finite(self.train_loss, self.test_loss)


def are_finite(*figures: float | None) -> bool:
    """Tell whether all figures that there are are finite numbers."""
    return all(figure is None or math.isfinite(figure) for figure in figures)


class Learner(Protocol):
    """What learns, as the engine sees it. Nodes are numbered as in the topology (depth first).

    Calls are requests: a learner may carry them out later and together, as long as the result is the same.
    """

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        """Take SGD steps iteration + 1 ... iteration + num_steps on a worker (equation (4))."""

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float]) -> None:
        """Set a server's model to the weighted average of its children's; the weights sum to 1."""

    def hand_down(self, server: int, child: int) -> None:
        """Set a child's model to its server's."""

    def evaluate(self, server: int, iteration: int) -> Metrics:
        """Return the figures of a server's model after `iteration` iterations."""
