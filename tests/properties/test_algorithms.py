"""Whatever algorithms go together: every figure, time and byte of a run is that of one plain loop in NumPy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from oracle.algorithms import Data, Trial, tree_of
from oracle.combinations import TREES, run_of

from hsgd_emu.config.run_schema import DataSpec, ModelSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.learning.data import partition
from hsgd_emu.learning.material import Material
from hsgd_emu.results.read import read_run
from hsgd_emu.run import Options, run_experiment

ADAM = {"optimizer": "adam", "learning_rate": 0.05}
NESTEROV = {"optimizer": "nesterov", "momentum": 0.9, "learning_rate": 0.7}
TOP, RANDOM = {"method": "top_k", "fraction": 0.3}, {"method": "random_k", "fraction": 0.1}
FOUR_BITS = {"method": "quantize", "bits": 4}
BOTH, DOWN = {"direction": "both"}, {"direction": "down"}
HALF = {"step_probability": 0.5}
BY_HAND: dict[str, list[dict[str, Any]]] = {
    "two": [
        {"periods": [{"first": 4, "add": 2}, 2], "participation": 0.5, "servers": {"site": ADAM}}
        | {"compression": {"worker": TOP, "site": TOP | BOTH}},
        {"phases": [{"iterations": 8, "period": 1}, {"iterations": 12, "periods": [6, 2]}, {"period": "once"}]}
        | {"train": {"momentum": 0.9, "state": "average"}, "servers": {"root": NESTEROV}},
        {
            "hier_avg": {"K1": 3, "K2": 12, "S": 3},
            "train": {"optimizer": "adam", "learning_rate": 0.01, "state": "average"},
        }
        | {"averaging": {"by": "samples"}, "participation": 0.5},
        {"period": {"first": 1, "times": 2, "most": 8}, "train": HALF | {"proximal": 0.5, "clip_norm": 0.5}}
        | {"compression": {"worker": FOUR_BITS, "root": RANDOM | DOWN}, "servers": {"root": ADAM}},
        {"period": 4, "train": {"correction": "scaffold", "proximal": 0.1}, "servers": {"root": NESTEROV}},
        {"phases": [{"iterations": 8, "period": 2, "participation": 0.5}, {"periods": [{"rounds": [4, 6]}, 2]}]}
        | {"compression": {"worker": RANDOM | {"error_feedback": False}, "root": FOUR_BITS | DOWN}},
    ],
    "hubs": [
        {
            "periods": [4, 2],
            "mixing": {},
            "compression": {"worker": RANDOM},
            "train": HALF | {"momentum": 0.5, "state": "reset"},
        },
        {
            "periods": [{"first": 2, "add": 2}, 2],
            "mixing": {"graph": "ring"},
            "servers": {"site": ADAM, "site-1": NESTEROV},
        },
        {"periods": [4, 4], "mixing": {"graph": [["site-0", "site-2"], ["site-2", "site-1"], ["site-3", "site-0"]]}}
        | {"averaging": {"by": "samples"}, "participation": 0.5},
        {"periods": ["once", 4], "mixing": {"graph": "complete", "weights": [[1 / 6, 2 / 6, 1 / 6, 2 / 6]] * 4}},
    ],
    "three": [
        {
            "periods": [{"rounds": [4, 8]}, 4, 2],
            "servers": {"hub": NESTEROV, "site": ADAM, "root": {"optimizer": "yogi", "learning_rate": 0.1}},
        }
        | {
            "compression": {"worker": FOUR_BITS, "hub": TOP | BOTH, "root": RANDOM | DOWN},
            "train": HALF,
            "participation": 0.5,
        },
        {
            "periods": [8, 4, 2],
            "train": {"optimizer": "adamw", "learning_rate": 0.02, "weight_decay": 0.1, "state": "average", **HALF},
        },
    ],
}


@pytest.fixture(scope="module")
def digits() -> Material:
    return Material(DataSpec(dataset="digits"), ModelSpec(name="softmax_regression"), Path())


def data_of(run: dict[str, Any], digits: Material) -> tuple[list[Data], Data]:
    """Return what each worker has, and the test set."""
    groups: dict[int, list[int]] = {}
    for number, worker in enumerate(node for node in tree_of(run["topology"]) if node.is_worker):
        groups.setdefault(id(worker.parent), []).append(number)
    found = digits.dataset
    shards = partition(DataSpec(**run["data"]), found.train_y, found.writers, [*groups.values()], run["seeds"][0])
    train, test = (np.asarray(x, float).reshape(len(x), -1) for x in (found.train_x, found.test_x))
    return [(train[shard], found.train_y[shard]) for shard in shards], (test, found.test_y)


def checked(run: dict[str, Any], path: Path) -> Experiment:
    """Return the run with those of its cases that go together, at least half of them; each mistake is of a case."""
    path.write_text(yaml.safe_dump(run, sort_keys=False), encoding="utf-8")
    try:
        return load_experiment(path)
    except ConfigError as error:
        wrong = {int(number) for problem in error.problems for number in re.findall(r"^cases\.(\d+)", problem.field)}
        if not 0 < len(wrong) <= len(run["cases"]) // 2:
            raise
        run["cases"] = [case for number, case in enumerate(run["cases"]) if number not in wrong]
        return checked(run, path)


def assert_as_in_numpy(run: dict[str, Any], folder: Path, digits: Material, engine: str = "usual") -> None:
    experiment = checked(run, folder / "run.yaml")
    run_experiment(experiment, folder / "out", Options("cpu", engine=engine, threads=1, jobs=1))
    curve, (data, test) = read_run(folder / "out").curve, data_of(run, digits)
    for case in run["cases"]:
        trial, found = Trial(run, case, data, test, run["seeds"][0]), curve[curve.case == case["name"]]
        rows = trial.rows()
        if trial.closest < 1e-12:
            continue
        assert list(found.iteration) == [row["iteration"] for row in rows], case
        for name in {name for row in rows for name in row}:
            mine = [row.get(name) for row in rows]
            if name.endswith(("_bytes", "_s")):
                theirs = [round(float(one) * (1e9 if name.endswith("_s") else 1)) for one in found[name]]
                assert theirs == mine, (name, case)
            else:
                mine = np.array(mine, float)
                theirs = found[name].to_numpy(float).copy()
                if name.endswith("accuracy"):
                    theirs[np.isnan(mine)] = np.nan
                np.testing.assert_allclose(theirs, mine, rtol=1e-9, atol=1e-12, err_msg=f"{name} {case}")


@pytest.mark.parametrize("kind", BY_HAND)
def test_by_hand(kind: str, tmp_path: Path, digits: Material) -> None:
    run = run_of(0, 0) | {"topology": TREES[kind], "seeds": [3], "data": {"dataset": "digits", "partition": "iid"}}
    run |= {
        "evaluation": {"averaged": {"after": 5}},
        "cases": [{"name": str(n)} | c for n, c in enumerate(BY_HAND[kind])],
    }
    costs = {"far": 0.3, "mid": 0.1, "near": 0.02, "direct": 0.26, "peer": 0.9}
    run["profiles"] = {name: {"rtt_s": rtt} for name, rtt in costs.items()} | {"slow": {"step_s": 0.011}}
    run["profiles"] = {name: one for name, one in run["profiles"].items() if f"'{name}'" in str(run["topology"])}
    run["train"] |= {"iterations": 24}
    assert_as_in_numpy(run, tmp_path, digits)
    assert len(run["cases"]) == len(BY_HAND[kind])


@pytest.mark.parametrize("seed", range(3))
def test_drawn(seed: int, tmp_path: Path, digits: Material) -> None:
    assert_as_in_numpy(run_of(seed, 10), tmp_path, digits)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 43))
def test_many_drawn(seed: int, tmp_path: Path, digits: Material) -> None:
    engine = ("usual", "layered:2", "vmap", "one_by_one")[seed % 4]
    assert_as_in_numpy(run_of(seed, 12), tmp_path, digits, engine)
