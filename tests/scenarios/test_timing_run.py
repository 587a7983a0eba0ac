"""A whole run without training, by hand, read back as frames."""

from __future__ import annotations

import pytest

from hsgd_emu.results.read import RunResults
from hsgd_emu.run import run

TEXT = """
name: paper
topology:
  levels:
    - {name: site,   count: 2, uplink: far}
    - {name: worker, count: 5, uplink: near}
  links:
    - {between: [worker, root], profile: far}
profiles:
  near: {rtt_s: 0.05}
  far: {rtt_s: 0.3}
compute: {step_s: 0.004}
model: softmax_regression
message_bytes: 4242
train: {iterations: 100}
cases:
  - {name: "P=5", period: 5}
  - {name: "P=50", period: 50}
  - {name: "G=50 I=5", periods: [50, 5]}
  - {name: "G=50 I=5,10", periods: {root: 50, site-0: 5, site-1: 10}}
evaluation: {every_iterations: 25}
targets: {test_accuracy: [0.5]}
seeds: [1, 2]
timeline: full
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "paper.yaml").write_text(TEXT)
    found = run(folder / "paper.yaml", folder / "out", timing_only=True)
    assert isinstance(found, RunResults)
    return found


def times_ns(results: RunResults, case: str, column: str = "time_s") -> list[int]:
    rows = results.curve.query("case == @case and seed == 1")
    return [round(seconds * 1e9) for seconds in rows[column]]


def test_the_curve_has_the_times_computed_by_hand(results: RunResults) -> None:
    # P = 5: 5 * 4 + 300 = 320 ms a round; evaluated at iterations 25, 50, 75, 100, the rounds 5, 10, 15, 20.
    assert times_ns(results, "P=5") == [1_600_000_000, 3_200_000_000, 4_800_000_000, 6_400_000_000]
    # P = 50: 50 * 4 + 300 = 500 ms.
    assert times_ns(results, "P=50") == [500_000_000, 1_000_000_000]
    # G = 50, I = 5: 50 * 4 + 10 * 50 + 300 = 1000 ms; the root has it half a far and half a near RTT before.
    assert times_ns(results, "G=50 I=5") == [1_000_000_000, 2_000_000_000]
    assert times_ns(results, "G=50 I=5", "aggregated_s") == [825_000_000, 1_825_000_000]
    # The site with I = 10 pays only 5 near RTTs, and waits for the other at the root: nothing is won.
    assert times_ns(results, "G=50 I=5,10") == [1_000_000_000, 2_000_000_000]


def test_the_split_says_where_the_time_went(results: RunResults) -> None:
    row = results.curve.query("case == 'G=50 I=5' and seed == 2").iloc[-1]
    assert (row["round"], row["iteration"]) == (2, 100)
    assert (row["compute_s"], row["communication_s"], row["aggregation_s"]) == (0.4, 1.6, 0.0)
    parts = results.curve[["compute_s", "communication_s", "aggregation_s"]].sum(axis=1)
    assert ((parts - results.curve["time_s"]).abs() < 1e-9).all()


def test_timeline_and_waits_are_those_of_the_nodes(results: RunResults) -> None:
    rows = results.timeline.query("case == 'P=5' and seed == 1 and node == 'worker-3' and iteration <= 10")
    # 5 steps, half a far RTT up, half down, and again; all workers are equal, so nobody waits.
    assert list(zip(rows["kind"], rows["start_s"], rows["end_s"], rows["bytes"], rows["peer"], strict=True)) == [
        ("compute", 0.0, 0.02, 0, ""),
        ("upload", 0.02, 0.17, 4242, "root"),
        ("download", 0.17, 0.32, 4242, "root"),
        ("compute", 0.32, 0.34, 0, ""),
        ("upload", 0.34, 0.49, 4242, "root"),
        ("download", 0.49, 0.64, 4242, "root"),
    ]
    assert results.waits.query("case == 'P=5'").empty
    # site-1 (I = 10) has 5 near RTTs of 50 ms less on its way to the root, so it waits 250 ms there every round.
    slack = results.waits.query("case == 'G=50 I=5,10' and node == 'site-1' and seed == 1")
    assert list(slack["wait_s"]) == [0.25, 0.25]


def test_barriers_name_whom_the_root_waited_for(results: RunResults) -> None:
    rows = results.barriers.query("case == 'G=50 I=5,10' and seed == 1 and server == 'root'")
    assert (
        list(zip(rows["waited_for"], rows["link"], rows["slack_s"], strict=True))
        == [("site-0", "site-0--root", 0.25)] * 2
    )


def test_nothing_is_learned_and_no_target_is_reached(results: RunResults) -> None:
    assert results.curve[["train_loss", "test_loss", "test_accuracy"]].isna().all().all()
    assert results.targets["time_s"].isna().all()
    assert set(results.trials["status"]) == {"finished"}
    assert results.environment["timing_only"] is True


def test_constant_costs_are_the_same_for_every_seed(results: RunResults) -> None:
    hashes = results.trials.groupby("case")["timeline_hash"].nunique()
    assert (hashes == 1).all()
    assert results.trials["timeline_hash"].nunique() == 4
