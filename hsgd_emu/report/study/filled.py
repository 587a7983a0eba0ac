"""A study's figures with what its page's script puts in: places in a cloud, a scale, the trials of a scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.looks import shortened
from hsgd_emu.report.study.content import Case, StudyContent
from hsgd_emu.report.study.figure import FigureJson
from hsgd_emu.report.study.page import gain_scale
from hsgd_emu.report.study.words import seconds
from hsgd_emu.results.wording import number

MOST_DOTS = 400
_GOLDEN = 0.618034
Times = Sequence[float | None]
"""Seconds; None = never."""


def over(figure: FigureJson, x: Mapping[str, Any], y: Mapping[str, Any]) -> FigureJson:
    """Return a cloud over two axes, as `charts.cloud_axes` has them."""
    data = [
        trace | {name: [axis["at"][s] for s in trace["customdata"]] for name, axis in (("x", x), ("y", y))}
        for trace in figure["data"]
    ]
    return {"data": data, "layout": figure["layout"] | {"xaxis": x["layout"], "yaxis": y["layout"]}}


def with_scale(content: StudyContent, figure: FigureJson) -> FigureJson:
    """Return a map or a cloud of the gain with its scale beside it."""
    scale = gain_scale(content)
    words = list(scale["words"])
    if scale["two_sided"]:
        words = [f"local SGD {words[0]}", *words[1:-1], f"H-SGD {words[-1]}"]
    ends = (-1 if scale["two_sided"] else 0, 1)
    places = [ends[0] + (ends[1] - ends[0]) * i / (len(words) - 1) for i in range(len(words))]
    shown = {"showscale": True, "colorbar": {"tickvals": places, "ticktext": words, "outlinewidth": 0, "thickness": 16}}
    first, *others = figure["data"]
    first = first | (shown if first["type"] == "heatmap" else {"marker": first["marker"] | shown})
    return {"data": [first, *others], "layout": figure["layout"]}


def with_trials(
    content: StudyContent, figure: FigureJson, times_s: Sequence[Times], stats_s: Sequence[Times]
) -> FigureJson:
    """Return the spread of one scenario. times_s: by case, of each trial; stats_s: median, low, high, q10, q90."""
    known_s = [time for times in times_s for time in times if time is not None]
    latest_s = max(known_s, default=0.0)
    data = []
    for trace in figure["data"]:
        part, case = trace["meta"]
        middle = len(content.cases) - 1 - case
        if part == "dots":
            data.append(trace | _dots(times_s[case], middle))
        else:
            data.append(trace | _statistic(trace, part, stats_s[case], middle, latest_s))
    heads = map(_head, content.cases, times_s, stats_s)
    notes = [note | {"text": head} for note, head in zip(figure["layout"]["annotations"], heads, strict=True)]
    layout = figure["layout"] | {"annotations": notes}
    if known_s and latest_s > 4 * min(known_s):
        layout["xaxis"] = layout["xaxis"] | {"type": "log", "dtick": "D2"}
    return {"data": data, "layout": layout}


def _dots(times_s: Times, middle: float) -> dict[str, Any]:
    known_s = sorted(time for time in times_s if time is not None)
    num = min(len(known_s), MOST_DOTS)
    # Side by side as far as there is room; the golden ratio spreads neighbours.
    y = [middle - 0.32 + 0.2 * (math.modf(i * _GOLDEN)[0] - 0.5) for i in range(num)]
    return {"x": [known_s[int((i + 0.5) * len(known_s) / num)] for i in range(num)], "y": y}


def _statistic(trace: Mapping[str, Any], part: str, stats_s: Times, middle: float, latest_s: float) -> dict[str, Any]:
    """Return a part of a case's row; to never it goes as far as there is anything, with an arrow."""
    median_s, low_s, high_s, q10_s, q90_s = stats_s
    ends_s = {"range": (q10_s, q90_s), "interval": (low_s, high_s), "median": (median_s,)}[part]
    known_s = [] if ends_s[0] is None else [latest_s if end is None else end for end in ends_s]
    found: dict[str, Any] = {"x": known_s, "y": [middle - 0.08] * len(known_s)}
    if part != "median":
        found["marker"] = trace["marker"] | {"size": [12 if end is None else 0 for end in ends_s]}
    return found


def _head(case: Case, times_s: Times, stats_s: Times) -> str:
    median_s, _, _, q10_s, q90_s = stats_s
    never = times_s.count(None)
    head = f"<b>{plotly_text(shortened(case.name, 34))}</b>"
    if median_s is not None:
        head += f"  median {seconds(median_s)}"
    elif never < len(times_s):
        head += "  median never"
    notes = []
    if q10_s is not None and q10_s != q90_s:
        low = seconds(q10_s) if q90_s is None else number(q10_s, 3)
        notes.append(f"10% to 90% of trials: {low} to {'never' if q90_s is None else seconds(q90_s)}")
    notes += [f"never in {never} of {len(times_s)}"] if never else []
    return "  ·  ".join([head, *notes])
