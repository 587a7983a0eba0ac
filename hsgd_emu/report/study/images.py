"""The figures of a study as images: every kind of figure, for each target and each choice that its page offers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.images import Image, Key
from hsgd_emu.report.looks import shortened
from hsgd_emu.report.study.charts import cloud_axes
from hsgd_emu.report.study.content import Case, StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, FigureJson
from hsgd_emu.report.study.grid import Grid, make_grid
from hsgd_emu.report.study.maps import NOTHING
from hsgd_emu.report.study.page import cloud_sides, figures, gain_scale, kind_of, picks
from hsgd_emu.report.study.sentences import hardest
from hsgd_emu.report.study.spread import spread_data, spread_height_px, spreads
from hsgd_emu.report.study.tornado import HIGH_COLOUR, LOW_COLOUR, subjects, tornado_height_px, tornado_kind, tornados
from hsgd_emu.report.study.words import seconds, symbol
from hsgd_emu.results.wording import number

_HEIGHT_PX = 480
_MARKS = "(dot: one trial; above: median, its 95% interval, and from the 10% to the 90% quantile of trials)"


@dataclass(frozen=True)
class _Choice:
    """One of a figure's pictures for a target. ending: of its name; words: of its title; first: the page's own."""

    ending: tuple[object, ...]
    words: tuple[str, ...]
    first: bool
    draw: Callable[[], FigureJson]


def study_images(content: StudyContent) -> list[Image]:
    """Return every picture of a study's page, of each figure first the one that the page opens with."""
    found: list[tuple[bool, bool, Image]] = []
    for drawn, offered in _drawn(content):
        late = drawn[1] != hardest(content)
        found += [(late, not choice.first, _image(content, drawn, choice)) for choice in offered]
    nums = Counter(image.of for *_, image in found)
    found.sort(key=lambda one: (list(nums).index(one[2].of), *one[:2]))
    return [image if nums[image.of] > 1 else replace(image, name=image.of) for *_, image in found]


def _drawn(content: StudyContent) -> Iterator[tuple[Drawn, Iterator[_Choice]]]:
    if not content.targets:
        return
    grid = make_grid(content.axes, content.places_SA, len(content.targets))
    for one in figures(content, grid, kind_of(content, grid)):
        yield one, _of_grid(content, grid, one) if grid else _of_cloud(content, one)
    for one in tornados(content):
        yield one, _of_tornado(content, one)
    trials = spread_data(content)
    for one in spreads(content):
        yield one, _of_spread(content, trials, one)


def _image(content: StudyContent, drawn: Drawn, choice: _Choice) -> Image:
    which, number, _, figure = drawn
    target = content.targets[number]
    name = "-".join(map(str, (which, target.metric, f"{target.level:.15g}", *choice.ending)))
    title = f"{_heading(content, which)}: {', '.join((target.label, *choice.words))}"
    heights = {"tornado": tornado_height_px, "spread": spread_height_px}
    height_px = heights[which](content) if which in heights else _HEIGHT_PX
    return Image(name, which, title, height_px, choice.draw, _key(content, which, target, figure))


def _heading(content: StudyContent, which: str) -> str:
    """Return the title of a figure's section on the page."""
    both = content.both_kinds
    gain = f"How many times faster {'H-SGD is than local SGD' if both else 'the best is than the next'}"
    varying = next((axis.name for axis in content.axes if len(axis.texts) > 1), "")
    return {
        "chart": f"The fastest case along {varying}",
        "gain": gain,
        "cloud-gain": gain,
        "tornado": "What the time depends on",
        "spread": f"Chance: how the time to target is spread {_MARKS}",
    }.get(which, "The fastest case in each scenario")


def _key(content: StudyContent, which: str, target: Target, figure: FigureJson) -> tuple[Key, ...]:
    """Return what colours mean where no trace, scale or head of a row says so."""
    best = set(target.best_S.tolist())
    winners = [case for case in content.cases if case.index in best]
    if which == "best":
        never = [Key("no case reaches it", NOTHING)] if -1 in best else []
        return (*(Key(case.name, case.colour) for case in winners), *never)
    if which == "cloud":
        return tuple(Key(case.name, case.colour, symbol(case)) for case in winners)
    if which == "tornado" and tornado_kind(content) == "bars":
        ends = (Key("at the lowest value", LOW_COLOUR), Key("at the highest", HIGH_COLOUR))
        dots = {trace["marker"]["color"] for trace in figure["data"] if trace["type"] == "scatter"}
        fastest = (Key(f"{case.name} fastest", case.colour, "circle") for case in content.cases if case.colour in dots)
        return (*ends, *fastest)
    return ()


# --- what the page's reader picks -------------------------------------------------------------------


def _of_grid(content: StudyContent, grid: Grid, drawn: Drawn) -> Iterator[_Choice]:
    """Yield the one picture of a combination; the name has the place of each value on its axis, from 1."""
    which, _, key, figure = drawn
    places = zip(grid.others, (int(place) for place in key.split(",") if place), strict=True)
    at = [(i, place) for i, place in places if len(content.axes[i].texts) > 1]
    start = {pick.axis: pick.start for pick in picks(content, grid)}
    first = all(place == start.get(i, grid.shown[i][0]) for i, place in at)
    words = tuple(content.axes[i].at(place) for i, place in at)
    yield _Choice(tuple(place + 1 for _, place in at), words, first, partial(_scaled, content, which, figure))


def _of_cloud(content: StudyContent, drawn: Drawn) -> Iterator[_Choice]:
    """Yield the cloud over each two axes, one across and one up, which the name numbers."""
    which, _, _, figure = drawn
    axes = json.loads(cloud_axes(content))
    names = [axis.name for axis in content.axes if len(axis.texts) > 1]
    scaled = _scaled(content, which, figure)
    for x, y in permutations(range(len(axes)), 2):
        draw = partial(over, scaled, axes[x], axes[y])
        yield _Choice((x + 1, y + 1), (f"{names[x]} and {names[y]}",), [x, y] == cloud_sides(content), draw)


def _scaled(content: StudyContent, which: str, figure: FigureJson) -> FigureJson:
    return with_scale(content, figure) if which in ("gain", "cloud-gain") else figure


def _of_tornado(content: StudyContent, drawn: Drawn) -> Iterator[_Choice]:
    every, number = subjects(content), int(drawn[2])
    ending, words = ((number + 1,), (f"time of {every[number].label}",)) if len(every) > 1 else ((), ())
    yield _Choice(ending, words, number == 0, lambda: drawn[3])


def _of_spread(content: StudyContent, trials: dict[str, Any], drawn: Drawn) -> Iterator[_Choice]:
    """Yield the picture of each scenario whose trials are there; the name has its number in the tables."""
    _, target, _, figure = drawn
    start = content.middle if content.middle in trials["scenarios"] else trials["scenarios"][0]
    for row, scenario in enumerate(trials["scenarios"]):
        draw = partial(with_trials, content, figure, trials["times"][target][row], trials["stats"][target][row])
        at = content.at(scenario)
        yield _Choice((f"scenario{scenario}",), (f"at {at}",) if at else (), scenario == start, draw)


# --- what the page's script puts in -----------------------------------------------------------------

MOST_DOTS = 400
_GOLDEN = 0.618034
Times = Sequence[float | None]
"""Seconds; None = never."""


def over(figure: FigureJson, x: Mapping[str, Any], y: Mapping[str, Any]) -> FigureJson:
    """Return a cloud over two axes, as `charts.cloud_axes` has them."""
    sides = {"x": x["at"], "y": y["at"]}
    data = [t | {name: [at[s] for s in t["customdata"]] for name, at in sides.items()} for t in figure["data"]]
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
        dots = part == "dots"
        drawn = _dots(times_s[case], middle) if dots else _statistic(trace, part, stats_s[case], middle, latest_s)
        data.append(trace | drawn)
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
