"""The figures of a study as images: every kind of figure, for each target and each choice that its page offers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

from hsgd_emu.report.image import Image, Key
from hsgd_emu.report.study.charts import cloud_axes
from hsgd_emu.report.study.content import StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, FigureJson
from hsgd_emu.report.study.filled import over, with_scale, with_trials
from hsgd_emu.report.study.grid import Grid, make_grid
from hsgd_emu.report.study.maps import NOTHING
from hsgd_emu.report.study.page import cloud_sides, figures, kind_of, picks
from hsgd_emu.report.study.sentences import hardest
from hsgd_emu.report.study.spread import spread_data, spread_height_px, spreads
from hsgd_emu.report.study.tornado import subjects
from hsgd_emu.report.study.tornado_figure import HIGH_COLOUR, LOW_COLOUR, tornado_height_px, tornado_kind, tornados
from hsgd_emu.report.study.words import symbol

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
        return (
            *ends,
            *(Key(f"{case.name} fastest", case.colour, "circle") for case in content.cases if case.colour in dots),
        )
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
    _, _, key, figure = drawn
    every = subjects(content)
    number = int(key)
    several = len(every) > 1
    words = (f"time of {every[number].label}",) if several else ()
    yield _Choice((number + 1,) if several else (), words, number == 0, lambda: figure)


def _of_spread(content: StudyContent, trials: dict[str, Any], drawn: Drawn) -> Iterator[_Choice]:
    """Yield the picture of each scenario whose trials are there; the name has its number in the tables."""
    _, target, _, figure = drawn
    start = content.middle if content.middle in trials["scenarios"] else trials["scenarios"][0]
    for row, scenario in enumerate(trials["scenarios"]):
        draw = partial(with_trials, content, figure, trials["times"][target][row], trials["stats"][target][row])
        at = content.at(scenario)
        yield _Choice((f"scenario{scenario}",), (f"at {at}",) if at else (), scenario == start, draw)
