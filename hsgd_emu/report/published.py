"""Beside published times: what others measured, our time of the same case, and that under a network fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.config.run_schema import PublishedTime
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.report.bars import BARS, end_label, flat, height_px, hovers, row_axis, seconds, value_axis
from hsgd_emu.report.content import Case, Content, Run
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Switch
from hsgd_emu.report.looks import OTHER_COLOUR
from hsgd_emu.report.sentences import listed
from hsgd_emu.results.summary import mean, middle
from hsgd_emu.results.wording import in_one_line, number, percent, target_label
from hsgd_emu.study.costs import profile_costs
from hsgd_emu.study.finished import finished_run
from hsgd_emu.study.fitting.fit import fit
from hsgd_emu.study.fitting.result import Fit, FittedRow, FittedValue
from hsgd_emu.study.fitting.table import published_rows

MOST_ROWS = 30
"""Cases drawn; more of them stand in the table only."""
_APART = 0.27
"""Rows between the bars of one case."""
_SERIES = (
    ("published_s", "published", OTHER_COLOUR),
    ("ours_s", "ours, under the run's own network", "#44AA99"),
    ("fitted_s", "ours, under the fitted network", "#AA4499"),
)
_INTRO = (
    "What others measured, beside the emulated times of the same cases: under the run's own network, and under the one "
    "whose RTTs and step times fit the published times best, given the iterations that our cases take."
)
_UNKNOWN = (
    "Every other RTT and step time is unknown to the fit; `hsgd-emu fit RUN_DIR` tells all of it, and its --fix "
    "NAME=SECONDS gives what is known."
)


def published(content: Content) -> tuple[list[str], Figure | None]:
    """Return the section's texts and its figure, one picture per run and target; neither where nothing is published.

    Without a figure the texts say why there is none.
    """
    every = [one for run in content.runs if (one := beside(content, run))]
    found = [one for one in every if one.can_be_drawn]
    several = len(content.runs) > 1
    texts = [f"{f'{one.run.name}: ' * several}{one.why_not}" for one in every if not one.can_be_drawn]
    return [_INTRO] * bool(found) + texts, _figure(found) if found else None


# --- the picture ------------------------------------------------------------------------------------


def _figure(found: Sequence[Beside]) -> Figure:
    subjects = [(one, until) for one in found for until in dict.fromkeys(row.until for row in one.rows)]
    groups = [(one, [row for row in one.rows if row.until == until]) for one, until in subjects]
    several, runs = len(groups) > 1, len(found) > 1
    pictures, start = [], 0
    for place, (one, rows) in enumerate(groups):
        pictures.append(_picture(one, rows, start, (str(place),) if several else ()))
        start += len(rows)
    options = [(f"{one.run.name}: " if runs else "") + rows[0].until for one, rows in groups]
    every = [row for _, rows in groups for row in rows]
    drawn = {column for column, _, _ in _SERIES if any(row.seconds(column) is not None for row in every)}
    return Figure(
        id="published",
        title="Beside published times",
        pictures=tuple(pictures),
        columns=tuple(_columns(every)),
        switches=(Switch("Until", tuple((str(i), label) for i, label in enumerate(options))),) if several else (),
        note=_note(found),
        key=tuple((label, colour) for column, label, colour in _SERIES if column in drawn),
        height_px=height_px(max(min(len(rows), MOST_ROWS) for _, rows in groups), 64),
    )


def _note(found: Sequence[Beside]) -> str:
    sources = listed(list(dict.fromkeys(one.source for one in found)))
    parts = [f"Published: {sources}."]
    fits = [one.fit for one in found if one.fit]
    known = {name: value_s for fit in fits for name, value_s in fit.fixed.items()}
    given = listed([f"{name} {number(value_s, 3)} s" for name, value_s in known.items()])
    parts += [f"Given too: {given}."] * bool(known)
    parts += [_UNKNOWN if known else _UNKNOWN.replace("other ", "")] * bool(fits)
    parts += ["Only the first are drawn; the data have all."] if any(len(one.rows) > MOST_ROWS for one in found) else []
    return " ".join(parts)


def _picture(one: Beside, rows: Sequence[Row], start: int, key: tuple[str, ...]) -> Picture:
    drawn = rows[:MOST_ROWS]
    traces: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for place, (column, label, colour) in enumerate(_SERIES):
        at = [number + _APART * (place - 1) for number in range(len(drawn))]
        bars = {**BARS, "name": label, "x": Ref(column, start, start + len(drawn)), "y": at, "width": 0.25}
        traces.append({**bars, "marker": flat(colour), **hovers(_hover_lines(row, column, label) for row in drawn)})
        for row, y in zip(drawn, at, strict=True):
            value = row.seconds(column)
            if value is not None:
                ends.append(end_label(value, y, seconds(value, 4)))
            elif column == "ours_s":
                ends.append(end_label(0, y, "not reached"))
    most = max(row.seconds(column) or 0.0 for row in drawn for column, _, _ in _SERIES)
    x = value_axis(f"seconds until {rows[0].until}", most, 0.2)
    axes = {"xaxis": x, "yaxis": row_axis([row.case.own_name for row in drawn])}
    # Each bar stands where its trace puts it.
    layout = {"barmode": "overlay", **axes, "annotations": ends}
    return Picture(key, _sentence(one, rows), traces, layout)


def _hover_lines(row: Row, column: str, label: str) -> Iterator[str]:
    yield f"{row.case.own_name}, until {row.until}"
    value = row.seconds(column)
    yield f"{label}: {'-' if value is None else seconds(value, 4)}"
    if column != "published_s" and value is not None:
        yield f"{round(value / row.time.time_s - 1, 3) + 0.0:+.1%} against the published {seconds(row.time.time_s, 4)}"
        yield f"{row.iterations:,.0f} iterations" if row.iterations is not None else ""


def _columns(rows: Sequence[Row]) -> Iterator[Column]:
    yield Column("case", "Case", "text", [row.case.name for row in rows])
    yield Column("until", "Until", "text", [row.until for row in rows])
    yield Column("published_s", "Published", "seconds", [row.time.time_s for row in rows])
    yield Column("ours_s", "Ours", "seconds", [row.ours_s for row in rows])
    yield Column("fitted_s", "Ours, fitted network", "seconds", [row.fitted_s for row in rows])
    off_s = [None if row.fitted_s is None else row.fitted_s - row.time.time_s for row in rows]
    yield Column("residual_s", "Fitted less published", "seconds", off_s)
    yield Column("residual_share", "of the published time", "share", [row.fitted and row.fitted.off for row in rows])
    yield Column("iterations", "Iterations, median", "count", [row.iterations for row in rows])


# --- the sentences ----------------------------------------------------------------------------------


def _sentence(one: Beside, rows: Sequence[Row]) -> str:
    """Say what explains the published times and how surely, and how far the run's own network is from these rows'."""
    parts = _of_the_fit(one.fit) if one.fit else []
    parts += _of_our_own(rows)
    missed = [row.case.own_name for row in rows if row.ours_s is None and row.fitted is None]
    parts += [f"{listed(missed)} did not get there in this run."] if missed else []
    return " ".join([*parts, one.why_not] if one.why_not else parts)


def _of_the_fit(found: Fit) -> list[str]:
    known = [f"{v.name} {v.what} {number(v.value_s, 3)} s{_interval(v)}" for v in found.values if v.determined]
    means = f"With {listed(known)} our" if known else "Under the fitted network our"
    times, within = counted(len(found.rows)), _within(abs(found.worst.off))
    first = f"{means} iteration counts explain the {times} to within {within}."
    return [first, *(line.strip() for line in found.certainty())]


def _interval(value: FittedValue) -> str:
    if value.low_s is None or value.high_s is None:
        return ""
    return f" (95%: {number(value.low_s, 3)} to {number(value.high_s, 3)})"


def _within(share: float) -> str:
    """Return a share rounded up, so that it holds: to tenths of a percent below 10%."""
    digits = 3 if share < 0.1 else 2
    return percent(max(math.ceil(share * 10**digits - 1e-9), 1) / 10**digits)


def _of_our_own(rows: Sequence[Row]) -> list[str]:
    ratios = [row.ours_s / row.time.time_s for row in rows if row.ours_s is not None]
    if not ratios:
        return []
    low, high = (number(ratio, 2) for ratio in (min(ratios), max(ratios)))
    what = f"{low} times" if low == high else f"{low} to {high} times"
    return [f"Under the run's own network the same cases take {what} the published time."]


# --- ours, and the fit ------------------------------------------------------------------------------

_MOST_WORK = 250
"""Links times cases of which a fit takes about two seconds; a longer one is left to `hsgd-emu fit`."""
Subject = tuple[str, str | None, float | None, int | None]
"""What a published time is of: case, metric and target, or iterations."""


@dataclass(frozen=True)
class Row:
    """One published time. ours_s, iterations: medians over seeds, None where the case did not reach the target."""

    case: Case
    time: PublishedTime
    ours_s: float | None
    iterations: float | None
    fitted: FittedRow | None

    @property
    def until(self) -> str:
        """What the time is until, in words."""
        if self.time.metric is None or self.time.target is None:
            return f"{self.time.iterations:,} iterations"
        return target_label(self.time.metric, self.time.target)

    @property
    def fitted_s(self) -> float | None:
        return None if self.fitted is None else self.fitted.fitted_s

    def seconds(self, column: str) -> float | None:
        """Return the value of one of the series."""
        if column == "published_s":
            return self.time.time_s
        return self.ours_s if column == "ours_s" else self.fitted_s


@dataclass(frozen=True)
class Beside:
    """One run's published times. fit: None where there is none; `why_not` says why."""

    run: Run
    source: str
    rows: tuple[Row, ...]
    fit: Fit | None
    why_not: str

    @property
    def can_be_drawn(self) -> bool:
        return any(row.ours_s is not None or row.fitted is not None for row in self.rows)


def beside(content: Content, run: Run) -> Beside | None:
    """Return a run's published times, or None where it has none."""
    if run.experiment is None or run.experiment.published is None:
        return None
    spec = run.experiment.published
    cases = {case.own_name: case for case in content.cases if case.run is run}
    fitted, why_not = _fitted(run, run.experiment)
    by_subject = {_subject_of(row): row for row in fitted.rows} if fitted else {}
    timed = [(cases[time.case], time) for time in spec.times]
    rows = tuple(Row(case, time, *_ours(case, time), by_subject.get(_subject(time))) for case, time in timed)
    return Beside(run, in_one_line(spec.source), rows, fitted, why_not)


def _subject(time: PublishedTime) -> Subject:
    return time.case, time.metric, time.target, time.iterations


def _subject_of(row: FittedRow) -> Subject:
    measured = row.measured
    if measured.target is None:
        return measured.case, None, None, next(iter(measured.reached.values()))
    return measured.case, *measured.target, None


def _ours(case: Case, time: PublishedTime) -> tuple[float | None, float | None]:
    """Return seconds and iterations of a case where its published time was taken; none where it did not get there."""
    if time.iterations is not None:
        curves = case.seeds.values()
        rows = [next((row for row in curve if row.iteration == time.iterations), None) for curve in curves]
        return mean(middle(rows), "time_s"), time.iterations
    targets = case.summary.targets
    found = next((one for one in targets if (one.metric, one.target) == (time.metric, time.target)), None)
    return (found.median_time_s, found.median_iterations) if found else (None, None)


def _fitted(run: Run, experiment: Experiment) -> tuple[Fit | None, str]:
    """Return the constants fitted to the published times, or why there are none."""
    known = experiment.published.known if experiment.published else {}
    num_unknown = sum(cost.name not in known for cost in profile_costs(experiment))
    try:
        num_compared = len(published_rows(finished_run(run.folder))[0])
        if num_compared < num_unknown:
            text = f"{counted(num_compared)} can be compared, and the network has {num_unknown} unknown constants"
            return None, f"Nothing is fitted: only {text}."
        if not _is_quick(experiment):
            return None, "Fitting a network to them takes a while here: `hsgd-emu fit RUN_DIR` does it."
        return fit(run.folder), ""
    except ConfigError as error:
        said = error.problems[0].message
        # Of the folder, which stands before it elsewhere.
        return None, f"Nothing is fitted: {'the run ' if said.startswith('was ') else ''}{said}."
    except (ValueError, ArithmeticError) as error:
        # What the numerics may raise; without a fit the page is as good in all else.
        return None, f"Nothing is fitted: {error}."


def _is_quick(experiment: Experiment) -> bool:
    """Tell whether a fit takes about two seconds at most; by what there is to do, so that a page is always the same."""
    # Where only some take part, or steps are skipped, every round has to be timed.
    alike = all(
        one.participation >= 1 and not experiment.effects(one.name).step_probability for one in experiment.schedules
    )
    return alike and len(experiment.topology.links) * len(experiment.schedules) <= _MOST_WORK


def counted(num: int) -> str:
    """Return so many published times in words."""
    return "one published time" if num == 1 else f"{num} published times"
