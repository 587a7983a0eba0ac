"""TensorBoard's own reader finds in the event files what the curve table says: no point twice, none out."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.cli.tensorboard import with_tensorboard
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.metrics import METRICS
from hsgd_emu.results.folder import remove_run
from hsgd_emu.results.read import read_run
from hsgd_emu.results.tensorboard import SCALARS, RunEvents, case_folders, export_events
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.trials import Progress

from .conftest import CASES, KEYS, NewStore, commit, curve_row, write_trial

SMALL = """
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.5}, far: {rtt_s: {distribution: lognormal, median: 4, sigma: 0.3}}}
compute: {step_s: 1}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {iterations: 40}
cases: [{name: "a/b", periods: [10, 5]}, {name: local, period: 10}]
targets: {test_accuracy: [0.1]}
seeds: [1, 2]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two cases and two seeds, written with `--tensorboard` to `run`."""
    folder = tmp_path_factory.mktemp("tensorboard")
    (folder / "small.yaml").write_text(SMALL)
    run_small(folder, folder / "run")
    return folder


def run_small(folder: Path, out: Path, **options: Any) -> None:
    experiment = load_experiment(folder / "small.yaml")
    with with_tensorboard(Progress(), experiment, out) as progress:
        run_experiment(experiment, out, Options(**options), progress)


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard reads of one trial; every point is kept."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found


def assert_as_in_curve(run: Path, boards: Path, names: dict[str, str]) -> None:
    """Every tag has one point per row of the curve that is not null: its step, its time, its float32."""
    curve = read_run(run).curve
    for (case, seed), rows in curve.groupby(["case", "seed"]):
        trial = events(boards / names[case] / f"seed-{seed}")
        metrics = {metric: metric for metric in METRICS if rows[metric].notna().any()}
        for tag, column in (metrics | SCALARS).items():
            known = rows[rows[column].notna()]
            by_step = [(e.step, e.wall_time, np.float32(e.value)) for e in trial.Scalars(tag)]
            assert by_step == list(zip(known.iteration, known.time_s, known[column].astype("float32"), strict=True))
            if tag != "emulated_time_s":
                by_time = [(e.step, np.float32(e.value)) for e in trial.Scalars(f"by_time/{tag}")]
                assert by_time == [
                    (round(1000 * t), np.float32(v)) for t, v in zip(known.time_s, known[column], strict=True)
                ]
    assert len(list(boards.glob("*/*/*tfevents*"))) == len(curve.groupby(["case", "seed"]))


NAMES = {"a/b": "a_b", "local": "local"}


def test_events_of_a_run_that_went_on_are_its_curve(small):
    assert_as_in_curve(small / "run", small / "run/tensorboard", NAMES)
    # 40 iterations with a global period of 10.
    assert [e.step for e in events(small / "run/tensorboard/a_b/seed-2").Scalars("test_accuracy")] == [10, 20, 30, 40]


def test_export_of_a_run_that_exists_is_its_curve_again_and_again(small):
    for _ in range(2):
        done = CliRunner().invoke(
            app, ["export", str(small / "run"), "--format", "tensorboard", "--out", str(small / "boards")]
        )
        assert done.exit_code == 0, done.output
        assert done.stdout.splitlines()[:2] == [str(small / "boards/a_b/seed-1"), str(small / "boards/a_b/seed-2")]
        assert_as_in_curve(small / "run", small / "boards", NAMES)


def test_a_retimed_run_has_the_same_accuracies_at_other_times(small):
    retime(small / "run", small / "slower", scales=["far=2"])
    export_events(small / "slower", small / "slower_boards")
    assert_as_in_curve(small / "slower", small / "slower_boards", NAMES)
    before, after = (events(small / name / "local/seed-1") for name in ("run/tensorboard", "slower_boards"))
    assert [e.value for e in before.Scalars("test_accuracy")] == [e.value for e in after.Scalars("test_accuracy")]
    assert all(
        one.wall_time < other.wall_time
        for one, other in zip(before.Scalars("test_loss"), after.Scalars("test_loss"), strict=True)
    )


def test_resume_goes_on_with_the_events_without_doubles(small):
    run_small(small, small / "resumed", stop_at=20)
    stopped = small / "resumed/tensorboard/local/seed-1"
    assert [e.step for e in events(stopped).Scalars("test_accuracy")] == [10, 20]
    run_small(small, small / "resumed", resume=True)
    assert_as_in_curve(small / "resumed", small / "resumed/tensorboard", NAMES)


def test_a_run_begun_without_events_has_them_all_after_resume(small):
    experiment = load_experiment(small / "small.yaml")
    # Stopped half way; and finished, so that there is nothing left to go on with.
    for name, stop_at in (("late", 20), ("too_late", None)):
        run_experiment(experiment, small / name, Options(stop_at=stop_at))
        run_small(small, small / name, resume=True)
        assert_as_in_curve(small / name, small / name / "tensorboard", NAMES)


def test_a_killed_writer_leaves_whole_points_and_the_next_one_no_doubles(new_store: NewStore):
    with new_store() as store:
        killed = RunEvents(store.folder, CASES)
        killed.begin(KEYS[0])
        for number in (1, 2):
            row = curve_row(number, float(number), 0.5)
            commit(store, KEYS[0], row)
            killed.add(KEYS[0], row)
        trial = store.folder / "tensorboard/P=5/seed-1"
        # What it wrote is on disk already; nobody closes it.
        assert [e.step for e in events(trial).Scalars("test_accuracy")] == [50, 100]
        # The database has one round more than the events.
        commit(store, KEYS[0], curve_row(3, 3.0, 0.75))
        with contextlib.closing(RunEvents(store.folder, CASES)) as again:
            again.begin(KEYS[0])
            row = curve_row(4, 4.0, 0.875)
            commit(store, KEYS[0], row)
            again.add(KEYS[0], row)
        assert [(e.step, e.value) for e in events(trial).Scalars("test_accuracy")] == [
            *((50, 0.5), (100, 0.5), (150, 0.75), (200, 0.875)),
        ]
        killed.close()


def test_what_was_not_measured_has_no_point(new_store: NewStore):
    with new_store() as store:
        commit(store, KEYS[0], curve_row(1, 1.0, None, math.nan))
        commit(store, KEYS[0], curve_row(2, 2.0, 0.5, None))
        with contextlib.closing(RunEvents(store.folder, CASES)) as live:
            live.begin(KEYS[0])
            live.add(KEYS[0], curve_row(3, 3.0, None, math.nan))
    trial = events(store.folder / "tensorboard/P=5/seed-1")
    assert [e.step for e in trial.Scalars("test_accuracy")] == [100]
    assert {"test_loss", "train_loss", "by_time/test_loss"}.isdisjoint(trial.Tags()["scalars"])
    assert [(e.step, e.value) for e in trial.Scalars("emulated_time_s")] == [(50, 1.0), (100, 2.0), (150, 3.0)]
    assert [e.step for e in trial.Scalars("by_time/split/compute_s")] == [1000, 2000, 3000]


def test_folders_of_cases_are_safe_and_no_two_alike():
    names = case_folders(["P=5", "G=50 I=5,10", "a/b", "a:b", "A_B", "..", "é" * 100, "\\", " x. "])
    assert names["P=5"] == "P=5"
    assert names["G=50 I=5,10"] == "G=50 I=5,10"
    assert [names[case] for case in ("a/b", "a:b", "A_B")] == ["a_b", "a_b-2", "A_B-3"]
    assert (names[".."], names["\\"], names[" x. "]) == ("case", "_", "x")
    assert all(len(name.encode()) <= 124 for name in names.values())
    assert case_folders(["a-2", "a", "A", "a_2"]) == {"a-2": "a-2", "a": "a", "A": "A-3", "a_2": "a_2"}


def test_force_removes_the_events_and_nothing_else(small, tmp_path):
    run_small(small, tmp_path / "run")
    (tmp_path / "run/tensorboard/local/notes.txt").write_text("mine")
    remove_run(tmp_path / "run")
    left = sorted(str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert left == ["lock", "tensorboard/local/notes.txt"]
    assert not (tmp_path / "run/tensorboard/a_b").exists()


@pytest.mark.parametrize("command", ["run", "export"])
def test_without_the_package_nothing_is_begun_and_it_says_what_to_install(small, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    out = str(tmp_path / "out")
    args = {
        "run": ["run", str(small / "small.yaml"), "--out", out, "--tensorboard"],
        "export": ["export", str(small / "run"), "--format", "tensorboard", "--out", out],
    }
    done = CliRunner().invoke(app, args[command])
    assert done.exit_code == 2
    assert "pip install 'hsgd-emu[tensorboard]'" in done.output
    assert not (tmp_path / "out").exists()


def test_export_of_no_run_is_bad_input(tmp_path, new_store: NewStore):
    with pytest.raises(ConfigError, match="is no folder"):
        export_events(tmp_path / "nowhere", tmp_path / "out")
    with new_store() as store:
        write_trial(store, KEYS[0], [(1.0, 0.5)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        export_events(store.folder, tmp_path / "file")
    # Trials that have not begun have no folder.
    assert export_events(store.folder, tmp_path / "out") == [tmp_path / "out/P=5/seed-1"]


def test_the_run_commands_option(small, tmp_path, monkeypatch):
    monkeypatch.setattr("hsgd_emu.cli.runs.write_report_of", lambda folder, progress: folder / "report.html")
    done = CliRunner().invoke(app, ["run", str(small / "small.yaml"), "--out", str(tmp_path / "run"), "--tensorboard"])
    assert done.exit_code == 0, done.output
    assert_as_in_curve(tmp_path / "run", tmp_path / "run/tensorboard", NAMES)


KILLED = """
import sys
from pathlib import Path
from hsgd_emu.cli.tensorboard import with_tensorboard
from hsgd_emu.experiment import load_experiment
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.trials import Progress

class Slow(Progress):
    def round(self, key, record):
        print(key.case, key.seed, record.iteration, flush=True)
        if (key.case, record.iteration) == ("local", 20):
            sys.stdin.read()

experiment = load_experiment(sys.argv[1])
with with_tensorboard(Slow(), experiment, Path(sys.argv[2])) as progress:
    run_experiment(experiment, Path(sys.argv[2]), Options(timing_only=True), progress)
"""


def test_a_run_killed_with_9_goes_on_without_doubles(small, tmp_path):
    args = [sys.executable, "-c", KILLED, str(small / "small.yaml"), str(tmp_path / "run")]
    process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "local 1 20\n":
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run_small(small, tmp_path / "run", resume=True, timing_only=True)
    trial = events(tmp_path / "run/tensorboard/local/seed-1")
    assert [e.step for e in trial.Scalars("emulated_time_s")] == [10, 20, 30, 40]
    assert "test_accuracy" not in trial.Tags()["scalars"]
    assert len(list((tmp_path / "run/tensorboard").glob("*/*/*tfevents*"))) == 4
