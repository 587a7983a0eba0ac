"""The clock of studies: the fast one where it applies, the SimPy engine where it does not or is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hsgd_emu.engine.fast import applies, fast_times
from hsgd_emu.engine.plan import Plan, check_clock
from hsgd_emu.engine.times import Times, simulated_times
from hsgd_emu.errors import ConfigError
from hsgd_emu.timing.costs import TooLongError

_MOST_TIMES = 2**26  # times of aggregations that are held at once: 2 GiB of them

ClockName = Literal["auto", "simpy"]


def times(plans: Sequence[Plan], iterations: int | None = None, clock: ClockName = "auto") -> Times:
    """Return when the global aggregations of scenarios end, up to `iterations` (default: all).

    Args:    plans: at least one, all of one schedule (the same aggregation tree and periods) and `iterations`; they
             may differ in costs, routes, message size, seed and network seed.
             iterations: a multiple of the global period.
    Raises:  ConfigError: a scenario takes longer than the clock can hold, or there are too many times.
    """
    if iterations is not None:
        plans = [replace(plan, iterations=iterations) for plan in plans]
    if len(plans) * plans[0].num_rounds > _MOST_TIMES:
        text = f"{plans[0].num_rounds} global aggregations in each of {len(plans)} scenarios and seeds at once"
        raise ConfigError.of("", "train.iterations", f"{text}; at most {_MOST_TIMES} in all")
    if clock == "auto" and applies(plans[0]):
        with contextlib.suppress(TooLongError):
            return fast_times(plans)
    for plan in plans:
        check_clock(plan)
        if plan.depends_on_time and plan.cost_seed != plan.seed:
            text = (
                "with other draws of the network something else would be learned, as it depends on when models arrive"
            )
            raise ConfigError.of(f"case '{plan.schedule.name}'", "", text)
    return simulated_times(plans)
