"""Every trial's own times to the targets, as the table `times` has them: what chance makes of a scenario."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.report.study.axes import Axis, middle_scenario
from hsgd_emu.study.sweep.store import connect_to_read

MOST_SCENARIOS = 300
MOST_TIMES = 150_000
"""Over scenarios, targets and cases: each is ten characters of the page."""
FEW_SCENARIOS = 6
"""Shown, the middle one first, where not all can be."""


@dataclass(frozen=True)
class Times:
    """Times to target, trial by trial. Shapes: T targets, S scenarios, C cases, N trials of one case (seed by seed).

    scenarios: those that are here, in order; trials: (seed, replication) of each of the N.
    times_TSCN: seconds, inf = never.
    """

    scenarios: tuple[int, ...]
    trials: tuple[tuple[int, int], ...]
    times_TSCN: NDArray[np.float64]

    @property
    def never_TSC(self) -> NDArray[np.float64]:
        """The share of each case's trials that never reach the target."""
        return np.asarray(np.isinf(self.times_TSCN).mean(axis=-1))

    @property
    def num_seeds(self) -> int:
        return len({seed for seed, _ in self.trials})

    @property
    def num_replications(self) -> int:
        return len({replication for _, replication in self.trials})


def read_times(
    folder: Path,
    axes: Sequence[Axis],
    places_SA: NDArray[np.int64],
    cases: Sequence[str],
    targets: Sequence[tuple[str, float]],
) -> Times | None:
    """Return the times of all scenarios, or of the middle one and the first few where there are too many.

    None where a case has a single time per scenario: that is no distribution.
    """
    if not targets:
        return None
    with contextlib.closing(connect_to_read(folder)) as connection:
        query = "SELECT seed, replication FROM times WHERE scenario = 0 GROUP BY 1, 2 ORDER BY min(rowid)"
        trials = tuple(connection.execute(query))
        if len(trials) < 2:
            return None
        num = len(targets) * len(cases) * len(trials)
        most = min(MOST_TIMES // num, MOST_SCENARIOS)
        scenarios = chosen(middle_scenario(axes, places_SA), len(places_SA), most)
        return Times(scenarios, trials, _read(connection, scenarios, trials, cases, targets))


def chosen(middle: int, num: int, most: int) -> tuple[int, ...]:
    """Return all of `num` scenarios, in order, or the middle one and the first few where they are more than `most`."""
    if num <= most:
        return tuple(range(num))
    first = [scenario for scenario in range(FEW_SCENARIOS) if scenario != middle]
    return (middle, *first[: max(min(most, FEW_SCENARIOS) - 1, 0)])


def _read(
    connection: sqlite3.Connection,
    scenarios: Sequence[int],
    trials: Sequence[tuple[int, int]],
    cases: Sequence[str],
    targets: Sequence[tuple[str, float]],
) -> NDArray[np.float64]:
    wheres = [{key: i for i, key in enumerate(keys)} for keys in (targets, scenarios, cases, trials)]
    times_TSCN = np.full([len(where) for where in wheres], math.inf)
    marks = ",".join("?" * len(scenarios))
    rows = connection.execute(
        'SELECT metric, target, scenario, "case", seed, replication, time_s FROM times '
        f"WHERE time_s IS NOT NULL AND scenario IN ({marks})",
        scenarios,
    )
    for metric, target, scenario, case, seed, replication, time_s in rows:
        keys = ((metric, target), scenario, case, (seed, replication))
        times_TSCN[tuple(where[key] for where, key in zip(wheres, keys, strict=True))] = time_s
    return times_TSCN
