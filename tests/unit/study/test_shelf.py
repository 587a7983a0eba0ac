"""A run finds what was learned before and keeps what it learns, in the library of the studies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import hsgd_emu
from hsgd_emu.results.read import RunResults
from hsgd_emu.study.sweep.run_study import plan_of_study
from hsgd_emu.study.training import shelf

RUN: dict[str, Any] = {
    "name": "shared",
    "topology": {"levels": [{"name": "worker", "count": 3, "uplink": "far"}]},
    "profiles": {"far": {"rtt_s": {"distribution": "gamma", "shape": 2.0, "scale": 0.1}}},
    "compute": {"step_s": 0.004},
    "data": {"dataset": "npz", "root": ".", "folder": "data.npz", "partition": "iid"},
    "model": "net:make",
    "train": {"batch_size": 5, "learning_rate": 0.05, "iterations": 16},
    "cases": [{"name": "often", "period": 4}, {"name": "rarely", "period": 8}],
    "targets": {"test_accuracy": [0.3]},
    "seeds": [1],
}
NET = """
from torch import nn
def make(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], {width}), nn.ReLU(), nn.Linear({width}, num_classes))
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


def write_data(shift: int = 0) -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), (y + shift) % 10
    np.savez("data.npz", train_x=x[:300], train_y=y[:300], test_x=x[300:400], test_y=y[300:400])


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(yaml.safe_dump(RUN))
    Path("net.py").write_text(NET.format(width=8))
    write_data()


def run(out: str, **options: Any) -> RunResults:
    return hsgd_emu.run("run.yaml", out, device="cpu", jobs=1, **options)


def engines(results: RunResults) -> list[str]:
    """Return how each trial was learned; "recorded": not now."""
    return ["recorded" if engine == "recorded" else "learned" for engine in results.trials["engine"]]


def assert_same(one: RunResults, other: RunResults) -> None:
    for table in TABLES:
        frames = [getattr(r, table).drop(columns=["wall_s", "engine"], errors="ignore") for r in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)


def test_what_a_run_learned_the_next_one_finds(capsys):
    first, again = run("a"), run("b")
    assert (engines(first), engines(again)) == (["learned"] * 2, ["recorded"] * 2)
    assert_same(first, again)
    more = run("c", sets=["seeds=[1,2]", "profiles.far={rtt_s: 1}"])
    assert engines(more) == ["recorded", "learned"] * 2
    assert engines(run("d", library="none")) == ["learned"] * 2
    assert engines(run("e", library="elsewhere")) == ["learned"] * 2


def test_a_study_finds_what_a_run_learned_and_a_run_what_a_study_did():
    run("a")
    Path("study.yaml").write_text("name: s\nrun: ./run.yaml\naxes: [{name: far, rtt_s: far, values: [0.1, 0.4]}]\n")
    assert plan_of_study("study.yaml", trust_code=True).num_missing == 0
    hsgd_emu.run_study("study.yaml", "s", sets=["seeds=[5]"], jobs=1, device="cpu")
    learned, found = run("b", sets=["seeds=[5]"], library="none"), run("c", sets=["seeds=[5]"])
    assert engines(found) == ["recorded"] * 2
    assert_same(learned, found)


@pytest.mark.parametrize("what", ["data", "code"])
def test_what_was_learned_from_something_else_is_not_found(what):
    run("a")
    write_data(3) if what == "data" else Path("net.py").write_text(NET.format(width=9))
    assert engines(run("b")) == ["learned"] * 2


def test_what_changes_while_a_run_learns_is_not_kept():
    # The module edits itself once it is loaded: what was learned is what was loaded, and no file says so any more.
    Path("net.py").write_text(NET.format(width=8) + "\nopen(__file__, 'a').write('# edited\\n')\n")
    run("a")
    assert not Path("runs/out/trials").exists()


def test_a_library_that_is_damaged_or_cannot_be_written_costs_no_run(capsys):
    run("a")
    for database in Path("runs/out/trials").glob("*/run.sqlite"):
        database.write_bytes(b"no database")
    assert engines(run("b")) == ["learned"] * 2
    Path("file").write_text("")
    assert engines(run("c", library="file/below")) == ["learned"] * 2


def test_trials_that_end_with_their_targets_stay_by_themselves():
    sets = ["train.until_targets=true", "targets.test_accuracy=[0.1]"]
    run("a", sets=sets)
    assert not Path("runs/out/trials").exists()
    run("b")
    assert engines(run("c", sets=sets)) == ["learned"] * 2


def test_a_trial_that_another_process_learns_just_now_is_left_to_it(monkeypatch):
    monkeypatch.setattr(shelf.Library, "try_lock", lambda self, wanted: None)
    assert engines(run("a")) == ["learned"] * 2
    assert not list(Path("runs/out/trials").glob("*/run.sqlite"))


def test_a_resumed_run_finds_what_others_learned_meanwhile():
    run("a", sets=["cases=[{name: often, period: 4}]"], library="none")
    run("b")
    assert engines(run("a", resume=True)) == ["learned", "recorded"]
    assert os.listdir("a/checkpoints")
