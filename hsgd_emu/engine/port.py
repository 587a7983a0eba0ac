"""The port where the clock plane meets the learning plane. No torch on this side, no clock on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Metrics:
    """Figures of one evaluated global model; None where the learner does not learn.

    train_loss: mean mini-batch loss over all workers' steps since the last evaluation; test figures: of the global
    model on the whole test set, accuracy 0 to 1.
    """

    train_loss: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None


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
