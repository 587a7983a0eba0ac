"""Run files as text, the engine on them, and the comparison with the recursion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import read_text
from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.experiment import Experiment, build_experiment
from oracle.maxplus import Round, recursion

MESSAGE_BYTES = 1000


def run_data(
    topology: dict[str, Any],
    cases: list[dict[str, Any]],
    iterations: int,
    compute: Any = None,
    profiles: dict[str, Any] | None = None,
    **train: Any,
) -> dict[str, Any]:
    """Return a run file's data; `compute` is the cost of a step."""
    data: dict[str, Any] = {"name": "check", "topology": topology, "model": "softmax_regression"}
    data["train"] = {"iterations": iterations, **train}
    data["cases"] = cases
    if compute is not None:
        data["compute"] = {"step_s": compute}
    if profiles:
        data["profiles"] = profiles
    return data


def experiment_of(data: dict[str, Any] | str) -> Experiment:
    """Return the checked experiment of a run file's data or text."""
    text = data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False)
    return build_experiment(draft_run(read_text(text, "run.yaml", Path())))


def plan_of(experiment: Experiment, case: int = 0, seed: int = 1, message_bytes: int = MESSAGE_BYTES) -> Plan:
    schedule = experiment.schedules[case]
    return experiment.plan(schedule, experiment.routes(schedule, message_bytes), message_bytes, seed)


def engine(
    experiment: Experiment, case: int = 0, seed: int = 1, message_bytes: int = MESSAGE_BYTES
) -> tuple[list[RoundRecord], str]:
    """Return every round of a trial as the engine reports it, and the hash of its events."""
    records: list[RoundRecord] = []
    plan = plan_of(experiment, case, seed, message_bytes)
    digest = emulate(plan, Operations(), records.append, "full")
    return records, digest


def as_rounds(records: list[RoundRecord]) -> list[tuple[Any, ...]]:
    """Return the engine's records as plain tuples."""
    return [
        (
            record.iteration,
            record.time_ns,
            record.aggregated_ns,
            tuple(record.split),
            [tuple(row) for row in record.activities],
            sorted(tuple(barrier) for barrier in record.barriers),
            record.waits_ns,
        )
        for record in records
    ]


def from_recursion(rounds: list[Round]) -> list[tuple[Any, ...]]:
    """Return the recursion's rounds as the same tuples."""
    return [(r.iteration, r.time.ns, r.aggregated.ns, tuple(r.time), r.rows, r.barriers, r.waits) for r in rounds]


def assert_engine_is_recursion(experiment: Experiment, case: int = 0, seed: int = 1) -> list[RoundRecord]:
    """Hold the engine against the recursion to the nanosecond: times, splits, rows, blame and waits."""
    records, _ = engine(experiment, case, seed)
    expected = from_recursion(recursion(experiment, case, seed, MESSAGE_BYTES))
    for got, want in zip(as_rounds(records), expected, strict=True):
        names = ("iteration", "time_ns", "aggregated_ns", "split", "rows", "barriers", "waits")
        for name, one, other in zip(names, got, want, strict=True):
            assert one == other, f"iteration {got[0]}: {name}"
    return records


def rows_of(experiment: Experiment, record: RoundRecord, *nodes: str) -> list[tuple[str, str, int, int, str]]:
    """Return (node, kind, start, end, peer) of the rows of these nodes (default: all), in microseconds.

    Microseconds, so that whole milliseconds and seconds both read well; a scenario has nothing finer.
    """
    names = [node.name for node in experiment.topology.nodes]
    rows = []
    for row in record.activities:
        assert row.start_ns % 1000 == 0
        assert row.end_ns % 1000 == 0
        if not nodes or names[row.node] in nodes:
            peer = names[row.peer] if row.peer >= 0 else ""
            rows.append((names[row.node], row.kind, row.start_ns // 1000, row.end_ns // 1000, peer))
    return rows


def waits_of(experiment: Experiment, record: RoundRecord) -> dict[str, int]:
    """Return by node how long it waited in this round, in microseconds."""
    return {experiment.topology.nodes[node].name: ns // 1000 for node, ns in record.waits_ns.items()}


def barriers_of(experiment: Experiment, record: RoundRecord) -> list[tuple[str, int, int, str, str, int]]:
    """Return (server, iteration, ready, waited for, link, slack) of the barriers in order, in microseconds."""
    names = [node.name for node in experiment.topology.nodes]
    return [
        (names[b.server], b.iteration, b.ready_ns // 1000, names[b.waited_for], b.link, b.slack_ns // 1000)
        for b in record.barriers
    ]
