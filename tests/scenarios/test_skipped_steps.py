"""Runs whose workers skip steps: timed again, gone on with, known by what they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import RunResults
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.training.wanted import Resources, experiment_of, wanted

SKIPS = {"fast": 0.9, "slow": 0.3}
BASE: dict[str, Any] = {
    "name": "skips",
    "topology": {
        "root": {
            "children": [
                {
                    "name": "site",
                    "count": 2,
                    "uplink": "far",
                    "children": [{"name": "fast", "count": 2, "uplink": "near"}, {"name": "slow", "uplink": "near"}],
                },
            ]
        }
    },
    "profiles": {"near": {"rtt_s": 0.01}, "far": {"rtt_s": {"distribution": "gamma", "shape": 2, "scale": 0.1}}},
    "compute": {"step_s": {"distribution": "lognormal", "median": 0.02, "sigma": 0.5}},
    "data": {"dataset": "digits"},
    "model": {"name": "mlp", "hidden": [8]},
    "train": {
        "iterations": 40,
        "step_probability": SKIPS,
        "momentum": 0.5,
        "participation": 0.7,
        "learning_rate": {"schedule": "power", "initial": 0.1, "exponent": 0.5},
    },
    "evaluation": {"every_iterations": 20, "averaged": {"after": 12}},
    "cases": [{"name": "c", "periods": [10, 5]}],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    return path


def learned(path: Path, out: Path, **options: Any) -> RunResults:
    return run(path, out, threads=1, engine="usual", jobs=1, **options)


def hash_of(results: RunResults) -> str:
    (found,) = results.trials.weights_hash
    return str(found)


def assert_same(one: RunResults, other: RunResults) -> None:
    for table in ("curve", "timeline", "trials"):
        pair = [getattr(results, table).drop(columns=["wall_s", "engine"], errors="ignore") for results in (one, other)]
        pd.testing.assert_frame_equal(*pair)


def test_retimed_is_fresh_and_so_is_one_that_was_stopped(tmp_path: Path) -> None:
    path, changed = written(tmp_path), ["profiles.near.rtt_s=0.5", "compute.step_s.median=0.1"]
    whole = learned(path, tmp_path / "whole")
    assert whole.curve["averaged_test_loss"].notna().all()
    fresh = learned(path, tmp_path / "fresh", sets=changed)
    retime(tmp_path / "whole", tmp_path / "retimed", sets=changed)
    assert_same(RunResults(tmp_path / "retimed"), fresh)
    assert hash_of(fresh) == hash_of(whole)
    for stop_at in (10, 30, None):
        options = Options("cpu", engine="usual", resume=stop_at != 10, threads=1, jobs=1, stop_at=stop_at)
        run_experiment(load_experiment(path), tmp_path / "stopped", options)
    assert_same(RunResults(tmp_path / "stopped"), whole)


def test_a_probability_of_one_is_without_the_key(tmp_path: Path) -> None:
    train = {key: value for key, value in BASE["train"].items() if key != "step_probability"}
    plain = learned(written(tmp_path, train=train), tmp_path / "plain")
    for number, one in enumerate([1, {"slow": 1.0}]):
        path = written(tmp_path, train=train | {"step_probability": one})
        ones = learned(path, tmp_path / f"one-{number}")
        assert_same(ones, plain)
        assert key(path) == key(written(tmp_path, train=train))


def key(path: Path) -> str:
    return wanted(load_experiment(path), "c", 1, Resources("cpu", "cpu", "fp32"), look=False).key


def test_a_trial_of_the_library_has_its_workers_by_name(tmp_path: Path) -> None:
    """There the tree has no classes; the same workers skip the same steps."""
    found = experiment_of(
        wanted(load_experiment(written(tmp_path)), "c", 1, Resources("cpu", "cpu", "fp32"), look=False)
    )
    names = {found.topology.nodes[node].name: p for node, p in found.effects("trial").step_probability.items()}
    assert names == {**dict.fromkeys([f"fast-{n}" for n in range(4)], 0.9), "slow-0": 0.3, "slow-1": 0.3}


def test_a_trial_of_the_library_has_the_averaged_model_too(tmp_path: Path) -> None:
    path, resources = written(tmp_path), Resources("cpu", "cpu", "fp32")
    found = experiment_of(wanted(load_experiment(path), "c", 1, resources, look=False))
    assert found.evaluation == load_experiment(path).evaluation
    other = load_experiment(path, ["evaluation.averaged.after=5"])
    assert wanted(other, "c", 1, resources, look=False).key != key(path)


def test_other_probabilities_are_other_learning(tmp_path: Path) -> None:
    learned(written(tmp_path, train=BASE["train"] | {"iterations": 20}), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"train\.step_probability.*changes what is learned"):
        retime(tmp_path / "out", tmp_path / "retimed", sets=["train.step_probability.slow=0.4"])
