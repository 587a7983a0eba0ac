"""The clock of studies: the fast one where it applies, the SimPy engine where it does not or is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hsgd_emu.engine.fast import fast_times
from hsgd_emu.engine.fast_costs import TooLongError
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.times import Times, simulated_times
from hsgd_emu.learning.silent import SilentLearner

ClockName = Literal["auto", "simpy"]


def times(plans: Sequence[Plan], iterations: int | None = None, clock: ClockName = "auto") -> Times:
    """Return when the global aggregations of scenarios end, up to `iterations` (default: all).

    Args:    plans: at least one, all of one schedule (the same aggregation tree and periods) and `iterations`; they
             may differ in costs, routes, message size, seed and network seed.
             iterations: a multiple of the global period.
    """
    if iterations is not None:
        plans = [replace(plan, iterations=iterations) for plan in plans]
    if clock == "auto":
        with contextlib.suppress(TooLongError):
            return fast_times(plans)
    return simulated_times(plans, SilentLearner())
