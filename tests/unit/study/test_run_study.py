"""A study's times are those of a fresh run of each scenario, whatever happened on the way to them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import read_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.sweep import race
from hsgd_emu.study.sweep.run_study import StudyPlan, StudyProgress, plan_of_study, run_study
from hsgd_emu.study.sweep.store import TABLES, StudyResults, export_study, fixed_of, read_study
from hsgd_emu.study.sweep.wording import answers, result_tables

ROOT = Path(__file__).parents[3]
RUN = """\
name: base
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
  links: [{between: [worker, root], profile: far}]
profiles: {near: {rtt_s: 0.02}, far: {rtt_s: {distribution: lognormal, median: 0.2, sigma: 0.3}}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {iterations: 60, learning_rate: 0.1}
cases: [{name: P=4, period: 4}, {name: H, periods: [20, 4]}]
targets: {test_accuracy: [0.81, 0.99]}
seeds: [1, 2]
timeline: none
"""
STUDY = """\
name: small
run: run.yaml
axes:
  - {name: far, scale: far, values: [0.5, 8]}
  - {name: near, rtt_s: near, values: [0.01, 0.3]}
  - {name: rate, set: train.learning_rate, values: [0.1, 0.05]}
"""
SETS = {
    "far": "profiles.far.rtt_s.median={:.17g}",
    "near": "profiles.near={{rtt_s: {}}}",
    "rate": "train.learning_rate={}",
}


class Recorder(StudyProgress):
    def __init__(self) -> None:
        self.plan: StudyPlan | None = None
        self.trained: list[str] = []
        self.timed_to: list[int] = []

    def planned(self, plan: StudyPlan) -> None:
        self.plan = plan

    def end(self, wanted: object) -> None:
        self.trained.append(str(wanted))

    def timed(self, num: int, num_scenarios: int) -> None:
        self.timed_to.append(num)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "run.yaml").write_text(RUN)
    (folder / "small.yaml").write_text(STUDY)
    run_study(folder / "small.yaml", folder / "small", library=folder / "trials", device="cpu", jobs=1)
    return folder


@pytest.fixture
def small(place: Path) -> StudyResults:
    return read_study(place / "small")


def studied(place: Path, *sets: str, out: Path, text: str = STUDY) -> StudyResults:
    (out.parent / "s.yaml").write_text(text.replace("run.yaml", str(place / "run.yaml")))
    return read_study(run_study(out.parent / "s.yaml", out, sets, library=place / "trials", device="cpu", jobs=1))


def times_of_run(folder: Path) -> pd.DataFrame:
    """What a study should have of a run: its targets, and where the time until then went."""
    found = read_run(folder)
    curve = found.curve[["case", "seed", "iteration", "communication_s", "compute_s"]]
    times = found.targets.drop(columns="round").merge(curve, how="left", on=["case", "seed", "iteration"])
    return times.sort_values(["case", "seed", "metric", "target"], ignore_index=True)


def times_of_study(study: StudyResults, scenario: int) -> pd.DataFrame:
    times = study.times[(study.times.scenario == scenario) & (study.times.replication == 0)]
    return times.drop(columns=["scenario", "replication"]).sort_values(
        ["case", "seed", "metric", "target"], ignore_index=True
    )


def fresh(place: Path, out: Path, values: dict[str, float]) -> Path:
    changed = values | ({"far": 0.2 * values["far"]} if "far" in values else {})
    experiment = load_experiment(place / "run.yaml", [SETS[axis].format(value) for axis, value in changed.items()])
    return run_experiment(experiment, out, Options("cpu", engine="usual", threads=1))


def test_every_scenario_is_its_fresh_run(place: Path, small: StudyResults, tmp_path: Path) -> None:
    scenarios = small.scenarios.pivot(index="scenario", columns="axis", values="number")
    assert len(scenarios) == 8
    parents = {rate: fresh(place, tmp_path / str(rate), {"rate": rate}) for rate in (0.1, 0.05)}
    for scenario, row in scenarios.iterrows():
        values = dict(row)
        if scenario in (1, 6):
            folder = fresh(place, tmp_path / f"fresh{scenario}", values)
        else:
            sets = [SETS["near"].format(values["near"])]
            folder = retime(parents[values["rate"]], tmp_path / f"{scenario}", sets, [f"far={values['far']}"])
        pd.testing.assert_frame_equal(times_of_study(small, scenario), times_of_run(folder), check_exact=True)
    reached = small.times[small.times.target == 0.81]
    assert reached.time_s.notna().any()
    assert small.times[small.times.target == 0.99].time_s.isna().all()


def test_what_is_learned_once_is_found_again(place: Path, small: StudyResults, tmp_path: Path) -> None:
    # Two rates x two cases x two seeds, whatever the links are, and under other names of cases.
    assert small.trials.trial.nunique() == 8
    assert len(small.trials) == 8 * 2 * 2
    progress = Recorder()
    sets = ["axes.0.values=[3]", "cases=[{name: other, periods: {root: 20, site: 4}}]", "set={seeds: [2]}"]
    (tmp_path / "s.yaml").write_text(STUDY.replace("run.yaml", str(place / "run.yaml")))
    run_study(tmp_path / "s.yaml", tmp_path / "out", sets, library=place / "trials", device="cpu", progress=progress)
    assert progress.plan is not None
    assert (progress.plan.num_scenarios, progress.plan.num_trials) == (4, 4)
    assert (progress.plan.num_distinct, progress.plan.num_found) == (2, 2)
    assert progress.trained == []
    # The first scenario differs from one of the small study in the factor of far alone.
    assert set(read_study(tmp_path / "out").trials.trial) < set(small.trials.trial)


def test_the_plan_is_told_before(place: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY.replace("run.yaml", str(place / "run.yaml")))
    sets = ["set={seeds: [1, 3]}", "replications=3"]  # of the second seed nothing is learned, of the first all
    plan = plan_of_study(tmp_path / "s.yaml", sets, device="cpu", library=place / "trials", jobs=2)
    assert (plan.num_scenarios, plan.num_trials, plan.num_distinct, plan.num_found) == (8, 32, 8, 4)
    assert plan.training_wall_s is not None
    assert plan.training_wall_s > 0
    lines = plan.lines()
    assert lines[0] == "small: 8 scenarios (values of each axis: far: 2, near: 2, rate: 2)"
    assert lines[1].startswith("32 trials x 3 replications to re-time, ")
    assert lines[2] == "8 of them learn something different; 4 are in the library"
    assert lines[3].startswith("to train: 4 trials, 2 at a time, ")
    progress = Recorder()
    out = tmp_path / "out"
    sets[0] = "axes.2.values=[0.1]"  # learned already, so that nothing has to be tried out
    run_study(tmp_path / "s.yaml", out, sets, dry_run=True, device="cpu", library=place / "trials", progress=progress)
    assert progress.plan is not None
    assert progress.plan.retiming_wall_s is not None
    assert not out.exists()


def test_replications_are_of_the_network_alone(place: Path, small: StudyResults, tmp_path: Path) -> None:
    study = studied(place, "replications=3", out=tmp_path / "out")
    zero = study.times[study.times.replication == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(zero, small.times, check_exact=True)
    by_trial = study.times[study.times.target == 0.81].groupby(["scenario", "case", "seed"])
    assert (by_trial.iteration.nunique() == 1).all()  # learning is one and the same
    assert (by_trial.time_s.nunique() == 3).all()  # and the links draw anew
    assert set(study.summary.num) == {2 * 3}
    # Constant links: every replication, and here every seed's clock, is the same.
    sets = ("replications=3", "set={profiles.far: {rtt_s: 1}}", "axes.2.values=[0.1]")
    constant = studied(place, *sets, out=tmp_path / "constant")
    by_trial = constant.times[constant.times.target == 0.81].groupby(["scenario", "case", "seed"])
    assert (by_trial.time_s.nunique() == 1).all()
    assert set(constant.times.replication) == {0, 1, 2}


def test_summary_wins_and_best_are_of_the_times(small: StudyResults) -> None:
    for (scenario, target), times in small.times.groupby(["scenario", "target"]):
        medians = times.groupby("case").time_s.median()  # of two seeds that both reach it, or of none
        rows = small.summary[(small.summary.scenario == scenario) & (small.summary.target == target)]
        assert dict(zip(rows.case, rows.median_s, strict=True)) == pytest.approx(dict(medians), nan_ok=True)
        best = small.best[(small.best.scenario == scenario) & (small.best.target == target)]
        wins = small.wins[(small.wins.scenario == scenario) & (small.wins.target == target)]
        assert len(wins) == 2
        assert wins.probability.sum() == 1
        if target == 0.99:  # nobody reaches it
            assert best.empty
            assert set(wins.probability) == {0.5}
        else:
            assert list(best.case) == [medians.idxmin()]
            assert list(best.margin) == pytest.approx([medians.max() / medians.min()])


def test_at_a_crossover_the_best_case_changes(place: Path, tmp_path: Path) -> None:
    sets = ("set={profiles.far: {rtt_s: 1}}", "axes.0={name: far, rtt_s: far, values: {from: 0.001, to: 3, num: 4}}",
            "axes.2.values=[0.1]", "targets={test_accuracy: [0.81]}")  # fmt: skip
    study = studied(place, *sets, out=tmp_path / "out")
    crossings = study.crossovers[study.crossovers.axis == "far"]
    assert len(crossings) > 0
    for row in crossings.itertuples():
        fixed = fixed_of(row.fixed)
        assert set(fixed) == {"near", "rate"}
        for factor, case in ((0.998, row.below), (1.002, row.above)):
            values = {"near": fixed["near"], "far": row.value * factor / 0.2}
            sets = [SETS["near"].format(values["near"]), f"profiles.far={{rtt_s: {row.value * factor}}}"]
            experiment = load_experiment(place / "run.yaml", sets)
            folder = run_experiment(experiment, tmp_path / "r", Options("cpu", engine="usual", threads=1, force=True))
            summary = read_run(folder).summary()
            reached = summary[summary.target == 0.81].set_index("case").time_s
            assert reached.idxmin() == case
    assert any("wins over" in line for line in answers(tmp_path / "out"))


def test_the_reference_clock_agrees(place: Path, tmp_path: Path, small: StudyResults) -> None:
    (tmp_path / "s.yaml").write_text(STUDY.replace("run.yaml", str(place / "run.yaml")))
    library = place / "trials"
    found = read_study(run_study(tmp_path / "s.yaml", tmp_path / "out", clock="simpy", device="cpu", library=library))
    pd.testing.assert_frame_equal(found.times, small.times, check_exact=True)


# --- killed, and started again --------------------------------------------------------------------------

DEMO = """\
name: killed
run: demo
set:
  train.iterations: 100
  seeds: [1]
  targets: {test_accuracy: [0.3, 0.5]}
  # Not the digits: every process would import scikit-learn for them.
  data: {dataset: npz, folder: d.npz, partition: by_label}
axes:
  - {name: far, rtt_s: far, values: {from: 0.02, to: 2, num: 5, spacing: log}}
  - {name: near, rtt_s: near, values: [0.005, 0.02, 0.08]}
  - {name: step, set: compute.step_s, values: [0.001, 0.016]}
"""
SCRIPT = """
import os, sys
from hsgd_emu.study.sweep import race
from hsgd_emu.study.sweep.run_study import StudyProgress, run_study

class Killed(StudyProgress):
    count = 0
    def kill(self, when):
        self.count += 1
        if sys.argv[1] == when and self.count == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
    def end(self, wanted):
        self.kill("training")
    def timed(self, num, num_scenarios):
        self.count = 0 if num <= 8 else self.count
        self.kill("timing")

if __name__ == "__main__":
    race._MOST_PLANS = 8
    run_study("s.yaml", "out", library="trials", device="cpu", jobs=1, progress=Killed())
"""


def test_killed_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.yaml").write_text(DEMO)
    (tmp_path / "script.py").write_text(SCRIPT)
    y = np.arange(400) % 10
    x = (2 * np.eye(10)[y] + np.random.default_rng(1).normal(size=(400, 10))).astype(np.float32)
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    monkeypatch.setenv("HSGD_EMU_DATA", str(tmp_path))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(*kill: str) -> int:
        return subprocess.run([sys.executable, "script.py", *kill], cwd=tmp_path, env=environment).returncode

    def finished() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "trials").glob("*/run.sqlite")}

    assert start("training", "2") == -9
    before = finished()
    assert start("timing", "2") == -9
    after = finished()
    assert len(after) == 5
    # The two that were learned before the kill are as they were.
    assert sum(after[key] == stamp for key, stamp in before.items()) >= 2
    part = read_study(tmp_path / "out")
    assert part.times.scenario.nunique() == 16
    assert part.crossovers.empty
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(race, "_MOST_PLANS", 8)
        run_study("s.yaml", "out", library="trials", device="cpu")
    assert finished() == after
    again = read_study(tmp_path / "out")
    # As one that nobody killed, and that times all scenarios in one go.
    straight = read_study(run_study("s.yaml", "straight", library="trials", device="cpu"))
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(again, table), getattr(straight, table), check_exact=True)
    assert again.study == straight.study
    assert again.times.time_s.notna().any()
    assert not again.crossovers.empty
    assert len(again.times) == 30 * 5 * 2
    assert not (tmp_path / "out/study.sqlite-wal").exists()
    # Finished: nothing is left to do, and nothing is done.
    stamp = (tmp_path / "out/study.sqlite").stat().st_mtime_ns
    progress = Recorder()
    run_study("s.yaml", "out", library="trials", device="cpu", progress=progress)
    assert progress.timed_to == []
    assert (tmp_path / "out/study.sqlite").stat().st_mtime_ns == stamp


def test_what_is_there_is_kept_without_force(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    studied(place, out=out)
    with pytest.raises(ConfigError, match=r"the study there differs in axes; --force replaces it"):
        studied(place, "axes.0.values=[3]", out=out)
    studied(place, "description=In other words.", out=out)
    run_study(tmp_path / "s.yaml", out, ["axes.0.values=[3]"], force=True, library=place / "trials", device="cpu")
    assert len(read_study(out).scenarios) == 4 * 3
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="exists and holds no study"):
        run_study(tmp_path / "s.yaml", tmp_path / "thesis", force=True, library=place / "trials", device="cpu")
    trial = next((place / "trials").glob("*/run.sqlite")).parent
    with pytest.raises(ConfigError, match="holds a run, and this is a study"):
        run_study(tmp_path / "s.yaml", trial, force=True, library=place / "trials", device="cpu")
    with pytest.raises(ConfigError, match=r"has no study\.sqlite; right would be the folder that `hsgd-emu study`"):
        read_study(tmp_path / "thesis")


def test_a_study_begun_elsewhere_is_not_mixed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(race.Race, "run", _stop)
    with pytest.raises(KeyboardInterrupt):
        studied(place, out=out)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="begun otherwise: precision is bf16 and not fp32; --force begins it anew"):
        run_study(tmp_path / "s.yaml", out, library=place / "trials", device="cpu", precision="bf16")
    assert len(studied(place, out=out).times) == 8 * 2 * 2 * 2


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_export(place: Path, tmp_path: Path, small: StudyResults, format: str) -> None:
    paths = export_study(place / "small", format, tmp_path)
    assert sorted(path.stem for path in paths) == sorted(TABLES)
    read = pd.read_csv if format == "csv" else pd.read_parquet
    times = read(tmp_path / f"times.{format}")
    pd.testing.assert_frame_equal(times, small.times, check_dtype=False, check_exact=True)
    with pytest.raises(ConfigError, match="'xls' is not csv or parquet"):
        export_study(place / "small", "xls", tmp_path)


def test_tables_for_people(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    first, second = result_tables(place / "small")
    assert first.title == "time to 81% test accuracy"
    assert first.header == ("far", "near", "rate", "best case", "time", "next takes")
    assert len(first.rows) == 8
    assert first.rows[0][:3] == ("0.5", "0.01", "0.1")
    assert {row[3:] for row in second.rows} == {("-", "not reached", "-")}
    monkeypatch.setattr("hsgd_emu.study.sweep.wording.MOST_ROWS", 7)
    first, second = result_tables(place / "small")
    assert first.header == ("case", "best in", "median", "least-most")
    assert [row[0] for row in first.rows] == ["P=4", "H"]
    assert sum(int(row[1].split(" ")[0]) for row in first.rows) == 8
    assert {row[1:] for row in second.rows} == {("0 (0%)", "-", "not reached")}
    console = Console(width=100, file=(tmp_path / "out.txt").open("w"))
    console.print(first)
