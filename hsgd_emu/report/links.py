"""What crossed the links: bytes and utilisation per class of links, and of each link where they are few."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.report.bars import BARS, MARKS, end_label, flat, height_px, hovers, row_axis, value_axis
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Switch, plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR, colours
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.traffic import LinkTraffic, bytes_in_words
from hsgd_emu.results.summary import mean
from hsgd_emu.results.wording import number, share_cell

MOST_CLASSES = 10
MOST_LINKS = 25
"""Above so many, links are shown by class only."""
OTHERS = "other links"
NOTE = (
    "Bytes: a message that crosses two links counts on both. Busy: the seconds that messages are expected to be on "
    "their way over a link, as a part of the emulated time; links are private (a transfer never waits for another), so "
    "several messages at once count several times, and a link can be above 100%."
)
_CLASSES_NOTE = f"{NOTE} A mark is the mean of a class of links, its line reaches to the busiest."


@dataclass(frozen=True)
class _Sent:
    """What one case sent over one link, or over the links of a class, until its end."""

    case: Case
    name: str
    profile: str
    num_links: int
    num_messages: float
    """Expected where only part of the workers take part; of all the links together."""
    num_bytes: int
    busy_share: float
    """Of the emulated time; the mean over the links."""
    busiest: str
    most_share: float
    """Of the busiest link."""
    num_alike: int
    """Links that are as busy as the busiest, itself included."""


def links(content: Content) -> Figure | None:
    """Return bytes and utilisation per case and class of links; None where no network can be read."""
    cases = _cases(content)
    if not cases:
        return None
    names = _class_names(cases)
    found = {case.name: _by_class(case, names) for case in cases}
    classes = list(dict.fromkeys(one.name for case in cases for one in found[case.name]))
    colour = dict(zip(classes, colours(len(classes)), strict=True)) | {OTHERS: OTHER_COLOUR}
    rows = [one for name in classes for case in cases for one in found[case.name] if one.name == name]
    pictures = (
        Picture(("bytes",), _bytes_sentence(cases, rows), *_stacked(cases, rows, colour)),
        Picture(("busy",), _busy_sentence(rows), *_busy(cases, rows, colour)),
    )
    return Figure(
        id="links",
        title="Traffic and utilisation of the links",
        pictures=pictures,
        columns=tuple(_columns(rows)),
        switches=(Switch("Show", (("bytes", "bytes sent"), ("busy", "utilisation"))),),
        note=_CLASSES_NOTE,
        key=tuple((name, colour[name]) for name in classes),
        height_px=height_px(len(cases)),
    )


def each_link(content: Content) -> Figure | None:
    """Return bytes and utilisation of every link; None where there are more than `MOST_LINKS` or none is known."""
    cases = _cases(content)
    found = {case.name: {link.link: link for link in _links(case)} for case in cases}
    names = list(dict.fromkeys(name for case in cases for name in found[case.name]))
    if not names or len(names) > MOST_LINKS:
        return None
    rows = [_sent(case, name, [found[case.name][name]]) for case in cases for name in names if name in found[case.name]]
    sentences = (("bytes", _most_sentence(rows)), ("busy", _busy_sentence(rows)))
    pictures = tuple(Picture((key,), sentence, *_dots(cases, names, rows, key)) for key, sentence in sentences)
    return Figure(
        id="each-link",
        title="Each link",
        pictures=pictures,
        columns=tuple(_columns(rows, of_class=False)),
        switches=(Switch("Show", (("bytes", "bytes sent"), ("busy", "utilisation"))),),
        note=NOTE,
        key=tuple((case.name, case.colour) for case in cases),
        height_px=height_px(len(names), 26),
    )


# --- what was sent ----------------------------------------------------------------------------------


def _cases(content: Content) -> list[Case]:
    return [case for case in content.cases if case.traffic and case.points]


def _class_names(cases: Sequence[Case]) -> dict[tuple[str, tuple[str, str]], str]:
    """Return the class of links by their profile and the names of their ends.

    Where these are too many, as where many sites each have a name, by their profile alone, and if need be with others.
    """
    used = dict.fromkeys((one.profile, one.ends) for case in cases for one in _links(case))
    names = {key: f"{key[1][0]} to {key[1][1]}: {key[0]}" for key in used}
    if len(names) <= MOST_CLASSES:
        return names
    profiles = list(dict.fromkeys(profile for profile, _ in used))
    shown = profiles if len(profiles) <= MOST_CLASSES else profiles[: MOST_CLASSES - 1]
    return {key: key[0] if key[0] in shown else OTHERS for key in used}


def _by_class(case: Case, names: Mapping[tuple[str, tuple[str, str]], str]) -> list[_Sent]:
    groups: dict[str, list[LinkTraffic]] = {}
    for link in _links(case):
        groups.setdefault(names[link.profile, link.ends], []).append(link)
    return [_sent(case, name, groups[name]) for name in dict.fromkeys(names.values()) if name in groups]


def _sent(case: Case, name: str, links: Sequence[LinkTraffic]) -> _Sent:
    """Return what links carried until the end of a case."""
    assert case.traffic is not None
    num_times = _num_times(case)
    num_messages = sum(link.num_messages for link in links) * num_times
    time_s = mean(case.end, "time_s")
    shares = [link.busy_s * num_times / time_s if time_s else 0.0 for link in links]
    busiest = max(range(len(links)), key=lambda place: shares[place])
    return _Sent(
        case=case,
        name=name,
        profile=links[0].profile if len({link.profile for link in links}) == 1 else "several",
        num_links=len(links),
        num_messages=round(num_messages) if abs(num_messages - round(num_messages)) < 1e-6 else num_messages,
        num_bytes=round(sum(link.num_bytes for link in links) * num_times),
        busy_share=sum(shares) / len(shares),
        busiest=links[busiest].link,
        most_share=shares[busiest],
        num_alike=sum(math.isclose(one, shares[busiest]) for one in shares),
    )


def _num_times(case: Case) -> float:
    """Return how often a case sends what `_links` says until its end: its rounds, where all are alike."""
    assert case.traffic is not None
    schedule = case.traffic.schedule
    return float(schedule.stages[0].phases_until(0, _end(case))) if schedule.rounds_are_alike else 1.0


def _links(case: Case) -> tuple[LinkTraffic, ...]:
    assert case.traffic is not None
    schedule = case.traffic.schedule
    return case.traffic.links_until(schedule.end_of(1) if schedule.rounds_are_alike else _end(case))


def _end(case: Case) -> float:
    return mean(case.end, "iteration") or 0.0


def _columns(rows: Sequence[_Sent], of_class: bool = True) -> Iterator[Column]:
    yield Column("case", "Case", "text", [row.case.name for row in rows])
    yield Column("link", "Links" if of_class else "Link", "text", [row.name for row in rows])
    yield Column("profile", "Profile", "text", [row.profile for row in rows])
    if of_class:
        yield Column("num_links", "Number of links", "count", [row.num_links for row in rows])
    yield Column("num_messages", "Messages", "count", [row.num_messages for row in rows])
    yield Column("bytes", "Bytes", "bytes", [row.num_bytes for row in rows])
    yield Column("busy_share", "Busy", "share", [row.busy_share for row in rows])
    if of_class:
        yield Column("busiest_link", "Busiest link", "text", [row.busiest for row in rows])
        yield Column("most_busy_share", "Busy, the busiest", "share", [row.most_share for row in rows])


# --- pictures ---------------------------------------------------------------------------------------


def _stacked(
    cases: Sequence[Case], rows: Sequence[_Sent], colour: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return bars per case whose parts are the classes of links."""
    y_of = {case.name: y for y, case in enumerate(cases)}
    traces = []
    for start, end in _runs(rows):
        name, part = rows[start].name, rows[start:end]
        place = {"x": Ref("bytes", start, end), "y": [y_of[row.case.name] for row in part]}
        look = {"marker": flat(colour[name]), **hovers(map(_hover_lines, part))}
        traces.append({**BARS, "name": plotly_text(name), **place, **look})
    totals = [_total(case, rows) for case in cases]
    x = value_axis("sent over all links until the end", max(totals), 0.25, tickformat="~s", ticksuffix="B")
    ends = [end_label(total, y, bytes_in_words(total)) for y, total in enumerate(totals)]
    axes = {"xaxis": x, "yaxis": row_axis([case.name for case in cases])}
    return traces, {"barmode": "stack", "bargap": 0.3, **axes, "annotations": ends}


def _busy(
    cases: Sequence[Case], rows: Sequence[_Sent], colour: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a mark per case and class at the mean utilisation, with a line to the busiest link's."""
    y_of = {case.name: y for y, case in enumerate(cases)}
    runs = list(_runs(rows))
    traces = []
    for place, (start, end) in enumerate(runs):
        shift = 0.5 * ((place + 0.5) / len(runs) - 0.5)
        name, part = rows[start].name, rows[start:end]
        at = {"x": Ref("busy_share", start, end), "y": [y_of[row.case.name] + shift for row in part]}
        further = {"array": [row.most_share - row.busy_share for row in part], "arrayminus": [0] * len(part)}
        line = {"type": "data", "symmetric": False, **further, "width": 0, "thickness": 2, "color": colour[name]}
        look = {"marker": {"color": colour[name], "size": 11}, "error_x": line}
        said = hovers(map(_hover_lines, part), cliponaxis=False)
        traces.append({**MARKS, "name": plotly_text(name), **at, **look, **said})
    most = max(row.most_share for row in rows)
    axis = value_axis("share of the time a link is busy", most, 0.06, tickformat="~%")
    return traces, {"xaxis": axis, "yaxis": row_axis([case.name for case in cases])}


def _dots(
    cases: Sequence[Case], names: Sequence[str], rows: Sequence[_Sent], key: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a row per link with a mark per case."""
    y_of = {name: y for y, name in enumerate(names)}
    traces, start = [], 0
    for place, case in enumerate(cases):
        part = [row for row in rows if row.case is case]
        shift = 0.6 * ((place + 0.5) / len(cases) - 0.5)
        x = Ref("bytes" if key == "bytes" else "busy_share", start, start + len(part))
        at = {"meta": case.index, "x": x, "y": [y_of[row.name] + shift for row in part]}
        marker = {"color": case.colour, "size": 8, "symbol": "circle" if case.dashed else "diamond"}
        look = {"marker": marker, **hovers(map(_hover_lines, part), cliponaxis=False)}
        traces.append({**MARKS, "name": plotly_text(case.name), **at, **look})
        start += len(part)
    if key == "bytes":
        most = max(row.num_bytes for row in rows)
        axis = value_axis("sent until the end", most, 0.06, tickformat="~s", ticksuffix="B")
    else:
        axis = value_axis("share of the time the link is busy", max(r.busy_share for r in rows), 0.06, tickformat="~%")
    return traces, {"xaxis": axis, "yaxis": row_axis(names) | {"showgrid": True}}


def _runs(rows: Sequence[_Sent]) -> Iterator[tuple[int, int]]:
    """Yield where the rows of each class start and end."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place].name != rows[start].name:
            yield start, place
            start = place


def _hover_lines(row: _Sent) -> Iterator[str]:
    several = f" ({row.num_links:,} links)" if row.num_links > 1 else ""
    yield f"{row.case.name}: {row.name}{several}"
    yield f"{bytes_in_words(row.num_bytes)} in {row.num_messages:,.0f} messages"
    mean = "busy on average" if row.num_links > 1 else "busy"
    yield f"{share_cell(row.busy_share)} {mean}"
    if row.num_links > 1:
        yield f"{share_cell(row.most_share)}: {row.busiest}, the busiest"


# --- in words ---------------------------------------------------------------------------------------


def _total(case: Case, rows: Sequence[_Sent]) -> int:
    return sum(row.num_bytes for row in rows if row.case is case)


def _bytes_sentence(cases: Sequence[Case], rows: Sequence[_Sent]) -> str:
    """Say who sends most and least, over all links and over those of the global server."""
    most, least = (pick(cases, key=lambda case: _total(case, rows)) for pick in (max, min))
    text = f"{most.name} sends {bytes_in_words(_total(most, rows))} over all links"
    if most is not least:
        text += f", {least.name} {bytes_in_words(_total(least, rows))}"
    tops = [(_over_the_top(case), case.name) for case in cases]
    (high, high_name), (low, low_name) = max(tops), min(tops)
    text += f"; over the links of the global server, {high_name} sends {bytes_in_words(high)}"
    if high > low > 0:
        text += f", {number(high / low, 2)} times as much as {low_name}"
    return f"{text}."


def _over_the_top(case: Case) -> int:
    """Return the bytes over the links that end at the global server."""
    assert case.traffic is not None
    assert case.run.experiment is not None
    root = case.run.experiment.topology.nodes[0].class_name
    return round(sum(link.num_bytes for link in _links(case) if root in link.ends) * _num_times(case))


def _most_sentence(rows: Sequence[_Sent]) -> str:
    of_case: dict[str, list[_Sent]] = {}
    for row in rows:
        of_case.setdefault(row.case.name, []).append(row)
    parts = []
    for name, sent in of_case.items():
        most = max(row.num_bytes for row in sent)
        first, *alike = [row.name for row in sent if row.num_bytes == most]
        parts.append(f"{first}{_and_alike(len(alike))} in {name} ({bytes_in_words(most)})")
    return f"Most is sent over {listed(parts)}."


def _busy_sentence(rows: Sequence[_Sent]) -> str:
    top = max(rows, key=lambda row: row.most_share)
    name = f"{top.busiest}{_and_alike(top.num_alike - 1)} in {top.case.name}"
    text = f"Busiest is {name}, {share_cell(top.most_share)} of the time"
    if top.most_share > 1:
        text += " (several messages at once)"
    others: dict[str, float] = {}
    for row in rows:
        if row.case is not top.case:
            others[row.case.name] = max(others.get(row.case.name, 0.0), row.most_share)
    parts = [f"{share_cell(most)} in {name}" for name, most in others.items()]
    return f"{text}; elsewhere the busiest link is at {listed(parts)}." if parts else f"{text}."


def _and_alike(num: int) -> str:
    return f" (and {num:,} alike)" if num else ""
