"""The rows of a run's tables, without the (case, seed) that they all begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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


def reaches(metric: str, value: float | None, target: float) -> bool:
    """Tell whether `value` is at or beyond `target`; a null or NaN reaches nothing."""
    if value is None:
        return False
    return value >= target if metric == "test_accuracy" else value <= target


def first_reaching(curve: list[CurveRow], metric: str, target: float) -> TargetRow:
    """Return the first row of `curve` at or beyond `target`: a row that exists, never interpolated."""
    for row in curve:
        if reaches(metric, getattr(row, metric), target):
            return TargetRow(metric, target, row.time_s, row.iteration, row.round)
    return TargetRow(metric, target, None, None, None)
