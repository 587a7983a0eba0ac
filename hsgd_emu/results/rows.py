"""The rows of a run's tables, without the (case, seed) that they all begin with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hsgd_emu.engine.port import Metrics, are_finite

TrialStatus = Literal["waiting", "running", "finished"]

METRICS = ("test_accuracy", "test_loss", "train_loss")
"""What a target can be about. Accuracy is reached at or above the target, a loss at or below it."""


@dataclass(frozen=True)
class TrialKey:
    """One case and seed."""

    case: str
    seed: int


@dataclass(frozen=True)
class TrialState:
    """How far a trial is. iteration: the last one committed, 0 where none is."""

    iteration: int
    status: TrialStatus
    weights_hash: str | None
    timeline_hash: str | None


@dataclass(frozen=True)
class CurveRow:
    """One evaluated global aggregation. time_s = compute_s + communication_s + aggregation_s."""

    round: int
    iteration: int
    time_s: float
    aggregated_s: float
    compute_s: float
    communication_s: float
    aggregation_s: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None

    @property
    def is_finite(self) -> bool:
        """Whether the losses are finite; those of a model that is not finite are not (see `Metrics`)."""
        return are_finite(self.train_loss, self.test_loss)

    @property
    def metrics(self) -> Metrics:
        """The figures alone."""
        return Metrics(self.train_loss, self.test_loss, self.test_accuracy)


class TimelineRow(NamedTuple):
    """One activity of one node. kind: compute, upload, aggregate, download or wait."""

    node: str
    kind: str
    start_s: float
    end_s: float
    iteration: int
    bytes: int
    peer: str


class BarrierRow(NamedTuple):
    """What one aggregation waited for.

    waited_for: the child that arrived last; link: the costliest link on its upload route;
    slack_s: how much later it arrived than the second last.
    """

    server: str
    iteration: int
    ready_s: float
    waited_for: str
    link: str
    slack_s: float


class WaitRow(NamedTuple):
    """A node's total wait since the last global aggregation."""

    node: str
    wait_s: float


class TargetRow(NamedTuple):
    """The first row of a trial's curve at or beyond a target; nulls where it was never reached."""

    metric: str
    target: float
    time_s: float | None
    iteration: int | None
    round: int | None


def reaches(figures: Metrics | CurveRow, metric: str, target: float) -> bool:
    """Tell whether figures are at or beyond a target; a null, and a model that is not finite, reaches nothing."""
    value: float | None = getattr(figures, metric)
    return value is not None and figures.is_finite and is_beyond(metric, value, target)


def is_beyond(metric: str, value: float, target: float) -> bool:
    """Tell whether a finite value of a metric is at or beyond a target."""
    return value >= target if metric == "test_accuracy" else value <= target


def first_reaching(curve: Sequence[CurveRow], metric: str, target: float) -> CurveRow | None:
    """Return the first row of a trial's curve at or beyond a target: a row that exists, never interpolated."""
    place = _first_place(curve, metric, target)
    return None if place is None else curve[place]


def iteration_reaching(learned: Mapping[int, Metrics], metric: str, target: float) -> int | None:
    """Return the iteration at which a trial, given by its figures at each, first reaches a target."""
    iterations = sorted(learned)
    place = _first_place([learned[iteration] for iteration in iterations], metric, target)
    return None if place is None else iterations[place]


def _first_place(figures: Iterable[Metrics | CurveRow], metric: str, target: float) -> int | None:
    for place, one in enumerate(figures):
        if reaches(one, metric, target):
            return place
        if not one.is_finite:
            return None  # whatever it may look like later
    return None


def target_row(curve: Sequence[CurveRow], metric: str, target: float) -> TargetRow:
    """Return a trial's row of the table `targets`."""
    row = first_reaching(curve, metric, target)
    if row is None:
        return TargetRow(metric, target, None, None, None)
    return TargetRow(metric, target, row.time_s, row.iteration, row.round)
