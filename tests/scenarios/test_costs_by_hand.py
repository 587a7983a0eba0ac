"""Profiles and participation by hand: splits of an RTT, two bandwidths, measured samples, workers that sit out."""

from __future__ import annotations

import numpy as np
from oracle.drive import assert_engine_is_recursion, barriers_of, engine, experiment_of, rows_of, waits_of

from hsgd_emu.rng import stream

MS, S = 1_000, 1_000_000
NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000

TWO_WAYS = """
name: two_ways
topology:
  root:
    children:
      - {name: split, uplink: {rtt_s: 0.1, up_share: 0.3}}
      - {name: radio, uplink: {latency_s: 0.01, bandwidth_bps: {up: 1e6, down: 8e6}, model: raw}}
compute: {step_s: 0.001}
model: softmax_regression
train: {iterations: 1}
cases: [{name: "P=1", period: 1}]
"""


def test_up_share_and_two_bandwidths() -> None:
    # split: up 30, down 70. radio: 1000 bytes are 8000 bits: up 10 + 8 = 18, down 10 + 1 = 11.
    # 1 + 30 = 31 beats 1 + 18 = 19; down at 101 and 42.
    experiment = experiment_of(TWO_WAYS)
    (record,) = assert_engine_is_recursion(experiment)
    assert (record.aggregated_ns, record.time_ns) == (31 * NS_PER_MS, 101 * NS_PER_MS)
    assert barriers_of(experiment, record) == [("root", 1, 31 * MS, "split", "split--root", 12 * MS)]
    assert rows_of(experiment, record, "radio") == [
        ("radio", "compute", 0, 1 * MS, ""),
        ("radio", "upload", 1 * MS, 19 * MS, "root"),
        ("radio", "wait", 19 * MS, 31 * MS, "root"),
        ("radio", "download", 31 * MS, 42 * MS, "root"),
    ]


def test_a_message_twice_as_large_takes_twice_as_long_on_the_wire() -> None:
    # 2000 bytes: up 10 + 16 = 26, down 10 + 2 = 12; an rtt_s does not depend on the size.
    (record,), _ = engine(experiment_of(TWO_WAYS), message_bytes=2000)
    uploads = {row.node: row.end_ns - row.start_ns for row in record.activities if row.kind == "upload"}
    downloads = {row.node: row.end_ns - row.start_ns for row in record.activities if row.kind == "download"}
    assert uploads == {1: 30 * NS_PER_MS, 2: 26 * NS_PER_MS}
    assert downloads == {1: 70 * NS_PER_MS, 2: 12 * NS_PER_MS}
    assert {row.bytes for row in record.activities if row.kind in ("upload", "download")} == {2000}


def test_an_odd_rtt_is_halved_to_the_even_nanosecond_and_none_is_lost() -> None:
    # 3 ns: up 1.5 -> 2, down 1. 5 ns: up 2.5 -> 2, down 3.
    text = TWO_WAYS.replace("0.1, up_share: 0.3", "0.000000003").replace("latency_s: 0.01", "rtt_s: 5e-9")
    text = text.replace(", bandwidth_bps: {up: 1e6, down: 8e6}, model: raw", "")
    (record,) = assert_engine_is_recursion(experiment_of(text))
    ways = {(r.node, r.kind): r.end_ns - r.start_ns for r in record.activities if r.kind in ("upload", "download")}
    assert ways == {(1, "upload"): 2, (1, "download"): 1, (2, "upload"): 2, (2, "download"): 3}


MEASURED = """
name: measured
topology:
  levels: [{name: worker, count: 3, uplink: {rtt_s: {samples: [0.1, 0.2, 0.4]}}}]
compute: {step_s: {samples: [0.001, 0.003]}}
model: softmax_regression
train: {iterations: 600}
cases: [{name: "P=2", period: 2}]
"""


def test_measured_samples_are_drawn_from_each_ones_own_stream() -> None:
    # The recursion in four lines: hold = max over workers(hold + two steps + r/2) + r/2. 300 rounds are more than one
    # block of 256 draws, for the RTTs and (twice) for the steps.
    rtt_ms, step_ms = np.array([100, 200, 400]), np.array([1, 3])
    rtts_WR, steps_WRS = [], []
    for number in range(3):
        name = f"worker-{number}"
        links, steps = stream(1, "rtt", f"{name}--root", name), stream(1, "compute", name)
        rtts_WR.append(np.concatenate([rtt_ms[links.integers(3, size=256)] for _ in range(2)])[:300])
        blocks = [step_ms[steps.integers(2, size=256)] for _ in range(3)]
        steps_WRS.append(np.concatenate(blocks)[:600].reshape(300, 2))
    hold_W = np.zeros(3, np.int64)
    experiment = experiment_of(MEASURED)
    records = assert_engine_is_recursion(experiment)
    for number, record in enumerate(records):
        half_W = np.array(rtts_WR)[:, number] // 2
        ready = np.max(hold_W + np.array(steps_WRS)[:, number].sum(axis=1) + half_W)
        hold_W = ready + half_W
        assert record.aggregated_ns == ready * NS_PER_MS
        assert record.time_ns == hold_W.max() * NS_PER_MS


PARTIAL = """
name: partial
topology:
  root:
    children:
      - {name: quick, uplink: {up_s: 1, down_s: 1}}
      - {name: slow, uplink: {up_s: 1, down_s: 5}}
compute: {step_s: 1}
model: softmax_regression
train: {iterations: 3, participation: 0.5}
cases: [{name: "P=1", period: 1}]
"""
SEED = 15
"""With it `quick` takes part in the first two periods and `slow` in the third."""


def test_who_takes_part_is_the_stream_of_the_server() -> None:
    draws = stream(SEED, "participation", "root")
    assert [int(draws.choice(2, 1, replace=False)[0]) for _ in range(3)] == [0, 0, 1]


def test_a_worker_that_sits_out_receives_every_model_and_may_come_late() -> None:
    # 1: quick computes to 1, uploads to 2; released at 2. quick holds it at 3; slow, idle from 0, at 2 + 5 = 7.
    # 2: quick 3 + 1 + 1 = 5; released at 5, quick at 6. slow still receives the model before: it goes on at 7 -> 12.
    # 3: slow 12 + 1 + 1 = 14; released at 14; slow at 19, quick waits from 6 and holds it at 15.
    experiment = experiment_of(PARTIAL)
    records = assert_engine_is_recursion(experiment, seed=SEED)
    assert [record.aggregated_ns // NS_PER_S for record in records] == [2, 5, 14]
    assert [record.time_ns // NS_PER_S for record in records] == [7, 12, 19]
    # quick's step and upload, then all of slow's downloads; from 7 on the chain is slow's own.
    assert [tuple(ns // NS_PER_S for ns in record.split) for record in records] == [(1, 6, 0), (1, 11, 0), (2, 17, 0)]
    assert [row[:4] for record in records for row in rows_of(experiment, record, "slow")] == [
        ("slow", "wait", 0, 2 * S),
        ("slow", "download", 2 * S, 7 * S),
        ("slow", "download", 7 * S, 12 * S),
        ("slow", "compute", 12 * S, 13 * S),
        ("slow", "upload", 13 * S, 14 * S),
        ("slow", "download", 14 * S, 19 * S),
    ]
    assert [waits_of(experiment, record) for record in records] == [{"slow": 2 * S}, {}, {"quick": 8 * S}]
