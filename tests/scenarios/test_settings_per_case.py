"""A case with settings of its own learns what a run with these settings learns; all else is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.results.read import RunResults
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime
from hsgd_emu.study.training.wanted import Resources, wanted

MOMENTUM = {"momentum": 0.9, "learning_rate": {"schedule": "step", "initial": 0.1, "milestones": [10]}}
BASE: dict[str, Any] = {
    "name": "per_case",
    "topology": {"levels": [{"name": "s", "count": 2, "uplink": "far"}, {"name": "w", "count": 3, "uplink": "near"}]},
    "profiles": {"near": {"rtt_s": 0.01}, "far": {"rtt_s": 0.1}},
    "compute": {"step_s": 0.004},
    "data": {"dataset": "digits", "partition": "dirichlet", "alpha": 0.5},
    "model": {"name": "mlp", "hidden": [8]},
    "train": {"iterations": 20, "learning_rate": 0.05, "weight_decay": 0.001},
    "cases": [
        {"name": "plain", "period": 5},
        {"name": "momentum", "period": 5, "train": MOMENTUM},
        {"name": "samples", "periods": [10, 5], "averaging": {"by": "samples"}},
        {"name": "half", "period": 5, "train": {"participation": 0.5}},
    ],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    return path


def learned(path: Path, out: Path, **options: Any) -> RunResults:
    return run(path, out, threads=1, engine="usual", jobs=1, **options)


def hashes(results: RunResults) -> dict[str, str]:
    return dict(zip(results.trials.case, results.trials.weights_hash, strict=True))


def test_each_case_learns_what_a_run_with_its_settings_learns(tmp_path: Path) -> None:
    mixed = hashes(learned(written(tmp_path), tmp_path / "mixed"))
    assert len(set(mixed.values())) == 4
    of_run: dict[str, dict[str, Any]] = {
        "plain": {},
        "momentum": {"train": BASE["train"] | MOMENTUM},
        "samples": {"averaging": {"by": "samples"}},
        "half": {"train": BASE["train"] | {"participation": 0.5}},
    }
    for name, sections in of_run.items():
        case = next(case for case in BASE["cases"] if case["name"] == name)
        bare = {key: value for key, value in case.items() if key not in ("train", "averaging")}
        alone = hashes(learned(written(tmp_path, cases=[bare], **sections), tmp_path / name))
        assert alone == {name: mixed[name]}


def key(experiment: Experiment, case: str) -> str:
    return wanted(experiment, case, 1, Resources("cpu", "cpu", "fp32"), look=False).key


def test_a_trial_is_known_by_what_holds_for_its_case(tmp_path: Path) -> None:
    first = load_experiment(written(tmp_path))
    assert key(first, "plain") != key(first, "momentum")
    # Said by the case or by the run: the same.
    second = load_experiment(written(tmp_path, train=BASE["train"] | MOMENTUM))
    assert key(second, "plain") == key(second, "momentum") == key(first, "momentum")
    third = load_experiment(written(tmp_path), ["cases.0.train.momentum=0.5"])
    assert key(third, "plain") not in (key(first, "plain"), key(first, "momentum"))
    assert key(third, "momentum") == key(first, "momentum")


def test_resume_takes_a_new_case_and_refuses_changed_ones_and_retime_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = written(tmp_path, cases=BASE["cases"][:2])
    before = hashes(learned(path, out))
    after = hashes(learned(written(tmp_path), out, resume=True))
    assert before.items() <= after.items()
    assert after == hashes(learned(path, tmp_path / "fresh"))
    with pytest.raises(ConfigError, match="differs in cases"):
        learned(path, out, resume=True, sets=["cases.1.train.momentum=0.8"])
    with pytest.raises(ConfigError, match=r"cases\.1\.train\.momentum: changes what is learned"):
        retime(out, tmp_path / "retimed", ["cases.1.train.momentum=0.8"])
    slower = retime(out, tmp_path / "slower", scales=["far=2"])
    assert dict(load_experiment(slower / "run.yaml").cases[1].train or ())["momentum"] == 0.9


def test_what_cases_share_cannot_be_said_by_one(tmp_path: Path) -> None:
    cases = [
        {"name": "a", "period": 5, "train": {"batch_size": 3, "momentum": 1.5}},
        {"name": "b", "period": 5, "participation": 0.5, "train": {"participation": 0.2, "optimiser": "adam"}},
    ]
    with pytest.raises(ConfigError) as caught:
        load_experiment(written(tmp_path, cases=cases))
    text = str(caught.value)
    assert "cases.0.train.batch_size: is the same in all cases" in text
    assert "cases.0.train.momentum: found 1.5; expected a number below 1" in text
    assert "cases.1.train.participation: stands beside the case's own participation" in text
    assert "cases.1.train.optimiser: " in text
    assert all(":" in line.partition(" cases.")[0] for line in text.splitlines())


def test_a_cosine_rate_of_one_case_keeps_iterations_from_growing(tmp_path: Path) -> None:
    cases = [{"name": "a", "period": 5, "train": {"learning_rate": {"schedule": "cosine", "initial": 0.1}}}]
    path = written(tmp_path, cases=cases)
    learned(path, tmp_path / "out")
    with pytest.raises(ConfigError, match="differs in train"):
        learned(path, tmp_path / "out", resume=True, sets=["train.iterations=40"])
