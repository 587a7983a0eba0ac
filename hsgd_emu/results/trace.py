"""A run's timeline as a trace that Perfetto and chrome://tracing open: JSON in Chrome's Trace Event Format.

A trial is a process. A node has a track for what it does itself (compute, aggregate, wait) and one for its transfers;
what overlaps goes to a further track of that node, for viewers drop slices that overlap. Tracks stand in the order of
the aggregation tree, depth first. The curve's figures are counters, at the moment the round is over. An aggregation
that costs nothing is a slice of no length, which viewers mark.

Times are integer nanoseconds written as microseconds with three decimals: exact up to about 100 days, as the table.
Not modelled: arrows from a transfer to the aggregation that it feeds; a slice's arguments name the peer.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, groupby
from pathlib import Path
from typing import Any, TextIO, TypeVar

from hsgd_emu.atomic import refuse_foreign, replacing_text
from hsgd_emu.errors import ConfigError, listed, nearest, unwritable
from hsgd_emu.metrics import METRICS
from hsgd_emu.results.folder import TRACE_FILE, mixing_cases, read_environment, read_run_file
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.tables import connect_to_read, curve_rows, select, trial_rows
from hsgd_emu.units import stored_ns

T = TypeVar("T")
MANY_EVENTS = 1_000_000
"""More of them, some 140 MB, are slow in the viewers."""
_TRANSFERS = ("upload", "download")
_MOST_ROUNDS = 2**31
_MARK = '"otherData":{"generator":"hsgd_emu"}'  # in every trace that we write, by which it is known as ours


@dataclass(frozen=True)
class TraceSummary:
    """What a trace holds. num_events: slices and counter values; num_tracks: of slices."""

    path: Path
    num_trials: int
    num_events: int
    num_tracks: int
    only_global: bool
    """`timeline: rounds` recorded only what touches the global server."""
    num_unfinished: int
    """Trials that still go on, or were stopped: the trace has their rounds so far."""

    def lines(self) -> list[str]:
        """Return what to tell the user: where it is, how much, what is not in it, and how to look."""
        trials = f"{self.num_trials} trial{'s' * (self.num_trials != 1)}"
        lines = [f"Trace:  {self.path}", f"{self.num_events:,} events on {self.num_tracks:,} tracks of {trials}."]
        if self.only_global:
            lines.append("Only what touches the global server was recorded (timeline: rounds).")
        if self.num_unfinished:
            lines.append(f"Trials not finished: {self.num_unfinished}; the trace has their rounds so far.")
        if self.num_events > MANY_EVENTS:
            lines.append("That is much for a viewer in a browser: --case, --seed and --rounds choose less.")
        return [*lines, "Open it in https://ui.perfetto.dev or chrome://tracing"]


def write_trace(
    folder: Path,
    out: Path | None = None,
    cases: Sequence[str] = (),
    seeds: Sequence[int] = (),
    rounds: int | None = None,
    force: bool = False,
) -> TraceSummary:
    """Write the timeline of the run in `folder` to `out` (default: its trace.json); the run may still be going on.

    Rows are streamed: what is held is a few numbers per track.

    Args:    cases, seeds: only these (default: all).  rounds: only the first ones, each up to a global aggregation.
             force: overwrite a file that is no trace of ours.
    Raises:  ConfigError: the folder holds no run, there is no such case or seed, nothing of it was recorded, or
             `out` cannot be written.
    """
    path = out or folder / TRACE_FILE
    refuse_foreign(path, _MARK, force)
    with contextlib.closing(connect_to_read(folder)) as connection:
        connection.execute("BEGIN")  # one snapshot, while the run may go on
        status = {trial.key: trial.status for trial in trial_rows(connection)}
        _check_selection(list(status), cases, seeds, rounds)
        chosen = [key for key in status if key.case in (cases or [key.case]) and key.seed in (seeds or [key.seed])]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_text(path) as file:
                trace = _Trace(file, chosen)
                if rounds is not None:
                    mix = mixing_cases(read_run_file(folder))
                    ends = {(key.case, key.seed): _end_of(connection, key, rounds, key.case in mix) for key in chosen}
                    connection.create_function("end_of_rounds", 2, lambda *trial: ends[trial])
                trace.write(connection, *_condition(cases, seeds, rounds))
                _check_found(folder, trace.found, cases)
        except OSError as error:
            raise unwritable(path, error) from error
    only_global = read_run_file(folder).get("timeline") == "rounds"
    num_unfinished = sum(status[key] != "finished" for key in chosen)
    return TraceSummary(path, len(trace.found), trace.num_events, trace.num_tracks, only_global, num_unfinished)


class _Trace:
    """The events on their way into the file."""

    def __init__(self, file: TextIO, trials: Sequence[TrialKey]) -> None:
        self._file = file
        self._pid = {key: pid for pid, key in enumerate(trials, start=1)}
        # No number stands for two things: Perfetto takes the thread with its process's number for the main one.
        self._tids = count(len(trials) + 1)
        self._separator = "\n"
        self.num_events = self.num_tracks = 0
        self.found: list[TrialKey] = []

    def write(self, connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> None:
        """Write all events of the rows that meet the condition."""
        self._file.write(f'{{{_MARK},"displayTimeUnit":"ms","traceEvents":[')
        with _closing(select(connection, "timeline", where, values)) as rows:
            for key, activities in groupby(rows, key=lambda row: TrialKey(row.case, row.seed)):
                self.found.append(key)
                pid, name = self._pid[key], _text(f"{key.case}, seed {key.seed}")
                self._event(f'"ph":"M","name":"process_name","pid":{pid},"args":{{"name":{name}}}')
                self._event(f'"ph":"M","name":"process_sort_index","pid":{pid},"args":{{"sort_index":{pid}}}')
                self._slices(pid, activities)
        with _closing(curve_rows(connection, where, values)) as curve:
            for key, row in curve:
                self._counters(self._pid[key], row)
        self._file.write("\n]}\n")

    def _event(self, text: str) -> None:
        self._file.write(f"{self._separator}{{{text}}}")
        self._separator = ",\n"

    def _slices(self, pid: int, rows: Iterator[Any]) -> None:
        tracks = _Tracks(self._tids)
        for row in rows:
            start_ns, end_ns = stored_ns(row.start_s), stored_ns(row.end_s)
            tid, kind = tracks.place(row, start_ns, end_ns), _text(row.kind)
            args = f'"iteration":{row.iteration}'
            if row.kind in _TRANSFERS:
                args += f',"bytes":{row.bytes}'
            if row.peer:
                args += f',"peer":{_text(row.peer)}'
            self._event(
                f'"ph":"X","name":{kind},"cat":{kind},"pid":{pid},"tid":{tid},'
                f'"ts":{_us(start_ns)},"dur":{_us(end_ns - start_ns)},"args":{{{args}}}'
            )
            self.num_events += 1
        for place, (tid, name) in enumerate(tracks.in_order()):
            of_track = f'"pid":{pid},"tid":{tid},"args":'
            self._event(f'"ph":"M","name":"thread_name",{of_track}{{"name":{_text(name)}}}')
            self._event(f'"ph":"M","name":"thread_sort_index",{of_track}{{"sort_index":{place}}}')
            self.num_tracks += 1

    def _counters(self, pid: int, row: CurveRow) -> None:
        for metric in METRICS:
            value = row.metrics[metric]
            # A loss that went to infinity is no number in JSON: a gap, as where there is none.
            if value is not None and math.isfinite(value):
                time = f'"ts":{_us(stored_ns(row.time_s))}'
                self._event(f'"ph":"C","name":"{metric}","pid":{pid},{time},"args":{{"value":{value!r}}}')
                self.num_events += 1


class _Tracks:
    """Which track of its node an activity goes to: the first one that is free. No two slices of a track overlap,
    whatever order they come in, for a track only ever goes on after its last slice."""

    def __init__(self, tids: Iterator[int]) -> None:
        self._tids = tids
        self._ends_ns: dict[tuple[str, bool], dict[int, int]] = {}
        """By node and whether for transfers: the end of the last slice on each track."""
        self._parent: dict[str, str] = {}

    def place(self, row: Any, start_ns: int, end_ns: int) -> int:
        """Return the number of the track that takes this activity."""
        is_transfer = row.kind in _TRANSFERS
        if is_transfer:
            self._parent[row.node] = row.peer
        tracks = self._ends_ns.setdefault((row.node, is_transfer), {})
        tid = next((tid for tid, last_ns in tracks.items() if last_ns <= start_ns), None)
        if tid is None:
            tid = next(self._tids)
        tracks[tid] = end_ns
        return tid

    def in_order(self) -> Iterator[tuple[int, str]]:
        """Yield number and name of every track: nodes as in the aggregation tree, a node's transfers below it."""
        for node in self._nodes():
            for is_transfer in (False, True):
                name = f"{node} transfers" if is_transfer else node
                for number, tid in enumerate(self._ends_ns.get((node, is_transfer), {}), start=1):
                    yield tid, name if number == 1 else f"{name} {number}"

    def _nodes(self) -> dict[str, None]:
        """Return the nodes, each after those that aggregate it. Workers come first of all in the table and in the order
        of the topology, so this is depth first."""
        nodes: dict[str, None] = {}
        for node, _ in self._ends_ns:
            way_up: dict[str, None] = {}
            at: str | None = node
            while at is not None and at not in nodes and at not in way_up:
                way_up[at] = None
                at = self._parent.get(at)
            nodes |= dict.fromkeys(reversed(way_up))
        return nodes


def _us(nanoseconds: int) -> str:
    """Return microseconds with all digits, and never an exponent."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


@lru_cache(maxsize=65536)
def _text(text: str) -> str:
    """Return a JSON string as all viewers read it: Perfetto refuses escaped surrogates, and has taken the quote after
    a backslash that ends a text for an escaped one."""
    return json.dumps(text, ensure_ascii=False).replace("\\\\", "\\u005c")


def _closing(rows: Iterator[T]) -> contextlib.closing[Generator[T, Any, Any]]:
    """Let go of a table's rows before the connection is closed, also where writing fails midway."""
    assert isinstance(rows, Generator)
    return contextlib.closing(rows)


def _end_of(connection: sqlite3.Connection, key: TrialKey, rounds: int, mixes: bool) -> int:
    """Return the iteration at which a trial's first rounds end: as many aggregations of the last server to have one.

    mixes: that is a hub, whose rounds end with its neighbours' models.
    """
    of_trial = 'FROM barriers WHERE "case" = ? AND seed = ?'
    last = f"AND server = (SELECT server {of_trial} ORDER BY rowid DESC LIMIT 1)"
    # A hub waits for its workers more often than for its neighbours.
    neighbours, trials = (f"AND waited_for IN (SELECT server {of_trial})", 3) if mixes else ("", 2)
    sql = f"SELECT iteration {of_trial} {last} {neighbours} ORDER BY rowid LIMIT ?"
    rows = connection.execute(sql, (*(trials * key), min(rounds, _MOST_ROUNDS)))
    return max((iteration for (iteration,) in rows), default=0)


def _condition(cases: Sequence[str], seeds: Sequence[int], rounds: int | None) -> tuple[str, list[Any]]:
    """Return the SQL condition on timeline and curve (`t`) beside their trial (`r`), and its values."""
    terms, values = [], [*cases, *seeds]
    for name, given in (("case", cases), ("seed", seeds)):
        if given:
            terms.append(f't."{name}" IN ({", ".join("?" * len(given))})')
    if rounds is not None:
        terms.append('t.iteration <= end_of_rounds(t."case", t.seed)')
    return " AND ".join(terms), values


def _check_selection(
    trials: Sequence[TrialKey], cases: Sequence[str], seeds: Sequence[int], rounds: int | None
) -> None:
    """Raise ConfigError where a case or a seed is not of this run, or `rounds` is none."""
    known_cases = list(dict.fromkeys(key.case for key in trials))
    known_seeds = list(dict.fromkeys(key.seed for key in trials))
    for case in cases:
        if case not in known_cases:
            hint = nearest(case, known_cases) or f"; cases are {listed(known_cases)}"
            raise ConfigError.of(f"--case {case}", "", f"the run has no such case{hint}")
    for seed in seeds:
        if seed not in known_seeds:
            raise ConfigError.of(f"--seed {seed}", "", f"the run has no such seed; seeds are {listed(known_seeds)}")
    if rounds is not None and rounds < 1:
        raise ConfigError.of(f"--rounds {rounds}", "", "is not a number of rounds, 1 or more")


def _check_found(folder: Path, found: Sequence[TrialKey], cases: Sequence[str]) -> None:
    """Raise ConfigError where there is nothing to see, in all or of one of the cases that were asked for."""
    missing = [case for case in dict.fromkeys(cases) if case not in {key.case for key in found}]
    if found and not missing:
        return
    what = f"of {listed(missing, 4)} " if missing else ""
    if read_run_file(folder).get("timeline") != "none":
        raise ConfigError.of(str(folder), "", f"no round {what}is over yet; there is a trace from the first one on")
    if read_environment(folder).get("timing_only"):
        how = "`hsgd-emu run FILE --timing-only --set timeline=full` records it"
    else:
        how = f"`hsgd-emu retime {folder} --out DIR --set timeline=full` records it, without training again"
    raise ConfigError.of(str(folder), "", f"no timeline was recorded (timeline: none); {how}")
