"""Borders between the regions of a map: the crossovers of its rows and columns, joined cell by cell."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import fmean

from hsgd_emu.report.study.axes import Axis
from hsgd_emu.report.study.grid import Combination, Grid
from hsgd_emu.study.sweep.crossover import Crossover

Pair = tuple[str, str]
"""Two cases, in alphabetical order."""
Spot = tuple[float, float]
Ends = list[tuple[Pair, Spot]]
Borders = dict[Pair, list[tuple[Spot, Spot]]]
"""The straight pieces of the border between two cases."""


@dataclass(frozen=True)
class Crossing:
    """One crossover on a map. row: the place, among those drawn, on the axis that it does not run along."""

    along_x: bool
    row: int
    value: float
    pair: Pair


def crossings_of(
    crossovers: Sequence[Crossover], axes: Sequence[Axis], grid: Grid
) -> dict[Combination, list[Crossing]]:
    """Return the crossovers on each map, by the combination of the other axes; not those between drawn lines."""
    names = [axis.name for axis in axes]
    found: dict[Combination, list[Crossing]] = defaultdict(list)
    for one in crossovers:
        place = {i: _place(axis, one) for i, axis in enumerate(axes) if axis.name != one.axis}
        along = names.index(one.axis)
        if along not in grid.over or any(place[i] is None for i in place):
            continue
        crossed = grid.y if along == grid.x else grid.x
        row = 0 if crossed is None else _index(grid.shown[crossed], place[crossed])
        if row is not None:
            pair = (min(one.below, one.above), max(one.below, one.above))
            combination = tuple(place[i] or 0 for i in grid.others)
            found[combination].append(Crossing(along == grid.x, row, one.value, pair))
    return dict(found)


def _place(axis: Axis, crossover: Crossover) -> int | None:
    if axis.name not in crossover.fixed:
        return 0 if len(axis.texts) == 1 else None
    return axis.place_of(crossover.fixed[axis.name])


def _index(shown: Sequence[int], place: int | None) -> int | None:
    return shown.index(place) if place in shown else None


@dataclass(frozen=True)
class Cells:
    """Where a map's cells stand on one axis: their middles, and their edges, one more."""

    at: Sequence[float]
    edges: Sequence[float]


def borders(crossings: Sequence[Crossing], best: Sequence[Sequence[int]], x: Cells, y: Cells) -> Borders:
    """Return the borders of one map.

    The points on the lines through the scenarios are exact. Between them a border is drawn straight, and at the rim of
    the map square to it. Where the best case changes along one axis without crossovers (names, or values that need
    training), the rows or columns along the other one are bordered each by itself.

    Args:    best: the best case by row (y) and column (x), -1 for none.
    """
    rows = _by_edge([(one, (one.value, y.at[one.row])) for one in crossings if one.along_x], x.at)
    columns = _by_edge([(one, (x.at[one.row], one.value)) for one in crossings if not one.along_x], y.at)
    found: Borders = defaultdict(list)
    whole_rows, whole_columns = _is_whole(rows, best), _is_whole(columns, list(zip(*best, strict=True)))
    if whole_rows and whole_columns:
        _join_inside(found, rows, columns, len(x.at), len(y.at))
    for (line, _), ends in rows.items():
        for pair, (at, _) in ends:
            found[pair] += [((at, a), (at, b)) for a, b in _reach(y, line, whole_columns)]
    for (line, _), ends in columns.items():
        for pair, (_, at) in ends:
            found[pair] += [((a, at), (b, at)) for a, b in _reach(x, line, whole_rows)]
    return dict(found)


def _by_edge(ends: Sequence[tuple[Crossing, Spot]], at: Sequence[float]) -> dict[tuple[int, int], Ends]:
    """Return the points by (line, gap): gap i lies between the values i and i + 1 of the axis."""
    found: dict[tuple[int, int], Ends] = defaultdict(list)
    for crossing, spot in ends:
        gap = min(max(bisect_right(at, crossing.value) - 1, 0), len(at) - 2)
        found[crossing.row, gap].append((crossing.pair, spot))
    return dict(found)


def _is_whole(edges: dict[tuple[int, int], Ends], best: Sequence[Sequence[int]]) -> bool:
    """Tell whether changes of the best case along an axis come with crossovers."""
    return bool(edges) or not any(a != b and a >= 0 and b >= 0 for line in best for a, b in pairwise(line))


def _reach(across: Cells, line: int, joined: bool) -> list[tuple[float, float]]:
    """Return how far a border goes straight across a line of scenarios: through its cell, or only out to the rim."""
    if not joined:
        return [(across.edges[line], across.edges[line + 1])]
    low = [(across.edges[0], across.at[0])] if line == 0 else []
    return low + ([(across.at[-1], across.edges[-1])] if line == len(across.at) - 1 else [])


def _join_inside(
    found: Borders, rows: dict[tuple[int, int], Ends], columns: dict[tuple[int, int], Ends], num_x: int, num_y: int
) -> None:
    """Join, within each square between four scenarios, the points on its sides: those of one pair with each other,
    and three or more that are left, where three regions meet, in their middle."""
    for i, j in product(range(num_x - 1), range(num_y - 1)):
        sides = (rows.get((j, i)), rows.get((j + 1, i)), columns.get((i, j)), columns.get((i + 1, j)))
        spots: dict[Pair, list[Spot]] = defaultdict(list)
        for pair, spot in (end for side in sides if side for end in side):
            spots[pair].append(spot)
        alone: Ends = []
        for pair, ends in spots.items():
            found[pair] += list(zip(ends[::2], ends[1::2], strict=False))
            alone += [(pair, ends[-1])] if len(ends) % 2 else []
        if len(alone) > 1:
            middle = (fmean(spot[0] for _, spot in alone), fmean(spot[1] for _, spot in alone))
            for pair, spot in alone:
                found[pair].append((spot, middle))
