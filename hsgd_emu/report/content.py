"""What the report shows, as plain data: nothing here knows HTML or plotly."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.results.folder import read_environment, read_run_file, read_run_text
from hsgd_emu.results.rows import CurveRow
from hsgd_emu.results.summary import CaseSummary, summarise
from hsgd_emu.results.tables import connect_to_read, select

MOST_POINTS = 600
"""Points drawn per line: more cannot be seen, and a long run would make a page of hundreds of megabytes."""

# Okabe and Ito's palette without its black (unseen in the dark) and yellow (unseen in the light).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class Point:
    """One place on a line; metrics are None where they were not measured."""

    iteration: int
    time_s: float
    test_accuracy: float | None
    test_loss: float | None


@dataclass(frozen=True)
class Part:
    """Where a case's time went, medians over seeds at its last row of `curve`."""

    time_s: float
    compute_s: float
    communication_s: float
    aggregation_s: float


@dataclass(frozen=True)
class Blame:
    """The child and link that a case's aggregations waited for most often."""

    waited_for: str
    link: str
    share: float
    mean_slack_s: float


@dataclass(frozen=True)
class Case:
    """One case with its look, which is the same everywhere on the page."""

    name: str
    index: int
    colour: str
    dashed: bool
    summary: CaseSummary
    median: tuple[Point, ...]
    seeds: tuple[tuple[Point, ...], ...]
    part: Part | None
    blame: Blame | None


@dataclass(frozen=True)
class Trial:
    """One trial's state and fingerprints."""

    case: str
    seed: int
    status: str
    iteration: int
    weights_hash: str | None
    timeline_hash: str | None


@dataclass(frozen=True)
class Content:
    """All that the page says."""

    run: dict[str, Any]
    run_text: str
    environment: dict[str, Any]
    cases: tuple[Case, ...]
    trials: tuple[Trial, ...]

    @property
    def summaries(self) -> list[CaseSummary]:
        """The summaries of the cases, in run order."""
        return [case.summary for case in self.cases]

    @property
    def has_accuracy(self) -> bool:
        """Whether any point carries an accuracy."""
        return any(point.test_accuracy is not None for case in self.cases for point in case.median)

    @property
    def has_loss(self) -> bool:
        """Whether any point carries a test loss."""
        return any(point.test_loss is not None for case in self.cases for point in case.median)


def gather(folder: Path) -> Content:
    """Return the content of the report of the run in `folder`. Raises ConfigError where there is none."""
    summaries = summarise(folder)
    with contextlib.closing(connect_to_read(folder)) as connection:
        curves: dict[str, dict[int, list[CurveRow]]] = {}
        for case, seed, *row in select(connection, "curve"):
            curves.setdefault(case, {}).setdefault(seed, []).append(CurveRow(*row))
        blames = _blames(connection)
        trials = [Trial(row[0], row[1], row[2], row[3], row[5], row[6]) for row in select(connection, "trials")]
    cases = [
        _case(index, summary, list(curves.get(summary.case, {}).values()), blames.get(summary.case))
        for index, summary in enumerate(summaries)
    ]
    return Content(read_run_file(folder), read_run_text(folder), read_environment(folder), tuple(cases), tuple(trials))


def _case(index: int, summary: CaseSummary, curves: list[list[CurveRow]], blame: Blame | None) -> Case:
    return Case(
        name=summary.case,
        index=index,
        colour=COLOURS[index % len(COLOURS)],
        dashed=summary.local_sgd,
        summary=summary,
        median=thin(median_points(curves)),
        seeds=tuple(thin([_point(row) for row in curve]) for curve in curves) if len(curves) > 1 else (),
        part=_part([curve[-1] for curve in curves if curve]),
        blame=blame,
    )


def _point(row: CurveRow) -> Point:
    return Point(row.iteration, row.time_s, row.test_accuracy, _finite(row.test_loss))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def median_points(curves: Sequence[Sequence[CurveRow]]) -> list[Point]:
    """Return the medians over seeds of time and metrics, at each iteration that half of them have reached."""
    at: dict[int, list[CurveRow]] = {}
    for curve in curves:
        for row in curve:
            at.setdefault(row.iteration, []).append(row)
    return [
        Point(
            iteration,
            statistics.median(row.time_s for row in rows),
            median_of(row.test_accuracy for row in rows),
            median_of(_finite(row.test_loss) for row in rows),
        )
        for iteration, rows in sorted(at.items())
        if 2 * len(rows) >= len(curves)
    ]


def median_of(values: Any) -> float | None:
    """Return the median of the values that are there, or None."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Return at most `most` of the points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return tuple(points)
    last = len(points) - 1
    return tuple(points[round(i * last / (most - 1))] for i in range(most))


def _part(rows: list[CurveRow]) -> Part | None:
    if not rows:
        return None
    names = ("time_s", "compute_s", "communication_s", "aggregation_s")
    return Part(*(statistics.median(getattr(row, name) for row in rows) for name in names))


def _blames(connection: sqlite3.Connection) -> dict[str, Blame]:
    """Return, per case, the (child, link) with the most barriers; ties go to the first name."""
    rows = connection.execute(
        'SELECT "case", waited_for, link, count(*) AS num, avg(slack_s) FROM barriers '
        'GROUP BY "case", waited_for, link ORDER BY "case", num DESC, waited_for, link'
    )
    found: dict[str, list[tuple[str, str, int, float]]] = {}
    for case, *row in rows:
        found.setdefault(case, []).append((row[0], row[1], row[2], row[3]))
    return {
        case: Blame(rows[0][0], rows[0][1], rows[0][2] / sum(row[2] for row in rows), rows[0][3])
        for case, rows in found.items()
    }
