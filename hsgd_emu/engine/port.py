"""Figures of a model, as the clock plane and the learning plane both know them."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
