"""What the time to target depends on: one axis changed at a time, or, where no scenarios allow it, ranks over all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsgd_emu.report.bars import BARS, flat
from hsgd_emu.report.figure import AXIS, BASE_LAYOUT, Column, plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR, PART_COLOURS, shortened
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.study.axes import middle_scenario
from hsgd_emu.report.study.content import StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, FigureJson, figure_of, short
from hsgd_emu.report.study.words import seconds

FEWEST_TO_RANK = 8
MOST_CASES = 20
"""Cases that can be chosen one by one."""


@dataclass(frozen=True)
class Subject:
    """Whose time it is: that of the fastest of these cases in each scenario."""

    label: str
    cases: tuple[int, ...]


@dataclass(frozen=True)
class Lines:
    """The scenarios that differ from one of reference in one axis only; by axis, in the order of its values."""

    reference: int
    scenarios: dict[int, list[int]]


@dataclass(frozen=True)
class End:
    """One end of a bar, or the reference. time_s: inf = never; case: the fastest there, -1 where time_s is inf."""

    scenario: int
    time_s: float
    case: int


@dataclass(frozen=True)
class Bar:
    """One axis from its lowest to its highest value, the others held; of names: from that of least time to most."""

    axis: int
    low: End
    high: End
    width_s: float
    """Of the bar, which always reaches to the time of reference; inf where an end is never and another is not."""


@dataclass(frozen=True)
class Rank:
    """Spearman's rank correlation of an axis with the time, over all scenarios; None where the time is always one."""

    axis: int
    correlation: float | None


def subjects(content: StudyContent) -> list[Subject]:
    """Return whose time can be shown: the fastest case's, that of each kind of schedule, that of each case."""
    every = tuple(case.index for case in content.cases)
    if len(every) == 1:
        return [Subject(content.cases[0].name, every)]
    names = (("the best H-SGD", False), ("the best local SGD", True)) if content.both_kinds else ()
    kinds = [Subject(name, tuple(c.index for c in content.cases if c.dashed == local)) for name, local in names]
    alone = [Subject(case.name, (case.index,)) for case in content.cases]
    return [Subject("the fastest case", every), *kinds, *(alone if len(alone) <= MOST_CASES else ())]


def lines_of(content: StudyContent) -> Lines | None:
    """Return the scenarios that change one axis each, around the one nearest to the middle that allows it; or None."""
    found: dict[tuple[int, tuple[int, ...]], dict[int, int]] = defaultdict(dict)
    rows = [tuple(row) for row in content.places_SA.tolist()]
    for scenario, row in enumerate(rows):
        for i, place in enumerate(row):
            found[i, _without(row, i)].setdefault(place, scenario)
    varying = [i for i, axis in enumerate(content.axes) if len(axis.texts) > 1]
    allowed = [s for s, row in enumerate(rows) if all(len(found[i, _without(row, i)]) > 1 for i in varying)]
    if not allowed or not varying:
        return None
    reference = allowed[middle_scenario(content.axes, content.places_SA[allowed])]
    mine = {i: found[i, _without(rows[reference], i)] for i in varying}
    return Lines(reference, {i: [line[place] for place in sorted(line)] for i, line in mine.items()})


def bars(content: StudyContent, target: Target, subject: Subject, lines: Lines) -> list[Bar]:
    """Return the bar of each axis, the widest first; of equal ones first that of the earlier axis."""
    start_s = time_at(target, subject, lines.reference).time_s
    found = []
    for i, scenarios in lines.scenarios.items():
        ends = [time_at(target, subject, scenario) for scenario in scenarios]
        if content.axes[i].numbers is None:
            ends.sort(key=lambda end: end.time_s)
        low, high = ends[0], ends[-1]
        least, most = (pick(start_s, low.time_s, high.time_s) for pick in (min, max))
        found.append(Bar(i, low, high, 0.0 if least == most else most - least))
    return sorted(found, key=lambda bar: -bar.width_s)


def time_at(target: Target, subject: Subject, scenario: int) -> End:
    """Return the least median of the subject's cases in a scenario; of equal ones the first case's."""
    times_C = target.median_SC[scenario, list(subject.cases)]
    least = int(times_C.argmin())
    time_s = float(times_C[least])
    return End(scenario, time_s, subject.cases[least] if math.isfinite(time_s) else -1)


def ranks(content: StudyContent, target: Target, subject: Subject) -> list[Rank]:
    """Return each numeric axis's correlation with the time, the strongest first; never is later than all times."""
    from scipy.stats import spearmanr

    times_S = target.median_SC[:, list(subject.cases)].min(axis=1)
    constant = bool((times_S == times_S[0]).all())
    found = []
    for i, axis in enumerate(content.axes):
        if axis.numbers is not None and len(axis.numbers) > 1:
            numbers_S = np.array(axis.numbers)[content.places_SA[:, i]]
            found.append(Rank(i, None if constant else float(spearmanr(numbers_S, times_S).statistic)))
    return sorted(found, key=lambda rank: -abs(rank.correlation or 0.0))


def can_rank(content: StudyContent) -> bool:
    """Tell whether there are scenarios enough, and an axis of numbers, to rank."""
    numeric = any(axis.numbers is not None and len(axis.numbers) > 1 for axis in content.axes)
    return numeric and content.num_scenarios >= FEWEST_TO_RANK


def _without(places: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return places[:axis] + places[axis + 1 :]


# --- the figure -------------------------------------------------------------------------------------

LOW_COLOUR, HIGH_COLOUR = OTHER_COLOUR, PART_COLOURS["communication"]
_ROW_PX, _FRAME_PX = 62, 84
_HOVER = "%{hovertext}<extra></extra>"
_MOST_LABEL, _MOST_BESIDE_NEVER = 12, 8


def tornado_kind(content: StudyContent) -> str:
    """Return what is shown: `bars` around a scenario of reference, `ranks` over all scenarios, or nothing."""
    if not content.targets:
        return ""
    return "bars" if lines_of(content) else "ranks" if can_rank(content) else ""


def tornado_height_px(content: StudyContent) -> int:
    """Return how high the figure is."""
    varying = [axis for axis in content.axes if len(axis.texts) > 1]
    shown = varying if tornado_kind(content) == "bars" else [axis for axis in varying if axis.numbers is not None]
    return _FRAME_PX + _ROW_PX * len(shown)


def tornado_start(content: StudyContent) -> str:
    """Return the scenario of reference in words, or nothing where there is none."""
    lines = lines_of(content)
    return content.at(lines.reference) if lines else ""


def tornados(content: StudyContent) -> Iterator[Drawn]:
    """Yield the tornado of each target and subject; the key is the subject's number."""
    lines = lines_of(content)
    if not lines and not can_rank(content):
        return
    for number, target in enumerate(content.targets):
        for key, subject in enumerate(subjects(content)):
            one = _bar_figure(content, target, subject, lines) if lines else _rank_figure(content, target, subject)
            yield "tornado", number, str(key), one


# --- one axis at a time -----------------------------------------------------------------------------


def _bar_figure(content: StudyContent, target: Target, subject: Subject, lines: Lines) -> FigureJson:
    start = time_at(target, subject, lines.reference)
    found = bars(content, target, subject, lines)
    scale = _Scale([start, *(end for bar in found for end in (bar.low, bar.high))])
    traces: list[dict[str, Any]] = []
    if scale.known:
        for row, bar in enumerate(reversed(found)):
            traces += _bar_traces(content, bar, start, scale, row) if bar.width_s else ()
    layout = {
        **_layout([_head(content, bar, lines.reference) for bar in found]),
        "shapes": [_line(scale.at(start.time_s))],
        "meta": scale.meta(found, content, start),
    }
    layout["xaxis"] |= {"title": {"text": f"time to {target.label} (s)"}, "range": scale.range, **scale.ticks()}
    layout["annotations"].append(_reference_label(start, scale))
    text = bars_in_words(content, target, subject, lines)
    return figure_of(traces, layout, text, _bar_columns(content, found, start))


def _bar_columns(content: StudyContent, found: Sequence[Bar], start: End) -> list[Column]:
    columns = [Column("axis", "Axis", "text", [content.axes[bar.axis].name for bar in found])]
    ends = (("low", "lowest", [bar.low for bar in found]), ("high", "highest", [bar.high for bar in found]))
    for name, label, mine in (*ends, ("reference", "reference", [start] * len(found))):
        values = [value_at(content, bar.axis, end.scenario) for bar, end in zip(found, mine, strict=True)]
        cases = [content.cases[end.case].name if end.case >= 0 else None for end in mine]
        columns += [
            Column(f"{name}_value", f"Value, {label}", "text", values),
            Column(f"{name}_time_s", "Time there", "seconds", short(end.time_s for end in mine)),
            Column(f"{name}_case", "Fastest there", "text", cases),
        ]
    return columns


class _Scale:
    """Where times stand: never beyond the latest one."""

    def __init__(self, ends: Sequence[End]) -> None:
        known = [end.time_s for end in ends if math.isfinite(end.time_s)]
        self.known = bool(known)
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        span = (high - low) or high or 1.0
        self.never = any(end.case < 0 for end in ends)
        self.latest = high
        self.low, self.high = low, high + (0.25 * span if self.never else 0.0)
        self.span = (self.high - self.low) or span
        self.range = [self.low - 0.2 * self.span, self.high + 0.2 * self.span]

    def at(self, time_s: float) -> float:
        return time_s if math.isfinite(time_s) else self.high

    def ticks(self) -> dict[str, Any]:
        """Return plotly's attributes for round ticks where there are times, not below the labels beside them."""
        step = (self.latest - self.low or self.latest or 1.0) / 4
        power = 10.0 ** math.floor(math.log10(step))
        round_step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step)
        first, last = math.ceil(self.low / round_step), math.floor(self.latest / round_step)
        values = [float(f"{i * round_step:.6g}") for i in range(first, last + 1)] or [self.low]
        return {"tickmode": "array", "tickvals": values, "ticktext": [f"{value:,.6g}" for value in values]}

    def meta(self, found: Sequence[Bar], content: StudyContent, start: End) -> dict[str, Any]:
        """Return what the page's script needs to leave room for labels: the ends, and characters left and right."""
        room = [0, 0]
        for bar in found:
            for end in (bar.low, bar.high):
                if bar.width_s and end.scenario != start.scenario:
                    side = 0 if self.at(end.time_s) < self.at(start.time_s) else 1
                    room[side] = max(room[side], len(_label(content, bar, end)))
        return {"ends": [self.low, self.high], "characters": room}


def _bar_traces(content: StudyContent, bar: Bar, start: End, scale: _Scale, row: int) -> Iterator[dict[str, Any]]:
    base = scale.at(start.time_s)
    places = [scale.at(end.time_s) - base for end in (bar.low, bar.high)]
    # Both on one side of the reference: one under the other, or the longer would hide the shorter.
    apart = 0.13 if places[0] * places[1] > 0 else 0.0
    looks = ((apart, LOW_COLOUR), (-apart, HIGH_COLOUR))
    for end, place, (lane, colour) in zip((bar.low, bar.high), places, looks, strict=True):
        at = {"y": [row - 0.14 + lane], "hovertemplate": _HOVER, "hovertext": [_hover(content, bar, end, start)]}
        long = {"base": [base], "x": [place], "width": [0.24 if apart else 0.36]}
        yield {**at, **BARS, **long, "marker": flat(colour)}
        if end.scenario == start.scenario:
            continue
        case = content.cases[end.case] if end.case >= 0 else None
        shape = ("circle", case.colour) if case else ("triangle-right", "#888")
        look = {"size": 11, "symbol": shape[0], "color": shape[1], "line": {"width": 1.5, "color": "#fff"}}
        mark = {"type": "scatter", "mode": "markers+text", "x": [base + place], "marker": look}
        side = "middle left" if place < 0 else "middle right"
        text = {"text": [f" {plotly_text(_label(content, bar, end))} "], "textposition": side}
        yield {**at, **mark, **text, "cliponaxis": False}


def _label(content: StudyContent, bar: Bar, end: End) -> str:
    text = value_at(content, bar.axis, end.scenario)
    return shortened(text, _MOST_LABEL) if end.case >= 0 else f"{shortened(text, _MOST_BESIDE_NEVER)}: {NEVER}"


def _head(content: StudyContent, bar: Bar, reference: int) -> str:
    name = plotly_text(shortened(content.axes[bar.axis].name, 26))
    value = plotly_text(shortened(value_at(content, bar.axis, reference), 20))
    return f"<b>{name}</b>  reference {value}{'' if bar.width_s else ': changes nothing'}"


def _hover(content: StudyContent, bar: Bar, end: End, start: End) -> str:
    axis = content.axes[bar.axis]
    where = f"{axis.name} {value_at(content, bar.axis, end.scenario)}, the others as in the reference"
    lines = [where, NEVER if end.case < 0 else f"{seconds(end.time_s)} with {content.cases[end.case].name}"]
    if math.isfinite(end.time_s) and math.isfinite(start.time_s) and end.time_s != start.time_s:
        change = end.time_s - start.time_s
        lines.append(f"{seconds(abs(change))} {'more' if change > 0 else 'less'} than the reference")
    return "<br>".join(map(plotly_text, lines))


def _reference_label(start: End, scale: _Scale) -> dict[str, Any]:
    at = scale.at(start.time_s)
    side = (at - scale.range[0]) / (scale.range[1] - scale.range[0])
    anchor = "left" if side < 0.35 else "right" if side > 0.65 else "center"
    text = f"reference {NEVER if start.case < 0 else seconds(start.time_s)}"
    return {"x": at, "y": 1, "yref": "paper", "xanchor": anchor, "yanchor": "bottom", "showarrow": False, "text": text}


# --- ranks over all scenarios -----------------------------------------------------------------------


def _rank_figure(content: StudyContent, target: Target, subject: Subject) -> FigureJson:
    found = ranks(content, target, subject)
    known = [(row, rank) for row, rank in enumerate(reversed(found)) if rank.correlation is not None]
    values = [rank.correlation or 0.0 for _, rank in known]
    place = {"x": values, "y": [row - 0.14 for row, _ in known], "width": 0.36}
    look = {"marker": {"color": [HIGH_COLOUR if value >= 0 else LOW_COLOUR for value in values]}}
    text = {"text": [f" {signed(value)} " for value in values], "textposition": "outside", "cliponaxis": False}
    about = [f"{plotly_text(content.axes[rank.axis].name)}: {signed(rank.correlation)}" for _, rank in known]
    trace = {**BARS, **place, **look, **text, "hovertemplate": _HOVER, "hovertext": about}
    heads = [f"<b>{plotly_text(shortened(content.axes[rank.axis].name, 40))}</b>" for rank in found]
    layout = {**_layout(heads), "shapes": [_line(0)]}
    ticks = {"tickvals": [-1, -0.5, 0, 0.5, 1], "ticktext": ["−1", "−0.5", "0", "0.5", "1"]}
    layout["xaxis"] |= {"title": {"text": "rank correlation with the time"}, "range": [-1.25, 1.25], **ticks}
    columns = [
        Column("axis", "Axis", "text", [content.axes[rank.axis].name for rank in found]),
        Column("rank_correlation", "Rank correlation", "number", [rank.correlation for rank in found]),
    ]
    return figure_of([trace] if known else [], layout, ranks_in_words(content, target, subject), columns)


# --- both -------------------------------------------------------------------------------------------


def _layout(heads: Sequence[str]) -> dict[str, Any]:
    """Return the layout of rows, the first at the top, each with its head above its bar."""
    label = {"xref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom", "align": "left", "showarrow": False}
    num = len(heads)
    frame = {**BASE_LAYOUT, "barmode": "overlay", "margin": {"l": 12, "r": 12, "t": 26, "b": 8}}
    y = {**AXIS, "visible": False, "range": [-0.55, num - 0.45], "fixedrange": True}
    notes = [{**label, "y": num - 1 - i + 0.08, "text": head} for i, head in enumerate(heads)]
    return {**frame, "xaxis": {**AXIS, "nticks": 6}, "yaxis": y, "annotations": notes}


def _line(at: float) -> dict[str, Any]:
    line = {"color": "#888", "width": 1.5, "dash": "dot"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": at, "x1": at, "line": line}


# --- in sentences -----------------------------------------------------------------------------------

NEVER = "never"


def value_at(content: StudyContent, axis: int, scenario: int) -> str:
    """Return the value of an axis in a scenario, in words."""
    return content.axes[axis].texts[int(content.places_SA[scenario, axis])]


def bars_in_words(content: StudyContent, target: Target, subject: Subject, lines: Lines) -> str:
    """Say where the bars start and what moves the time most."""
    start = time_at(target, subject, lines.reference)
    found = bars(content, target, subject, lines)
    if all(end.case < 0 for bar in found for end in (start, bar.low, bar.high)):
        return f"In none of these scenarios does {subject.label} reach {target.label}."
    when = NEVER if start.case < 0 else seconds(start.time_s)
    parts = [_change(content, bar) for bar in found if bar.width_s > 0]
    still = [content.axes[bar.axis].name for bar in found if bar.width_s == 0]
    most = f"what changes it most is {parts[0]}" if parts else "nothing changes it"
    rest = f"; then {listed(parts[1:])}" if parts[1:] else ""
    none = f"; {listed(still)} change{'s' if len(still) == 1 else ''} nothing" if still and parts else ""
    return f"Time of {subject.label} to {target.label} at {content.at(lines.reference)}: {when}; {most}{rest}{none}."


def _change(content: StudyContent, bar: Bar) -> str:
    times = ((NEVER if end.case < 0 else seconds(end.time_s), end.scenario) for end in (bar.low, bar.high))
    ends = [f"{time} at {value_at(content, bar.axis, scenario)}" for time, scenario in times]
    return f"{content.axes[bar.axis].name} ({', '.join(ends)})"


def signed(value: float | None) -> str:
    """Return a correlation with its sign: `+0.93`."""
    return "none" if value is None else f"{value:+.2f}".replace("-", "−")


def ranks_in_words(content: StudyContent, target: Target, subject: Subject) -> str:
    """Say which axis goes with the time most."""
    found = [(content.axes[rank.axis].name, rank.correlation) for rank in ranks(content, target, subject)]
    known = [(name, value) for name, value in found if value is not None]
    where = f"Over {content.num_scenarios:,} scenarios"
    if not known:
        return f"{where}, the time of {subject.label} to {target.label} is always the same, or there is none."
    (name, value), rest = known[0], [f"{name} ({signed(value)})" for name, value in known[1:]]
    more = f"; then come {listed(rest)}" if len(rest) > 1 else f"; then comes {rest[0]}" if rest else ""
    text = f"{where}, the time of {subject.label} to {target.label}"
    return f"{text} {'rises' if value > 0 else 'falls'} most with {name} (rank correlation {signed(value)}){more}."
