"""The figures of a study as the page's script draws them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hsgd_emu.report.figure import Column

FigureJson = dict[str, Any]
"""A figure's `data` and `layout` as plotly takes them, and `text`, what it shows in a sentence.

columns: of its table, as (name, label, kind, values); without them the script takes them out of the page's data.
"""
Drawn = tuple[str, int, str, FigureJson]
"""Which figure, number of the target, key of what else is chosen, and the figure itself."""


def compact(value: Any) -> str:
    """Return the JSON of something, the same text for the same thing."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def figure_of(
    data: Iterable[dict[str, Any]], layout: dict[str, Any], text: str, columns: Sequence[Column] = ()
) -> FigureJson:
    """Return a figure. That plotly knows every attribute, the tests check: for many figures it takes long."""
    found: FigureJson = {"text": text, "data": list(data), "layout": layout}
    if columns:
        found["columns"] = [[column.name, column.label, column.kind, list(column.values)] for column in columns]
    return found


def short(values: Iterable[float], digits: int | None = None) -> list[float | None]:
    """Return numbers as JSON has them, null for inf (never) and nan; rounded to significant digits where asked."""
    known = (value if math.isfinite(value) else None for value in values)
    rounded = known if digits is None else (None if v is None else float(f"{v:.{digits}g}") for v in known)
    # 12.0 is written 12
    return [int(v) if v is not None and v == int(v) and abs(v) < 1e15 else v for v in rounded]


def joined(drawn: Iterable[Drawn]) -> dict[str, Any]:
    """Return the figures by which, target and key; what all of a kind share stands there once: `layout`, `first`.

    first: of the first trace, which in a map has almost everything.
    """
    found: dict[str, dict[str, dict[str, FigureJson]]] = {}
    for which, target, key, figure in drawn:
        found.setdefault(which, {}).setdefault(str(target), {})[key] = figure
    return {which: _shared(targets) for which, targets in found.items()}


def _shared(targets: dict[str, dict[str, FigureJson]]) -> dict[str, Any]:
    every = [figure for figures in targets.values() for figure in figures.values()]
    layout = _common([figure["layout"] for figure in every])
    first = _common([figure["data"][0] for figure in every if figure["data"]])

    def own(figure: FigureJson) -> FigureJson:
        data = [_without(trace, first) if i == 0 else trace for i, trace in enumerate(figure["data"])]
        return {**figure, "data": data, "layout": _without(figure["layout"], layout)}

    mine = {target: {key: own(figure) for key, figure in figures.items()} for target, figures in targets.items()}
    return {"layout": layout, "first": first, **mine}


def _common(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    one, *others = mappings or [{}]
    return {name: value for name, value in one.items() if all(o.get(name, others) == value for o in others)}


def _without(mapping: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in common}
