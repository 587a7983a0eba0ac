"""Runs in which servers step by rules of their own and senders compress: found again, gone on with, timed again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from hsgd_emu.engine.emulate import emulate, operations_hash
from hsgd_emu.engine.operations import Operations
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.run import Options, run, run_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.training.wanted import Resources, experiment_of, wanted

OWN = """
class Slower:
    def __init__(self, share):
        self.share = share

    def step(self, state, x, average):
        state["steps"] = state.get("steps", next(iter(x.values())).new_zeros(())) + 1
        rate = self.share / state["steps"]
        return {name: before + rate * (average[name] - before) for name, before in x.items()}


def slower(share=1.0):
    return Slower(share)


def broken():
    class Broken:
        def step(self, state, x, average):
            return {"other": average}

    return Broken()
"""
ADAM = {"optimizer": "adam", "learning_rate": 0.01}
TOP, STOCHASTIC = {"method": "top_k", "fraction": 0.05}, {"method": "quantize", "bits": 4}
RANDOM = {"method": "random_k", "fraction": 0.1}
CASES: list[dict[str, Any]] = [
    {"name": "plain", "periods": [8, 4]},
    {"name": "momentum", "periods": [8, 4], "servers": {"root": {"optimizer": "momentum", "momentum": 0.5}}},
    {"name": "adam", "periods": [8, 4], "servers": {"site": ADAM, "root": {"optimizer": "nesterov", "momentum": 0.9}}},
    {"name": "own", "period": 4, "servers": {"root": {"optimizer": "rules:slower", "options": {"share": 0.9}}}},
    {"name": "up", "period": 4, "compression": {"worker": TOP}},
    {
        "name": "both ways",
        "periods": [8, 4],
        "compression": {
            "worker": RANDOM,
            "site": STOCHASTIC | {"direction": "both"},
            "root": TOP | {"direction": "down"},
        },
    },
    {
        "name": "all",
        "phases": [{"iterations": 8, "period": 2}, {"periods": [8, 4]}],
        "servers": {"root": ADAM},
        "compression": {"worker": STOCHASTIC, "root": TOP | {"direction": "down"}},
    },
]
BASE: dict[str, Any] = {
    "name": "rules",
    "topology": {
        "levels": [{"name": "site", "count": 2, "uplink": "far"}, {"name": "worker", "count": 3, "uplink": "near"}]
    },
    "profiles": {"near": {"rtt_s": 0.01}, "far": {"rtt_s": {"distribution": "gamma", "shape": 2, "scale": 0.1}}},
    "compute": {"step_s": {"distribution": "lognormal", "median": 0.02, "sigma": 0.5}},
    "data": {"dataset": "digits", "partition": "by_label"},
    "model": {"name": "mlp", "hidden": [8]},
    "train": {"iterations": 32, "learning_rate": 0.1, "participation": 0.7, "momentum": 0.5},
    "evaluation": {"every_iterations": 16},
    "cases": CASES,
}


def written(folder: Path, **changes: Any) -> Path:
    (folder / "rules.py").write_text(OWN)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    return path


def learned(path: Path, out: Path, **options: Any) -> RunResults:
    return run(path, out, threads=1, engine="usual", jobs=1, **options)


def hashes(results: RunResults) -> dict[str, str]:
    return dict(zip(results.trials.case, results.trials.weights_hash, strict=True))


def case(name: str) -> dict[str, Any]:
    return next(one for one in CASES if one["name"] == name)


def test_a_run_gone_on_with_and_timed_again_is_as_one_never_stopped(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = learned(path, tmp_path / "whole")
    assert len(set(hashes(whole).values())) == len(CASES)
    for stop_at in (4, 16, None):
        options = Options("cpu", engine="usual", resume=True, threads=1, stop_at=stop_at)
        run_experiment(load_experiment(path), tmp_path / "again", options)
    again = read_run(tmp_path / "again")
    for table in ("curve", "trials"):
        frames = [getattr(one, table).drop(columns="wall_s", errors="ignore") for one in (whole, again)]
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    slower = ["profiles.far.rtt_s.scale=3"]
    timed = read_run(retime(tmp_path / "whole", tmp_path / "retimed", slower))
    fresh = learned(path, tmp_path / "fresh", sets=slower)
    pd.testing.assert_frame_equal(timed.curve, fresh.curve, check_exact=True)


@pytest.mark.parametrize("name", [one["name"] for one in CASES])
def test_the_walk_without_a_clock_has_the_engines_operations(tmp_path: Path, name: str) -> None:
    experiment = load_experiment(written(tmp_path, cases=[case(name)], message_bytes=1000))
    (schedule,) = experiment.schedules
    plan, operations = experiment.plan(schedule, experiment.routes(schedule, 1000), 1000, 1), Operations()
    emulate(plan, operations, lambda record: None)
    assert operations.digest() == operations_hash(plan)


@pytest.mark.parametrize(
    "section",
    [
        {
            "servers": {
                "root": {"optimizer": "momentum", "momentum": 0, "learning_rate": 1},
                "site": {"optimizer": "average"},
            }
        },
        {"servers": {"root": {"optimizer": "nesterov", "momentum": 0}}},
        {
            "compression": {
                "worker": {"method": "top_k", "fraction": 1},
                "root": {**RANDOM, "fraction": 1, "direction": "down"},
            }
        },
    ],
)
def test_what_changes_nothing_is_as_if_it_were_not_there(tmp_path: Path, section: dict[str, Any]) -> None:
    cases = [case("plain"), case("plain") | {"name": "same"} | section]
    results = learned(written(tmp_path, cases=cases, train=BASE["train"] | {"iterations": 8}), tmp_path / "out")
    assert len(set(results.trials.weights_hash)) == 1
    assert len(set(results.trials.timeline_hash)) == 1
    experiment = load_experiment(tmp_path / "run.yaml")
    assert key(experiment, "plain") == key(experiment, "same")


def key(experiment: Experiment, name: str) -> str:
    return wanted(experiment, name, 1, Resources("cpu", "cpu", "fp32"), look=False).key


def test_a_trial_is_known_by_what_servers_and_senders_do_whatever_they_are_called(tmp_path: Path) -> None:
    both = {"site-0": ADAM, "site-1": ADAM | {"betas": [0.9, 0.99], "epsilon": 1e-3}}
    cases = [
        case("plain"),
        case("plain") | {"name": "class", "servers": {"site": ADAM}},
        case("plain") | {"name": "names", "servers": both},
        case("plain") | {"name": "one", "servers": {"site-0": ADAM}},
        # A name beats its class.
        case("plain") | {"name": "beats", "servers": {"site": {"optimizer": "average"}, "site-0": ADAM}},
        case("plain") | {"name": "up", "compression": {"site": TOP}},
        case("plain") | {"name": "named", "compression": {"site-0": TOP, "site-1": TOP | {"direction": "up"}}},
        case("plain") | {"name": "both", "compression": {"site": TOP | {"direction": "both"}}},
    ]
    experiment = load_experiment(written(tmp_path, cases=cases))
    keys = {one["name"]: key(experiment, one["name"]) for one in cases}
    assert keys["class"] == keys["names"]
    assert keys["one"] == keys["beats"]
    assert keys["up"] == keys["named"]
    assert len(set(keys.values())) == 5
    # What a study learns apart from the run is the same trial, and found again.
    apart = wanted(experiment, "both", 1, Resources("cpu", "cpu", "fp32"), look=False)
    again = experiment_of(apart)
    assert set(again.effects(again.cases[0].name).senders) == set(experiment.effects("both").senders)
    assert key(again, again.cases[0].name) == apart.key


def test_momentum_at_the_root_every_iteration_is_central_momentum(tmp_path: Path) -> None:
    cases = [
        {"name": "central", "period": 1, "train": {"learning_rate": 0.3, "momentum": 0.9}},
        {
            "name": "server",
            "period": 1,
            "train": {"learning_rate": 1.0, "momentum": 0.0},
            "servers": {"root": {"optimizer": "momentum", "momentum": 0.9, "learning_rate": 0.3}},
        },
    ]
    train = {"iterations": 20, "dtype": "float64", "batch_size": "full"}
    curve = learned(written(tmp_path, cases=cases, train=train, model="softmax_regression"), tmp_path / "out").curve
    losses = [curve[curve.case == name].test_loss for name in ("central", "server")]
    np.testing.assert_allclose(*losses, rtol=1e-12)


@pytest.mark.parametrize(
    ("section", "field", "text"),
    [
        ({"servers": {"worker": ADAM}}, "servers.worker", "'worker' is a worker, and only servers aggregate"),
        ({"servers": {"sight": ADAM}}, "servers.sight", "no server of the topology; did you mean 'site'?"),
        (
            {"servers": {"root": {"optimizer": "momentum"}}},
            "servers.root",
            "momentum needs a momentum, as in {optimizer:",
        ),
        (
            {"servers": {"root": {"optimizer": "yogi"}}},
            "servers.root",
            "yogi needs a learning rate, as in {optimizer: yogi",
        ),
        (
            {"servers": {"root": ADAM | {"momentum": 0.9}}},
            "servers.root",
            "momentum is of momentum, nesterov; adam has",
        ),
        (
            {"servers": {"root": {"optimizer": "average", "betas": [0.9, 0.9]}}},
            "servers.root",
            "betas is of adam, yogi, adagrad; average has none",
        ),
        (
            {"servers": {"root": {"optimizer": "adm"}}},
            "servers.root.optimizer",
            "found 'adm'; expected one of average,",
        ),
        (
            {"servers": {"root": {"optimizer": "rules:slower", "learning_rate": 1}}},
            "servers.root",
            "learning_rate beside the own rule 'rules:slower'; what it takes stands in options",
        ),
        (
            {"compression": {"root": TOP}},
            "compression.root",
            "'root' sends nothing up, and compression stands under the name",
        ),
        ({"compression": {"worker": TOP | {"direction": "both"}}}, "compression.worker", "sends nothing down, and"),
        (
            {"compression": {"work": TOP}},
            "compression.work",
            "'work' is no node of the topology; did you mean 'worker'?",
        ),
        (
            {"compression": {"worker": TOP | {"bits": 4}}},
            "compression.worker",
            "both fraction and bits; fraction is of top_k",
        ),
        (
            {"compression": {"worker": STOCHASTIC | {"bits": 17}}},
            "compression.worker.bits",
            "found 17; expected a whole num",
        ),
        (
            {"compression": {"worker": {"method": "top_k"}}},
            "compression.worker",
            "top_k needs fraction, as in {method: top_k",
        ),
        ({"compression": {"worker": TOP}, "train": {"state": "average"}}, "compression", "beside train.state: average"),
    ],
)
def test_mistakes(tmp_path: Path, section: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(written(tmp_path, cases=[case("plain") | section]))
    (problem,) = caught.value.problems
    assert problem.field == f"cases.0.{field}"
    assert text in problem.message
    assert "run.yaml:" in problem.where


def test_a_server_that_only_passes_models_on_has_no_rule(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'site' averages nothing here: it has no period") as caught:
        load_experiment(written(tmp_path, cases=[{"name": "flat", "period": 4, "servers": {"site": ADAM}}]))
    assert len(caught.value.problems) == 1
    # Of the run's servers each aggregates in some case that has none of its own.
    load_experiment(written(tmp_path, cases=[{"name": "flat", "period": 4}, case("plain")], servers={"site": ADAM}))
    with pytest.raises(ConfigError, match="'site' averages nothing here"):
        load_experiment(written(tmp_path, cases=[{"name": "flat", "period": 4}], servers={"site": ADAM}))


def test_a_rule_that_does_not_work_is_told_in_a_line(tmp_path: Path) -> None:
    for name, why in (("broken", r"step returned of \['other'\]"), ("nothing", "has no attribute 'nothing'")):
        path = written(
            tmp_path, cases=[{"name": "c", "period": 4, "servers": {"root": {"optimizer": f"rules:{name}"}}}]
        )
        with pytest.raises(ConfigError, match=f"the own rule 'rules:{name}' does not work: .*{why}"):
            learned(path, tmp_path / name)


def test_compression_that_saves_no_time_is_noted(tmp_path: Path) -> None:
    notes = load_experiment(written(tmp_path, cases=[case("plain"), case("up")])).notes
    text = "saves bytes, but no time over near, far, where a message of any size takes as long"
    assert [(note.field, text in note.message) for note in notes] == [("cases.1.compression", True)], notes
    sized = {"latency_s": 0.01, "bandwidth_bps": 1e6, "model": "raw"}
    both = {"near": sized, "far": sized}
    assert load_experiment(written(tmp_path, cases=[case("up")], profiles=both)).notes == ()
