"""Training on this machine: nothing is learned twice, whatever is killed, and the bits are those of a plain run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsgd_emu.errors import ConfigError, Problem, RunError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.run import run
from hsgd_emu.study.training import executors
from hsgd_emu.study.training.executors import Reached, TrainingProgress, estimate_wall_s, fitted, train
from hsgd_emu.study.training.library import Learned, Library
from hsgd_emu.study.training.wanted import Wanted, resources, wanted
from hsgd_emu.trials import Progress

RUN = """
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.1}, far: {rtt_s: 0.3}}
compute: {step_s: 0.01}
data: {dataset: npz, folder: d.npz, partition: by_label, root: .}
model: {name: mlp, hidden: [8]}
train: {iterations: 24, momentum: 0.9}
cases: [{name: local, period: 4}, {name: H, periods: [12, 4]}]
seeds: [1, 2]
"""
# A network of one's own that notes who learns it, and can be told to misbehave then; elsewhere it is only tried.
NET = """
import multiprocessing, os, signal, time
from pathlib import Path
import torch

def make(input_shape, num_classes, notes, deaths=0, error="", wait_s=0.0):
    if multiprocessing.parent_process() is None:
        return torch.nn.Linear(input_shape[0], num_classes)
    notes = Path(notes)
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\\n")
    if len(set(notes.read_text().split())) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if error:
        raise ValueError(error)
    time.sleep(wait_s)
    return torch.nn.Linear(input_shape[0], num_classes)
"""
# No guard by __name__: a user's plain script.
SCRIPT = """
import sys
from hsgd_emu.experiment import load_experiment
from hsgd_emu.study.training.executors import TrainingProgress, train
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import resources, wanted

class Telling(TrainingProgress):
    def begin(self, wanted, learned):
        print("begin", wanted.label, flush=True)
    def round(self, wanted, reached):
        print("round", wanted.label, flush=True)
    def end(self, wanted):
        print("end", wanted.label, flush=True)

experiment, here = load_experiment(sys.argv[1]), resources("cpu")
trials = [wanted(experiment, case.name, seed, here) for case in experiment.cases for seed in experiment.seeds]
train(trials, Library(sys.argv[2]), jobs=1, progress=Telling())
"""


class Telling(TrainingProgress):
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.warnings: list[str] = []

    def begin(self, wanted: Wanted, learned: int) -> None:
        self.told.append(("begin", wanted.label, learned))

    def round(self, wanted: Wanted, reached: Reached) -> None:
        self.told.append(("round", wanted.label, reached.iteration))

    def end(self, wanted: Wanted) -> None:
        self.told.append(("end", wanted.label))

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    (tmp_path / "net.py").write_text(NET)
    # Not the digits: every process would import scikit-learn for them.
    x, y = np.random.default_rng(1).normal(size=(80, 6)).astype(np.float32), np.arange(80) % 4
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    return path


def all_of(path: Path, *sets: str, until: int | None = None) -> list[Wanted]:
    experiment, here = load_experiment(path, sets), resources("cpu")
    return [wanted(experiment, case.name, seed, here, until) for case in experiment.cases for seed in experiment.seeds]


def own(path: Path, options: str = "") -> str:
    return f"model={{name: net:make, options: {{notes: {path.parent / 'notes'}{options}}}}}"


def assert_is_the_run(trials: list[Wanted], got: dict[str, Learned], path: Path, *sets: str) -> None:
    whole = run(path, path.parent / "whole", sets=sets, device="cpu", threads=1, engine="usual")
    columns = zip(*(whole.trials[name] for name in ("case", "seed", "weights_hash")), strict=True)
    expected = {f"{case}, seed {seed}": weights_hash for case, seed, weights_hash in columns}
    assert {one.label: got[one.key].weights_hash for one in trials} == expected


def test_what_is_missing_is_learned_side_by_side_and_what_was_found_is_not(path, tmp_path):
    library, trials = Library(tmp_path / "library"), all_of(path)
    library.learn(trials[0], Progress(), lambda: None)
    found = library.find(trials[0])
    progress = Telling()
    # One that is wanted twice, once in part only, is learned once and as a whole.
    got = train([*all_of(path, until=12), *trials], library, jobs=2, progress=progress)
    assert got[trials[0].key] == found
    for one in trials[1:]:
        told = [event[0] for event in progress.told if event[1] == one.label]
        assert told == ["begin", *["round"] * (6 if "local" in one.label else 2), "end"]
    assert not [event for event in progress.told if event[1] == trials[0].label]
    assert_is_the_run(trials, got, path)
    again = Telling()
    assert train(trials, library, progress=again) == got
    assert again.told == []


def test_a_partial_trial_is_gone_on_with(path, tmp_path):
    library, progress = Library(tmp_path / "library"), Telling()
    (part,) = all_of(path, "seeds=[1]", "cases=[{name: local, period: 4}]", until=8)
    library.learn(part, Progress(), lambda: None)
    whole = replace(part, until=24)
    assert train([whole], library, progress=progress)[whole.key].finished
    rounds = [("round", "local, seed 1", iteration) for iteration in (12, 16, 20, 24)]
    assert progress.told == [("begin", "local, seed 1", 8), *rounds, ("end", "local, seed 1")]


def test_a_process_that_dies_is_replaced(path, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "MOST_DEATHS", 2)
    # Two processes are killed, the third learns.
    sets = (own(path, ", deaths: 2"), "cases=[{name: local, period: 4}]", "seeds=[1]")
    trials, progress = all_of(path, *sets), Telling()
    got = train(trials, Library(tmp_path / "library"), progress=progress)
    assert len(progress.warnings) == 2
    assert all("local, seed 1: its process died (exit code -9)" in text for text in progress.warnings)
    assert_is_the_run(trials, got, path, *sets)


def test_a_trial_whose_processes_all_die_is_named(path, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "MOST_DEATHS", 1)
    trials = all_of(path, own(path, ", deaths: 100"), "cases=[{name: local, period: 4}]", "seeds=[7]")
    with pytest.raises(RunError, match=r"local, seed 7: its process died .*, 2 times; where memory is short, fewer"):
        train(trials, Library(tmp_path / "library"))


def test_what_goes_wrong_in_training_comes_back_as_itself(path, tmp_path):
    trials = all_of(path, own(path, ", error: no such width"))
    with pytest.raises(ConfigError) as caught:
        train(trials, Library(tmp_path / "library"), jobs=1)
    (problem,) = caught.value.problems
    assert problem == Problem("local, seed 1", "model", problem.message)
    assert "'net:make' does not work on samples of shape (6,): ValueError: no such width" in problem.message


def test_jobs_must_be_some(path, tmp_path):
    with pytest.raises(ConfigError, match="--jobs 0"):
        train([], Library(tmp_path), jobs=0)


# --- killed and interrupted -----------------------------------------------------------------------------------


def start(path: Path, library: Path) -> subprocess.Popen[str]:
    script = path.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(path), str(library)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=path.parent,
        # Of those started in the background of a shell, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def read_until(process: subprocess.Popen[str], line: str, times: int = 1) -> None:
    for _ in range(times):
        while (text := process.stdout.readline()) != line:
            assert text, process.stderr.read()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in listed]


def wait_for_end(pids: list[int], most_s: float) -> None:
    end = time.monotonic() + most_s
    while any(Path(f"/proc/{pid}/stat").exists() and not is_zombie(pid) for pid in pids):
        assert time.monotonic() < end, f"still there: {pids}"
        time.sleep(0.05)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


@needs_proc
def test_killed_in_the_middle_and_started_again_nothing_finished_is_learned_again(path, tmp_path):
    path.write_text(RUN.replace("iterations: 24", "iterations: 800").replace(", {name: H, periods: [12, 4]}", ""))
    process = start(path, tmp_path / "library")
    # The first is finished, the second has begun.
    read_until(process, "end local, seed 1\n")
    read_until(process, "round local, seed 2\n", 5)
    pids = children_of(process)
    process.kill()
    process.communicate()
    # Nobody ended the process that learns; it notices at its next round.
    wait_for_end(pids, 20)
    library, trials = Library(tmp_path / "library"), all_of(path)
    finished, begun = library.find(trials[0]), library.progress_of(trials[1])
    assert finished is not None
    assert 0 < begun.iteration < 800
    database = library.folder_of(trials[0]) / "run.sqlite"
    changed_ns = database.stat().st_mtime_ns
    progress = Telling()
    got = train(trials, library, jobs=2, progress=progress)
    assert got[trials[0].key] == finished
    assert database.stat().st_mtime_ns == changed_ns
    assert ("begin", "local, seed 2", begun.iteration) in progress.told
    assert_is_the_run(trials, got, path)


@needs_proc
def test_ctrl_c_ends_all_processes_at_once_and_leaves_what_can_be_gone_on_with(path, tmp_path):
    # 30 s in each build: it must not be waited for.
    path.write_text(RUN.replace("{name: mlp, hidden: [8]}", own(path, ", wait_s: 30").partition("=")[2]))
    process = start(path, tmp_path / "library")
    read_until(process, "begin local, seed 1\n")
    while not (tmp_path / "notes").exists():
        assert process.poll() is None
        time.sleep(0.05)
    pids = children_of(process)
    assert pids
    begin = time.monotonic()
    for pid in (process.pid, *pids):  # as a terminal does
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=15)
    assert time.monotonic() - begin < 15
    assert errors.strip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    wait_for_end(pids, 1)
    assert Library(tmp_path / "library").try_lock(all_of(path)[0]) is not None


def test_of_two_studies_that_want_the_same_trial_one_learns_and_the_other_waits(path, tmp_path):
    sets = (own(path, ", wait_s: 0.2"), "cases=[{name: local, period: 4}]", "seeds=[1]")
    trials, library = all_of(path, *sets), Library(tmp_path / "library")
    got: list[dict[str, Learned]] = []
    lock = library.try_lock(trials[0])  # both are there before either learns
    studies = [threading.Thread(target=lambda: got.append(train(trials, library, jobs=1))) for _ in range(2)]
    for study in studies:
        study.start()
    time.sleep(1)
    os.close(lock)
    for study in studies:
        study.join()
    assert got[0] == got[1]
    assert len(set((tmp_path / "notes").read_text().split())) == 1


# --- how long it takes ----------------------------------------------------------------------------------------


def test_costs_explain_what_was_measured():
    # 0.01 s an iteration and 0.5 s an evaluation.
    assert fitted([(100, 1, 1.5), (100, 10, 6.0)]) == pytest.approx((0.01, 0.5))
    # More evaluations cost less: they are taken to cost nothing, and the iterations what explains both best.
    step_s, evaluation_s = fitted([(100, 1, 1.1), (100, 10, 1.0)])
    assert (step_s, evaluation_s) == (pytest.approx(0.0105, rel=0.01), 0.0)


def test_an_estimate_comes_from_trials_alike_and_counts_what_is_left(path, tmp_path, monkeypatch):
    library = Library(tmp_path / "library")
    trials = {one.label: one for one in all_of(path)}
    monkeypatch.setattr(library, "alike", lambda _: [(100, 1, 1.5), (100, 10, 6.0)])
    library.learn(replace(trials["local, seed 1"], until=8), Progress(), lambda: None)
    library.learn(trials["H, seed 1"], Progress(), lambda: None)
    # Left are 16 iterations with 4 evaluations, and of the second seed 24 with 6, and 24 with 2.
    expected = 64 * 0.01 + 12 * 0.5
    assert estimate_wall_s(list(trials.values()), library) == pytest.approx(expected)
    assert estimate_wall_s([trials["H, seed 1"]], library) == 0


def test_without_trials_alike_a_few_rounds_are_learned_elsewhere(path, tmp_path):
    library = Library(tmp_path / "library")
    (one,) = all_of(path, "seeds=[1]", "cases=[{name: local, period: 24}]")
    assert 0 < estimate_wall_s([one], library) < 60
    assert not library.folder_of(one).exists()
