"""Where the time went: the parts of the critical path per case, and how long everybody else waited."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.metrics import Target
from hsgd_emu.report.bars import BARS, end_label, flat, height_px, hovers, row_axis, value_axis
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Switch
from hsgd_emu.report.looks import PART_COLOURS
from hsgd_emu.report.sentences import listed
from hsgd_emu.results.rows import CurveRow, row_reaching
from hsgd_emu.results.summary import mean, middle
from hsgd_emu.results.wording import number, share_cell, target_label

PARTS = ("compute", "communication", "aggregation")
_TEXT_COLOURS = {"compute": "#000", "communication": "#fff", "aggregation": "#000"}
"""Of what is written on the parts: readable on their colours."""


@dataclass(frozen=True)
class _Until:
    """Up to where the time is split: the end (no target) or a target."""

    key: str
    label: str
    target: Target | None = None


@dataclass(frozen=True)
class _Bar:
    """One case's time until somewhere. num_reached: seeds that got there; rows: of the seed or seeds in the middle."""

    case: Case
    num_reached: int
    rows: tuple[CurveRow, ...]

    def part(self, name: str) -> float | None:
        """Return the mean of a field over the rows in the middle, None where the case did not get there."""
        return mean(self.rows, name)

    @property
    def communication_share(self) -> float | None:
        time_s, communication_s = self.part("time_s"), self.part("communication_s")
        return communication_s / time_s if time_s and communication_s is not None else None

    @property
    def missing(self) -> str:
        """What to say where there is no bar."""
        num_seeds, case = len(self.case.seeds), self.case
        if not num_seeds:
            return "nothing yet"
        reached = f" ({self.num_reached} of {num_seeds} seeds)" if self.num_reached else ""
        return f"not reached{' yet' if case.summary.num_finished < case.summary.num_seeds else ''}{reached}"


def time_spent(content: Content) -> Figure | None:
    """Return the stacked bars of compute, communication and aggregation per case, until the end or a target."""
    cases = content.cases
    bars = {until: [_bar(case, until) for case in cases] for until in _untils(content)}
    bars = {until: each for until, each in bars.items() if any(bar.rows for bar in each)}
    if not bars:
        return None
    parts = [p for p in PARTS if any(bar.part(f"{p}_s") for each in bars.values() for bar in each)]
    pictures = [_picture(*one, parts, i * len(cases), len(bars) > 1) for i, one in enumerate(bars.items())]
    switch = Switch("Until", tuple((until.key, until.label) for until in bars))
    return Figure(
        id="time-spent",
        title="Compute, communication, aggregation",
        pictures=tuple(pictures),
        columns=tuple(_columns(bars)),
        switches=(switch,) if len(bars) > 1 else (),
        note=_NOTE if any(len(case.seeds) > 1 for case in cases) else "",
        key=tuple((part, PART_COLOURS[part]) for part in parts),
        height_px=height_px(len(cases)),
    )


_NOTE = "Each bar is the seed in the middle, by its time, as in the table above: its parts add up."


def _untils(content: Content) -> Iterator[_Until]:
    yield _Until("end", "the end")
    targets = dict.fromkeys(t.key for case in content.cases for t in case.summary.targets)
    for place, target in enumerate(targets):
        yield _Until(f"target-{place}", target_label(*target), target)


def _bar(case: Case, until: _Until) -> _Bar:
    if until.target is None:
        return _Bar(case, case.summary.num_finished or case.points[-1].num_seeds if case.points else 0, case.end)
    rows = [row_reaching(curve, until.target) for curve in case.seeds.values()]
    return _Bar(case, sum(row is not None for row in rows), middle(rows))


def _picture(until: _Until, bars: Sequence[_Bar], parts: Sequence[str], start: int, switched: bool) -> Picture:
    rows = list(range(len(bars)))
    most = max(bar.part("time_s") or 0.0 for bar in bars)
    traces = []
    for part in parts:
        texts = [f"{number(part_s, 3)} s" if (part_s := bar.part(f"{part}_s")) else "" for bar in bars]
        inside = {"text": texts, "textposition": "inside", "insidetextanchor": "middle", "textangle": 0}
        inside["insidetextfont"] = {"color": _TEXT_COLOURS[part]}
        stack = {**BARS, "name": part, "x": Ref(f"{part}_s", start, start + len(bars)), "y": rows}
        look = {"marker": flat(PART_COLOURS[part]), **inside}
        traces.append({**stack, **look, **hovers(_hover_lines(bar, until) for bar in bars)})
    ends = [end_label(bar.part("time_s") or 0.0, row, _end(bar)) for row, bar in zip(rows, bars, strict=True)]
    # A part too short for its text has none; the hover and the table say it.
    stacked = {"barmode": "stack", "bargap": 0.3, "uniformtext": {"mode": "hide", "minsize": 11}}
    axes = {"xaxis": value_axis("emulated time (s)", most, 0.2), "yaxis": row_axis([bar.case.name for bar in bars])}
    layout = {**stacked, **axes, "annotations": ends}
    return Picture((until.key,) if switched else (), _sentence(until, bars), traces, layout)


def _end(bar: _Bar) -> str:
    time_s = bar.part("time_s")
    return bar.missing if time_s is None else f"{number(time_s)} s"


def _hover_lines(bar: _Bar, until: _Until) -> Iterator[str]:
    yield f"{bar.case.name}, until {until.label}"
    time_s = bar.part("time_s")
    if time_s is None:
        yield bar.missing
        return
    iteration = bar.part("iteration")
    yield f"{number(time_s)} s, {iteration:,.0f} iterations"
    for part in PARTS:
        seconds = bar.part(f"{part}_s") or 0.0
        yield f"{part} {number(seconds)} s ({share_cell(seconds / time_s if time_s else None)})"


def _sentence(until: _Until, bars: Sequence[_Bar]) -> str:
    shares = [(bar.communication_share, bar.part("time_s") or 0.0, bar.case.name) for bar in bars]
    known = sorted((one for one in shares if one[0] is not None), key=lambda one: -(one[0] or 0.0))
    there = [f"{share_cell(share)} of {number(time_s)} s in {name}" for share, time_s, name in known]
    missing = [bar.case.name for bar in bars if not bar.rows]
    what = f"Until {until.label}, communication takes {listed(there)}" if there else "No time has passed"
    return f"{what}; {listed(missing)} did not get there." if missing else f"{what}."


def _columns(bars: dict[_Until, list[_Bar]]) -> Iterator[Column]:
    flat = [(until, bar) for until, each in bars.items() for bar in each]
    yield Column("case", "Case", "text", [bar.case.name for _, bar in flat])
    yield Column("until", "Until", "text", [until.label for until, _ in flat])
    yield Column("num_seeds", "Seeds", "count", [len(bar.case.seeds) for _, bar in flat])
    yield Column("num_reached", "Seeds there", "count", [bar.num_reached for _, bar in flat])
    for name, label in (("time", "Time"), *((part, part.capitalize()) for part in PARTS)):
        values: list[Any] = [bar.part(f"{name}_s") for _, bar in flat]
        yield Column(f"{name}_s", label, "seconds", values)
    shares = [bar.communication_share for _, bar in flat]
    yield Column("communication_share", "Share of communication", "share", shares)
