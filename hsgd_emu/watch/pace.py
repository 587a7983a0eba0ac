"""How fast trials go on this host: by what was seen while watching, else by what finished trials have cost."""

from __future__ import annotations

from collections import deque
from statistics import median

from hsgd_emu.results.rows import TrialKey

_WINDOW_S = 60.0
"""Only the last minute counts: other work on the host comes and goes."""
_LEAST_S = 2.0
"""Seen for less than this, a pace is mostly the time between two looks."""


class Pace:
    """Wall seconds per iteration of each trial."""

    def __init__(self) -> None:
        self._seen: dict[TrialKey, deque[tuple[float, int]]] = {}
        self._cost: dict[TrialKey, float] = {}

    def see(self, key: TrialKey, iteration: int, wall_s: float) -> None:
        """Note that a trial is at an iteration now (wall_s: of any steady clock)."""
        seen = self._seen.setdefault(key, deque())
        # Its first round counts from when it begins, which nobody sees.
        if iteration and (not seen or iteration > seen[-1][1]):
            seen.append((wall_s, iteration))
        while len(seen) > 2 and seen[0][0] < wall_s - _WINDOW_S:
            seen.popleft()

    def finished(self, key: TrialKey, wall_s_per_iteration: float) -> None:
        """Note what a finished trial has cost."""
        self._cost[key] = wall_s_per_iteration

    def wall_s_per_iteration(self, key: TrialKey) -> float | None:
        """Return a trial's own pace; else the median of its case; else the median of all; None: nothing is known."""
        own = self._observed(key)
        if own is not None:
            return own
        observed = {other: pace for other in self._seen if (pace := self._observed(other)) is not None}
        known = observed | self._cost
        same = [pace for other, pace in known.items() if other.case == key.case]
        return median(same or known.values()) if known else None

    def _observed(self, key: TrialKey) -> float | None:
        seen = self._seen.get(key)
        if not seen or seen[-1][0] - seen[0][0] < _LEAST_S:
            return None
        (begin_s, begin), (end_s, end) = seen[0], seen[-1]
        return (end_s - begin_s) / (end - begin)
