"""The time-to-target table: per case and target, the median over seeds and the spread.

Plain rows and the standard library, so that the command line answers without pandas.
Only finished trials count.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hsgd_emu.metrics import METRICS, Target
from hsgd_emu.results.folder import local_sgd_cases, own_settings_cases, read_run_file
from hsgd_emu.results.rows import CurveRow, TrialKey, row_reaching
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, curve_rows, target_levels, trial_rows
from hsgd_emu.results.wording import CaseSummary, TargetSummary, has_published, in_one_line

T = TypeVar("T")


def summarise(source: RunStore | Path) -> list[CaseSummary]:
    """Return one summary per case, in run order.

    Args:    source: an open store, or a run folder (which may still be written).
    Raises:  ConfigError: the folder holds no run.
    """
    folder = source.folder if isinstance(source, RunStore) else source
    with _connection(source) as connection:
        return summarise_from(connection, read_run_file(folder), curves_of(connection))


def summarise_from(
    connection: sqlite3.Connection, run: dict[str, Any], curves: Mapping[TrialKey, Sequence[CurveRow]]
) -> list[CaseSummary]:
    """Return the summaries of a run from its open database, its run file and its `curves_of`."""
    trials, targets = trial_rows(connection), target_levels(connection)
    local, own, published = local_sgd_cases(run), own_settings_cases(run), _published(run)
    found = []
    for case in dict.fromkeys(trial.case for trial in trials):
        of_case = [trial for trial in trials if trial.case == case]
        finished = [curves.get(trial.key, ()) for trial in of_case if trial.status == "finished"]
        last = [curve[-1] for curve in finished if curve]
        summaries = (
            summarise_target(
                target, [row_reaching(curve, target) for curve in finished], published.get((case, *target))
            )
            for target in targets
        )
        found.append(
            CaseSummary(
                case=case,
                local_sgd=case in local,
                num_seeds=len(of_case),
                num_finished=len(finished),
                targets=tuple(summaries),
                final_accuracy=median_figure(last, "test_accuracy"),
                final_test_loss=median_figure(last, "test_loss"),
                final_time_s=mean(middle(last), "time_s"),
                final_iteration=mean(middle(last), "iteration"),
                own_settings=case in own,
                diverged=tuple((trial.seed, trial.diverged_at) for trial in of_case if trial.diverged_at is not None),
            )
        )
    return found


def summarise_target(
    target: Target, rows: Sequence[CurveRow | None], published_time_s: float | None = None
) -> TargetSummary:
    """Return median and spread over seeds of when a target was reached.

    rows: by seed, the row that reached it; None: never.
    """
    times_s = [row.time_s for row in rows if row is not None]
    there = middle(rows)
    time_s, communication_s = mean(there, "time_s"), mean(there, "communication_s")
    return TargetSummary(
        *target,
        num_seeds=len(rows),
        num_reached=len(times_s),
        median_time_s=time_s,
        least_time_s=min(times_s, default=None),
        most_time_s=max(times_s, default=None),
        median_iterations=mean(there, "iteration"),
        communication_share=None if communication_s is None or not time_s else communication_s / time_s,
        published_time_s=published_time_s,
    )


# --- the median over seeds, for all that is told of a run ---------------------------------------------


def middle(rows: Sequence[CurveRow | None]) -> tuple[CurveRow, ...]:
    """Return the row of the seed in the middle, by time; of an even number of seeds the two in the middle.

    A seed without a row (None) is later than all others, so there is none unless more than half have one. Leaving these
    seeds out instead would favour a case that only its luckiest seeds reach.
    """
    known = sorted((row for row in rows if row is not None), key=lambda row: row.time_s)
    return tuple(_two_in_the_middle(known, len(rows)))


def mean(rows: Sequence[CurveRow], field: str) -> float | None:
    """Return the mean of a field over the rows in the middle, None where there are none."""
    return sum(getattr(row, field) for row in rows) / len(rows) if rows else None


def median_reached(values: Sequence[float | None], larger_is_better: bool = False) -> float | None:
    """Return the median over seeds by the rule of `middle`: a null is worse than all others."""
    known = sorted((value for value in values if value is not None), reverse=larger_is_better)
    there = _two_in_the_middle(known, len(values))
    return sum(there) / len(there) if there else None


def _two_in_the_middle(known: Sequence[T], num: int) -> Sequence[T]:
    """Return the value in the middle of `num`, of which the first are `known`, or the two; none where one is not."""
    return known[(num - 1) // 2 : num // 2 + 1] if len(known) > num // 2 else ()


def median_figure(rows: Sequence[CurveRow], metric: str) -> float | None:
    """Return the median of a metric over seeds; a model that is not finite is worse than all others."""
    return median_reached(
        [row.metrics[metric] if row.metrics.is_finite else None for row in rows],
        larger_is_better=METRICS[metric].sign > 0,
    )


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


def curves_of(connection: sqlite3.Connection) -> dict[TrialKey, list[CurveRow]]:
    """Return the curve so far of every trial that has one."""
    curves: dict[TrialKey, list[CurveRow]] = {}
    for key, row in curve_rows(connection):
        curves.setdefault(key, []).append(row)
    return curves
