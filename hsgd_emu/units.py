"""Seconds for people, integer nanoseconds for the clock."""

from __future__ import annotations

import math

NS_PER_S = 1_000_000_000
LONGEST_S = 1e9
"""Longest single duration accepted (about 30 years): beyond it is a mistake in units, and int64 stays far away."""


def to_ns(seconds: float) -> int:
    """Return seconds as integer nanoseconds, rounded half to even.

    Raises:  ValueError: `seconds` is negative, not a number, infinite or above `LONGEST_S`.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_S):
        raise ValueError(f"{seconds} s is not a duration between 0 and {LONGEST_S:g} s")
    return round(seconds * NS_PER_S)


def to_s(nanoseconds: int) -> float:
    """Return integer nanoseconds as seconds (exact to the nanosecond up to about 100 days)."""
    return nanoseconds / NS_PER_S
