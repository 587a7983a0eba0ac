"""The timeline as a picture: what every node does in the first global rounds, so that aggregations are seen."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from hsgd_emu.report.bars import BARS, MARKS, flat
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import AXIS, Column, Figure, Picture, Ref, Rows, Switch, plotly_text
from hsgd_emu.report.looks import PART_COLOURS, shortened
from hsgd_emu.report.outline import Place, duration, outline, rest_label, wrapped
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.traffic import bytes_in_words

NO_TIMELINE = (
    "No timeline was kept. With `timeline: full` in the run file, or `--set timeline=full` on the command line, every "
    "activity of every node is kept; `hsgd-emu retime` with the same makes one of a trained run without training again."
)
MOST_CASES = 30
MOST_BARS = 1_500
"""In one picture."""
_MOST_BARS_IN_ALL = 6_000
_ROW_PX = 22
_NOTE = (
    "Servers are bold, each followed by what it aggregates. Yellow: a server aggregates, from its row down to the last "
    "node below it. Dashed: the moment when the last worker holds the new global model, the end of a global round."
)


def timeline(content: Content) -> Figure | None:
    """Return the first global rounds of one trial of each case; None where no timeline was kept."""
    cases = content.cases[:MOST_CASES]
    found = list(windows(cases, min(MOST_BARS, _MOST_BARS_IN_ALL // max(1, len(cases)))))
    if not found:
        return None
    drawings: list[Drawing] = []
    rows: list[tuple[Window, Bar]] = []
    for window in found:
        bars = in_order(window)
        drawings.append(Drawing(window, bars, len(rows)))
        rows += [(window, bar) for bar in bars]
    kinds = {bar.kind for _, bar in rows}
    return Figure(
        id="timeline",
        title="What the nodes do in the first global rounds",
        pictures=tuple(
            Picture((str(number),), words(drawing.window), drawing.traces(), drawing.layout())
            # H-SGD first: there local aggregations are to be seen.
            for number, drawing in sorted(enumerate(drawings), key=lambda one: one[1].window.case.dashed)
        ),
        columns=_columns(rows),
        switches=(Switch("Case", tuple((str(number), window.case.name) for number, window in enumerate(found))),),
        note=_note(content, found),
        key=tuple((part, PART_COLOURS[part]) for kind, part in PARTS.items() if kind in kinds),
        height_px=min(940, max(260, 90 + round(_ROW_PX * max(drawing.num_rows for drawing in drawings)))),
        zoom=True,
    )


def _columns(rows: Sequence[tuple[Window, Bar]]) -> tuple[Column, ...]:
    bars = [bar for _, bar in rows]
    return (
        Column("case", "case", "text", [window.case.name for window, _ in rows]),
        Column("seed", "seed", "count", [window.seed for window, _ in rows]),
        Column("node", "node", "text", [bar.node for bar in bars]),
        Column("kind", "kind", "text", [bar.kind for bar in bars]),
        Column("start_s", "from", "seconds", [bar.start_s for bar in bars]),
        Column("end_s", "to", "seconds", [bar.end_s for bar in bars]),
        # In whole nanoseconds, which the times are made of: a difference of floats has more digits than it knows.
        Column("duration_s", "duration", "seconds", [round(bar.end_s - bar.start_s, 9) for bar in bars]),
        Column("iteration", "until iteration", "count", [bar.iteration for bar in bars]),
        Column("steps", "steps", "count", [bar.steps for bar in bars]),
        Column("bytes", "bytes", "bytes", [bar.bytes for bar in bars]),
        Column("peer", "with, or waiting for", "text", [bar.peer for bar in bars]),
    )


def _note(content: Content, found: Sequence[Window]) -> str:
    shown = {window.case.index for window in found}
    cases = content.cases[:MOST_CASES]
    notes = [_NOTE]
    if missing := [case.name for case in cases if case.index not in shown]:
        notes.append(f"Nothing was recorded of {listed(missing)}.")
    if len(cases) < len(content.cases):
        notes.append(f"These are the first {len(cases)} of {len(content.cases)} cases.")
    return " ".join([*notes, "hsgd-emu export and hsgd-emu trace write the whole timeline."])


def words(window: Window) -> str:
    """Say what happens in the first global round, and what is shown."""
    seconds = window.received_s.get(window.first_end)
    round_ = "its first global round" + (f" ({duration(seconds)})" if seconds is not None else "")
    parts = [
        f"In {round_} {shortened(window.case.name, 40)} aggregates {_aggregations(window)}.",
        *_longest_wait(window),
    ]
    if not window.full:
        parts.append("Only what touches the global server was kept (timeline: rounds).")
    if window.mixes:
        parts.append("A hub goes on when its neighbours' models are there: there is no global aggregation.")
    if window.case.traffic is not None and len(window.case.traffic.schedule.stages) > 1:
        parts.append("The case has phases; these are rounds of the first.")
    num = window.num_rounds
    rounds = f"the first {num} rounds" if num > 1 else "the first round" if num else "the beginning of the first round"
    nodes = sum(not place.rest for place in window.places)
    some = f", {nodes} of {window.num_nodes:,} nodes" if nodes < window.num_nodes else ""
    return " ".join([*parts, f"Shown: {rounds} of seed {window.seed}, {duration(window.end_s)}{some}."])


def _aggregations(window: Window) -> str:
    """Return how often the classes of local servers aggregate, from above to below."""
    nums: dict[str, list[int]] = {}
    for server, num in reversed(window.aggregations.items()):
        if server != window.root:
            nums.setdefault(class_of(server), []).append(num)
    local: dict[str, list[str]] = {}
    for name, found in nums.items():
        local.setdefault(_times(found), []).append(f"{'each ' * (len(found) > 1)}{shortened(name, 30)}")
    together = "with neighbours once" if window.mixes else "once globally"
    return listed([*(f"{times} at {listed(names)}" for times, names in local.items()), together])


def _times(nums: Sequence[int]) -> str:
    if min(nums) < max(nums):
        return f"{min(nums)} to {max(nums)} times"
    return {1: "once", 2: "twice"}.get(nums[0], f"{nums[0]:,} times")


def _longest_wait(window: Window) -> list[str]:
    """Say how the worker spends its time that waits the longest, the first of several."""
    workers = {node: spent for node, spent in window.spent_s.items() if node not in window.aggregations}
    if not window.full or not workers:
        return []
    node, spent = max(workers.items(), key=lambda item: round(item[1].get("wait", 0.0), 9))
    compute, waits = spent.get("compute", 0.0), spent.get("wait", 0.0)
    transfers = spent.get("upload", 0.0) + spent.get("download", 0.0)
    rest = f"computes for {duration(compute)} and sends and receives for {duration(transfers)}"
    name = shortened(node, 30)
    return [f"{name} waits the longest, {duration(waits)}; it {rest}." if waits else f"No worker waits; {name} {rest}."]


# --- the rows ---------------------------------------------------------------------------------------

MOST_NODES = 40
MOST_ROUNDS = 3
MOST_ACTIVITIES = 48
"""Of one node: of more than one round, as many as can be told apart on a phone."""
_NO_MORE = 2**62


class Bar(NamedTuple):
    """An activity; of compute, those that touch are one. iteration: the last; steps: of compute only."""

    node: str
    kind: str
    start_s: float
    end_s: float
    iteration: int
    steps: int | None
    bytes: int
    peer: str


_Limits = tuple[str, int, int, int]
"""Case, seed and two rowids: the rows of one trial lie from the lower one on, round after round; those of others may
lie between."""
_WITHIN = '"case" = ? AND seed = ? AND rowid >= ? AND rowid < ?'


@dataclass(frozen=True)
class Window:
    """The first global rounds of one trial, of as many nodes as can be shown."""

    case: Case
    seed: int
    first_end: int
    """The iteration of the first global aggregation."""
    places: tuple[Place[str], ...]
    """The nodes shown, depth first in the aggregation tree."""
    num_nodes: int
    bars: tuple[Bar, ...]
    end_s: float
    num_rounds: int
    """Whole ones; 0: a part of the first."""
    received_s: dict[int, float]
    """By iteration of the global aggregations shown, and of the first: when the last worker holds the new model."""
    full: bool
    """False: only what touches the global server was kept."""
    aggregations: dict[str, int] = field(repr=False)
    """By server: how often it aggregates in the first round."""
    spent_s: dict[str, dict[str, float]] = field(repr=False)
    """By node and kind: seconds in the first round."""

    @property
    def root(self) -> str:
        return self.places[0].node

    @property
    def mixes(self) -> bool:
        """Whether hubs mix with neighbours, and the global server does nothing."""
        return self.case.traffic is not None and self.case.traffic.schedule.graph is not None


def windows(cases: Sequence[Case], most_bars: int) -> Iterator[Window]:
    """Yield for each case that has rows the window of its first seed that has."""
    for case in cases:
        for trial in case.run.trials:
            if trial.case == case.own_name and (found := _Trial.of(case, trial.seed)):
                yield found.window(most_bars)
                break


@dataclass(frozen=True)
class _Trial:
    """One trial that has at least one global round in the table."""

    case: Case
    seed: int
    low: int
    iteration: int
    num_rounds: int

    @classmethod
    def of(cls, case: Case, seed: int) -> _Trial | None:
        """Return the trial, or None where nothing is recorded of it."""
        connection, trial = case.run.connection, (case.own_name, seed)
        done = connection.execute('SELECT iteration, round FROM trials WHERE "case" = ? AND seed = ?', trial).fetchone()
        low = _first_row(connection, (*trial, 0, _NO_MORE)) if done[1] else None
        if low is None:
            return None
        return cls(case, seed, low, *done)

    def _end_of(self, number: int) -> int:
        """Return the iteration at which a round ends."""
        traffic = self.case.traffic  # where the run file cannot be read, rounds are taken to be alike
        return traffic.schedule.end_of(number) if traffic else number * self.iteration // self.num_rounds

    def _limits(self, num_rounds: int) -> _Limits:
        """Return where the rows of the first rounds lie."""
        begin = (self.case.own_name, self.seed, self.low)
        beyond = f"AND iteration > {self._end_of(num_rounds)}"
        end = _first_row(self.case.run.connection, (*begin, _NO_MORE), beyond)
        return (*begin, _NO_MORE if end is None else end)

    @cached_property
    def _first(self) -> _Limits:
        return self._limits(1)

    def _select(self, what: str, limits: _Limits, rest: str, *values: Any) -> list[Any]:
        sql = f"SELECT {what} FROM timeline WHERE {_WITHIN} {rest}"
        return self.case.run.connection.execute(sql, (*limits, *values)).fetchall()

    def window(self, most_bars: int) -> Window:
        """Return as many first rounds as fit."""
        parent, period_of = self._tree()
        places = self._places(parent)
        shown = [place.node for place in places if not place.rest]
        bars, end_s, num_rounds = self._bars(shown, period_of, most_bars)
        full = bool(self._select("1", self._first, "AND kind = 'compute' LIMIT 1"))
        received_s = self._received(max(1, num_rounds), full)
        sums = self._select("node, kind, sum(end_s - start_s)", self._first, "GROUP BY node, kind ORDER BY min(rowid)")
        spent_s: dict[str, dict[str, float]] = {}
        for node, kind, seconds in sums:
            spent_s.setdefault(node, {})[kind] = seconds
        counts = self._select("node, count(*)", self._first, "AND kind = 'aggregate' GROUP BY node ORDER BY min(rowid)")
        return Window(
            case=self.case,
            seed=self.seed,
            first_end=self._end_of(1),
            places=tuple(places),
            num_nodes=len(parent) + 1,
            bars=tuple(bars),
            end_s=max([end_s, *(received_s.values() if num_rounds else ())]),
            num_rounds=num_rounds,
            received_s=received_s,
            full=full,
            aggregations=dict(counts),
            spent_s=spent_s,
        )

    def _tree(self) -> tuple[dict[str, str], dict[str, int]]:
        """Return the server that aggregates each node, and every how many iterations; all nodes receive each model."""
        receives = "AND kind = 'download' GROUP BY node ORDER BY min(rowid)"
        found = self._select("node, peer, min(iteration)", self._first, receives)
        experiment = self.case.run.experiment
        order = experiment.topology.index if experiment else {}
        if experiment and self.case.traffic and self.case.traffic.schedule.graph is not None:
            # Hubs receive nothing from the global server, which stands above them all the same.
            nodes, hubs = experiment.topology.nodes, self.case.traffic.schedule.graph.hubs
            found += [(nodes[hub].name, nodes[0].name, self._end_of(1)) for hub in hubs]
        found.sort(key=lambda row: order.get(row[0], len(order)))
        return {node: peer for node, peer, _ in found}, {node: period for node, _, period in found}

    def _places(self, parent: dict[str, str]) -> list[Place[str]]:
        children: dict[str, list[str]] = {}
        for node, server in parent.items():
            children.setdefault(server, []).append(node)
        root = next(server for server in children if server not in parent)
        return outline(root, lambda node: children.get(node, ()), class_of, MOST_NODES)

    def _bars(self, nodes: Sequence[str], period_of: dict[str, int], most_bars: int) -> tuple[list[Bar], float, int]:
        """Return the bars, the end of what is shown, and how many whole rounds that is."""
        # A round more than is shown: a fast worker is at work on it while a slow one still receives.
        limits = self._limits(MOST_ROUNDS + 1)
        marks = ", ".join("?" * len(nodes))
        rest = f"AND node IN ({marks}) ORDER BY rowid LIMIT {2 * most_bars}"
        rows = self._select("node, kind, start_s, end_s, iteration, bytes, peer", limits, rest, *nodes)
        ends = [0, *self._round_ends(rows, 2 * most_bars)]
        num_rounds = max(i for i, num in enumerate(ends) if num <= most_bars and (i <= 1 or _are_few(rows[:num])))
        if num_rounds:
            end_s = max(row[3] for row in rows[: ends[num_rounds]])
        else:
            rows = rows[:most_bars]
            end_s = max(row[2] for row in rows)
        rows = [row for row in rows if row[2] < end_s or row[3] <= end_s]
        return list(_merged(rows, nodes, period_of)), end_s, num_rounds

    def _round_ends(self, rows: Sequence[Any], limit: int) -> Iterator[int]:
        """Yield after how many rows each of the first rounds is over, as far as it was read as a whole."""
        stage = self.case.traffic.schedule.stages[0] if self.case.traffic else None
        # Who aggregates whom is drawn from the first round.
        alike = self.num_rounds if stage is None or stage.end is None else stage.num_rounds(stage.end)
        for number in range(1, min(MOST_ROUNDS, self.num_rounds, alike) + 1):
            end = sum(row[4] <= self._end_of(number) for row in rows)
            if end < limit:
                yield end

    def _received(self, num_rounds: int, full: bool) -> dict[int, float]:
        """Return when the last worker holds each global model; by the curve where workers' rows were not kept."""
        ends = [self._end_of(number) for number in range(1, num_rounds + 1)]
        if not full:
            rows = self.case.seeds.get(self.seed, [])
            return {row.iteration: row.time_s for row in rows if row.iteration <= ends[-1]}
        rest = f"AND kind = 'download' AND iteration IN ({', '.join('?' * len(ends))}) GROUP BY iteration"
        return dict(self._select("iteration, max(end_s)", self._limits(MOST_ROUNDS), rest, *ends))


def _first_row(connection: sqlite3.Connection, limits: _Limits, rest: str = "") -> int | None:
    sql = f"SELECT rowid FROM timeline WHERE {_WITHIN} {rest} ORDER BY rowid LIMIT 1"
    row = connection.execute(sql, limits).fetchone()
    return None if row is None else int(row[0])


def _are_few(rows: Sequence[Any]) -> bool:
    return max(Counter(row[0] for row in rows).values()) <= MOST_ACTIVITIES


def _merged(rows: Sequence[Any], nodes: Sequence[str], period_of: dict[str, int]) -> Iterator[Bar]:
    """Yield the rows node by node as bars; where transfers take no time, compute that goes on at once is one bar."""
    place = {node: i for i, node in enumerate(nodes)}
    ordered = sorted(rows, key=lambda row: (place[row[0]], row[1], row[2], row[3]))
    for (node, kind), group in groupby(ordered, key=lambda row: row[:2]):
        steps = period_of.get(node) if kind == "compute" else None
        bar: Bar | None = None
        for row in group:
            new = Bar._make((*row[:5], steps, *row[5:]))
            if bar is not None and steps is not None and bar.steps is not None and bar.end_s == new.start_s:
                new = new._replace(start_s=bar.start_s, steps=bar.steps + steps)
            elif bar is not None:
                yield bar
            bar = new
        assert bar is not None
        yield bar


def class_of(node: str) -> str:
    """Return the class that a node's name ends with the number in (`worker-3`: worker)."""
    return re.sub(r"-\d+$", "", node)


# --- the marks --------------------------------------------------------------------------------------

PARTS = {
    "compute": "compute",
    "upload": "upload",
    "download": "download",
    "aggregate": "aggregation",
    "wait": "waiting",
}
"""What each kind of row is called in `PART_COLOURS`."""
_LABEL = 16
_GROUP_GAP = 0.4
_HEIGHTS = {"wait": 0.34}
"""Of bars; a row has 1. Who waits does nothing: it looks like less."""
_VERBS = {
    "compute": "computes %{hovertext} steps",
    "upload": "uploads to %{hovertext}",
    "download": "receives from %{hovertext}",
    "aggregate": "aggregates; %{hovertext} came last",
    "wait": "waits for %{hovertext}",
}
_TIMES = "<br>%{base:,.7~g} to %{x:,.7~g} s (%{customdata[1]:.3s}s)<br>iteration %{customdata[0]:,}<extra></extra>"
_MOMENT = "<br>at %{x:,.7~g} s, iteration %{customdata:,}<extra></extra>"


def in_order(window: Window) -> list[Bar]:
    """Return the bars kind by kind, the global server's aggregations last: a trace draws one part of the table."""
    kinds = list(PARTS)
    place = {row.node: number for number, row in enumerate(window.places) if not row.rest}

    def order(bar: Bar) -> tuple[float, ...]:
        is_global = bar.kind == "aggregate" and bar.node == window.root
        return kinds.index(bar.kind), is_global, bar.start_s, bar.end_s, place[bar.node]

    return sorted(window.bars, key=order)


class Drawing:
    """One picture; first: the row of the figure's table at which its bars begin."""

    def __init__(self, window: Window, bars: Sequence[Bar], first: int) -> None:
        self.window, self.bars, self.first = window, bars, first
        self._ys: list[float] = []
        """The place of each row, with a gap before every server."""
        self._last: dict[str, float] = {}
        """By server the place of the last row below it."""
        servers = {place.parent for place in window.places}
        above: list[str] = []
        y = -1.0
        for place in window.places:
            y += 1 + _GROUP_GAP * (place.depth > 0 and not place.rest and place.node in servers)
            self._ys.append(y)
            above = [*above[: place.depth], place.node]
            self._last.update(dict.fromkeys(above, y))
        self._row = {p.node: y for p, y in zip(window.places, self._ys, strict=True) if not p.rest}

    @property
    def num_rows(self) -> float:
        return self._ys[-1] + 1

    # --- traces -------------------------------------------------------------------------------------

    def traces(self) -> list[dict[str, Any]]:
        """Return the bars, one trace per kind, then the aggregations, which lie above them."""
        return [*self._bars(), *self._lines(), *self._moments()]

    def _part(self, kind: str) -> tuple[int, int]:
        """Return begin and end of a kind's bars."""
        places = [number for number, bar in enumerate(self.bars) if bar.kind == kind]
        return (places[0], places[-1] + 1) if places else (0, 0)

    def _bars(self) -> Iterator[dict[str, Any]]:
        for kind, part in PARTS.items():
            begin, end = self._part(kind)
            bars = self.bars[begin:end]
            if not bars:
                continue
            duration = self._ref("duration_s", begin, end)
            rows = {"y": [self._row[bar.node] for bar in bars], "width": _HEIGHTS.get(kind, 0.78)}
            about = self._ref("steps", begin, end) if kind == "compute" else self._names("peer", begin, end)
            texts = {"text": self._names("node", begin, end), "textposition": "none", "hovertext": about}
            data = Rows((self._ref("iteration", begin, end), duration))
            said = {"customdata": data, "hovertemplate": f"<b>%{{text}}</b> {_VERBS[kind]}{_size(bars)}{_TIMES}"}
            place = {"base": self._ref("start_s", begin, end), "x": duration, **rows}
            yield {**BARS, **place, "marker": flat(PART_COLOURS[part]), **texts, **said}

    def _lines(self) -> Iterator[dict[str, Any]]:
        """Yield a line per aggregation, from its server's row to the last row below it."""
        begin, end = self._part("aggregate")
        split = next((i for i in range(begin, end) if self.bars[i].node == self.window.root), end)
        for width, part in ((1.5, range(begin, split)), (3, range(split, end))):
            xs: list[float | None] = []
            ys: list[float | None] = []
            for bar in (self.bars[i] for i in part):
                xs += [bar.end_s, bar.end_s, None]
                ys += [self._row[bar.node] - 0.5, self._last[bar.node] + 0.5, None]
            line = {"color": PART_COLOURS["aggregation"], "width": width}
            if xs:
                yield {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "line": line, "hoverinfo": "skip"}

    def _moments(self) -> Iterator[dict[str, Any]]:
        """Yield a mark on the server's row at the end of each aggregation: most take no time at all."""
        begin, end = self._part("aggregate")
        bars = self.bars[begin:end]
        if bars:
            place = {"x": self._ref("end_s", begin, end), "y": [self._row[bar.node] for bar in bars]}
            texts = {"text": self._names("node", begin, end), "hovertext": self._names("peer", begin, end)}
            sizes = [13 if bar.node == self.window.root else 8 for bar in bars]
            shape = {"symbol": "diamond", "opacity": 1, "line": {"width": 0}}
            look = {"marker": {**shape, "size": sizes, "color": PART_COLOURS["aggregation"]}}
            said = {"hovertemplate": f"<b>%{{text}}</b> {_VERBS['aggregate']}{_MOMENT}"}
            data = {"customdata": self._ref("iteration", begin, end)}
            yield {**MARKS, "cliponaxis": False, **place, **texts, **data, **look, **said}

    def _ref(self, column: str, begin: int, end: int) -> Ref:
        return Ref(column, self.first + begin, self.first + end)

    def _names(self, column: str, begin: int, end: int) -> Ref | list[str]:
        """Return names as they stand in the table, unless one is too long or plotly would take it for markup."""
        names = [getattr(bar, column) for bar in self.bars[begin:end]]
        safe = [wrapped(name) for name in names]
        return self._ref(column, begin, end) if safe == names else safe

    # --- layout -------------------------------------------------------------------------------------

    def layout(self) -> dict[str, Any]:
        """Return rows from above to below, and the time from 0 to the end of what is shown."""
        end_s = self.window.end_s or 1e-9
        time = {"title": {"text": "emulated time (s)"}, "range": [0, end_s], "nticks": 7, "showgrid": False}
        labels = [self._label(place) for place in self.window.places]
        rows = {"range": [self.num_rows - 0.4, -0.6], "tickvals": self._ys, "ticktext": labels}
        rows |= {"showgrid": False, "fixedrange": True, "showline": False}
        # Ticks that are not seen keep the names away from the bars.
        rows |= {"ticks": "outside", "ticklen": 5, "tickcolor": "rgba(0,0,0,0)"}
        moments = [bar.end_s for bar in self.bars if bar.kind == "aggregate" and bar.node == self.window.root]
        frame = {"barmode": "overlay", "margin": {"l": 8, "r": 16, "t": 24, "b": 8}}
        axes = {"xaxis": {**AXIS, **time}, "yaxis": {**AXIS, **rows}}
        ends = [_received(t) for t in self.window.received_s.values() if t <= end_s]
        return {**frame, **axes, "shapes": ends, "annotations": [_global(t) for t in moments]}

    def _label(self, place: Place[str]) -> str:
        if place.rest:
            return f"<i>{plotly_text(rest_label(place.rest, class_of, 10))}</i>"
        name = plotly_text(shortened(place.node, _LABEL))
        return f"<b>{name}</b>" if place.node in self.window.aggregations else name


def _size(bars: Sequence[Bar]) -> str:
    """Return what each of the transfers sends: all trials of a run send models of one size."""
    sizes = {bar.bytes for bar in bars}
    return f": {bytes_in_words(sizes.pop())}" if len(sizes) == 1 and 0 not in sizes else ""


def _received(time_s: float) -> dict[str, Any]:
    line = {"width": 1.5, "dash": "4px,3px", "color": PART_COLOURS["compute"]}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": time_s, "x1": time_s, "y0": 0, "y1": 1, "line": line}


def _global(time_s: float) -> dict[str, Any]:
    place = {"x": time_s, "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "center"}
    return {**place, "text": "global", "showarrow": False, "font": {"size": 12}}
