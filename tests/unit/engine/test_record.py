"""What is kept of a trial, and its hash."""

from __future__ import annotations

import pytest

from hsgd_emu.engine.record import Activity, Barrier, Keep, Recorder, RoundRecord, Split
from hsgd_emu.engine.schedule import Phase


def finished(recorder: Recorder, number: int) -> RoundRecord:
    return recorder.finish(RoundRecord(number, 10 * number, 0, 0, Split(), None))


def filled(keep: Keep) -> Recorder:
    recorder = Recorder(keep)
    local, whole, next_one = Phase(1, 0, 5, 1), Phase(0, 0, 10, 1), Phase(1, 10, 11, 2)
    # Iteration 11 belongs to round 2, and is recorded before the last row of round 1.
    recorder.activity(3, "compute", 7, 9, next_one)
    recorder.activity(2, "upload", 5, 8, whole, 100, 0)
    recorder.activity(1, "wait", 5, 7, local, peer=2)
    recorder.activity(1, "wait", 8, 12, whole, peer=0)
    recorder.activity(0, "aggregate", 8, 8, whole, peer=1)
    recorder.barrier(Barrier(1, 5, 7, 2, "l", 2), local)
    recorder.barrier(Barrier(0, 10, 8, 1, "l", 0), whole)
    return recorder


def test_rows_go_to_the_round_their_iteration_lies_in_and_are_sorted() -> None:
    recorder = filled("full")
    first = finished(recorder, 1)
    assert [(row.start_ns, row.node) for row in first.activities] == [(5, 1), (5, 2), (8, 0), (8, 1)]
    assert first.activities[1] == Activity(2, "upload", 5, 8, 10, 100, 0)
    assert [barrier.server for barrier in first.barriers] == [1, 0]
    assert finished(recorder, 2).activities == [Activity(3, "compute", 7, 9, 11, 0, -1)]


@pytest.mark.parametrize(("keep", "nodes", "servers"), [("rounds", [2, 0, 1], [0]), ("none", [], [])])
def test_less_is_kept_on_demand(keep: Keep, nodes: list[int], servers: list[int]) -> None:
    record = finished(filled(keep), 1)
    assert [row.node for row in record.activities] == nodes
    assert [barrier.server for barrier in record.barriers] == servers


@pytest.mark.parametrize("keep", ["full", "rounds", "none"])
def test_waits_are_added_up_per_node_whatever_is_kept(keep: Keep) -> None:
    recorder = filled(keep)
    assert finished(recorder, 1).waits_ns == {1: 2 + 4}
    assert finished(recorder, 2).waits_ns == {}


def test_the_hash_is_of_all_rows_in_order() -> None:
    digest = filled("full").digest()
    assert filled("none").digest() == digest
    one, other, phase = Recorder("none"), Recorder("none"), Phase(0, 0, 1, 1)
    for recorder, nodes in ((one, (1, 2)), (other, (2, 1))):
        for node in nodes:
            recorder.activity(node, "compute", 0, 1, phase)
    assert one.digest() != other.digest()
    other.activity(1, "download", 0, 1, phase)
    assert len({one.digest(), other.digest(), digest}) == 3


@pytest.mark.parametrize("field", range(7))
def test_every_field_of_a_row_counts(field: int) -> None:
    row = [1, "upload", 2, 3, 4, 5, 6]
    changed: list[int | str] = list(row)
    changed[field] = "download" if field == 1 else 99
    hashes = []
    for fields in (row, changed):
        recorder = Recorder("none")
        fields[4] = Phase(0, 0, fields[4], 1)  # type: ignore[call-overload, arg-type]
        recorder.activity(*fields)  # type: ignore[arg-type]
        hashes.append(recorder.digest())
    assert hashes[0] != hashes[1]


def test_a_split_adds_up_to_its_time() -> None:
    split = Split().computed(5).communicated(7).aggregated(1).computed(1)
    assert split == Split(6, 7, 1)
    assert split.time_ns == 14
