"""Published times change nothing that is learned: trials, studies and plans are those of the run without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsgd_emu.experiment import load_experiment
from hsgd_emu.study.planning.candidates import variants
from hsgd_emu.study.sweep.study_file import load_study, study_data
from hsgd_emu.study.training.wanted import resources, wanted

RUN = """
name: two
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
profiles: {near: {rtt_s: 0.05}, far: {rtt_s: 0.1}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 100}
cases: [{name: "P=5",  period: 5}, {name: "G=20 I=5",  periods: [20, 5]}]
targets: {test_accuracy: [0.5]}
"""
PUBLISHED = "published: {source: Them, times: [{case: P=5, time_s: 673.5}]}\n"
STUDY = """
name: others
run: ../two.yaml
axes: [{name: far, rtt_s: far, values: [0.1, 1]}]
cases: {P: [10], G: [20], I: [10]}
targets: {test_accuracy: [0.4]}
"""
ONE_LEVEL = "levels: [{name: worker, count: 4, uplink: near}]\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(RUN + PUBLISHED)
    return path


def test_the_same_trial_is_wanted_with_and_without(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text(RUN)
    given = resources("cpu")
    keys = [wanted(load_experiment(path), "P=5", 1, given).key for path in (run, tmp_path / "plain.yaml")]
    assert keys[0] == keys[1]


def test_a_study_with_other_cases_and_targets_leaves_them_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "others.yaml").write_text(STUDY)
    study = load_study(tmp_path / "studies" / "others.yaml")
    assert study.experiment.published is None
    assert "published" not in study_data(study)["run"]


def test_a_plan_on_another_topology_leaves_them_out(run: Path, tmp_path: Path) -> None:
    (tmp_path / "flat.yaml").write_text(ONE_LEVEL)
    own, flat = variants(run, topologies=[str(tmp_path / "flat.yaml")])
    assert own.experiment.published is not None
    assert flat.experiment.published is None
