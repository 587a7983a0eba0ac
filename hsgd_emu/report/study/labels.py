"""Names of cases written into their regions of a map, so that the colours need no key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.study.content import StudyContent
from hsgd_emu.report.study.grid import Grid


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
