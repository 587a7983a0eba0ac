"""Small runs of every kind, and their reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.experiment import load_experiment
from hsgd_emu.report import write_report
from hsgd_emu.run import run
from hsgd_emu.study.sweep.run_study import run_study
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import resources, wanted
from hsgd_emu.trials import Progress

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs"
HOSTILE = "<img src=x onerror=alert(1)> <script> \"quoted\" 'too' %{y} $& <b> קצת עברית ".ljust(99, "x")
QUOTED = json.dumps(HOSTILE, ensure_ascii=False)
UNEVEN = f"""
name: {QUOTED}
topology: {{uneven}}
compute: {{step_s: {{distribution: lognormal, median: 0.01, sigma: 0.8}}}}
data: {{dataset: digits, partition: by_label}}
model: softmax_regression
train: {{iterations: 100}}
cases:
  - {{name: {QUOTED}, period: 10}}
  - {{name: "own I", periods: {{root: 20, campus: 5, depot: 10}}}}
  - {{name: "50,10", periods: [50, 10]}}
targets: {{test_accuracy: [0.3, 0.99], test_loss: [0.001]}}
seeds: [1, 2, 3]
"""


def demo(folder: Path) -> Path:
    run(RUNS / "demo.yaml", folder, sets=["train.iterations=100", "seeds=[1, 2]"], device="cpu", threads=1)
    return write_report(folder)


def cifar10_small(folder: Path) -> Path:
    """The shipped run on made-up images."""
    dice = np.random.default_rng(1)
    data = folder.with_name("data")
    for part, num in (("train", 12), ("test", 3)):
        for name in range(10):
            place = data / "cifar10_jpeg" / part / f"class{name}"
            place.mkdir(parents=True)
            for number in range(num):
                Image.fromarray(dice.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{number}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HSGD_EMU_DATA", str(data))
        sets = ["train.iterations=50", "train.batch_size=2"]
        run(RUNS / "cifar10_small.yaml", folder, sets=sets, device="cpu", threads=1)
    return write_report(folder)


def three_levels(folder: Path) -> Path:
    run(RUNS / "three_levels.yaml", folder, sets=["train.iterations=80"], device="cpu", threads=1)
    return write_report(folder)


def uneven(folder: Path) -> Path:
    """Random links and steps, a target that nobody reaches, and names that would like to be markup."""
    file = folder.with_name("uneven.yaml")
    file.write_text(UNEVEN.replace("{uneven}", str(ROOT / "topologies" / "uneven.yaml")), encoding="utf-8")
    run(file, folder, device="cpu", threads=1)
    return write_report(folder)


def study(folder: Path) -> Path:
    sets = ["train.iterations=200", "seeds=[1]", "targets={test_accuracy: [0.3, 0.5]}"]
    library = Library(folder.with_name("trials"))
    # Learned here, as no process has to be started for that.
    experiment, here = load_experiment(RUNS / "demo.yaml", sets), resources("cpu")
    for case in experiment.cases:
        library.learn(wanted(experiment, case.name, 1, here), Progress(), lambda: None)
    file = RUNS / "studies" / "demo_far_near_step.yaml"
    run_study(file, folder, [*sets, "axes.0.values.num=7"], device="cpu", library=library.folder)
    return write_report(folder)


def two_runs(folder: Path) -> Path:
    """One run beside the same on another network."""
    from hsgd_emu.study.retime import retime

    run(RUNS / "demo.yaml", folder, sets=["train.iterations=100", "seeds=[1]"], device="cpu", threads=1)
    slower = retime(folder, folder.with_name("slower"), scales=["far=3"])
    return write_report([folder, slower], folder.with_name("both.html"))


PAGES = {f.__name__: f for f in (demo, cifar10_small, three_levels, uneven, study, two_runs)}
