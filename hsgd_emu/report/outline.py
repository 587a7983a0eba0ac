"""Which nodes of a tree are drawn where there are too many: of each server the first few children, the rest counted."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from hsgd_emu.report.figure import plotly_text
from hsgd_emu.report.looks import shortened
from hsgd_emu.results.wording import number

Key = TypeVar("Key", bound=Hashable)
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


@dataclass(frozen=True)
class Place(Generic[Key]):
    """One row of an outline: a node, or, where `rest` is not empty, the children of its parent that are left out."""

    node: Key
    """The first of those left out, in a row of them."""
    parent: Key | None
    depth: int
    rest: tuple[Key, ...] = ()


def outline(
    root: Key, children: Callable[[Key], Sequence[Key]], class_of: Callable[[Key], str], most: int
) -> list[Place[Key]]:
    """Return the rows depth first, about `most` of them: as many children of every server as then fit, at least one.

    Of the children of a server, the first of each class come before others: what is unlike the rest is seen.
    """

    @cache
    def firsts(server: Key) -> list[int]:
        return _by_priority([class_of(child) for child in children(server)], most)

    def rows(num: int) -> Iterator[Place[Key]]:
        stack: list[Place[Key]] = [Place(root, None, 0)]
        while stack:
            place = stack.pop()
            yield place
            below = () if place.rest else children(place.node)
            # One row that says that one more is left out is no shorter than the one.
            kept = sorted(firsts(place.node)[:num]) if len(below) > num + 1 else range(len(below))
            places = [Place(below[i], place.node, place.depth + 1) for i in kept]
            if len(kept) < len(below):
                rest = tuple(below[i] for i in sorted({*range(len(below))} - {*kept}))
                places.append(Place(rest[0], place.node, place.depth + 1, rest))
            stack += reversed(places)

    for num in range(most, 0, -1):
        found = []
        for place in rows(num):
            found.append(place)
            if len(found) > most and num > 1:
                break
        else:
            return found
    return []


def _by_priority(classes: Sequence[str], most: int) -> list[int]:
    """Return the first `most` places: the first of each class, then the others in order."""
    first: dict[str, int] = {}
    for place, name in enumerate(classes):
        first.setdefault(name, place)
    others = (place for place in range(len(classes)) if first[classes[place]] != place)
    return [place for place, _ in zip([*first.values(), *others], range(most), strict=False)]


def rest_label(rest: Sequence[Key], class_of: Callable[[Key], str], most: int = 18) -> str:
    """Return how many are left out, and their class where it is one."""
    classes = dict.fromkeys(map(class_of, rest))
    return f"… {len(rest):,} more" + (f" {shortened(next(iter(classes)), most)}" if len(classes) == 1 else "")


def wrapped(text: str, most: int = 120) -> str:
    """Return user text for plotly to show literally, in lines that fit a phone."""
    return "<br>".join(map(plotly_text, textwrap.wrap(shortened(text, most), 44)))


def duration(seconds: float) -> str:
    """Return a duration with three digits in the unit that suits it: 2.31 s, 19.0 ms, 24.5 µs."""
    if not seconds:
        return "0 s"
    unit, size = next((u for u in _UNITS if seconds >= 0.9995 * u[1]), _UNITS[-1])
    return f"{number(seconds / size, 3)} {unit}"
