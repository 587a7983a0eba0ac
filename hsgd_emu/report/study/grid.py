"""How a study's scenarios are laid out: a map over two axes, a chart along one, or a list."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from hsgd_emu.report.study.axes import Axis
from hsgd_emu.report.study.content import Integers

MOST_PANELS = 9
MOST_CELLS = 40_000
"""Cells of all maps together, over targets: every one carries its words."""
Combination = tuple[int, ...]
"""The places on all axes but the map's own, in axis order."""


@dataclass(frozen=True)
class Grid:
    """A full grid of scenarios, drawn over the axes x and y (or x alone), which are numbers of axes.

    panels: axes whose values stand side by side; picks: axes of which the reader picks one value; the others have
    one value. shown: by axis, the places drawn: all of them but in very large studies.
    """

    x: int
    y: int | None
    panels: tuple[int, ...]
    picks: tuple[int, ...]
    shown: tuple[tuple[int, ...], ...]
    scenario_of: dict[tuple[int, ...], int]

    @property
    def over(self) -> tuple[int, ...]:
        """The axes that are drawn over."""
        return (self.x,) if self.y is None else (self.x, self.y)

    @property
    def others(self) -> tuple[int, ...]:
        """The axes that are not drawn over."""
        return tuple(i for i in range(len(self.shown)) if i not in self.over)

    @property
    def thinned(self) -> bool:
        """Whether some scenarios are left out."""
        return math.prod(map(len, self.shown)) < len(self.scenario_of)

    def combinations(self) -> Iterator[Combination]:
        """Yield what can be shown at once, over the panels and the picks."""
        return product(*(self.shown[i] for i in self.others))

    def panel_combinations(self) -> list[tuple[int | None, ...]]:
        """Return what stands side by side; None where the reader picks."""
        return list(product(*((None,) if i in self.picks else self.shown[i] for i in self.others)))

    def cells(self, combination: Combination) -> list[list[int]]:
        """Return the scenarios drawn, by row (y) and column (x)."""
        place = dict(zip(self.others, combination, strict=True))
        rows = []
        for place_y in self.shown[self.y] if self.y is not None else (0,):
            place |= {} if self.y is None else {self.y: place_y}
            columns = [place | {self.x: place_x} for place_x in self.shown[self.x]]
            rows.append([self.scenario_of[tuple(at[i] for i in range(len(self.shown)))] for at in columns])
        return rows


def make_grid(axes: Sequence[Axis], places_SA: Integers, num_targets: int) -> Grid | None:
    """Return the layout of scenarios that are a full grid over at least one axis; None for any other list of them."""
    scenario_of = {tuple(places): number for number, places in enumerate(places_SA.tolist())}
    num_values = [len(axis.texts) for axis in axes]
    varying = [i for i, num in enumerate(num_values) if num > 1]
    if not varying or not len(scenario_of) == len(places_SA) == math.prod(num_values):
        return None
    # Numbers first, each kind in the order of the file.
    first = sorted(varying, key=lambda i: axes[i].numbers is None)
    x, y = first[0], first[1] if len(first) > 1 else None
    panels, num_panels = [], 1
    others = [i for i in varying if i not in (x, y)]
    for i in others:
        if num_panels * num_values[i] <= MOST_PANELS:
            panels.append(i)
            num_panels *= num_values[i]
    picks = tuple(i for i in others if i not in panels)
    shown = _shown(num_values, picks, MOST_CELLS // max(num_targets, 1))
    return Grid(x, y, tuple(panels), picks, shown, scenario_of)


def _shown(num_values: Sequence[int], picks: Sequence[int], most: int) -> tuple[tuple[int, ...], ...]:
    """Return the places shown per axis, evenly thinned, first where the reader picks, until there are few enough."""
    num = list(num_values)
    while math.prod(num) > most:
        longest = max(range(len(num)), key=lambda i: (i in picks and num[i] > 2, num[i]))
        num[longest] -= 1
    return tuple(_spread(whole, kept) for whole, kept in zip(num_values, num, strict=True))


def _spread(num: int, kept: int) -> tuple[int, ...]:
    """Return `kept` of 0 ... num-1, evenly, the first and the last among them."""
    return tuple(round(i * (num - 1) / max(kept - 1, 1)) for i in range(kept))
