"""Run files that say the same in other words learn the same, to the bit and at the same times; others to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.run import Options, run_experiment

TREE = {"levels": [{"name": "site", "count": 2, "uplink": "far"}, {"name": "worker", "count": 3, "uplink": "near"}]}
ALONE = {"levels": [{"name": "site", "count": 1, "uplink": "far"}, {"name": "worker", "count": 1, "uplink": "near"}]}
RUN: dict[str, Any] = {
    "name": "equal",
    "topology": TREE,
    "profiles": {"far": {"rtt_s": 0.3}, "near": {"rtt_s": {"distribution": "gamma", "shape": 2, "scale": 0.01}}},
    "compute": {"step_s": {"distribution": "lognormal", "median": 0.02, "sigma": 0.5}},
    "data": {"dataset": "digits", "partition": "by_label"},
    "model": "softmax_regression",
    "train": {"iterations": 24, "batch_size": 10, "learning_rate": 0.2, "dtype": "float64"},
    "evaluation": {"every_iterations": 12},
}
P6: dict[str, Any] = {"period": 6}
MOMENTUM = {"optimizer": "momentum", "learning_rate": 1, "momentum": 0}
WHOLE = {
    "worker": {"method": "top_k", "fraction": 1},
    "root": {"method": "random_k", "fraction": 1, "direction": "down"},
}
FULL = {"batch_size": "full"}
HALF = {"momentum": 0.5}


def learned(folder: Path, cases: list[dict[str, Any]], **changes: Any) -> RunResults:
    train = RUN["train"] | changes.pop("train", {})
    named = [{"name": f"c{number}", **case} for number, case in enumerate(cases)]
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(RUN | {"train": train, "cases": named} | changes), encoding="utf-8")
    run_experiment(load_experiment(path), folder / "out", Options("cpu", engine="usual", threads=1, jobs=1))
    return read_run(folder / "out")


@pytest.mark.parametrize(
    "cases",
    [
        [
            *({"period": one} for one in (6, {"first": 6, "add": 0}, {"first": 6, "times": 1}, {"rounds": [6]})),
            *({"phases": [P6]}, {"periods": [6, "none"]}, {"phases": [{"iterations": 12, **P6}, P6]}),
        ],
        [{"period": 24}, {"period": "once"}, {"period": {"first": 24, "times": 2}}, {"period": {"rounds": [100]}}],
        [{"periods": [24, 4]}, {"periods": ["once", 4]}, {"phases": [{"periods": ["once", 4]}]}],
        [P6, P6 | {"train": {"learning_rate": {"schedule": "power", "initial": 0.2, "exponent": 0}}}],
        [P6]
        + [P6 | {"train": one} for one in ({"proximal": 0}, {"step_probability": 1}, {"state": "keep"})]
        + [P6 | {"train": {"step_probability": {"worker-1": 1.0}, "participation": 1}}, P6 | {"participation": 1}]
        + [P6 | {"servers": {"root": one}} for one in (MOMENTUM, {"optimizer": "average"})]
        + [P6 | {"compression": WHOLE}, P6 | {"averaging": {"by": "workers"}}, P6 | {"train": {"optimizer": "sgd"}}],
        [{"periods": [12, 6]}, {"hier_avg": {"K1": 6, "K2": 12, "S": 3}}],
        [P6, {"hier_avg": {"K1": 2, "K2": 6, "S": 1}}, {"hier_avg": {"K1": 6, "K2": 12, "S": 6}}],
    ],
    ids=["constant rounds", "once", "once at the root", "power 0", "neutral", "Hier-AVG", "Hier-AVG of one level"],
)
def test_to_the_bit_and_at_the_same_times(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    results = learned(tmp_path, cases)
    assert len(set(results.trials.weights_hash)) == 1
    assert len(set(results.trials.timeline_hash)) == 1
    assert results.curve.drop(columns="case").drop_duplicates().iteration.is_unique


@pytest.mark.parametrize("train", [{}, {"momentum": 0.9}, {"optimizer": "adam"}], ids=str)
def test_one_worker_alone_learns_the_same_whatever_the_period(train: dict[str, Any], tmp_path: Path) -> None:
    """`reset` too where there is nothing to be reset; also through servers that pass on what they have of one child."""
    schedules: list[dict[str, Any]] = [
        {"period": 1},
        {"period": 24},
        {"periods": [6, 2]},
        {"period": {"first": 1, "add": 1}},
    ]
    cases = [one | {"train": train | {"state": state}} for one in schedules for state in ("keep", "average")]
    cases += [] if train else [one | {"train": {"state": "reset"}} for one in schedules]
    assert len(set(learned(tmp_path, cases, topology=ALONE).trials.weights_hash)) == 1


CENTRAL = {"train": {"learning_rate": 1}, "servers": {"root": HALF | {"optimizer": "momentum", "learning_rate": 0.2}}}
MEAN = {"periods": [6, 2], "mixing": {"graph": "ring", "weights": [[0.5, 0.5], [0.5, 0.5]]}}


@pytest.mark.parametrize(
    "cases",
    [
        [P6, {"periods": [6, 6]}, *({"hier_avg": {"K1": 6, "K2": 6, "S": size}} for size in (1, 3, 6))],
        [{"period": 1}, {"periods": [1, 1]}, {"period": 1, "train": {"correction": "scaffold"}}],
        [*({"period": 1, "train": HALF | {"state": state}} for state in ("keep", "average")), {"period": 1} | CENTRAL],
        [{"periods": [6, 2]}, {"periods": [6, 2], "mixing": {"graph": "complete"}}, MEAN],
    ],
    ids=["groups that do nothing", "mini-batch", "momentum", "complete graph"],
)
def test_to_rounding(cases: list[dict[str, Any]], tmp_path: Path) -> None:
    curve = learned(tmp_path, cases).curve
    by_case = [rows.test_loss.to_numpy() for _, rows in curve.groupby("case", sort=False)]
    for other in by_case[1:]:
        np.testing.assert_allclose(other, by_case[0], rtol=1e-12)
