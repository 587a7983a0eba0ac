"""Re-timed = freshly run, for the run files we ship and for networks made at random."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsgd_emu.results.read import read_run
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime

from .test_retime import assert_same

RUNS = Path(__file__).parents[3] / "runs"


def assert_retimed_equals_fresh(parent: Path, out: Path, *, sets: list[str], scales: list[str]) -> None:
    """The re-timed run's own resolved run file, run anew, must give the very same tables."""
    retimed = retime(parent, out / "retimed", sets=sets, scales=scales)
    assert_same(read_run(retimed), run(retimed / "run.yaml", out / "fresh", device="cpu", threads=1))


@pytest.mark.parametrize(("name", "link"), [("demo", "far"), ("three_levels", "wan")])
def test_shipped_runs(name, link, tmp_path):
    parent = tmp_path / "parent"
    run(RUNS / f"{name}.yaml", parent, sets=["train.iterations=200", "seeds=[1]"], device="cpu", threads=1)
    sets = ["compute.step_s={distribution: gamma, shape: 2, scale: 0.003}"]
    assert_retimed_equals_fresh(parent, tmp_path, sets=sets, scales=[f"{link}=2.5"])


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
