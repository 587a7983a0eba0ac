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


def maps(content: StudyContent, grid: Grid) -> Iterator[Drawn]:
    """Yield every map of each target, its combination as the key."""
    scale = scale_of(content)
    for number, target in enumerate(content.targets):
        crossings = crossings_of(target.crossovers, content.axes, grid)
        for combination in grid.combinations():
            cells = grid.cells(combination)
            frame = _frame(content, grid)
            lines = borders(
                crossings.get(combination, []),
                [[int(target.best_S[s]) for s in row] for row in cells],
                *(Cells(content.axes[i].positions(grid.shown[i]), frame[i]) for i in (grid.x, grid.y) if i is not None),
            )
            key = ",".join(map(str, combination))
            for which, figure in (
                ("best", _best_map(content, target, grid, cells, lines)),
                ("gain", _gain_map(content, target, grid, cells, lines, scale)),
            ):
                yield which, number, key, figure


def _frame(content: StudyContent, grid: Grid) -> dict[int, list[float]]:
    assert grid.y is not None
    return {i: content.axes[i].edges(grid.shown[i]) for i in (grid.x, grid.y)}


def _best_map(content: StudyContent, target: Target, grid: Grid, cells: list[list[int]], lines: Borders) -> FigureJson:
    num = max(len(content.cases), 1)
    colours = [[(case.index + end) / num, case.colour] for case in content.cases for end in (0, 1)]
    best = [[int(target.best_S[s]) for s in row] for row in cells]
    plane = _plane(content, grid, cells) | {
        "z": [[None if case < 0 else case for case in row] for row in best],
        "zmin": -0.5,
        "zmax": num - 0.5,
        "colorscale": colours,
    }
    layout = _layout(content, grid)
    layout["annotations"] = labels(content, grid, best, width_px(grid))
    flat = [case for row in best for case in row]
    marked = marks_close(grid)
    close = [["≈" if marked and is_close(target, s) else "" for s in row] for row in cells]
    marks = _marks(content, grid, close, 15)
    marks["textfont"]["color"] = [
        ink(content.cases[case].colour)
        for case, word in zip(flat, (w for row in close for w in row), strict=True)
        if word
    ]
    return figure_of([plane, *_lines(content, lines), marks], layout, best_in_words(content, flat))


def _gain_map(
    content: StudyContent, target: Target, grid: Grid, cells: list[list[int]], lines: Borders, scale: Scale
) -> FigureJson:
    factors = target.gain_S if content.both_kinds else target.margin_S
    plane = _plane(content, grid, cells) | {
        "z": [[scale.place(float(factors[s])) for s in row] for row in cells],
        "zmin": -1 if scale.two_sided else 0,
        "zmax": 1,
        "colorscale": scale.colorscale,
    }
    across_px, up_px = _cell_px(grid)
    fits = across_px >= 38 and up_px >= 14
    words = [[_factor(float(factors[s])) if fits else "" for s in row] for row in cells]
    kinds = {case.name: case.dashed for case in content.cases}
    between_kinds = {pair: ends for pair, ends in lines.items() if kinds[pair[0]] != kinds[pair[1]]}
    marks = _marks(content, grid, words, 11)
    flat = [
        (float(factors[s]), word)
        for row, line in zip(cells, words, strict=True)
        for s, word in zip(row, line, strict=True)
    ]
    marks["textfont"]["color"] = [scale.ink(factor) for factor, word in flat if word]
    data = [plane, *_lines(content, between_kinds), marks]
    text = gain_in_words(content, [float(factors[s]) for row in cells for s in row])
    return figure_of(data, _layout(content, grid), text)


def _plane(content: StudyContent, grid: Grid, cells: list[list[int]]) -> dict[str, Any]:
    frame = _frame(content, grid)
    assert grid.y is not None
    gap = 1 if min(_cell_px(grid)) >= 8 else 0
    return {
        "type": "heatmap",
        "x": frame[grid.x],
        "y": frame[grid.y],
        "customdata": cells,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "showscale": False,
        "xgap": gap,
        "ygap": gap,
    }


def _marks(content: StudyContent, grid: Grid, words: list[list[str]], size: int) -> dict[str, Any]:
    """Return words in the middle of cells (a heat map's own would stand off it where the axis is logarithmic)."""
    assert grid.y is not None
    # Every cell has both: short numbers are half of a large page.
    x, y = (short(content.axes[i].positions(grid.shown[i]), 6) for i in (grid.x, grid.y))
    spots = [(a, b, word) for b, line in zip(y, words, strict=True) for a, word in zip(x, line, strict=True) if word]
    return {
        "type": "scatter",
        "mode": "text",
        "x": [a for a, _, _ in spots],
        "y": [b for _, b, _ in spots],
        "text": [word for _, _, word in spots],
        "textfont": {"size": size, "color": "#222"},
        "hoverinfo": "skip",
    }


def _lines(content: StudyContent, lines: Borders) -> Iterator[dict[str, Any]]:
    """Yield the borders, dark on a light rim to be seen on every colour; thick where kinds of schedule meet."""
    kinds = {case.name: case.dashed for case in content.cases}
    for colour, extra in (("#fff", 2.4), ("#111", 0.0)):
        for pair, segments in lines.items():
            width = 3.0 if kinds[pair[0]] != kinds[pair[1]] else 1.2
            yield {
                "type": "scatter",
                "mode": "lines",
                "x": [value for (x0, _), (x1, _) in segments for value in (x0, x1, None)],
                "y": [value for (_, y0), (_, y1) in segments for value in (y0, y1, None)],
                "line": {"color": colour, "width": width + extra},
                "hoverinfo": "skip",
            }


def _layout(content: StudyContent, grid: Grid) -> dict[str, Any]:
    assert grid.y is not None
    axis = {**AXIS, "showgrid": False, "ticks": "outside", "tickcolor": "#8886"}
    return {
        **BASE_LAYOUT,
        "plot_bgcolor": NOTHING,
        "margin": {"l": 8, "r": 12, "t": 26, "b": 8},
        "xaxis": {**axis, **content.axes[grid.x].layout(grid.shown[grid.x], edges=True)},
        "yaxis": {**axis, **content.axes[grid.y].layout(grid.shown[grid.y], edges=True)},
    }


def width_px(grid: Grid) -> float:
    """Return how wide a map's plane is at least: words go in where they fit then."""
    return _WHOLE_PX if len(grid.panel_combinations()) == 1 else _PANEL_PX


def _cell_px(grid: Grid) -> tuple[float, float]:
    """Return how wide and high a map's cells are, about."""
    assert grid.y is not None
    height_px = _WHOLE_HEIGHT_PX if len(grid.panel_combinations()) == 1 else _PANEL_HEIGHT_PX
    return width_px(grid) / len(grid.shown[grid.x]), height_px / len(grid.shown[grid.y])


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
    parts = [
        f"{content.cases[-case].name} {'is fastest ' if i == 0 else ''}in {n:,}" for i, (n, case) in enumerate(wins)
    ]
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


# --- names of cases in their regions --------------------------------------------------------------


def labels(content: StudyContent, grid: Grid, best: list[list[int]], width_px: float) -> list[dict[str, Any]]:
    """Return the names of the cases as annotations, each in the largest rectangle of its region where it fits."""
    assert grid.y is not None
    found = []
    edges = {i: _linear(content, i, content.axes[i].edges(grid.shown[i])) for i in (grid.x, grid.y)}
    for index, (left, right, low, high) in sorted(rectangles(best, edges[grid.x], edges[grid.y]).items()):
        case = content.cases[index]
        x0, x1, y0, y1 = edges[grid.x][left], edges[grid.x][right], edges[grid.y][low], edges[grid.y][high]
        share = (x1 - x0) / (edges[grid.x][-1] - edges[grid.x][0])
        if share * width_px < 7.2 * len(case.name) + 8:
            continue
        # The colour stands in the text: the page's style sheet gives annotations another one.
        text = f'<b style="color:{ink(case.colour)}">{plotly_text(case.name)}</b>'
        label = {"bgcolor": case.colour, "font": {"size": 13}, "borderpad": 1, "showarrow": False, "text": text}
        found.append({**label, "x": (x0 + x1) / 2, "y": (y0 + y1) / 2})
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


def _linear(content: StudyContent, axis: int, values: Sequence[float]) -> list[float]:
    """Return values as plotly places annotations: on a logarithmic axis by their power of ten."""
    return [math.log10(value) for value in values] if content.axes[axis].log else list(values)


def rectangles(
    best: list[list[int]], edges_x: Sequence[float], edges_y: Sequence[float]
) -> dict[int, tuple[int, int, int, int]]:
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
