"""The time-to-target table: per case and target, the median over seeds and the spread.

Plain rows and the standard library, so that the command line answers without pandas.
Only finished trials count.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.results.folder import local_sgd_cases, read_run_file
from hsgd_emu.results.rows import CurveRow
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, select
from hsgd_emu.results.wording import CaseSummary, TargetSummary, answer, has_published, header, in_one_line, render_rows

__all__ = [
    "CaseSummary",
    "TargetSummary",
    "answer",
    "curves_of",
    "header",
    "render_rows",
    "summarise",
    "summarise_from",
]

Level = tuple[str, float]
"""(metric, target)."""


@dataclass(frozen=True)
class Reached:
    """One seed's row of `targets`, with the share of its time that was communication (both null: never)."""

    time_s: float | None
    iteration: int | None
    communication_share: float | None


def summarise(source: RunStore | Path) -> list[CaseSummary]:
    """Return one summary per case, in run order.

    Args:    source: an open store, or a run folder (which may still be written).
    Raises:  ConfigError: the folder holds no run.
    """
    folder = source.folder if isinstance(source, RunStore) else source
    with _connection(source) as connection:
        return summarise_from(connection, read_run_file(folder), curves_of(connection))


def summarise_from(
    connection: sqlite3.Connection, run: dict[str, Any], curves: dict[tuple[str, int], list[CurveRow]]
) -> list[CaseSummary]:
    """Return the summaries of a run from its open database, its run file and its `curves_of`."""
    trials = list(select(connection, "trials"))
    targets = list(select(connection, "targets"))
    levels = list(connection.execute("SELECT metric, target FROM target_levels ORDER BY rowid"))
    local, published = local_sgd_cases(run), _published(run)
    summaries = []
    for case in dict.fromkeys(trial[0] for trial in trials):
        seeds = [trial[1] for trial in trials if trial[0] == case]
        done = [trial[1] for trial in trials if trial[0] == case and trial[2] == "finished"]
        rows = [row for row in targets if row[0] == case and row[1] in done]
        summaries.append(
            summarise_case(
                case,
                local_sgd=case in local,
                num_seeds=len(seeds),
                curves={seed: curves.get((case, seed), []) for seed in done},
                reached={
                    level: [_reached(row, curves) for row in rows if tuple(row[2:4]) == level] for level in levels
                },
                published={level: published.get((case, *level)) for level in levels},
            )
        )
    return summaries


def summarise_case(
    case: str,
    *,
    local_sgd: bool,
    num_seeds: int,
    curves: dict[int, list[CurveRow]],
    reached: dict[Level, list[Reached]],
    published: Mapping[Level, float | None],
) -> CaseSummary:
    """Return the summary of one case from its finished seeds' curves and rows of `targets`, and published times."""
    last = [curve[-1] for curve in curves.values() if curve]
    return CaseSummary(
        case=case,
        local_sgd=local_sgd,
        num_seeds=num_seeds,
        num_finished=len(curves),
        targets=tuple(summarise_target(*level, rows, published.get(level)) for level, rows in reached.items()),
        final_accuracy=_median([row.test_accuracy for row in last]),
        final_test_loss=_median([row.test_loss for row in last]),
        final_time_s=_median([row.time_s for row in last]),
        final_iteration=_median([row.iteration for row in last]),
    )


def summarise_target(
    metric: str, target: float, rows: Sequence[Reached], published_time_s: float | None = None
) -> TargetSummary:
    """Return median and spread over seeds of when a target was reached."""
    times_s = [row.time_s for row in rows if row.time_s is not None]
    shares = [row.communication_share for row in rows if row.communication_share is not None]
    median_s = median_reached([row.time_s for row in rows])
    return TargetSummary(
        metric=metric,
        target=target,
        num_seeds=len(rows),
        num_reached=len(times_s),
        median_time_s=median_s,
        least_time_s=min(times_s, default=None),
        most_time_s=max(times_s, default=None),
        median_iterations=median_reached([row.iteration for row in rows]),
        communication_share=None if median_s is None else _median(shares),
        published_time_s=published_time_s,
    )


def median_reached(values: Sequence[float | None]) -> float | None:
    """Return the median over seeds, where a null stands for "later than all others".

    None where fewer than half of the seeds have a value. With exactly half of an even number of seeds, the
    later of the two middle values does not exist, and the earlier one is returned. Dropping the nulls
    instead would favour a case that only its luckiest seed reaches.
    """
    known = sorted(value for value in values if value is not None)
    num_seeds = len(values)
    if not known or 2 * len(known) < num_seeds:
        return None
    low, high = (num_seeds - 1) // 2, num_seeds // 2
    return known[low] if high >= len(known) else (known[low] + known[high]) / 2


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(statistics.median(known)) if known else None


def published_line(folder: Path, summaries: Sequence[CaseSummary]) -> list[str]:
    """Return the line that says where the published times in the table come from; nothing where there are none."""
    source = published_source(read_run_file(folder)) if any(has_published(summaries)) else None
    return [] if source is None else [f"published: {source}"]


def published_source(run: Mapping[str, Any]) -> str | None:
    """Return where a run's published times come from, None where it has none."""
    given = run.get("published")
    return in_one_line(str(given["source"])) if given else None


def _published(run: Mapping[str, Any]) -> dict[tuple[str, str, float], float]:
    """Return the published times to targets of a run file."""
    times = (run.get("published") or {}).get("times", ())
    return {(t["case"], t["metric"], t["target"]): t["time_s"] for t in times if "target" in t}


@contextlib.contextmanager
def _connection(source: RunStore | Path) -> Iterator[Any]:
    if isinstance(source, RunStore):
        yield source.connection
        return
    with contextlib.closing(connect_to_read(source)) as connection:
        # One snapshot for all tables: a trial that finishes meanwhile is in all of them or in none.
        connection.execute("BEGIN")
        yield connection


def curves_of(connection: sqlite3.Connection) -> dict[tuple[str, int], list[CurveRow]]:
    """Return the curve so far of every trial that has one, by case and seed."""
    curves: dict[tuple[str, int], list[CurveRow]] = {}
    for case, seed, *row in select(connection, "curve"):
        curves.setdefault((case, seed), []).append(CurveRow(*row))
    return curves


def _reached(row: tuple[Any, ...], curves: dict[tuple[str, int], list[CurveRow]]) -> Reached:
    case, seed, _, _, time_s, iteration, _ = row
    at = next((point for point in curves.get((case, seed), []) if point.iteration == iteration), None)
    share = at.communication_s / at.time_s if at and at.time_s > 0 else None
    return Reached(time_s, iteration, share)
