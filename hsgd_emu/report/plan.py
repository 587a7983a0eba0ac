"""The page of a plan: the race drawn, who led when, and all candidates by rank."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from hsgd_emu.metrics import METRICS
from hsgd_emu.report.curves import FORMS, KINDS, SHOWN, target_lines, y_axis
from hsgd_emu.report.figure import AXIS, Column, Figure, Picture, Ref, plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR, colours
from hsgd_emu.report.page import CONFIG, script_json, templates
from hsgd_emu.results.wording import number, target_label
from hsgd_emu.study.planning.race import median_time
from hsgd_emu.study.planning.result import PlanResult, as_yaml

NUM_COLOURED = 8
MOST_DRAWN = 60
NUM_POINTS = 200
MOST_LED = 15
FATES = {
    "reached": "reached the target",
    "never": "had no more iterations",
    "diverged": "diverged",
    "beaten": "was later for certain",
    "dropped": "was dropped",
    "open": "was still in the race",
}


@dataclass(frozen=True)
class Line:
    """What one candidate had reached when; drawn until it stopped."""

    name: str
    colour: str
    fate: str
    time_s: Sequence[float]
    figures: Sequence[float]


def render(result: PlanResult) -> str:
    """Return the page as one HTML document. Same result and library versions: same bytes."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    drawn = lines(result)
    figure = race(result, drawn)
    best = result.best
    answer, *more = result.lines()
    led = leaders(result)
    return (
        templates()
        .get_template("plan.html.j2")
        .render(
            name=result.candidates[0].variant.experiment.name,
            answer=answer,
            more=more,
            yaml=best and as_yaml(best),
            table=result.table(most_rows=len(result.candidates)),
            figure=figure,
            lines=drawn[:NUM_COLOURED],
            leaders=[f"{name}: {_seconds(begin)} to {_seconds(end)}" for name, begin, end in led[-MOST_LED:]],
            more_led=max(0, len(led) - MOST_LED),
            plotly_js=Markup(get_plotlyjs()),
            config=Markup(script_json(json.dumps(CONFIG, sort_keys=True))),
            figure_json=Markup(f"{{{json.dumps(figure.id)}:{script_json(figure.as_json())}}}"),
        )
    )


def lines(result: PlanResult) -> list[Line]:
    """Return the curves of the first candidates by rank, the best of them in colours."""
    found = []
    looks = [*colours(NUM_COLOURED), *[OTHER_COLOUR] * MOST_DRAWN]
    for place, colour in zip(result.ranking[:MOST_DRAWN], looks, strict=False):
        finding = result.findings[place]
        times_s = _moments(result, place)
        figures = [finding.racer.figure_at(moment_s) for moment_s in times_s]
        known = [
            (t, METRICS[result.metric].sign * f) for t, f in zip(times_s, figures, strict=True) if math.isfinite(f)
        ]
        name = result.candidates[place].name
        found.append(Line(name, colour, FATES[finding.fate], [t for t, _ in known], [f for _, f in known]))
    return found


def _moments(result: PlanResult, place: int) -> list[float]:
    """Return when a candidate's median figure may have changed, until it stopped; of many, some."""
    racer = result.findings[place].racer
    if not racer.num_known:
        return []
    clock_s = racer.entrant.time_s[:, :, : racer.num_known]
    # Until its next evaluation it has what it has.
    end_s = racer.at_least_s if math.isfinite(racer.at_least_s) else median_time(clock_s[:, :, -1])
    end_s = min(result.stop_s, end_s)
    times_s = np.unique(np.append(clock_s[clock_s <= end_s], end_s))
    picked = np.unique(np.linspace(0, len(times_s) - 1, NUM_POINTS).round().astype(int))
    return [float(moment_s) for moment_s in times_s[picked]]


def leaders(result: PlanResult) -> list[tuple[str, float, float]]:
    """Return who led from when until when, by the median figure: (name, begin, end) in seconds."""
    ends = [moments[-1] for place in range(len(result.findings)) if (moments := _moments(result, place))]
    grid = np.linspace(0, max(ends, default=0.0), NUM_POINTS + 1)[1:]
    ranked = [(place, result.findings[place].racer) for place in result.ranking]
    first = [max(ranked, key=lambda one: one[1].figure_at(moment_s)) for moment_s in grid]
    known = [
        (moment_s, place)
        for moment_s, (place, racer) in zip(grid.tolist(), first, strict=True)
        if math.isfinite(racer.figure_at(moment_s))
    ]
    found = []
    begin_s = known[0][0] if known else 0.0
    for place, group in groupby(known, key=lambda one: one[1]):
        end_s = list(group)[-1][0]
        found.append((result.candidates[place].name, begin_s, end_s))
        begin_s = end_s
    return found


def race(result: PlanResult, drawn: Sequence[Line]) -> Figure:
    """Return the figure: the metric over emulated time, a mark where each stopped, above it in colour who led."""
    metric = result.metric
    columns = (
        Column("schedule", "schedule", "text", [line.name for line in drawn for _ in line.time_s]),
        Column("time_s", "emulated time", "seconds", [t for line in drawn for t in line.time_s]),
        Column(metric, SHOWN[metric], KINDS[metric], [f for line in drawn for f in line.figures]),
    )
    values = [value for line in drawn for value in line.figures]
    layout = target_lines(metric, [result.target], values or [result.target])
    by_name = {line.name: line.colour for line in drawn}
    layout = {
        **layout,
        "shapes": [*layout["shapes"], *_led(leaders(result), by_name)],
        "xaxis": {**AXIS, "title": {"text": "Emulated time (s)"}, "rangemode": "tozero", "tickformat": ",~r"},
        "yaxis": y_axis(metric, values or [result.target], [result.target]),
    }
    return Figure(
        id="race",
        title="The race",
        pictures=(Picture(("race",), _in_words(result), list(_traces(metric, drawn)), layout),),
        columns=columns,
        note=_note(result, drawn),
        height_px=460,
        log_x=True,
    )


def _traces(metric: str, drawn: Sequence[Line]) -> Iterator[dict[str, Any]]:
    start = 0
    for index, line in enumerate(drawn):
        end = start + len(line.time_s)
        if end > start:
            hover = f"%{{fullData.name}}<br>{SHOWN[metric]} %{{y:{FORMS[metric]}}}<br>%{{x:,.4~r}} s"
            faint = index >= NUM_COLOURED
            # Where it stopped is told by the mark, the last point.
            yield {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plotly_text(line.name),
                "meta": index,
                "x": Ref("time_s", start, end),
                "y": Ref(metric, start, end),
                "line": {"color": line.colour, "width": 1 if faint else 2.5, "shape": "hv"},
                "marker": {"color": line.colour, "size": [0] * (end - start - 1) + [6 if faint else 10]},
                "hovertemplate": f"{hover}<br>in the end it {line.fate}<extra></extra>",
            }
        start = end


def _led(those: Sequence[tuple[str, float, float]], by_name: dict[str, str]) -> Iterator[dict[str, Any]]:
    for name, begin_s, end_s in those:
        at = {"x0": begin_s, "x1": end_s, "yref": "paper", "y0": 0.985, "y1": 1, "layer": "above"}
        yield {"type": "rect", **at, "line": {"width": 0}, "fillcolor": by_name.get(name, OTHER_COLOUR)}


def _in_words(result: PlanResult) -> str:
    first = result.candidates[result.ranking[0] if result.best else result.leader].name
    label = target_label(result.metric, result.target)
    if result.best:
        return f"{first} was the first to {label}, {result.moment}."
    return f"Nobody was known to be the first to {label} {result.moment}; {first} had got furthest."


def _note(result: PlanResult, drawn: Sequence[Line]) -> str:
    rest = len(result.candidates) - len(drawn)
    left = f" {rest} more are not drawn." if rest else ""
    return (
        "The best figure so far over emulated time, median over seeds and draws of the network. Each line ends, with a "
        f"dot, where its schedule stopped; the bar at the top has the colour of whoever led.{left}"
    )


def _seconds(value: float) -> str:
    return f"{number(value, 3)} s"
