"""What the engine tells of a trial: one record per global aggregation, with the events that led to it."""

from __future__ import annotations

import hashlib
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from hsgd_emu.engine.schedule import Phase
from hsgd_emu.errors import ConfigError
from hsgd_emu.metrics import Metrics
from hsgd_emu.units import MOST_NS

Keep = Literal["full", "rounds", "none"]

_ROW = struct.Struct("<qBqqqqq")
_KINDS = {"compute": 0, "upload": 1, "aggregate": 2, "download": 3, "wait": 4}
_HASH_BYTES = 2**16
"""Rows are hashed in blocks of about this size: one call per row costs more than the hashing."""


class Split(NamedTuple):
    """Where the time of an event went along the chain of events that determined it; sums to its time."""

    compute_ns: int = 0
    communication_ns: int = 0
    aggregation_ns: int = 0

    # There are some of these per event: unpacking is twice as fast as attributes and keywords.

    def computed(self, ns: int) -> Split:
        """Return the split of an event that many nanoseconds of steps later on the same chain."""
        compute_ns, communication_ns, aggregation_ns = self
        return Split(compute_ns + ns, communication_ns, aggregation_ns)

    def communicated(self, ns: int) -> Split:
        """Return the split of an event that much communication later."""
        compute_ns, communication_ns, aggregation_ns = self
        return Split(compute_ns, communication_ns + ns, aggregation_ns)

    def aggregated(self, ns: int) -> Split:
        """Return the split of an event an aggregation later."""
        compute_ns, communication_ns, aggregation_ns = self
        return Split(compute_ns, communication_ns, aggregation_ns + ns)

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
    uploaded_bytes: int = 0
    """By all nodes together until the end of this round; a message counts once, however many links it crosses."""
    downloaded_bytes: int = 0
    waits_ns: dict[int, int] = field(default_factory=dict)
    """By node, in this round: from the end of its upload until it receives; a server also from the first of its
    children's arrivals to the last."""


class Recorder:
    """Collects rows until the round they belong to is over.

    A fast worker may be at work on the next round while a slow one still receives the global model: a row belongs
    to the round that its phase lies in.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self._hash = hashlib.sha256()
        self._unhashed = bytearray()
        self._activities: dict[int, list[Activity]] = {}
        self._barriers: dict[int, list[Barrier]] = {}
        self._waits: dict[int, dict[int, int]] = {}
        self.uploaded: defaultdict[int, int] = defaultdict(int)
        """By round: bytes of its messages; those of the rounds that are over under -1."""
        self.downloaded: defaultdict[int, int] = defaultdict(int)

    def activity(
        self, node: int, kind: str, start_ns: int, end_ns: int, phase: Phase, num_bytes: int = 0, peer: int = -1
    ) -> None:
        """Record what a node did; `rounds` keeps what touches the global server only.

        Raises:  ConfigError: it ends later than the clock can hold.
        """
        iteration = phase.end
        try:
            self._unhashed += _ROW.pack(node, _KINDS[kind], start_ns, end_ns, iteration, num_bytes, peer)
        except struct.error:
            assert end_ns > MOST_NS
            text = f"iteration {iteration} ends later than the 292 years that the clock can hold; costs are in seconds"
            raise ConfigError.of("", "train.iterations", text) from None
        if kind == "wait":
            waits = self._waits.setdefault(phase.round, {})
            waits[node] = waits.get(node, 0) + end_ns - start_ns
        if self.keep != "none" and (self.keep == "full" or node == 0 or peer == 0):
            row = Activity(node, kind, start_ns, end_ns, iteration, num_bytes, peer)
            self._activities.setdefault(phase.round, []).append(row)

    def digest(self) -> str:
        """Return the hash of all activities so far (SHA-256, hex)."""
        self._hash_rows()
        return self._hash.hexdigest()

    def _hash_rows(self) -> None:
        self._hash.update(self._unhashed)
        self._unhashed.clear()

    def barrier(self, row: Barrier, phase: Phase) -> None:
        """Record whom an aggregation waited for."""
        if len(self._unhashed) > _HASH_BYTES:
            self._hash_rows()
        if self.keep == "full" or (self.keep == "rounds" and row.server == 0):
            self._barriers.setdefault(phase.round, []).append(row)

    def finish(self, record: RoundRecord) -> RoundRecord:
        """Return the record with the rows of its round, in the order (start, node, end)."""
        rows = self._activities.pop(record.round, [])
        record.activities = sorted(rows, key=lambda row: (row.start_ns, row.node, row.end_ns))
        record.barriers = self._barriers.pop(record.round, [])
        for sent in (self.uploaded, self.downloaded):
            sent[-1] += sent.pop(record.round, 0)
        record.uploaded_bytes, record.downloaded_bytes = self.uploaded[-1], self.downloaded[-1]
        record.waits_ns = dict(sorted(self._waits.pop(record.round, {}).items()))
        return record
