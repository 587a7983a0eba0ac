"""Runs with SCAFFOLD: what it costs, what it may not stand beside, gone on with and timed again."""

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

BASE: dict[str, Any] = {
    "name": "corrected",
    "topology": {"levels": [{"name": "s", "count": 2, "uplink": "far"}, {"name": "w", "count": 3, "uplink": "near"}]},
    "profiles": {"near": {"latency_s": 0.1, "bandwidth_bps": 8000, "model": "raw"}, "far": {"rtt_s": 0.1}},
    "compute": {"step_s": 0.004},
    "data": {"dataset": "digits", "partition": "by_label"},
    "model": {"name": "mlp", "hidden": [8]},
    "message_bytes": 1000,
    "averaging": {"by": "samples"},
    "train": {"iterations": 20, "learning_rate": 0.05},
    "cases": [{"name": "c", "period": 5, "train": {"correction": "scaffold"}}, {"name": "plain", "period": 5}],
}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}), encoding="utf-8")
    return path


def learned(path: Path, out: Path, stop_at: int | None = None, sets: tuple[str, ...] = ()) -> RunResults:
    options = Options("cpu", engine="usual", resume=out.exists(), threads=1, jobs=1, stop_at=stop_at)
    run_experiment(load_experiment(path, sets), out, options)
    return RunResults(out)


def assert_same(one: RunResults, other: RunResults) -> None:
    for table in ("curve", "timeline", "trials"):
        pair = [getattr(results, table).drop(columns=["wall_s", "engine"], errors="ignore") for results in (one, other)]
        pd.testing.assert_frame_equal(*pair)


def test_messages_are_twice_as_large_and_runs_go_on_and_are_timed_again(tmp_path: Path) -> None:
    path, changed = written(tmp_path), ("profiles.near.latency_s=0.5",)
    whole = learned(path, tmp_path / "whole")
    curve = whole.curve.set_index("case")
    assert curve.loc["c", "uploaded_bytes"].tolist() == [2 * n for n in curve.loc["plain", "uploaded_bytes"]]
    seconds = curve.loc["c", "time_s"].to_numpy() - curve.loc["plain", "time_s"].to_numpy()
    # A second more on the near link each way, each of the four rounds.
    assert seconds == pytest.approx([2.0, 4.0, 6.0, 8.0])
    for stop_at in (5, 15, None):
        stopped = learned(path, tmp_path / "stopped", stop_at)
    assert_same(stopped, whole)
    retime(tmp_path / "whole", tmp_path / "retimed", sets=changed)
    assert_same(RunResults(tmp_path / "retimed"), learned(path, tmp_path / "fresh", sets=changed))


def test_none_is_without_it(tmp_path: Path) -> None:
    cases = [{**BASE["cases"][0], "train": {"correction": "none"}}, BASE["cases"][1]]
    path = written(tmp_path, cases=cases)
    results = run(path, tmp_path / "out", threads=1, engine="usual", jobs=1)
    assert len(set(results.trials.weights_hash)) == 1


@pytest.mark.parametrize(
    ("sets", "texts"),
    [
        (["cases=[{name: c, periods: [10, 5]}]"], ["give `period` instead of `periods`"]),
        (["train.momentum=0.5"], ["with momentum 0.5; its steps are plain SGD"]),
        (["train.optimizer=adam"], ["with optimizer adam"]),
        (["train.participation=0.5"], ["with participation 0.5; all workers take part"]),
        (["train.step_probability=0.5"], ["with step_probability; all workers take all steps"]),
        (["compression={w: {method: top_k, fraction: 0.5}}"], ["with compression"]),
        (["train.momentum=0.5", "cases.0.participation=0.5"], ["with momentum 0.5", "with participation 0.5"]),
    ],
)
def test_what_it_does_not_go_together_with(sets: list[str], texts: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, cases=BASE["cases"][:1], train=BASE["train"] | {"correction": "scaffold"})
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, ["cases=[{name: c, period: 5}]", *sets])
    problems = [problem for problem in caught.value.problems if problem.field == "train.correction"]
    assert len(problems) == len(texts)
    for problem, text in zip(problems, texts, strict=True):
        assert text in problem.message
        assert problem.where.startswith(str(path))
