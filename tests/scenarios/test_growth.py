"""What is added to a run is learned, and what was learned stays: all as if the run had been made so from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning import checkpoint
from hsgd_emu.results.read import read_run
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.trials import Progress

RUN: dict[str, Any] = {
    "name": "grows",
    "topology": {"levels": [{"name": "worker", "count": 4, "uplink": "far"}]},
    "profiles": {"far": {"rtt_s": {"distribution": "gamma", "shape": 2.0, "scale": 0.1}}},
    "compute": {"step_s": 0.004},
    "data": {"dataset": "digits", "partition": "by_label"},
    "model": {"name": "mlp", "hidden": [16]},
    "train": {"batch_size": 5, "learning_rate": 0.05, "iterations": 24, "momentum": 0.9, "participation": 0.5},
    "cases": [{"name": "often", "period": 4}],
    "targets": {"test_accuracy": [0.2]},
    "seeds": [1],
}
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


class Learning(Progress):
    """Notes which rounds of which trials are made."""

    def __init__(self) -> None:
        self.rounds: dict[TrialKey, list[int]] = {}
        self.warnings: list[str] = []

    def round(self, key, record):
        self.rounds.setdefault(key, []).append(record.iteration)

    def warn(self, text):
        self.warnings.append(text)


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(RUN | changes))
    return path


def learned(path: Path, out: Path, **options: Any) -> Learning:
    progress = Learning()
    run_experiment(load_experiment(path), out, Options("cpu", jobs=1, **options), progress)
    return progress


def assert_same(one: Path, other: Path) -> None:
    for table in TABLES:
        frames = [getattr(read_run(folder), table).drop(columns="wall_s", errors="ignore") for folder in (one, other)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert (one / "run.yaml").read_text() == (other / "run.yaml").read_text()


MORE = [{"name": "rarely", "period": 8}, {"name": "often", "period": 4}]


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"cases": MORE}, {TrialKey("rarely", 1): [8, 16, 24]}),
        ({"seeds": [2, 1]}, {TrialKey("often", 2): [4, 8, 12, 16, 20, 24]}),
        ({"targets": {"test_accuracy": [0.1, 0.3], "train_loss": [2.0]}}, {}),
        ({"train": RUN["train"] | {"iterations": 40}}, {TrialKey("often", 1): [28, 32, 36, 40]}),
        (
            {"cases": MORE, "train": RUN["train"] | {"iterations": 32}, "targets": {"test_loss": [2.2]}},
            {TrialKey("rarely", 1): [8, 16, 24, 32], TrialKey("often", 1): [28, 32]},
        ),
    ],
    ids=["case", "seed", "targets", "iterations", "all"],
)
def test_only_what_is_new_is_learned(tmp_path, changes, new):
    path = tmp_path / "run.yaml"
    learned(write(path), tmp_path / "out")
    write(path, **changes)
    progress = learned(path, tmp_path / "out", resume=True)
    assert progress.rounds == new
    assert progress.warnings == []
    learned(path, tmp_path / "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_without_its_last_checkpoint_a_trial_is_learned_anew_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "KEPT_BYTES", 100)
    path = write(tmp_path / "run.yaml")
    learned(path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.pt"))
    write(path, train=RUN["train"] | {"iterations": 32})
    progress = learned(path, tmp_path / "out", resume=True)
    assert "no whole checkpoint, from the start" in progress.warnings[0]
    learned(path, tmp_path / "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_an_evaluation_at_the_end_alone_is_none_of_a_longer_run(tmp_path):
    # Evaluated every 16 iterations and, since it ended there, at 24: a longer run has no row at 24.
    every = {"every_iterations": 16}
    path = write(tmp_path / "run.yaml", evaluation=every)
    learned(path, tmp_path / "out")
    write(path, evaluation=every, train=RUN["train"] | {"iterations": 32})
    learned(path, tmp_path / "out", resume=True)
    learned(path, tmp_path / "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")
    assert list(read_run(tmp_path / "out").curve["iteration"]) == [16, 32]


def test_the_timeline_is_kept_as_it_was(tmp_path, monkeypatch):
    path = write(tmp_path / "run.yaml")
    learned(path, tmp_path / "out")
    monkeypatch.setattr("hsgd_emu.experiment._SMALL_TIMELINE_ROWS", 1)
    write(path, seeds=[1, 2])
    assert load_experiment(path).timeline == "rounds"
    learned(path, tmp_path / "out", resume=True)
    assert read_run(tmp_path / "out").run["timeline"] == "full"
    write(path, seeds=[1, 2], timeline="none")
    with pytest.raises(ConfigError, match="differs in timeline"):
        learned(path, tmp_path / "out", resume=True)


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"seeds": [2]}, "seeds"),
        ({"cases": [{"name": "often", "period": 8}]}, "cases"),
        ({"train": RUN["train"] | {"iterations": 16}}, "train"),
        ({"train": RUN["train"] | {"iterations": 32, "momentum": 0.5}}, "train"),
        ({"data": {"dataset": "digits", "partition": "iid"}}, "data"),
        ({"profiles": {"far": {"rtt_s": 1}}}, "profiles"),
        ({"evaluation": {"every_iterations": 8}}, "evaluation"),
    ],
)
def test_what_is_changed_and_not_added_is_refused(tmp_path, changes, differs):
    path = write(tmp_path / "run.yaml")
    learned(path, tmp_path / "out", timing_only=True)
    before = (tmp_path / "out" / "run.yaml").read_text()
    write(path, **changes)
    with pytest.raises(ConfigError, match=f"differs in {differs}; --resume needs the same run file"):
        learned(path, tmp_path / "out", resume=True, timing_only=True)
    assert (tmp_path / "out" / "run.yaml").read_text() == before


@pytest.mark.parametrize(
    "train",
    [
        {"iterations": 24, "until_targets": True},
        {"iterations": 24, "learning_rate": {"schedule": "cosine", "initial": 0.1}},
    ],
)
def test_where_the_end_decides_about_the_way_it_cannot_be_moved(tmp_path, train):
    path = write(tmp_path / "run.yaml", train=train)
    learned(path, tmp_path / "out", timing_only=True)
    write(path, train=train | {"iterations": 48})
    with pytest.raises(ConfigError, match="differs in train"):
        learned(path, tmp_path / "out", resume=True, timing_only=True)
    if "until_targets" in train:
        write(path, train=train, targets={"test_accuracy": [0.3]})
        with pytest.raises(ConfigError, match="differs in targets"):
            learned(path, tmp_path / "out", resume=True, timing_only=True)


def test_killed_while_it_grows_it_grows_again(tmp_path, monkeypatch):
    path = write(tmp_path / "run.yaml")
    learned(path, tmp_path / "out")
    write(path, seeds=[3, 1], cases=MORE)

    class KilledError(BaseException):
        pass

    def kill(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("hsgd_emu.results.store.insert", kill)
        with pytest.raises(KilledError):
            learned(path, tmp_path / "out", resume=True)
    learned(path, tmp_path / "out", resume=True)
    learned(path, tmp_path / "whole")
    assert_same(tmp_path / "out", tmp_path / "whole")
