"""How long each group of nodes waited, as a share of the time; `time_spent` hands it on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.report.bars import MARKS, height_px, hovers, row_axis, seconds, value_axis
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, plotly_text
from hsgd_emu.report.sentences import share
from hsgd_emu.topology.tree import Topology

MOST_GROUPS = 20
_SPREAD = 0.6
"""Rows: how far apart the marks of the first and the last case stand within a row."""


@dataclass(frozen=True)
class _Waits:
    """The waits of a group's nodes in one case.

    wait_s: of one node in one trial, the mean; share: of the trials' times, the mean over nodes and seeds.
    """

    num_nodes: int
    wait_s: float
    share: float
    workers: bool


def waiting(content: Content) -> Figure | None:
    """Return the shares of time that workers (by their server) and servers wait; a mark per case in each row."""
    found = {case.name: _waits(case) for case in content.cases}
    cases = [case for case in content.cases if found[case.name]]
    if not cases:
        return None
    kept, others = _longest([found[case.name] for case in cases])
    groups = [*kept, f"{len(others):,} other groups"] if others else kept
    cells: list[list[_Waits | None]] = [[found[case.name].get(group) for group in kept] for case in cases]
    if others:
        cells = [[*row, _together(found[case.name], others)] for case, row in zip(cases, cells, strict=True)]
    sentence = _sentence(cases, [found[case.name] for case in cases])
    return Figure(
        id="waiting",
        title="Waiting, by who waits",
        pictures=(Picture((), sentence, list(_traces(cases, groups, cells)), _layout(groups, cells)),),
        columns=tuple(_columns(cases, groups, cells)),
        note=_note(content, len(others)),
        key=tuple((case.name, case.colour) for case in cases),
        height_px=height_px(len(groups), 30),
    )


def _note(content: Content, num_others: int) -> str:
    left_out = f" The {num_others} groups that wait least are taken together; `hsgd-emu export` has every node's waits."
    circles = f"; circles are {content.kinds[1]}" if any(case.dashed for case in content.cases) else ""
    mixes = any(case.traffic is not None and case.traffic.schedule.graph is not None for case in content.cases)
    hubs = ", and where hubs mix, from its own result to the last of its neighbours'"
    return (
        "A worker waits from the end of its upload until the new model is sent to it, a server in the same way and "
        f"also from the first of its children's arrivals to the last{hubs * mixes}. Mean over the nodes of a group and "
        f"over seeds, as a part of the time of the trial{circles}.{left_out * (num_others > 0)}"
    )


def _waits(case: Case) -> dict[str, _Waits]:
    """Return the waits by group, in topology order; none where the run kept none or its network cannot be read."""
    if case.run.experiment is None or case.run.experiment.timeline == "none" or not case.points:
        return {}
    schedule = next(s for s in case.run.experiment.schedules if s.name == case.own_name)
    topology = case.run.experiment.topology
    # A trial's time is that of its last row of `curve`; what came after it is left out.
    rows = case.run.connection.execute(
        "SELECT w.seed, w.node, sum(w.wait_s), c.time_s FROM waits w JOIN "
        '(SELECT seed, max(round) AS last, max(time_s) AS time_s FROM curve WHERE "case" = ?1 GROUP BY seed) c '
        'ON c.seed = w.seed WHERE w."case" = ?1 AND w.round <= c.last GROUP BY w.seed, w.node',
        (case.own_name,),
    )
    # Where hubs mix, the global server has nothing to wait for.
    servers = [server for server in schedule.servers if server or schedule.graph is None]
    active = {topology.nodes[node].name: node for node in (*servers, *topology.workers)}
    group_of = {name: _group(topology, node) for name, node in sorted(active.items(), key=lambda item: item[1])}
    # Who never waited has no row.
    sizes, num_seeds = Counter(group_of.values()), len(case.seeds)
    wait_s, shares = dict.fromkeys(sizes, 0.0), dict.fromkeys(sizes, 0.0)
    for _, name, waited_s, time_s in rows:
        wait_s[group_of[name]] += waited_s
        shares[group_of[name]] += waited_s / time_s if time_s else 0.0
    workers = {group_of[topology.nodes[worker].name] for worker in topology.workers}
    found = {}
    for group, size in sizes.items():
        mean_s, share = (sums[group] / size / num_seeds for sums in (wait_s, shares))
        found[group] = _Waits(size, mean_s, min(1.0, share), group in workers)
    return found


def _group(topology: Topology, index: int) -> str:
    """Return the name of a node's group: a server is one by itself, alike workers of one server are one."""
    node = topology.nodes[index]
    if not node.is_worker or node.name == node.class_name:
        return node.name
    return f"{node.class_name} at {topology.nodes[node.parent or 0].name}"


def _longest(found: Sequence[Mapping[str, _Waits]]) -> tuple[list[str], list[str]]:
    """Return the groups to show, the longest waits (the mean over cases) first, and those to take together."""
    shares: dict[str, list[float]] = {}
    for waits in found:
        for group, one in waits.items():
            shares.setdefault(group, []).append(one.share)
    # Stable: groups that wait alike stay in topology order.
    groups = sorted(shares, key=lambda group: -sum(shares[group]) / len(shares[group]))
    return (groups, []) if len(groups) <= MOST_GROUPS else (groups[: MOST_GROUPS - 1], groups[MOST_GROUPS - 1 :])


def _together(waits: Mapping[str, _Waits], groups: Iterable[str]) -> _Waits | None:
    """Return the mean over the nodes of several groups."""
    found = [waits[group] for group in groups if group in waits]
    num_nodes = sum(one.num_nodes for one in found)
    if not num_nodes:
        return None
    wait_s, of_time = (sum(getattr(one, f) * one.num_nodes for one in found) / num_nodes for f in ("wait_s", "share"))
    return _Waits(num_nodes, wait_s, of_time, all(one.workers for one in found))


def _traces(
    cases: Sequence[Case], groups: Sequence[str], cells: Sequence[Sequence[_Waits | None]]
) -> Iterator[dict[str, Any]]:
    for place, case in enumerate(cases):
        # Beside one another, so that cases that wait alike do not hide each other.
        shift = _SPREAD * ((place + 0.5) / len(cases) - 0.5)
        by_group = zip(groups, cells[place], strict=True)
        lines = [
            [f"{case.name}: {group} ({one.num_nodes:,})", _in_words(one)] if one else [] for group, one in by_group
        ]
        x = Ref("wait_share", place * len(groups), (place + 1) * len(groups))
        at = {"meta": case.index, "x": x, "y": [row + shift for row in range(len(groups))]}
        line = {"width": 2.5 if case.dashed else 0, "color": case.colour}
        shape = {"size": 10, "symbol": "circle-open" if case.dashed else "diamond", "line": line}
        look = {"marker": {"color": case.colour, **shape}, **hovers(lines, cliponaxis=False)}
        yield {**MARKS, "name": plotly_text(case.name), **at, **look}


def _in_words(one: _Waits) -> str:
    return f"{share(one.share)} of the time, {seconds(one.wait_s)} each"


def _layout(groups: Sequence[str], cells: Sequence[Sequence[_Waits | None]]) -> dict[str, Any]:
    most = max(one.share for row in cells for one in row if one)
    # Lines between the rows.
    line = {"type": "line", "xref": "paper", "x0": 0, "x1": 1}
    look = {"layer": "below", "line": {"color": "#8883", "width": 1}}
    lines = [{**line, "y0": y + 0.5, "y1": y + 0.5, **look} for y in range(len(groups) - 1)]
    axis = value_axis("share of the time spent waiting", most, 0.06, tickformat=".0%", hoverformat=".1%")
    return {"xaxis": axis, "yaxis": row_axis(groups), "shapes": lines}


def _sentence(cases: Sequence[Case], found: Sequence[Mapping[str, _Waits]]) -> str:
    """Say in which case workers wait most and least, and which group of all waits longest."""
    means = []
    for case, waits in zip(cases, found, strict=True):
        of_workers = _together(waits, [group for group, one in waits.items() if one.workers])
        means.append((of_workers.share if of_workers else 0.0, case.name))
    most, least = max(means, key=lambda one: one[0]), min(means, key=lambda one: one[0])
    text = f"Workers wait {share(most[0])} of the time in {most[1]}"
    if most[0] != least[0]:
        text += f" and {share(least[0])} in {least[1]}"
    by_case = zip(cases, found, strict=True)
    every = [(one.share, group, case.name) for case, waits in by_case for group, one in waits.items()]
    longest, group, name = max(every, key=lambda one: one[0])
    if not longest:
        return "Nobody waits in any case: whatever has to arrive arrives at the same moment."
    return f"{text}; the longest waits are those of {group} in {name}, {share(longest)}."


def _columns(
    cases: Sequence[Case], groups: Sequence[str], cells: Sequence[Sequence[_Waits | None]]
) -> Iterator[Column]:
    flat = [one for row in cells for one in row]
    yield Column("case", "Case", "text", [case.name for case in cases for _ in groups])
    yield Column("group", "Who waits", "text", [group for _ in cases for group in groups])
    yield Column("num_nodes", "Nodes", "count", [one.num_nodes if one else None for one in flat])
    yield Column("wait_s", "Wait of one", "seconds", [one.wait_s if one else None for one in flat])
    yield Column("wait_share", "Share of the time", "share", [one.share if one else None for one in flat])
