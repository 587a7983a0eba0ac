"""What is measured of a global model, said once: tables, targets, figures and sentences take it from here.

A new metric is one more field of `Metrics`, and who computes it: the test figures are of `learning.evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple, TypeVar, get_type_hints

T = TypeVar("T")
Target = tuple[str, float]
"""(metric, level)."""


class Metric(NamedTuple):
    """How a metric is read and written."""

    words: str
    sign: Literal[1, 0, -1]
    """1: more is better, -1: less is, 0: neither, so that no target can name it."""
    is_share: bool = False
    """From 0 to 1 and written in percent; else a plain number, from 0 on."""
    is_beside: bool = False
    """Of another model than the global one: whatever is of that one goes before it."""


@dataclass(frozen=True)
class Metrics:
    """Figures of one evaluated global model, in the order of the columns; None where the learner does not learn."""

    train_loss: Annotated[float | None, Metric("train loss", -1)] = None
    """Mean mini-batch loss over all workers' steps since the last evaluation."""
    training_set_loss: Annotated[float | None, Metric("loss on the training set", -1)] = None
    """Of the global model on all samples that workers hold, where the run asks for figures of workers."""
    test_loss: Annotated[float | None, Metric("test loss", -1)] = None
    """Of the global model on the whole test set; NaN where it has a weight or buffer that is NaN or infinite."""
    test_accuracy: Annotated[float | None, Metric("test accuracy", 1, is_share=True)] = None
    """Of the global model on the whole test set."""
    averaged_test_loss: Annotated[float | None, Metric("averaged model's test loss", -1, is_beside=True)] = None
    """Of the mean of the models after all iterations (Polyak-Ruppert), where the run asks for it."""
    averaged_test_accuracy: Annotated[
        float | None, Metric("averaged model's test accuracy", 1, is_share=True, is_beside=True)
    ] = None

    def __iter__(self) -> Iterator[float | None]:
        return iter(vars(self).values())

    def __getitem__(self, metric: str) -> float | None:
        value: float | None = getattr(self, metric)
        return value

    @property
    def is_finite(self) -> bool:
        """Whether all figures that there are are finite numbers: what is not has diverged, and reaches no target."""
        return all(value is None or math.isfinite(value) for value in self)

    def diverged(self) -> Metrics:
        """Return the figures of a model that is not finite."""
        return replace(self, test_loss=math.nan)


class OfWorker(NamedTuple):
    """What is measured at one worker when a global model is evaluated; None where there is nothing to measure."""

    worker: str
    iteration: int
    train_loss: float | None
    """Mean mini-batch loss of its steps since the last evaluation."""
    loss: float | None
    """Of the global model on the worker's own data; None where it is not a finite number."""
    accuracy: float | None
    """Of the global model on the worker's own data."""


_FOUND: dict[str, Metric] = {
    name: hint.__metadata__[0] for name, hint in reversed(get_type_hints(Metrics, include_extras=True).items())
}
METRICS = dict(sorted(_FOUND.items(), key=lambda item: item[1].is_beside))
"""By name, the most telling first; of two targets, that on the former is the harder one."""
AVERAGED = tuple(name for name, metric in METRICS.items() if metric.is_beside)
"""What is of the averaged model."""
TARGETS = tuple(name for name, metric in METRICS.items() if metric.sign)
"""What a target can be about."""
SHARES = tuple(name for name, metric in METRICS.items() if metric.is_share)


def hardness(target: Target) -> tuple[int, float]:
    """Return a key that sorts targets, the hardest first."""
    metric, level = target
    return TARGETS.index(metric), -METRICS[metric].sign * level


def is_beyond(value: float, target: Target) -> bool:
    """Tell whether a finite value of a target's metric is at or beyond its level."""
    metric, level = target
    sign = METRICS[metric].sign
    return sign * value >= sign * level


class Reaching:
    """The targets that a trial has still to reach, told its figures one after the other.

    A null reaches nothing, and what has diverged reaches nothing more, whatever it may look like later.
    """

    def __init__(self, targets: Iterable[Target]) -> None:
        self.left = list(targets)
        self.has_diverged = False

    def take(self, metrics: Metrics) -> list[Target]:
        """Return the targets that are reached now."""
        self.has_diverged = self.has_diverged or not metrics.is_finite
        if self.has_diverged:
            return []
        values = [(target, metrics[target[0]]) for target in self.left]
        found = [target for target, value in values if value is not None and is_beyond(value, target)]
        self.left = [target for target in self.left if target not in found]
        return found


def first_reaching(figures: Iterable[tuple[T, Metrics]], target: Target) -> T | None:
    """Return what has the first figures at or beyond a target; None where none has: nothing is interpolated."""
    reaching = Reaching([target])
    return next((one for one, metrics in figures if reaching.take(metrics)), None)
