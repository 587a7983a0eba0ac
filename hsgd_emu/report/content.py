"""What the report of runs shows, as plain data: nothing here knows HTML or plotly."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from hsgd_emu.algorithm import Algorithm, algorithms
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.metrics import METRICS, is_beyond
from hsgd_emu.report.looks import colours
from hsgd_emu.report.traffic import Traffic, traffic_of
from hsgd_emu.results.folder import (
    RUN_FILE,
    read_environment,
    read_run_file,
    read_run_text,
    recorded_shape,
    require_run_folder,
)
from hsgd_emu.results.rows import CurveRow, TrialRow, row_reaching
from hsgd_emu.results.summary import curves_of, median_reached, middle, summarise_from
from hsgd_emu.results.tables import connect_to_read, trial_rows
from hsgd_emu.results.wording import CaseSummary, TargetSummary

MOST_POINTS = 600
"""Points drawn per line: more cannot be seen, and a long run would make a page of hundreds of megabytes."""


class Spread(NamedTuple):
    """A figure over seeds."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Point:
    """The global aggregation at one iteration, medians over seeds; None: not measured, or not finite.

    A seed that ended before counts with its last evaluation, so that a curve ends where the table says; one that is
    still under way and not yet here does not count.
    """

    iteration: int
    num_seeds: int
    time_s: Spread
    communication_s: Spread
    num_bytes: int | None
    """Sent until then over all links; None where the run's network could not be read."""
    metrics: Mapping[str, Spread | None]
    num_ended: int = 0
    """Of the seeds, those that ended before this iteration."""
    round: int = 0
    """Global aggregations until then."""
    uploaded_bytes: int = 0
    """Of all messages towards a server until then, and those of hubs."""

    def reaches(self, target: TargetSummary) -> bool:
        """Tell whether the median over seeds is at or beyond a target."""
        value = self.metrics[target.metric]
        return value is not None and is_beyond(value.median, target.key)


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder, open to read in one snapshot."""

    name: str
    """Of the run file; unlike that of the other runs on the page."""
    folder: Path
    connection: sqlite3.Connection
    run: dict[str, Any]
    run_text: str
    environment: dict[str, Any]
    trials: tuple[TrialRow, ...]
    experiment: Experiment | None
    """None where the run file cannot be read by this version; `not_read` says why."""
    not_read: str = ""

    @cached_property
    def algorithms(self) -> dict[str, Algorithm]:
        """By case what it computes; empty where the run file could not be read."""
        return algorithms(self.experiment) if self.experiment else {}

    @cached_property
    def message_bytes(self) -> int:
        """Return the size of a model message."""
        given = self.experiment.message_bytes if self.experiment else None
        return int(given or self.environment.get("message_bytes") or 0)


@dataclass(frozen=True, eq=False)
class Case:
    """One case of one run with its look, which is the same everywhere on the page."""

    name: str
    """As in the run file; with the run's name before it where the page shows several runs."""
    own_name: str
    """As in the run file and in the tables."""
    run: Run
    index: int
    """Place among all cases of the page."""
    colour: str
    dashed: bool
    """Only the global server averages."""
    summary: CaseSummary
    seeds: dict[int, list[CurveRow]]
    """Every seed's whole curve so far."""
    end: tuple[CurveRow, ...]
    """The last row of the seed in the middle (`results.summary.middle`) of those that are finished; where none is, its
    row at the last of `points`."""
    points: tuple[Point, ...]
    """Medians over seeds at each iteration that half of them have reached; not thinned."""
    traffic: Traffic | None
    """What one global period sends over each link; None where the run's network could not be read."""
    algorithm: Algorithm | None = None
    """What it computes; None where the run file could not be read."""

    @cached_property
    def drawn(self) -> tuple[Point, ...]:
        """The points to draw: at most about `MOST_POINTS`, with all at which a target is reached."""
        crossings = set()
        for target in self.summary.targets:
            rows = [row_reaching(curve, target.key) for curve in self.seeds.values()]
            crossings |= {row.iteration for row in rows if row is not None}
            median = (point.iteration for point in self.points if point.reaches(target))
            crossings |= {*islice(median, 1)}
        return thin(self.points, crossings)


@dataclass(frozen=True, eq=False)
class Content:
    """All that the page says."""

    runs: tuple[Run, ...]
    cases: tuple[Case, ...]

    @property
    def summaries(self) -> list[CaseSummary]:
        """The summaries of the cases, in the page's order, under the page's names."""
        return [case.summary for case in self.cases]

    def has(self, metric: str) -> bool:
        """Tell whether any point carries this metric."""
        return any(point.metrics[metric] is not None for case in self.cases for point in case.points)

    @property
    def kinds(self) -> tuple[str, str]:
        """What cases of several levels are called, and those of one."""
        if any(summary.own_settings for summary in self.summaries):
            return "cases that average at several levels", "cases that average at the global server alone"
        return "H-SGD", "local SGD"

    @property
    def was_trained(self) -> bool:
        """Whether any metric is there, or diverged."""
        return any(self.has(metric) for metric in METRICS) or any(summary.diverged for summary in self.summaries)


@contextlib.contextmanager
def gather(folders: Sequence[Path]) -> Iterator[Content]:
    """Yield the content of the report of the runs in `folders`; their databases are open meanwhile.

    Raises:  ConfigError: one of them holds no run.
    """
    for folder in folders:
        require_run_folder(folder)
    names = _names(folders)
    with contextlib.ExitStack() as stack:
        runs = []
        for folder, name in zip(folders, names, strict=True):
            connection = stack.enter_context(contextlib.closing(connect_to_read(folder)))
            # One snapshot for all that is asked: a trial that finishes meanwhile is in all of it or in none.
            connection.execute("BEGIN")
            runs.append(_run(name, folder, connection))
        yield Content(tuple(runs), tuple(_cases(runs)))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the runs' names; the folders' where two runs are called the same, numbered where they are too."""
    names = [str(read_run_file(folder).get("name", "run")) for folder in folders]
    if len({*names}) < len(names):
        names = [folder.absolute().name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)
    ]


def _run(name: str, folder: Path, connection: sqlite3.Connection) -> Run:
    experiment, not_read = None, ""
    try:
        experiment = load_experiment(folder / RUN_FILE).of_shape(recorded_shape(folder))
    except ConfigError as error:
        not_read = str(error.problems[0])
    run, text, environment = read_run_file(folder), read_run_text(folder), read_environment(folder)
    return Run(name, folder, connection, run, text, environment, tuple(trial_rows(connection)), experiment, not_read)


def _cases(runs: Sequence[Run]) -> Iterator[Case]:
    curves = {run.name: curves_of(run.connection) for run in runs}
    found = [(run, one) for run in runs for one in summarise_from(run.connection, run.run, curves[run.name])]
    palette = colours(len(found))
    for index, (run, summary) in enumerate(found):
        name = summary.case if len(runs) == 1 else f"{run.name}: {summary.case}"
        seeds = {key.seed: rows for key, rows in curves[run.name].items() if key.case == summary.case}
        done = {one.seed for one in run.trials if one.case == summary.case and one.status == "finished"}
        ended = [rows[-1] for seed, rows in seeds.items() if seed in done]
        traffic = _traffic(run, summary.case)
        points = tuple(median_points(list(seeds.values()), traffic, ended))
        last = points[-1].iteration if points else None
        yield Case(
            name=name,
            own_name=summary.case,
            run=run,
            index=index,
            colour=palette[index],
            dashed=summary.local_sgd,
            summary=replace(summary, case=name),
            seeds=seeds,
            end=middle(ended or [row for curve in seeds.values() for row in curve if row.iteration == last]),
            points=points,
            traffic=traffic,
            algorithm=run.algorithms.get(summary.case),
        )


def _traffic(run: Run, case: str) -> Traffic | None:
    if run.experiment is None or not run.message_bytes:
        return None
    schedule = next(s for s in run.experiment.schedules if s.name == case)
    return traffic_of(run.experiment, schedule, run.message_bytes)


def median_points(
    curves: Sequence[Sequence[CurveRow]], traffic: Traffic | None = None, ended: Sequence[CurveRow] = ()
) -> Iterator[Point]:
    """Yield the medians over seeds of time and metrics, at each iteration that half of them have reached.

    ended: the last row of every seed that is finished.
    """
    at: dict[int, list[CurveRow]] = {}
    for curve in curves:
        for row in curve:
            at.setdefault(row.iteration, []).append(row)
    for iteration, here in sorted(at.items()):
        over = [row for row in ended if row.iteration < iteration]
        rows = here + over
        if 2 * len(rows) < len(curves):
            continue
        time_s, communication_s = (spread(getattr(row, n) for row in rows) for n in ("time_s", "communication_s"))
        assert time_s is not None
        assert communication_s is not None
        num_bytes = median_reached([traffic.bytes_until(row.iteration) for row in rows]) if traffic else None
        sent = None if num_bytes is None else round(num_bytes)
        known = {name: [row.metrics[name] if row.metrics.is_finite else None for row in rows] for name in METRICS}
        metrics = {name: spread(values, METRICS[name].sign > 0) for name, values in known.items()}
        uploaded = median_reached([row.uploaded_bytes for row in rows])
        spent = {"round": here[0].round, "uploaded_bytes": round(uploaded or 0)}
        yield Point(iteration, len(rows), time_s, communication_s, sent, metrics, len(over), **spent)


def spread(values: Iterable[float | None], larger_is_better: bool = False) -> Spread | None:
    """Return the median, and least and most of the values that are there; None where there is no median.

    What is None or not finite is worse than all others (`results.summary.median_reached`).
    """
    every = [value if value is not None and math.isfinite(value) else None for value in values]
    known, median = [value for value in every if value is not None], median_reached(every, larger_is_better)
    return None if median is None else Spread(median, min(known), max(known))


def thin(points: Sequence[Point], keep: set[int], most: int = MOST_POINTS) -> tuple[Point, ...]:
    """Return about `most` of the points, evenly spaced, the first, the last and those at the iterations to keep."""
    if len(points) <= most:
        return tuple(points)
    last = len(points) - 1
    places = {round(i * last / (most - 1)) for i in range(most)}
    return tuple(point for place, point in enumerate(points) if place in places or point.iteration in keep)
