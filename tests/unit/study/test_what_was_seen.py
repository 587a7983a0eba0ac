"""No trial is stored, found, or gone on with under data or code that it did not see."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.study.sweep.run_study import run_study
from hsgd_emu.study.training.executors import TrainingProgress, train
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import Wanted, resources, wanted
from hsgd_emu.trials import Progress

RUN = """
name: small
topology: {levels: [{name: worker, count: 3, uplink: far}]}
profiles: {far: {rtt_s: 0.3}}
compute: {step_s: 0.01}
data: {dataset: npz, folder: d.npz, partition: iid, root: .}
model: "net:make"
train: {iterations: 8}
cases: [{name: P=2, period: 2}, {name: P=4, period: 4}]
targets: {test_accuracy: [0.1]}
"""
STUDY = "{name: s, run: ./run.yaml, axes: [{name: far, rtt_s: far, values: [0.1, 0.4]}]}"
NET = "import torch\nfrom helper import WIDTH\n\ndef make(input_shape, num_classes):\n    return torch.nn.Sequential(\n"
NET += "        torch.nn.Linear(6, WIDTH), torch.nn.ReLU(), torch.nn.Linear(WIDTH, num_classes))\n"


def save(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(60, 6)).astype(np.float32), np.arange(60) % 3
    np.savez(folder / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    os.utime(folder / "d.npz", (1, 1))


def edit(folder: Path, width: int) -> None:
    """Edit the helper within its size and time, as a fast editor does."""
    (folder / "helper.py").write_text(f"WIDTH = {width}\n")
    os.utime(folder / "helper.py", (1, 1))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "net.py").write_text(NET)
    edit(tmp_path, 4)
    save(tmp_path, 1)
    return tmp_path


def trials_of(folder: Path) -> list[Wanted]:
    experiment, given = load_experiment(folder / "run.yaml"), resources("cpu")
    return [wanted(experiment, case.name, 1, given) for case in experiment.cases]


def hashes(folder: Path, library: str, trials: list[Wanted]) -> list[str | None]:
    """Return what the trials have learned, here and now."""
    shelf = Library(folder / library)
    for one in trials:
        shelf.learn(one, Progress(), lambda: None)
    return [shelf.find(one).weights_hash for one in trials]


SWAPS = {
    "data has changed": (lambda folder: save(folder, 2), lambda folder: save(folder, 1)),
    "own module helper has changed": (lambda folder: edit(folder, 8), lambda folder: edit(folder, 4)),
}


class Swapping(TrainingProgress):
    def __init__(self, swap, folder: Path) -> None:
        self.swap, self.folder, self.ended = swap, folder, 0

    def end(self, wanted: Wanted) -> None:
        self.ended += 1
        self.swap(self.folder)


@pytest.mark.parametrize("what", SWAPS)
def test_what_is_swapped_while_a_study_learns_is_refused_and_never_stored(here, what):
    swap, put_back = SWAPS[what]
    trials, library = trials_of(here), Library(here / "library")
    progress = Swapping(swap, here)
    with pytest.raises(ConfigError, match=rf"P=4, seed 1: is not like where the study was started: {what}"):
        train(trials, library, jobs=1, progress=progress)
    assert progress.ended == 1
    put_back(here)
    assert hashes(here, "library", trials_of(here)) == hashes(here, "clean", trials_of(here))
    swap(here)
    assert {one.key for one in trials}.isdisjoint(one.key for one in trials_of(here))


def test_of_code_that_no_longer_works_it_is_told_that_it_has_changed(here):
    (trial, *_), library = trials_of(here), Library(here / "library")
    (here / "net.py").write_text(NET.replace("return", "retrun"))
    with pytest.raises(ConfigError, match="own module net has changed"):
        library.learn(trial, Progress(), lambda: None)


def test_a_trial_that_was_begun_is_not_gone_on_with_on_other_data(here):
    (trial, *_), library = trials_of(here), Library(here / "library")
    library.learn(replace(trial, until=4), Progress(), lambda: None)
    save(here, 2)
    with pytest.raises(ConfigError, match="data has changed"):
        library.learn(trial, Progress(), lambda: None)
    assert library.progress_of(trial).iteration == 4
    save(here, 1)
    assert hashes(here, "library", [trial]) == hashes(here, "clean", [trial])


class Editing(Progress):
    def __init__(self, edit) -> None:
        self.edit = edit

    def round(self, key, record) -> None:
        self.edit()


def test_of_a_trial_whose_code_changes_while_it_is_learned_nothing_is_kept(here):
    (trial, *_), library = trials_of(here), Library(here / "library")
    with pytest.raises(ConfigError, match="while the trial was learned: own module helper has changed; nothing of it"):
        library.learn(trial, Editing(lambda: edit(here, 8)), lambda: None)
    kept = library.progress_of(trial)
    assert (kept.iteration, kept.finished, kept.metrics) == (0, False, {})
    edit(here, 4)
    assert hashes(here, "library", [trial]) == hashes(here, "clean", [trial])


def test_two_runs_of_one_process_see_their_own_code(here):
    def weights(out: str) -> str:
        return run(here / "run.yaml", here / out, device="cpu", engine="usual").trials["weights_hash"][0]

    first = weights("a")
    edit(here, 8)
    second = weights("b")
    edit(here, 4)
    assert weights("c") == first != second


class Stopping(Progress):
    rounds = 0

    def round(self, key, record) -> None:
        self.rounds += 1

    def is_over(self) -> bool:
        return self.rounds >= 2


def begun(folder: Path, is_finished: bool) -> None:
    progress = Progress() if is_finished else Stopping()
    run_experiment(load_experiment(folder / "run.yaml"), folder / "out", Options("cpu", jobs=1), progress)


def go_on(folder: Path, **options) -> None:
    run_experiment(load_experiment(folder / "run.yaml"), folder / "out", Options("cpu", resume=True, jobs=1, **options))


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_run_goes_on_with_what_it_was_begun_with_alone(here, monkeypatch, is_finished):
    begun(here, is_finished)
    for what, (swap, put_back) in SWAPS.items():
        swap(here)
        with pytest.raises(ConfigError, match=rf"out: the run there cannot be gone on with.*: {what}; --force begins"):
            go_on(here)
        put_back(here)
    monkeypatch.setattr("hsgd_emu.learning.material.version", lambda name: "0.1" if name == "torch" else "1")
    with pytest.raises(ConfigError, match=r"torch is 0\.1 and not 2"):
        go_on(here)
    monkeypatch.undo()
    for what, options in (("threads is 2 and not 1", {"threads": 2}), ("precision is bf16", {"precision": "bf16"})):
        with pytest.raises(ConfigError, match=what):
            go_on(here, **options)
    go_on(here)
    save(here, 2)
    run_experiment(load_experiment(here / "run.yaml"), here / "out", Options("cpu", force=True, jobs=1))


def test_a_run_of_an_earlier_version_cannot_be_compared(here):
    begun(here, is_finished=False)
    file = here / "out" / "environment.json"
    known = json.loads(file.read_text())
    del known["saw"]
    file.write_text(json.dumps(known))
    with pytest.raises(ConfigError, match=r"begun by a version that did not record the data and the code it saw"):
        go_on(here)


def test_seeds_that_are_added_to_a_run_are_known_from_then_on(here):
    begun(here, is_finished=True)
    path = here / "run.yaml"
    path.write_text(RUN + "seeds: [1, 2]\n")
    go_on(here)
    saw = json.loads((here / "out" / "environment.json").read_text())["saw"]
    assert {"model of seed 1", "model of seed 2"} <= set(saw)
    edit(here, 8)
    with pytest.raises(ConfigError, match="own module helper has changed"):
        go_on(here)


def test_a_run_that_only_takes_time_asks_for_no_data(here):
    experiment = load_experiment(here / "run.yaml", ["message_bytes=1000"])
    options = Options("cpu", timing_only=True)
    run_experiment(experiment, here / "out", options)
    (here / "d.npz").unlink()
    edit(here, 8)
    run_experiment(experiment, here / "out", replace(options, resume=True))


def test_a_finished_study_repeated_after_a_change_is_refused(here):
    options = {"device": "cpu", "library": here / "library", "jobs": 1}
    run_study(here / "study.yaml", here / "s", **options)
    run_study(here / "study.yaml", here / "s", **options)
    for what, (swap, put_back) in SWAPS.items():
        swap(here)
        with pytest.raises(ConfigError, match=rf"s: was begun otherwise: {what}; --force begins it anew"):
            run_study(here / "study.yaml", here / "s", **options)
        put_back(here)
    run_study(here / "study.yaml", here / "s", **options)
