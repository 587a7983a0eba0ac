"""What a report says under "How to reproduce" is done in a fresh folder by a shell, and gives the same fingerprints."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hsgd_emu
from hsgd_emu.cli import app

RUN = """\
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {far: {rtt_s: {distribution: lognormal, median: 0.2, sigma: 0.3}}, near: {rtt_s: 0.01}}
compute: {step_s: 0.004}
data: {dataset: "blobs:make"}
model: {name: mlp, hidden: [8]}
train: {batch_size: 5, learning_rate: 0.1, iterations: 8}
cases: [{name: "P=2", period: 2}, {name: "G=4 I=2", periods: [4, 2]}]
targets: {test_accuracy: [0.6]}
seeds: [1]
"""
BLOBS = """\
import numpy as np


def make(far=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 120)
    x = (rng.normal(size=(120, 4)) + far * y[:, None]).astype(np.float32)
    return x[:80], y[:80], x[80:], y[80:]
"""
STUDY = """\
name: few
run: a run.yaml
axes: [{name: far, set: profiles.far.rtt_s, values: [0.1, 0.4]}]
"""
ODD = ["--set", """description=it's a "run" of $HOME & `more`""", "--set", "seeds=[3, 4]"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A folder with the user's files, in which commands are given, and a fresh one beside it with these files alone."""
    for name in ("made", "fresh"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a run.yaml").write_text(RUN)
        (folder / "few.yaml").write_text(STUDY)
        (folder / "blobs.py").write_text(BLOBS)
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


def command(*words: str) -> None:
    argv, sys.argv = sys.argv, ["hsgd-emu", *words]
    try:
        done = CliRunner().invoke(app, list(words))
    finally:
        sys.argv = argv
    assert done.exit_code == 0, done.output


def told(page: Path) -> tuple[str, str]:
    """Return the commands for where it was made, and the one for anywhere else."""
    found = re.findall(r"<pre[^>]*>(hsgd-emu .*?)</pre>", page.read_text(encoding="utf-8"), re.DOTALL)
    where, alone = map(html.unescape, found)
    return where, alone


def shell(text: str, folder: Path) -> None:
    program = folder / "bin" / "hsgd-emu"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hsgd_emu.cli "$@"\n')
    program.chmod(0o755)
    package = str(Path(hsgd_emu.__file__).parents[1])
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": package}
    done = subprocess.run(["sh", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fingerprints(folder: Path) -> list[object]:
    run = hsgd_emu.read(folder)
    tables = [run.trials[["case", "seed", "weights_hash", "timeline_hash", "engine"]], run.curve, run.targets]
    return [table.to_csv() for table in tables]


def alone(text: str, file: Path, folder: Path) -> Path:
    """Return where the command puts what it makes from the file on the page."""
    folder.mkdir()
    shutil.copy(file.parent / file.name, folder / file.name)
    shutil.copy(folder.parent / "made" / "blobs.py", folder)
    shell(text, folder)
    return next((folder / "runs/out").glob("*/environment.json")).parent


def test_a_run_and_what_was_retimed_from_it(made):
    fresh = made.parent / "fresh"
    command("run", "a run.yaml", "--out", "out/first one", "--engine", "one_by_one:1", "--threads", "1", *ODD)
    command("retime", "out/first one", "--out=out/slow", "--scale", "far=2")
    command("retime", "out/slow", "--out", "out/slower", "--set", "compute.step_s=0.01")
    where, by_itself = told(made / "out/slower/report.html")
    assert len(where.splitlines()) == 3
    shell(where, fresh)
    for name in ("first one", "slow", "slower"):
        assert fingerprints(fresh / "out" / name) == fingerprints(made / "out" / name)
    again = alone(by_itself, made / "out/slower/run.yaml", made.parent / "alone")
    # Learned anew, and not recorded.
    assert fingerprints(again)[1:] == fingerprints(made / "out/slower")[1:]


def test_a_run_that_was_added_to(made):
    command("run", "a run.yaml", "--out", "out/r")
    command("run", "a run.yaml", "--out", "out/r", "--resume", "--set", "seeds=[1, 2]", "--jobs", "1")
    where, by_itself = told(made / "out/r/report.html")
    fresh = made.parent / "fresh"
    shell(where, fresh)
    assert fingerprints(fresh / "out/r") == fingerprints(made / "out/r")
    again = alone(by_itself, made / "out/r/run.yaml", made.parent / "alone")
    assert fingerprints(again) == fingerprints(made / "out/r")


def test_a_run_that_only_takes_time(made):
    command("run", "a run.yaml", "--timing-only", "--trust-code", "--out", "timed")
    where, by_itself = told(made / "timed/report.html")
    fresh = made.parent / "fresh"
    shell(where, fresh)
    assert fingerprints(fresh / "timed") == fingerprints(made / "timed")
    again = alone(by_itself, made / "timed/run.yaml", made.parent / "alone")
    assert fingerprints(again) == fingerprints(made / "timed")


@pytest.mark.slow
def test_a_study(made):
    command("study", "few.yaml", "--out", "out/few", "--jobs", "1", "--library", "somewhere")
    where, by_itself = told(made / "out/few/report.html")
    fresh = made.parent / "fresh"
    shell(where, fresh)
    studies = [
        made / "out/few",
        fresh / "out/few",
        alone(by_itself, made / "out/few/study.yaml", made.parent / "alone"),
    ]
    first, *others = [
        (hsgd_emu.read(folder).times.to_csv(), hsgd_emu.read(folder).trials.to_csv()) for folder in studies
    ]
    assert others == [first, first]
