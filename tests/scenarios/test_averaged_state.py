"""Momentum that is averaged travels with the models: messages are larger, on both clocks and in what is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hsgd_emu.results.read import RunResults
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime

RUN = """
name: averaged
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
profiles: {near: {latency_s: 0.001, bandwidth_bps: 1.0e+6, model: raw}, far: {rtt_s: 0.3}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: 5, iterations: 16}
message_bytes: 1000
cases:
  - {name: plain, periods: [8, 4]}
  - {name: keep, periods: [8, 4], train: {momentum: 0.9, state: keep}}
  - {name: momentum, periods: [8, 4], train: {momentum: 0.9, state: average}}
  - {name: adam, periods: [8, 4], train: {optimizer: adam, state: average}}
"""
COPIES = {"plain": 1, "keep": 1, "momentum": 2, "adam": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("averaged")
    (path / "run.yaml").write_text(RUN)
    run(path / "run.yaml", path / "out", device="cpu", threads=1, jobs=1)
    return path


@pytest.mark.parametrize(("case", "copies"), COPIES.items())
def test_time_and_bytes_are_those_of_so_many_models(folder, case, copies):
    curve = RunResults(folder / "out").curve
    last = curve[curve["case"] == case].iloc[-1]
    # 4 uploads of each worker and 2 of each site; a raw message of n bytes takes 1 ms and 8 n bits at 1 Mbit/s.
    assert last.uploaded_bytes == last.downloaded_bytes == 1000 * copies * (4 * 6 + 2 * 2)
    # In each of two rounds: 8 steps, near exchanges after 4 and after 8, one far.
    assert last.time_s == pytest.approx(2 * (8 * 0.01 + 2 * 2 * (0.001 + 0.008 * copies) + 0.3), abs=1e-9)


def test_timed_again_it_is_as_a_fresh_run(folder):
    sets = ["profiles.near.bandwidth_bps=3.0e+5", "profiles.far.rtt_s=0.1"]
    retime(folder / "out", folder / "retimed", sets)
    again, before = RunResults(folder / "retimed"), RunResults(folder / "out")
    fresh = run(folder / "run.yaml", folder / "fresh", device="cpu", threads=1, jobs=1, sets=sets)
    for table in ("curve", "timeline"):
        pd.testing.assert_frame_equal(getattr(again, table), getattr(fresh, table), check_exact=True)
    assert not np.allclose(again.curve["time_s"], before.curve["time_s"])
