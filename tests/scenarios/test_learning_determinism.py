"""The same file gives the same bits: twice, under any hash seed, and whatever other cases stand beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from hsgd_emu.run import run

RUN = """
name: same
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
profiles: {near: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}, far: {rtt_s: {samples: [0.1, 0.2, 0.4]}}}
compute: {step_s: {distribution: lognormal, median: 0.01, sigma: 0.5}}
data: {dataset: digits, partition: dirichlet, alpha: 0.5, grouping: random}
model: {name: mlp, hidden: [16]}
train: {batch_size: 5, learning_rate: 0.05, iterations: 40, momentum: 0.5, participation: 0.7}
cases:
  - {name: local, period: 10}
  - {name: hierarchical, periods: [20, 5]}
targets: {test_accuracy: [0.1]}
seeds: [1, 2]
"""
HASHES = ["case", "seed", "weights_hash", "timeline_hash"]


def results(folder: Path, text: str = RUN, name: str = "out"):
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return run(path, folder / name, device="cpu")


def assert_same(one, other) -> None:
    pd.testing.assert_frame_equal(one.trials[HASHES], other.trials[HASHES])
    for table in ("curve", "timeline", "targets", "barriers", "waits"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)


def test_the_same_run_twice(tmp_path):
    one, other = results(tmp_path), results(tmp_path, name="again")
    assert_same(one, other)
    assert len(set(one.trials.weights_hash)) == len(set(one.trials.timeline_hash)) == 4  # cases and seeds differ


def test_another_case_and_another_seed_change_no_other_trial(tmp_path):
    plain = results(tmp_path)
    another = "  - {name: another, periods: {root: 20, site-0: 2, site-1: 10}}\n  - {name: local,"
    more = results(tmp_path, RUN.replace("  - {name: local,", another).replace("[1, 2]", "[3, 1, 2]"), "more")
    assert len(more.trials) == 9
    for table in ("trials", "curve", "timeline", "targets"):
        frame, expected = getattr(more, table), getattr(plain, table)
        kept = frame[(frame.case != "another") & (frame.seed != 3)].reset_index(drop=True)
        columns = HASHES if table == "trials" else list(expected.columns)
        pd.testing.assert_frame_equal(kept[columns], expected[columns], check_exact=True)


def test_delays_do_not_change_what_is_learned(tmp_path):
    slower = RUN.replace("samples: [0.1, 0.2, 0.4]", "samples: [3, 9]").replace("sigma: 0.5", "sigma: 2.0")
    one, other = results(tmp_path), results(tmp_path, slower, "slower")
    assert one.trials.weights_hash.tolist() == other.trials.weights_hash.tolist()
    learned = ["case", "seed", "iteration", "train_loss", "test_loss", "test_accuracy"]
    pd.testing.assert_frame_equal(one.curve[learned], other.curve[learned], check_exact=True)
    assert (one.curve.time_s < other.curve.time_s).all()


def test_cases_of_a_seed_share_model_and_batches(tmp_path):
    # Alone, a case is the same as beside others; two names of one schedule learn the same.
    twice = RUN.replace("  - {name: local, period: 10}", "  - {name: a, period: 10}\n  - {name: b, period: 10}")
    trials = results(tmp_path, twice.replace("participation: 0.7", "participation: 1.0")).trials
    a, b = (trials[trials.case == case].weights_hash.tolist() for case in "ab")
    assert a == b


PROGRAM = """
import sys, hsgd_emu.run
results = hsgd_emu.run.run(sys.argv[1], sys.argv[2], device="cpu")
print(results.trials[["case", "seed", "weights_hash", "timeline_hash"]].to_json(orient="values"))
"""


def test_hash_seeds_change_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text(RUN)
    # Here it is another one, by chance or as it is set.
    environment = os.environ | {"PYTHONHASHSEED": "0" if os.environ.get("PYTHONHASHSEED") != "0" else "4242"}
    command = [sys.executable, "-c", PROGRAM, "run.yaml", "elsewhere"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == results(tmp_path).trials[HASHES].to_numpy().tolist()
