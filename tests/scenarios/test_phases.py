"""Cases in phases, learned: figures that another program found, re-timing, going on after a stop, the report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.report.content import gather
from hsgd_emu.report.sandwich import sandwich, sandwiches
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime

TREE = """
name: phases
topology:
  name: t
  levels:
    - {name: near_server, count: 2, uplink: far}
    - {name: worker, count: 5, uplink: near}
  links:
    - {between: [worker, root], profile: far}
profiles: {far: {rtt_s: 0.3}, near: {rtt_s: 0.02}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
message_bytes: 2600
"""
POST_LOCAL = (
    TREE
    + """
train: {batch_size: full, learning_rate: 0.5, iterations: 120, dtype: float64}
cases: [{name: c, phases: [{iterations: 20, period: 1}, {period: 10}]}]
"""
)
TWO_TREES = (
    TREE.replace("near: {rtt_s: 0.02}", "near: {rtt_s: {distribution: gamma, shape: 2, scale: 0.01}}")
    + """
train: {batch_size: 5, learning_rate: 0.1, iterations: 48, momentum: 0.9}
cases:
  - name: other tree
    phases: [{iterations: 8, period: 2}, {iterations: 16, periods: [8, 2], participation: 0.5}, {period: 12}]
  - {name: H-SGD, periods: [12, 4]}
  - {name: P=4, period: 4}
  - {name: P=12, period: 12}
seeds: [1, 2]
"""
)
TABLES = ("curve", "timeline", "barriers", "waits", "trials")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def learned(text: str, out: str, stop_at: int | None = None, *sets: str) -> RunResults:
    Path("run.yaml").write_text(text, encoding="utf-8")
    options = Options("cpu", engine="usual", resume=True, threads=1, stop_at=stop_at)
    run_experiment(load_experiment("run.yaml", sets), Path(out), options)
    return read_run(out)


def assert_same(one: RunResults, other: RunResults) -> None:
    for table in TABLES:
        frames = [getattr(run, table).drop(columns=["wall_s", "engine"], errors="ignore") for run in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_post_local_sgd_has_the_figures_of_another_program() -> None:
    curve = learned(POST_LOCAL, "out").curve.set_index("iteration")
    assert list(curve.index) == [*range(1, 21), *range(30, 121, 10)]
    losses = {1: 2.2098781122470452, 16: 1.312825582813449, 120: 0.8832440929035505}
    for iteration, loss in losses.items():
        assert curve.test_loss[iteration] == pytest.approx(loss, rel=1e-9)
    assert curve.test_accuracy[16] == pytest.approx(0.8444444444444444)
    assert curve.uploaded_bytes[120] == 780_000
    assert curve.time_s[120] == pytest.approx(120 * 0.004 + 30 * 0.3)


def test_stopped_in_every_phase_and_gone_on_with_is_as_never_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = learned(TWO_TREES, "whole")
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: False)
    for stop_at in (4, 8, 16, 24):
        stopped = learned(TWO_TREES, "out", stop_at)
        assert set(stopped.trials[stopped.trials.case == "other tree"].iteration) == {stop_at}
    assert_same(learned(TWO_TREES, "out"), whole)


def test_retimed_is_as_fresh_and_more_iterations_go_on() -> None:
    change = "profiles.far.rtt_s=0.01"
    before = learned(TWO_TREES, "one").curve
    assert_same(read_run(retime("one", "retimed", [change])), learned(TWO_TREES, "fresh", None, change))
    more = learned(TWO_TREES, "one", None, "train.iterations=60")
    assert more.curve[more.curve.iteration <= 48].reset_index(drop=True).equals(before)
    assert_same(more, learned(TWO_TREES, "longer", None, "train.iterations=60"))


def test_a_report_counts_what_is_sent_in_each_phase_and_holds_alike_cases_together_only() -> None:
    learned(TWO_TREES, "out")
    with gather([Path("out")]) as content:
        case = content.cases[0]
        assert case.traffic is not None
        # By worker: 4 + 2 exchanges over its link to the root; in the second phase 8 over its uplink, where 2 of 5
        # send and all receive.
        links = {link.link: (link.num_up, link.num_down) for link in case.traffic.links_until(48)}
        assert links["worker-0--root"] == (4 + 2, 4 + 2)
        assert links["worker-0--near_server-0"] == (8 * 0.4, 8)
        assert links["near_server-0--root"] == (2, 2)
        assert case.traffic.bytes_until(48) == case.points[-1].num_bytes
        assert [one.hsgd.name for one in sandwiches(content)] == ["H-SGD"]
        assert not case.dashed
        figure = sandwich(content)
        assert figure is not None
        assert figure.note.endswith("Without other tree (their rounds are not all alike).")
