"""Who held the barriers: the child that each aggregation waited for, and the costliest link on its way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hsgd_emu.report.bars import BARS, end_label, flat, height_px, hovers, row_axis, seconds, value_axis
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Switch, plotly_text
from hsgd_emu.report.looks import OTHER_COLOUR
from hsgd_emu.report.sentences import listed, share
from hsgd_emu.results.wording import share_cell

NUM_NAMED = 5
"""So many links or nodes are named per case; fewer where there are many cases."""
_MOST_ROWS = 48
TOGETHER = "nobody alone"
_FIELDS = {"link": "link", "node": "waited_for"}


@dataclass(frozen=True)
class _Blamed:
    """What one row shows. num: aggregations over all seeds; slack_s: in all of these, how much later than the next."""

    name: str
    num: int
    slack_s: float
    kind: Literal["one", "others", "together"] = "one"


@dataclass(frozen=True)
class _Case:
    """One case's barriers: how many over all seeds, and whom they waited for, most often first."""

    case: Case
    num: int
    num_seeds: int
    rows: tuple[_Blamed, ...]
    """Those named, then the others as one, then the aggregations whose last children arrived at the same moment."""

    def share(self, row: _Blamed) -> float:
        """Return the part of the case's aggregations that a row stands for."""
        return row.num / self.num


def blame(content: Content) -> Figure | None:
    """Return whom the aggregations of each case waited for, by link and by node; None where no run kept it."""
    cases = {by: [found for case in content.cases if (found := _blamed(case, by))] for by in _FIELDS}
    if not cases["link"]:
        return None
    num_named = max(1, min(NUM_NAMED, _MOST_ROWS // len(cases["link"]) - 3))
    cases = {by: [_named(case, num_named) for case in each] for by, each in cases.items()}
    pictures, start = [], 0
    for by, each in cases.items():
        pictures.append(_picture(by, each, start))
        start += sum(len(case.rows) for case in each)
    return Figure(
        id="blame",
        title="Whom aggregations waited for",
        pictures=tuple(pictures),
        columns=tuple(_columns(cases)),
        switches=(Switch("Blame", (("link", "links"), ("node", "workers and servers"))),),
        note=_note(content),
        height_px=height_px(max(sum(len(case.rows) + 1 for case in each) for each in cases.values()), 24),
    )


def _note(content: Content) -> str:
    kept = [case.run.run.get("timeline") for case in content.cases]
    mixes = any(case.traffic is not None and case.traffic.schedule.graph is not None for case in content.cases)
    hubs = " Where hubs mix, a hub waits in the same way for the neighbour whose model arrives last." * mixes
    only = " Of runs with `timeline: rounds` these are the global server's aggregations only." * ("rounds" in kept)
    return (
        "An aggregation waits for the child that arrives last, and the link is the costliest on that child's way up. "
        f"The delay is how much later it arrived than the second last. “{TOGETHER}”: the last children arrived at "
        f"the same moment, or there was but one child.{hubs}{only}"
    )


def _blamed(case: Case, by: str) -> _Case | None:
    """Return everybody who was waited for, not yet shortened."""
    select, own = case.run.connection.execute, (case.own_name,)
    num, num_seeds, num_together = select(
        'SELECT count(*), count(DISTINCT seed), total(slack_s <= 0) FROM barriers WHERE "case" = ?', own
    ).fetchone()
    if not num:
        return None
    # Where the last children arrive at one moment, whom the engine names is their order in the topology file.
    rows = select(
        f'SELECT {_FIELDS[by]}, count(*) AS num, sum(slack_s) AS total_s FROM barriers WHERE "case" = ? '
        "AND slack_s > 0 GROUP BY 1 ORDER BY num DESC, total_s DESC, 1",
        own,
    )
    found = [_Blamed(name, times, slack_s) for name, times, slack_s in rows]
    together = [_Blamed(TOGETHER, int(num_together), 0.0, "together")] if num_together else []
    return _Case(case, num, num_seeds, (*found, *together))


def _named(case: _Case, num_named: int) -> _Case:
    """Return the case with its first rows; the others are added up."""
    num_single = sum(row.kind == "one" for row in case.rows)
    if num_single <= num_named + 1:
        return case
    others = case.rows[num_named:num_single]
    num, slack_s = sum(row.num for row in others), sum(row.slack_s for row in others)
    together = _Blamed(f"{len(others):,} others", num, slack_s, "others")
    return replace(case, rows=(*case.rows[:num_named], together, *case.rows[num_single:]))


def _picture(by: str, cases: Sequence[_Case], start: int) -> Picture:
    """Return a block of bars per case, under the case's name."""
    traces, annotations = [], []
    places: list[int] = []
    labels: list[str] = []
    most = max(case.share(row) for case in cases for row in case.rows)
    top = 0
    for case in cases:
        rows = [top + 1 + place for place in range(len(case.rows))]
        head = end_label(0, top, case.case.name)
        annotations.append({**head, "xref": "paper", "xshift": 0, "font": {"weight": 700}})
        annotations += [end_label(case.share(row), y, _end(case, row)) for y, row in zip(rows, case.rows, strict=True)]
        traces.append(_bars(case, rows, start))
        places, labels = places + rows, labels + [row.name for row in case.rows]
        top, start = rows[-1] + 1, start + len(rows)
    layout = {
        "xaxis": value_axis("share of the aggregations", most, 0.5, tickformat=".0%"),
        "yaxis": row_axis(labels, places, top),
        "annotations": annotations,
    }
    return Picture((by,), _sentence(by, cases), traces, layout)


def _bars(case: _Case, rows: Sequence[int], start: int) -> dict[str, Any]:
    colours = [case.case.colour if row.kind == "one" else OTHER_COLOUR for row in case.rows]
    whose = {**BARS, "name": plotly_text(case.case.name), "meta": case.case.index}
    place = {"x": Ref("share", start, start + len(rows)), "y": rows, "width": 0.75}
    return {**whose, **place, "marker": flat(colours), **hovers(_hover_lines(case, row) for row in case.rows)}


def _end(case: _Case, row: _Blamed) -> str:
    delay = f", {seconds(row.slack_s / row.num, 2)}" if row.slack_s else ""
    return f"{share_cell(case.share(row))}{delay}"


def _hover_lines(case: _Case, row: _Blamed) -> Iterator[str]:
    yield f"{case.case.name}: {row.name}"
    yield f"{row.num:,} of {case.num:,} aggregations ({share(case.share(row))})"
    if row.kind == "together":
        yield "the last children arrived at the same moment"
    else:
        yield f"later than the next by {seconds(row.slack_s / row.num)} on average"
        yield f"{seconds(row.slack_s / case.num_seeds)} in all per trial"


def _sentence(by: str, cases: Sequence[_Case]) -> str:
    told = []
    for case in cases:
        first = case.rows[0]
        if first.kind != "together":
            often, delay = share(case.share(first)), seconds(first.slack_s / first.num)
            told.append(f"{case.case.name} for {first.name} in {often} of its aggregations, by {delay} on average")
    text = f"Waited for most often: {'; '.join(told[:4])}." if told else ""
    if len(told) > 4:
        text += f" The table has {len(told) - 4} more."
    # Not whom the engine names then: that is the order in the topology file.
    alone = [case.case.name for case in cases if case.rows[0].kind == "together"]
    if alone:
        text += f" In {listed(alone)} all children, or the last ones, arrived together in 100% of aggregations."
    return text.strip()


def _columns(cases: dict[str, list[_Case]]) -> Iterator[Column]:
    flat = [(by, case, row) for by, each in cases.items() for case in each for row in case.rows]
    yield Column("case", "Case", "text", [case.case.name for _, case, _ in flat])
    yield Column("by", "Blame", "text", [by for by, _, _ in flat])
    yield Column("waited_for", "Waited for", "text", [row.name for _, _, row in flat])
    yield Column("num", "Aggregations", "count", [row.num for _, _, row in flat])
    yield Column("share", "Share", "share", [case.share(row) for _, case, row in flat])
    means = [row.slack_s / row.num for _, _, row in flat]
    yield Column("mean_slack_s", "Mean delay", "seconds", means)
    totals = [row.slack_s / case.num_seeds for _, case, row in flat]
    yield Column("total_slack_s", "Delay per trial", "seconds", totals)
