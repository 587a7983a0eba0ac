"""What the timeline of one trial's first global rounds shows, read from the table `timeline` with limits."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

from hsgd_emu.report.content import Case
from hsgd_emu.report.outline import Place, outline

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


class _Limits(NamedTuple):
    """The rows of one trial lie at rowids from `low`, round after round; other trials' may lie between."""

    case: str
    seed: int
    low: int
    high: int


_WITHIN = '"case" = ? AND seed = ? AND rowid >= ? AND rowid < ?'


@dataclass(frozen=True)
class Window:
    """The first global rounds of one trial, of as many nodes as can be shown."""

    case: Case
    seed: int
    first_end: int
    """The iteration of the first global aggregation."""
    """Iterations of a global round."""
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
        low = _first_row(connection, _Limits(*trial, 0, _NO_MORE)) if done[1] else None
        if low is None:
            return None
        return cls(case, seed, low, *done)

    def _end_of(self, number: int) -> int:
        """Return the iteration at which a round ends."""
        traffic = self.case.traffic  # where the run file cannot be read, rounds are taken to be alike
        return traffic.schedule.end_of(number) if traffic else number * self.iteration // self.num_rounds

    def _limits(self, num_rounds: int) -> _Limits:
        """Return where the rows of the first rounds lie."""
        all_of_it = _Limits(self.case.own_name, self.seed, self.low, _NO_MORE)
        end = _first_row(self._connection, all_of_it, f"AND iteration > {self._end_of(num_rounds)}")
        return all_of_it._replace(high=_NO_MORE if end is None else end)

    @property
    def _connection(self) -> sqlite3.Connection:
        return self.case.run.connection

    @cached_property
    def _first(self) -> _Limits:
        return self._limits(1)

    def _select(self, what: str, limits: _Limits, rest: str, *values: Any) -> list[Any]:
        sql = f"SELECT {what} FROM timeline WHERE {_WITHIN} {rest}"
        return self._connection.execute(sql, (*limits, *values)).fetchall()

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
        found = self._select(
            "node, peer, min(iteration)", self._first, "AND kind = 'download' GROUP BY node ORDER BY min(rowid)"
        )
        order: dict[str, int] = {}
        if self.case.run.experiment is not None:
            order = self.case.run.experiment.topology.index
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
        for number in range(1, min(MOST_ROUNDS, self.num_rounds) + 1):
            end = sum(row[4] <= self._end_of(number) for row in rows)
            if end < limit:
                yield end

    def _received(self, num_rounds: int, full: bool) -> dict[int, float]:
        """Return when the last worker holds each global model; by the curve where workers' rows were not kept."""
        ends = [self._end_of(number) for number in range(1, num_rounds + 1)]
        if not full:
            return {
                row.iteration: row.time_s for row in self.case.seeds.get(self.seed, []) if row.iteration <= ends[-1]
            }
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
