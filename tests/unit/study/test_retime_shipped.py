"""Re-timed = freshly run, for the run files we ship and for networks made at random."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hsgd_emu.results.read import read_run
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime

from .test_retime import assert_same

RUNS = Path(__file__).parents[3] / "runs"


def assert_retimed_equals_fresh(parent: Path, out: Path, *, sets: list[str], scales: list[str]) -> None:
    """The re-timed run's own resolved run file, run anew, must give the very same tables."""
    retimed = retime(parent, out / "retimed", sets=sets, scales=scales)
    assert_same(read_run(retimed), run(retimed / "run.yaml", out / "fresh", device="cpu", threads=1))


@pytest.mark.parametrize(
    ("name", "link", "iterations"), [("demo", "far", 100), ("three_levels", "wan", 80), ("algorithms", "far", 100)]
)
def test_shipped_runs(name, link, iterations, tmp_path):
    parent = tmp_path / "parent"
    run(RUNS / f"{name}.yaml", parent, sets=[f"train.iterations={iterations}", "seeds=[1]"], device="cpu", threads=1)
    sets = ["compute.step_s={distribution: gamma, shape: 2, scale: 0.003}"]
    assert_retimed_equals_fresh(parent, tmp_path, sets=sets, scales=[f"{link}=2.5"])


def test_the_shipped_run_on_image_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HSGD_EMU_DATA", str(tmp_path))
    dice = np.random.default_rng(1)
    for part, num in (("train", 12), ("test", 3)):
        for name in range(10):
            folder = tmp_path / "cifar10_jpeg" / part / f"class{name}"
            folder.mkdir(parents=True)
            for number in range(num):
                Image.fromarray(dice.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.jpg")
    run(RUNS / "cifar10_small.yaml", tmp_path / "run", sets=["train.iterations=50"], device="cpu", threads=1)
    assert_retimed_equals_fresh(tmp_path / "run", tmp_path, sets=["profiles.far.rtt_s=0.6"], scales=["near=3"])


def test_the_shipped_run_on_writers(tmp_path, monkeypatch):
    # Its own network would take a minute here; what is learned is not what this is about.
    monkeypatch.setenv("HSGD_EMU_DATA", str(tmp_path))
    dice = np.random.default_rng(1)
    for part, num in (("train", 4), ("test", 1)):
        folder = tmp_path / "femnist_leaf" / part
        folder.mkdir(parents=True)
        users = [f"writer{number}" for number in range(105)]
        drawn = {
            user: {"x": dice.random((num, 784)).tolist(), "y": dice.integers(0, 62, num).tolist()} for user in users
        }
        data = {"users": users, "num_samples": [num] * len(users), "user_data": drawn}
        (folder / "data.json").write_text(json.dumps(data))
    sets = ["train.iterations=50", "model=softmax_regression"]
    run(RUNS / "femnist.yaml", tmp_path / "run", sets=sets, device="cpu", threads=1)
    assert_retimed_equals_fresh(tmp_path / "run", tmp_path, sets=["compute.step_s=0.02"], scales=["far=0.3"])


COST = st.one_of(
    st.floats(0.001, 2).map(lambda seconds: round(seconds, 4)),
    st.fixed_dictionaries({"distribution": st.just("lognormal"), "median": st.just(0.1), "sigma": st.floats(0.1, 1)}),
    st.fixed_dictionaries({"samples": st.lists(st.floats(0.001, 1), min_size=1, max_size=4)}),
)


@st.composite
def runs(draw: st.DrawFn) -> dict:
    """A small run on a two-level network with groups of different sizes and periods."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    children = [
        {"name": f"s{number}", "uplink": "far", "children": [{"name": f"w{number}", "count": size, "uplink": "near"}]}
        for number, size in enumerate(sizes)
    ]
    periods = {"root": 4} | {f"s{number}": draw(st.sampled_from([1, 2, 4])) for number in range(len(sizes))}
    return {
        "name": "made",
        "topology": {"root": {"children": children}},
        "profiles": {"near": {"rtt_s": draw(COST)}, "far": {"rtt_s": draw(COST)}},
        "compute": {"step_s": draw(COST)},
        "model": "softmax_regression",
        "train": {"iterations": 8, "batch_size": 4, "participation": draw(st.sampled_from([1.0, 0.6]))},
        "cases": [{"name": "P", "period": 2}, {"name": "H", "periods": periods}],
        "seeds": [draw(st.integers(0, 5))],
    }


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs(), COST, st.sampled_from([0.1, 1.5, 7.0]))
def test_networks_made_at_random(tmp_path_factory, spec, step_s, factor):
    folder = tmp_path_factory.mktemp("made")
    (folder / "run.yaml").write_text(yaml.safe_dump(spec))
    run(folder / "run.yaml", folder / "parent", device="cpu", threads=1)
    sets = [f"compute.step_s={yaml.safe_dump(step_s, default_flow_style=True).splitlines()[0]}"]
    assert_retimed_equals_fresh(folder / "parent", folder, sets=sets, scales=[f"near={factor}"])
