"""What a case computes in words, and its name where its keys are exactly that."""

from __future__ import annotations

from typing import Any

import pytest
from oracle.drive import experiment_of, run_data

from hsgd_emu.algorithm import Algorithm, algorithms, run_words

TOPOLOGY = {
    "levels": [{"name": "site", "count": 2, "uplink": "far"}, {"name": "worker", "count": 2, "uplink": "near"}],
    "links": [{"between": ["worker", "root"], "profile": "far"}],
}
PROFILES = {"near": {"rtt_s": 0.01}, "far": {"rtt_s": 0.1}}
NESTEROV = {"optimizer": "nesterov", "learning_rate": 0.7, "momentum": 0.9}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.001}


def found(case: dict[str, Any], train: dict[str, Any] | None = None, **sections: Any) -> Algorithm:
    data = run_data(TOPOLOGY, [{"name": "c", **case}], 40, 0.001, PROFILES)
    data["train"] = {"iterations": 40, "learning_rate": 0.1, **(train or {})}
    return algorithms(experiment_of(data | sections))["c"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"period": 10}, "local SGD: P = 10"),
        ({"period": {"first": 10, "add": 0}}, "local SGD: P = 10"),
        ({"period": 1}, "mini-batch SGD: P = 1"),
        ({"period": "once"}, "one-shot averaging: P = T (once)"),
        ({"period": {"first": 1, "add": 2}}, "local SGD with rounds of unlike lengths: P = 1, 3, 5, ..."),
        (
            {"period": {"first": 1, "times": 4, "most": 8}},
            "local SGD with rounds of unlike lengths: P = 1, 4, 8, ..., at most 8",
        ),
        ({"period": {"rounds": [5, 15]}}, "local SGD with rounds of unlike lengths: P = 5, 15, ..."),
        ({"periods": [10, 5]}, "H-SGD: G = 10, I = 5"),
        ({"periods": ["once", 5]}, "G = T (once), I = 5"),
        ({"periods": {"root": 20, "site-0": 5, "site-1": 10}}, "H-SGD: G = 20, I = 5 (site-0), 10 (site-1)"),
        ({"hier_avg": {"K1": 5, "K2": 10, "S": 2}}, "H-SGD: G = 10, I = 5"),
        ({"phases": [{"iterations": 20, "period": 1}, {"period": 10}]}, "post-local SGD: P = 1 until 20, then P = 10"),
        (
            {"phases": [{"iterations": 20, "periods": [10, 5]}, {"period": 20, "participation": 0.5}]},
            "G = 10, I = 5 until 20, then P = 20, 50% of the workers",
        ),
        ({"period": 10, "train": {"proximal": 0.1}}, "FedProx: P = 10, proximal 0.1"),
        ({"period": 10, "train": {"proximal": 0}}, "local SGD: P = 10"),
        ({"period": 10, "train": {"correction": "scaffold"}}, "SCAFFOLD: P = 10, control variates"),
        (
            {"period": 10, "servers": {"root": {"optimizer": "momentum", "momentum": 0.9}}},
            "FedAvgM: P = 10, server momentum (1, 0.9)",
        ),
        (
            {"period": 10, "servers": {"root": {"optimizer": "adam", "learning_rate": 0.1, "betas": [0.8, 0.9]}}},
            "FedAdam: P = 10, server Adam 0.1 (betas 0.8, 0.9)",
        ),
        (
            {"period": 10, "servers": {"root": NESTEROV}, "train": ADAMW},
            "DiLoCo: P = 10, server Nesterov (0.7, 0.9), AdamW 0.001",
        ),
        (
            {"period": 10, "train": {"momentum": 0.9, "state": "average"}},
            "PR-SGD with momentum: P = 10, momentum 0.9 averaged",
        ),
        (
            {"periods": [10, 5], "mixing": {"graph": "complete"}},
            "MLL-SGD: G = 10, I = 5, hubs mix with neighbours (complete)",
        ),
    ],
)
def test_a_case_says_what_it_computes(case: dict[str, Any], said: str) -> None:
    assert str(found(case)) == said


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({"period": 10, "servers": {"root": NESTEROV}}, "P = 10, server Nesterov (0.7, 0.9)"),
        ({"periods": [10, 5], "train": {"proximal": 0.1}}, "G = 10, I = 5, proximal 0.1"),
        (
            {"periods": [10, 5], "servers": {"site": {"optimizer": "momentum", "momentum": 0.5}}},
            "G = 10, I = 5, site momentum (1, 0.5)",
        ),
        (
            {"periods": [10, 5], "servers": {"root": {"optimizer": "momentum", "momentum": 0.5}}},
            "G = 10, I = 5, root momentum (1, 0.5)",
        ),
        (
            {"period": 10, "compression": {"worker": {"method": "top_k", "fraction": 0.05, "error_feedback": False}}},
            "P = 10, worker: top-k 5% up, no feedback",
        ),
        (
            {"periods": [10, 5], "compression": {"site-1": {"method": "quantize", "bits": 4, "direction": "both"}}},
            "G = 10, I = 5, site-1: 4 bits up and down",
        ),
        (
            {"period": 10, "compression": {"root": {"method": "random_k", "fraction": 0.1, "direction": "down"}}},
            "P = 10, root: random-k 10% down",
        ),
        (
            {"period": 10, "train": {"momentum": 0.9, "state": "reset"}},
            "P = 10, momentum 0.9 reset at each model",
        ),
        ({"period": 10, "train": {"step_probability": 0.5}}, "P = 10, steps with probability 0.5"),
        ({"period": 10, "averaging": {"by": "uniform"}}, "local SGD: P = 10, weighed alike"),
    ],
)
def test_what_is_not_exactly_one_of_the_literature_has_no_name(case: dict[str, Any], said: str) -> None:
    assert str(found(case)) == said


def test_what_the_run_says_of_all_is_not_said_of_each() -> None:
    assert str(found({"period": 10}, {"momentum": 0.9})) == "P = 10"
    # What the run has and the case has not is seen from what the case does instead.
    assert str(found({"period": 10, "train": {"momentum": 0}}, {"momentum": 0.9})) == "local SGD: P = 10, SGD 0.1"
    assert found({"period": 10}, servers={"root": {"optimizer": "yogi", "learning_rate": 0.1}}).name == "FedYogi"
    data = run_data(TOPOLOGY, [{"name": "c", "period": 10}], 40, 0.001, PROFILES)
    data["train"] |= {"learning_rate": {"schedule": "power", "initial": 2, "exponent": 0.6}, "weight_decay": 0.1}
    data["averaging"] = {"by": "samples"}
    assert run_words(experiment_of(data)) == "SGD 2 t^-0.6, weight decay 0.1, weighed by samples"
