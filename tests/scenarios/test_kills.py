"""Killed at any write, fsync, rename or unlink, every command is gone on with, or begun again, to the same bits."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kills import State, leftovers, moments_of, put_back, state_of

from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.results.folder import is_run_folder
from hsgd_emu.results.tables import TABLES
from hsgd_emu.results.tables import connect_to_read as connect_to_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.sweep import run_study as studies
from hsgd_emu.study.sweep.store import TABLES as STUDY_TABLES
from hsgd_emu.study.sweep.store import connect_to_read as connect_to_study
from hsgd_emu.study.sweep.store import is_study_folder

RUN = """\
name: killed
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: {distribution: gamma, shape: 2.0, scale: 0.1}}, far: {rtt_s: 0.3}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: 5, learning_rate: 0.05, iterations: 12, momentum: 0.9, participation: 0.7}
cases: [{name: local, period: 4}, {name: hierarchical, periods: [4, 2]}]
targets: {test_accuracy: [0.1]}
"""
STUDY = """\
name: what_if
run: run.yaml
axes: [{name: far, rtt_s: far, values: [0.1, 0.3]}]
"""
LEARN = Options("cpu", threads=1, engine="layered:2", jobs=1)
ONLY_TIME = Options(timing_only=True)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    # Every round has its checkpoint, however fast it was.
    monkeypatch.setattr(Checkpoints, "is_due", lambda self: True)
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def do(folder: Path, options: Options, **more: Any) -> None:
    experiment = load_experiment("run.yaml", ["train.iterations=8"] if more.get("force") else [])
    run_experiment(experiment, folder, replace(options, **more))


def tables(folder: Path) -> dict[str, list[Any]]:
    """Return what a run or study found; what it cost this host is no result."""
    if is_study_folder(folder):
        with contextlib.closing(connect_to_study(folder)) as connection:
            return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in STUDY_TABLES}
    with contextlib.closing(connect_to_run(folder)) as connection:
        found = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES if name != "trials"}
        columns = ", ".join(f'"{column.name}"' for column in TABLES["trials"] if column.name != "wall_s")
        return found | {"trials": connection.execute(f"SELECT {columns} FROM trials").fetchall()}


def assert_readable(folder: Path) -> None:
    """Whatever is there is whole."""
    for holds, connect in ((is_run_folder, connect_to_run), (is_study_folder, connect_to_study)):
        if holds(folder):
            with contextlib.closing(connect(folder)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def assert_gone_on(
    folders: list[Path], out: Path, states: list[tuple[str, State]], again: Callable[[], object], step: int = 1
) -> None:
    expected = tables(out)
    assert leftovers(folders) == []
    for number, (act, state) in enumerate(states):
        if number % step:
            continue
        put_back(folders, state)
        assert_readable(out)
        again()
        assert tables(out) == expected, f"killed before {act}"
        assert leftovers(folders) == [], f"killed before {act}"


def go_on(out: Path, options: Options) -> None:
    do(out, options, resume=True) if is_run_folder(out) else do(out, options)


HOW = [
    pytest.param(ONLY_TIME, 1, id="timing only"),
    pytest.param(LEARN, 10, id="learning, some"),
    pytest.param(LEARN, 1, id="learning, all", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("options", "step"), HOW)
def test_run(here: Path, options: Options, step: int) -> None:
    out = here / "out"
    states = moments_of([out], partial(do, out, options))
    assert len(states) > 15
    assert_gone_on([out], out, states, partial(go_on, out, options), step)


@pytest.mark.parametrize(("options", "step"), HOW)
def test_force(here: Path, options: Options, step: int) -> None:
    out = here / "out"
    do(out, options)
    states = moments_of([out], partial(do, out, options, force=True))
    assert len(states) > 15
    assert_gone_on([out], out, states, partial(do, out, options, force=True), step)


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_retime(here: Path, step: int) -> None:
    out, parent = here / "out", here / "parent"
    do(parent, LEARN)
    work = partial(retime, parent, out, scales=["far=2"], force=True)
    work()
    states = moments_of([out], work)
    assert_gone_on([out], out, states, work, step)


def train_here(missing: Any, library: Any, executor: Any, jobs: Any, progress: Any, ray_address: Any = None) -> Any:
    """Stands for the processes that learn: all in this one, whose acts are watched."""
    from hsgd_emu.trials import Progress

    for wanted in missing:
        library.learn(wanted, Progress(), lambda: None)
    return {wanted.key: library.find(wanted) for wanted in missing}


@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_study(here: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    out, library = here / "out", here / "trials"
    monkeypatch.setattr(studies, "train", train_here)
    work = partial(studies.run_study, "study.yaml", out, library=library, device="cpu")
    states = moments_of([out, library], work)
    assert_gone_on([out, library], out, states, work, step)


# --- kills in truth -----------------------------------------------------------------------------------------

KILLER = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from kills import acts_watched

left = int(os.environ.get("KILL_AT", 10**9))

def tell(act):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

acts_watched(tell).__enter__()
"""
ALONE = ["--engine", "layered:2", "--threads", "1", "--library", "none"]
COMMANDS = {
    "run": ["run", "run.yaml", "--out", "out", *ALONE],
    "force": ["run", "run.yaml", "--out", "out", "--force", *ALONE],
    "retime": ["retime", "parent", "--out", "out", "--scale", "far=2", "--force"],
    "study": ["study", "study.yaml", "--out", "out", "--library", "trials"],
}
MOST_ACTS = 120
"""More than any command has, all its processes counted for themselves."""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_fifty_kills_in_truth(here: Path, command: str) -> None:
    (here / "sitecustomize.py").write_text(KILLER.format(tests=str(Path(__file__).parents[1])))
    code = "import sys; sys.argv[0] = 'hsgd-emu'; from hsgd_emu.cli import main; main()"

    def start(arguments: list[str], kill_at: int | None = None) -> int:
        environment = os.environ | {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}
        environment |= {} if kill_at is None else {"KILL_AT": str(kill_at)}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    out, folders = here / "out", [here / "out", here / "trials"]
    if command in ("force", "retime"):
        do(here / "parent", LEARN)
        shutil.copytree(here / "parent", out)
    before = state_of([out])
    start(COMMANDS[command])
    expected, moments = tables(out), random.Random(command)
    for _ in range(13):
        put_back(folders, before)
        killed = start(COMMANDS[command], moments.randrange(1, MOST_ACTS))
        assert_readable(out)
        resumes = ["--resume"] if command == "run" and is_run_folder(out) else []
        if killed or command in ("force", "retime"):
            start([*COMMANDS[command], *resumes])
        assert tables(out) == expected
        assert leftovers(folders) == []
