"""The maps of a study: which case is best in each scenario, and how much one kind of schedule gains on the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.report.figure import AXIS, BASE_LAYOUT, plotly_text
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.study.borders import Borders, Cells, borders, crossings_of
from hsgd_emu.report.study.content import StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, FigureJson, figure_of, short
from hsgd_emu.report.study.grid import Grid
from hsgd_emu.report.study.words import is_close, times_less

# Colorbrewer's BrBG: the first colour where local SGD is faster, the last where H-SGD is.
GAIN_COLOURS = ("#8c510a", "#dfc27d", "#f5f5f5", "#80cdc1", "#01665e")
MARGIN_COLOURS = ("#f5f5f5", "#80cdc1", "#01665e")
NOTHING = "#8885"
_ALONE = "Nowhere do two cases reach the target."
_PANEL_PX, _PANEL_HEIGHT_PX = 270, 220
_WHOLE_PX, _WHOLE_HEIGHT_PX = 620, 360
"""Sizes of a map's plane on a page 800 pixels wide, side by side and alone."""


@dataclass(frozen=True)
class Scale:
    """The colour scale of the second map. limit: the factor at its ends, for all targets and maps alike."""

    limit: float
    two_sided: bool

    @property
    def colours(self) -> tuple[str, ...]:
        return GAIN_COLOURS if self.two_sided else MARGIN_COLOURS

    @property
    def colorscale(self) -> list[list[Any]]:
        """The colours as plotly takes them."""
        return [[i / (len(self.colours) - 1), colour] for i, colour in enumerate(self.colours)]

    def place(self, factor: float) -> float | None:
        """Return where a factor stands: 0 for equal, 1 for the limit, and -1 for its inverse."""
        if math.isnan(factor):
            return None
        if factor <= 0:
            return -1.0
        return round(max(min(math.log(factor) / math.log(self.limit), 1.0), -1.0), 4)

    def ink(self, factor: float) -> str:
        """Return black or white, whichever is read better on a factor's colour."""
        place = (self.place(factor) or 0.0) + (1 if self.two_sided else 0)
        steps = place / (2 if self.two_sided else 1) * (len(self.colours) - 1)
        below = min(int(steps), len(self.colours) - 2)
        return ink(between(self.colours[below], self.colours[below + 1], steps - below))


def scale_of(content: StudyContent) -> Scale:
    """Return the scale that holds every finite factor, at least 2, at most 100."""
    most = 2.0
    for target in content.targets:
        for factor in (target.gain_S if content.both_kinds else target.margin_S).tolist():
            if 0 < factor < math.inf:
                most = max(most, factor, 1 / factor)
    limits = [2, 3, 4, 5, 10, 20, 50, 100]
    return Scale(next((float(limit) for limit in limits if limit >= most * 0.98), 100.0), content.both_kinds)


Frame = tuple[Cells, Cells]
"""Of a map's two axes."""
Rows = list[list[int]]
"""Scenarios, or the best cases there, by row (y) and column (x)."""


def maps(content: StudyContent, grid: Grid) -> Iterator[Drawn]:
    """Yield every map of each target, its combination as the key."""
    scale = scale_of(content)
    x, y = (Cells(content.axes[i].positions(grid.shown[i]), content.axes[i].edges(grid.shown[i])) for i in grid.over)
    frame = (x, y)
    for number, target in enumerate(content.targets):
        crossings = crossings_of(target.crossovers, content.axes, grid)
        for combination in grid.combinations():
            cells = grid.cells(combination)
            best = [[int(target.best_S[s]) for s in row] for row in cells]
            lines = borders(crossings.get(combination, []), best, *frame)
            key = ",".join(map(str, combination))
            yield "best", number, key, _best_map(content, target, grid, frame, cells, best, lines)
            yield "gain", number, key, _gain_map(content, target, grid, frame, cells, lines, scale)


def _best_map(
    content: StudyContent, target: Target, grid: Grid, frame: Frame, cells: Rows, best: Rows, lines: Borders
) -> FigureJson:
    num = max(len(content.cases), 1)
    colours = [[(case.index + end) / num, case.colour] for case in content.cases for end in (0, 1)]
    z = [[None if case < 0 else case for case in row] for row in best]
    plane = _plane(grid, frame, cells) | {"z": z, "zmin": -0.5, "zmax": num - 0.5, "colorscale": colours}
    layout = _layout(content, grid)
    layout["annotations"] = labels(content, grid, frame, best)
    flat = [case for row in best for case in row]
    marked = marks_close(grid)
    close = [["≈" if marked and is_close(target, s) else "" for s in row] for row in cells]
    marks = _marks(frame, close, 15)
    words = [word for row in close for word in row]
    inks = [ink(content.cases[case].colour) for case, word in zip(flat, words, strict=True) if word]
    marks["textfont"]["color"] = inks
    return figure_of([plane, *_lines(content, lines), marks], layout, best_in_words(content, flat))


def _gain_map(
    content: StudyContent, target: Target, grid: Grid, frame: Frame, cells: Rows, lines: Borders, scale: Scale
) -> FigureJson:
    factors = target.gain_S if content.both_kinds else target.margin_S
    z = [[scale.place(float(factors[s])) for s in row] for row in cells]
    ends = {"zmin": -1 if scale.two_sided else 0, "zmax": 1}
    plane = _plane(grid, frame, cells) | {"z": z, **ends, "colorscale": scale.colorscale}
    across_px, up_px = _cell_px(grid)
    fits = across_px >= 38 and up_px >= 14
    words = [[_factor(float(factors[s])) if fits else "" for s in row] for row in cells]
    kinds = {case.name: case.dashed for case in content.cases}
    between_kinds = {pair: ends for pair, ends in lines.items() if kinds[pair[0]] != kinds[pair[1]]}
    marks = _marks(frame, words, 11)
    flat = [float(factors[s]) for row in cells for s in row]
    told = (word for row in words for word in row)
    marks["textfont"]["color"] = [scale.ink(factor) for factor, word in zip(flat, told, strict=True) if word]
    data = [plane, *_lines(content, between_kinds), marks]
    return figure_of(data, _layout(content, grid), gain_in_words(content, flat))


def _plane(grid: Grid, frame: Frame, cells: Rows) -> dict[str, Any]:
    x, y = frame
    gap = 1 if min(_cell_px(grid)) >= 8 else 0
    said = {"customdata": cells, "hovertemplate": "%{hovertext}<extra></extra>", "showscale": False}
    return {"type": "heatmap", "x": x.edges, "y": y.edges, **said, "xgap": gap, "ygap": gap}


def _marks(frame: Frame, words: list[list[str]], size: int) -> dict[str, Any]:
    """Return words in the middle of cells (a heat map's own would stand off it where the axis is logarithmic)."""
    # Every cell has both: short numbers are half of a large page.
    x, y = (short(side.at, 6) for side in frame)
    spots = [(a, b, word) for b, line in zip(y, words, strict=True) for a, word in zip(x, line, strict=True) if word]
    place = {"x": [a for a, _, _ in spots], "y": [b for _, b, _ in spots], "text": [word for _, _, word in spots]}
    look = {"textfont": {"size": size, "color": "#222"}, "hoverinfo": "skip"}
    return {"type": "scatter", "mode": "text", **place, **look}


def _lines(content: StudyContent, lines: Borders) -> Iterator[dict[str, Any]]:
    """Yield the borders, dark on a light rim to be seen on every colour; thick where kinds of schedule meet."""
    kinds = {case.name: case.dashed for case in content.cases}
    for colour, extra in (("#fff", 2.4), ("#111", 0.0)):
        for pair, segments in lines.items():
            width = 3.0 if kinds[pair[0]] != kinds[pair[1]] else 1.2
            xs = [value for (x0, _), (x1, _) in segments for value in (x0, x1, None)]
            ys = [value for (_, y0), (_, y1) in segments for value in (y0, y1, None)]
            line = {"color": colour, "width": width + extra}
            yield {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": line, "hoverinfo": "skip"}


def _layout(content: StudyContent, grid: Grid) -> dict[str, Any]:
    axis = {**AXIS, "showgrid": False, "ticks": "outside", "tickcolor": "#8886"}
    x, y = ({**axis, **content.axes[i].layout(grid.shown[i], edges=True)} for i in grid.over)
    frame = {**BASE_LAYOUT, "plot_bgcolor": NOTHING, "margin": {"l": 8, "r": 12, "t": 26, "b": 8}}
    return {**frame, "xaxis": x, "yaxis": y}


def width_px(grid: Grid) -> float:
    """Return how wide a map's plane is at least: words go in where they fit then."""
    return _WHOLE_PX if len(grid.panel_combinations()) == 1 else _PANEL_PX


def _cell_px(grid: Grid) -> tuple[float, float]:
    """Return how wide and high a map's cells are, about."""
    height_px = _WHOLE_HEIGHT_PX if len(grid.panel_combinations()) == 1 else _PANEL_HEIGHT_PX
    num_x, num_y = (len(grid.shown[i]) for i in grid.over)
    return width_px(grid) / num_x, height_px / num_y


def marks_close(grid: Grid) -> bool:
    """Tell whether cells are large enough for a mark each where the first two cases are as good as equal."""
    return min(_cell_px(grid)) >= 14


def _factor(factor: float) -> str:
    """Return how many times the faster is faster; which one that is, the colour tells."""
    if math.isnan(factor):
        return ""
    return "∞" if factor in (0, math.inf) else times_less(max(factor, 1 / factor))


def best_in_words(content: StudyContent, best: Sequence[int]) -> str:
    """Say how often each case is the best, the most frequent first."""
    wins = sorted(((best.count(case), -case) for case in set(best) if case >= 0), reverse=True)
    parts = [f"{content.cases[-case].name} {'is fastest ' * (i == 0)}in {n:,}" for i, (n, case) in enumerate(wins)]
    missed = best.count(-1)
    parts += [f"no case reaches the target in {missed:,}"] if missed else []
    return f"Of {len(best):,} scenarios, {listed(parts)}."


def gain_in_words(content: StudyContent, factors: Sequence[float]) -> str:
    """Say how far the factors go, and how often only one reaches the target."""
    known = [factor for factor in factors if 0 < factor < math.inf]
    if not content.both_kinds:
        return f"The fastest is up to {times_less(max(known))} faster than the next." if known else _ALONE
    ends = [("H-SGD", max(known, default=0)), ("local SGD", 1 / min(known, default=math.inf))]
    parts = [f"{name} is up to {times_less(most)} faster" for name, most in ends if most > 1]
    for name, only in (("H-SGD", factors.count(math.inf)), ("local SGD", factors.count(0))):
        parts += [f"only {name} reaches the target in {only:,} of {len(factors):,} scenarios"] if only else []
    text = listed(parts)
    return f"{text[0].upper()}{text[1:]}." if parts else "No case reaches the target."


# --- names of cases in their regions ----------------------------------------------------------------


def labels(content: StudyContent, grid: Grid, frame: Frame, best: Rows) -> list[dict[str, Any]]:
    """Return the names of the cases as annotations, each in the largest rectangle of its region where it fits."""
    found = []
    # As plotly places annotations: on a logarithmic axis by their power of ten.
    logs = [content.axes[i].log for i in grid.over]
    x, y = ([math.log10(e) if log else e for e in side.edges] for log, side in zip(logs, frame, strict=True))
    for index, (left, right, low, high) in sorted(rectangles(best, x, y).items()):
        case = content.cases[index]
        share = (x[right] - x[left]) / (x[-1] - x[0])
        if share * width_px(grid) < 7.2 * len(case.name) + 8:
            continue
        # The colour stands in the text: the page's style sheet gives annotations another one.
        text = f'<b style="color:{ink(case.colour)}">{plotly_text(case.name)}</b>'
        label = {"bgcolor": case.colour, "font": {"size": 13}, "borderpad": 1, "showarrow": False, "text": text}
        found.append({**label, "x": (x[left] + x[right]) / 2, "y": (y[low] + y[high]) / 2})
    return found


def ink(colour: str) -> str:
    """Return black or white, whichever is read better on a colour (#rrggbb; contrast as WCAG 2 has it)."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return "#111" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#fff"


def between(colour: str, other: str, fraction: float) -> str:
    """Return the colour (#rrggbb) at a fraction of the way from one to the other."""
    parts = [int(colour[i : i + 2], 16) * (1 - fraction) + int(other[i : i + 2], 16) * fraction for i in (1, 3, 5)]
    return "#" + "".join(f"{round(part):02x}" for part in parts)


def rectangles(best: Rows, edges_x: Sequence[float], edges_y: Sequence[float]) -> dict[int, tuple[int, int, int, int]]:
    """Return for each case its largest rectangle, as the numbers of its edges: left, right, low, high."""
    found: dict[int, tuple[float, tuple[int, int, int, int]]] = {}
    below = [0] * len(best[0])
    for row, line in enumerate(best):
        below = [below[i] + 1 if row and best[row - 1][i] == case else 1 for i, case in enumerate(line)]
        for left, case in enumerate(line):
            rows, right = below[left], left
            while right < len(line) and line[right] == case:
                rows, right = min(rows, below[right]), right + 1
                low = row + 1 - rows
                area = (edges_x[right] - edges_x[left]) * (edges_y[row + 1] - edges_y[low])
                if case >= 0 and area > found.get(case, (0.0,))[0] * (1 + 1e-9):
                    found[case] = area, (left, right, low, row + 1)
    return {case: rectangle for case, (_, rectangle) in found.items()}
