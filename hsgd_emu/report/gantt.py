"""The timeline as a picture: what every node does in the first global rounds, so that aggregations are seen."""

from __future__ import annotations

from collections.abc import Sequence

from hsgd_emu.report.content import Content
from hsgd_emu.report.figure import Column, Figure, Picture, Switch
from hsgd_emu.report.gantt_drawing import PARTS, Drawing, in_order
from hsgd_emu.report.gantt_rows import Bar, Window, class_of, windows
from hsgd_emu.report.looks import PART_COLOURS, shortened
from hsgd_emu.report.outline import duration
from hsgd_emu.report.sentences import listed

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
    return listed([*(f"{times} at {listed(names)}" for times, names in local.items()), "once globally"])


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
