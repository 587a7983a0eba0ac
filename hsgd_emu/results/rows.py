"""The rows of a run's tables; all but those of `trials` without the (case, seed) that they begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from hsgd_emu.metrics import Metrics, Target, first_reaching

TrialStatus = Literal["waiting", "running", "finished"]


class TrialKey(NamedTuple):
    """One case and seed."""

    case: str
    seed: int


class TrialRow(NamedTuple):
    """How far a trial is. iteration, round: the last committed, 0 where none is."""

    case: str
    seed: int
    status: TrialStatus
    iteration: int = 0
    round: int = 0
    weights_hash: str | None = None
    timeline_hash: str | None = None
    engine: str | None = None
    wall_s: float | None = None
    diverged_at: int | None = None
    """The first evaluated global aggregation at which the global model, or a loss, was not finite."""

    @property
    def key(self) -> TrialKey:
        return TrialKey(self.case, self.seed)


class CurveRow(NamedTuple):
    """One evaluated global aggregation: the clock's columns, then the learner's.

    time_s = compute_s + communication_s + aggregation_s. The bytes are of all messages until then.
    """

    round: int
    iteration: int
    time_s: float
    aggregated_s: float
    compute_s: float
    communication_s: float
    aggregation_s: float
    uploaded_bytes: int
    downloaded_bytes: int
    metrics: Metrics

    @classmethod
    def of(cls, cells: Sequence[Any]) -> CurveRow:
        """Return the row that has these `cells`."""
        num_clock = len(cls._fields) - 1
        return cls._make((*cells[:num_clock], Metrics(*cells[num_clock:])))

    @property
    def cells(self) -> tuple[Any, ...]:
        """The values of the columns, in their order."""
        return (*self[:-1], *self.metrics)


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


def row_reaching(curve: Sequence[CurveRow], target: Target) -> CurveRow | None:
    """Return the first row of a trial's curve at or beyond a target."""
    return first_reaching(((row, row.metrics) for row in curve), target)


def target_row(curve: Sequence[CurveRow], target: Target) -> TargetRow:
    """Return a trial's row of the table `targets`."""
    row = row_reaching(curve, target)
    return TargetRow(*target, row and row.time_s, row and row.iteration, row and row.round)
