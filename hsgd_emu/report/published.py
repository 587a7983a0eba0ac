"""Beside published times: what others measured, our time of the same case, and that under a network fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from hsgd_emu.report.bars import HOVER, end_label, height_px, hover, row_axis, seconds, value_axis
from hsgd_emu.report.content import Content
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Switch
from hsgd_emu.report.looks import OTHER_COLOUR
from hsgd_emu.report.published_times import Beside, Row, beside, counted
from hsgd_emu.report.sentences import listed
from hsgd_emu.results.wording import number, percent
from hsgd_emu.study.fitting.result import Fit, FittedValue

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
    groups = [
        (one, [row for row in one.rows if row.until == until])
        for one in found
        for until in dict.fromkeys(row.until for row in one.rows)
    ]
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
    parts += [f"Given too: {listed([f'{name} {number(value_s, 3)} s' for name, value_s in known.items()])}."] * bool(
        known
    )
    parts += [_UNKNOWN if known else _UNKNOWN.replace("other ", "")] * bool(fits)
    parts += ["Only the first are drawn; the data have all."] if any(len(one.rows) > MOST_ROWS for one in found) else []
    return " ".join(parts)


def _picture(one: Beside, rows: Sequence[Row], start: int, key: tuple[str, ...]) -> Picture:
    drawn = rows[:MOST_ROWS]
    traces: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for place, (column, label, colour) in enumerate(_SERIES):
        at = [number + _APART * (place - 1) for number in range(len(drawn))]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": label,
                "x": Ref(column, start, start + len(drawn)),
                "y": at,
                "width": 0.25,
                "marker": {"color": colour, "line": {"width": 0}},
                "customdata": [hover(_hover_lines(row, column, label)) for row in drawn],
                **HOVER,
            }
        )
        for row, y in zip(drawn, at, strict=True):
            value = row.seconds(column)
            if value is not None:
                ends.append(end_label(value, y, seconds(value, 4)))
            elif column == "ours_s":
                ends.append(end_label(0, y, "not reached"))
    most = max(row.seconds(column) or 0.0 for row in drawn for column, _, _ in _SERIES)
    layout = {
        # Each bar stands where its trace puts it.
        "barmode": "overlay",
        "xaxis": value_axis(f"seconds until {rows[0].until}", most, 0.2),
        "yaxis": row_axis([row.case.own_name for row in drawn]),
        "annotations": ends,
    }
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
