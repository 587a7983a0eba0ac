"""What the engine tells of a trial: one record per global aggregation, with the events that led to it."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hsgd_emu.engine.port import Metrics

Keep = Literal["full", "rounds", "none"]


class Split(NamedTuple):
    """Where the time of an event went along the chain of events that determined it; sums to its time."""

    compute_ns: int = 0
    communication_ns: int = 0
    aggregation_ns: int = 0

    @property
    def time_ns(self) -> int:
        return self.compute_ns + self.communication_ns + self.aggregation_ns


class Activity(NamedTuple):
    """A row of the timeline: what a node did from start to end (nanoseconds), and with whom."""

    node: int
    kind: str
    start_ns: int
    end_ns: int
    iteration: int
    bytes: int
    peer: int


class Barrier(NamedTuple):
    """Whom one aggregation waited for: the last child, its costliest link, and how much later it was."""

    server: int
    iteration: int
    ready_ns: int
    waited_for: int
    link: str
    slack_ns: int


@dataclass
class RoundRecord:
    """One global aggregation: when, after what, and with which figures."""

    round: int
    iteration: int
    time_ns: int
    aggregated_ns: int
    split: Split
    metrics: Metrics | None
    """None: this aggregation was not evaluated."""
    activities: list[Activity] = field(default_factory=list)
    barriers: list[Barrier] = field(default_factory=list)
    waits_ns: dict[int, int] = field(default_factory=dict)
    """By node: time since the last global aggregation in which it neither computed, sent, received nor aggregated."""


class Recorder:
    """Collects rows until the round they belong to is over.

    A fast worker may be at work on the next round while a slow one still receives the global model: a row belongs
    to the round that its iteration lies in.
    """

    def __init__(self, keep: Keep, global_period: int) -> None:
        self.keep = keep
        self.global_period = global_period
        self.hash = hashlib.sha256()
        self._activities: dict[int, list[Activity]] = {}
        self._barriers: dict[int, list[Barrier]] = {}
        self._waits: dict[int, dict[int, int]] = {}

    def _round(self, iteration: int) -> int:
        return -(-iteration // self.global_period)

    def activity(self, row: Activity) -> None:
        """Record what a node did; `rounds` keeps what touches the global server only."""
        self.hash.update(struct.pack("<q5sqqqqq", row.node, row.kind[:5].encode(), *row[2:]))
        if row.kind == "wait":
            waits = self._waits.setdefault(self._round(row.iteration), {})
            waits[row.node] = waits.get(row.node, 0) + row.end_ns - row.start_ns
        if self.keep == "full" or (self.keep == "rounds" and 0 in (row.node, row.peer)):
            self._activities.setdefault(self._round(row.iteration), []).append(row)

    def barrier(self, row: Barrier) -> None:
        """Record whom an aggregation waited for."""
        if self.keep == "full" or (self.keep == "rounds" and row.server == 0):
            self._barriers.setdefault(self._round(row.iteration), []).append(row)

    def finish(self, record: RoundRecord) -> RoundRecord:
        """Return the record with the rows of its round, in the order (start, node, end)."""
        rows = self._activities.pop(record.round, [])
        record.activities = sorted(rows, key=lambda row: (row.start_ns, row.node, row.end_ns))
        record.barriers = self._barriers.pop(record.round, [])
        record.waits_ns = dict(sorted(self._waits.pop(record.round, {}).items()))
        return record
