"""Re-timed is freshly run: the law is equality, bit for bit, with a run under the new timing and the same seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from oracle.gates import DeadlineGate

from hsgd_emu.config.schema import Gamma, LinkProfile, Lognormal, Normal, Samples, Uniform
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import run
from hsgd_emu.study.changes import Changes, changed_experiment, scaled
from hsgd_emu.study.finished import finished_run, global_times_ns
from hsgd_emu.study.retime import retime

TWO = """
name: two
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near, compute: phone}]
  links: [{between: [worker, root], profile: far}]
profiles:
  near: {rtt_s: {distribution: lognormal, median: 0.02, sigma: 0.3}, source: a guess}
  far: {latency_s: {distribution: gamma, shape: 2, scale: 0.05}, bandwidth_bps: {up: 1e6, down: 4e6}, model: raw}
  phone: {step_s: {distribution: normal, mean: 0.004, std: 0.002}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 24, participation: 0.7}
cases:
  - {name: local, period: 4}
  - {name: even, periods: [12, 4]}
  - {name: own I, periods: {root: 12, site-0: 2, site-1: 6}}
averaging: {by: samples}
evaluation: {every_iterations: 10}
targets: {test_accuracy: [0.1]}
seeds: [1, 2]
"""
THREE = """
name: three
topology:
  root:
    aggregation_s: 0.01
    children:
      - name: cloud
        count: 2
        uplink: {rtt_s: 0.5}
        children:
          - {name: edge, count: 2, uplink: far, aggregation_s: 0.002, children: [{name: w, count: 2, uplink: near}]}
profiles: {near: {rtt_s: {samples: [0.01, 0.03]}}, far: {up_s: 0.1, down_s: {distribution: uniform, low: 0, high: 1}}}
compute: {step_s: {samples: [0.001, 0.004, 0.005]}}
model: {name: mlp, hidden: [8]}
train: {iterations: 16}
cases: [{name: H, periods: [8, 4, 2]}, {name: skip, periods: {root: 8, cloud: none, edge: 4}}]
"""
OTHER = """
name: other
root:
  children:
    - {name: site-0, uplink: slow, children: [{name: worker-0, uplink: near}, {name: worker-1, uplink: slow},
                                              {name: worker-2, uplink: near}]}
    - {name: site-1, uplink: near, children: [{name: worker-3, uplink: near}, {name: worker-4, uplink: near},
                                              {name: worker-5, uplink: near}]}
links: [{between: [site-0, site-1], profile: near}]
"""
TABLES = ("curve", "timeline", "targets", "barriers", "waits", "trials")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retime")
    (folder / "two.yaml").write_text(TWO)
    (folder / "three.yaml").write_text(THREE)
    (folder / "other.yaml").write_text(OTHER)
    (folder / "slow.yaml").write_text("rtt_s: {csv: pings.csv, column: s}\n")
    (folder / "pings.csv").write_text("s\n0.7\n0.9\n")
    for name in ("two", "three"):
        run(folder / f"{name}.yaml", folder / name, threads=1, device="cpu")
    return folder


@pytest.fixture(autouse=True)
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def assert_same(one: RunResults, other: RunResults) -> None:
    """All tables are equal to the bit; how the steps were taken, and what that cost this host, is no result."""
    for table in TABLES:
        left, right = (getattr(r, table).drop(columns=["engine", "wall_s"], errors="ignore") for r in (one, other))
        pd.testing.assert_frame_equal(left, right, check_exact=True)
    assert len(one.timeline) > 0
    assert one.run == other.run


def fresh(tmp_path: Path, name: str, *sets: str) -> RunResults:
    found = run(f"{name}.yaml", tmp_path / "fresh", sets=sets, threads=1, device="cpu")
    assert isinstance(found, RunResults)
    return found


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("two", ("profiles.far={rtt_s: {distribution: uniform, low: 0.1, high: 3}}", "profiles.phone.step_s=0.5")),
        ("two", ("message_bytes=1000000", "timeline=rounds", "targets={test_loss: [2.2]}", "name=x")),
        ("three", ("profiles.near.rtt_s=0.6", "topology.root.aggregation_s=0", "compute.step_s=0.008")),
    ],
)
def test_retimed_is_freshly_run(tmp_path: Path, name: str, sets: tuple[str, ...]) -> None:
    again = read_run(retime(name, tmp_path / "again", sets))
    assert_same(again, fresh(tmp_path, name, *sets))
    assert set(again.trials.engine) == {"recorded"}
    parent = read_run(name)
    assert list(again.trials.weights_hash) == list(parent.trials.weights_hash)
    assert list(again.trials.timeline_hash) != list(parent.trials.timeline_hash)


def test_nothing_changed_is_the_run_itself(tmp_path: Path) -> None:
    assert_same(read_run(retime("two", tmp_path / "again")), read_run("two"))


def test_another_topology_profile_and_factor_together(tmp_path: Path) -> None:
    changes = {"topology": "other.yaml", "profiles": ["slow=slow.yaml"], "scales": ["near=0.5", "near=3"]}
    again = retime("two", tmp_path / "again", ["compute.step_s=0.01"], **changes)
    # 0.02 s x 0.5 x 3; sigma is of the logarithm and stays.
    near = {"rtt_s": {"distribution": "lognormal", "median": 0.02 * 0.5 * 3, "sigma": 0.3}}
    near["source"] = "a guess (every time x 0.5) (every time x 3)"
    sets = ("topology=other.yaml", f"profiles={json.dumps({'near': near, 'slow': 'slow.yaml'})}", "compute.step_s=0.01")
    assert_same(read_run(again), fresh(tmp_path, "two", *sets))


def test_every_time_scaled_scales_every_time(tmp_path: Path) -> None:
    # Powers of two are exact in floats, so only the rounding of each draw to nanoseconds is left: 24 iterations with
    # a few draws each, at most 0.5 ns before doubling and after, stay below a microsecond.
    again = read_run(retime("two", tmp_path / "again", scales=["near=2", "far=2", "phone=2"]))
    ratio = again.curve.time_s - 2 * read_run("two").curve.time_s
    assert ratio.abs().max() < 1e-6
    again = read_run(retime("three", tmp_path / "three", ["topology.root.aggregation_s=0"], scales=["compute=4"]))
    assert again.run["compute"] == {"step_s": {"samples": [0.004, 0.016, 0.02]}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (LinkProfile(rtt_s=0.5, up_share=0.2), LinkProfile(rtt_s=1.0, up_share=0.2)),
        (
            LinkProfile(up_s=Samples(samples=(1.0, 3.0)), down_s=2.0),
            LinkProfile(up_s=Samples(samples=(2, 6)), down_s=4),
        ),
        (
            LinkProfile(rtt_s=Lognormal(distribution="lognormal", median=1, sigma=0.3)),
            LinkProfile(rtt_s=Lognormal(distribution="lognormal", median=2, sigma=0.3)),
        ),
        (
            LinkProfile(rtt_s=Normal(distribution="normal", mean=1, std=0.3)),
            LinkProfile(rtt_s=Normal(distribution="normal", mean=2, std=0.6)),
        ),
        (
            LinkProfile(rtt_s=Gamma(distribution="gamma", shape=3, scale=0.3)),
            LinkProfile(rtt_s=Gamma(distribution="gamma", shape=3, scale=0.6)),
        ),
        (
            LinkProfile(latency_s=Uniform(distribution="uniform", low=1, high=2), bandwidth_bps=8.0, model="raw"),
            LinkProfile(latency_s=Uniform(distribution="uniform", low=2, high=4), bandwidth_bps=4.0, model="raw"),
        ),
    ],
)
def test_twice_as_slow_in_every_form(before: LinkProfile, after: LinkProfile) -> None:
    assert scaled(before, 2) == after


def test_the_new_run_names_its_parent_and_can_be_retimed_again(tmp_path: Path) -> None:
    once = retime("two", tmp_path / "once", ["profiles.near.rtt_s=1", "name=once"])
    twice = read_run(retime(once, tmp_path / "twice", scales=["near=0.5"]))
    assert_same(twice, read_run(retime("two", tmp_path / "straight", ["profiles.near.rtt_s=0.5", "name=once",
        "profiles.near.source=a guess (every time x 0.5)"])))  # fmt: skip
    environment = read_run(once).environment
    parent, before = environment["parent"], read_run("two")
    assert parent["name"] == "two"
    assert parent["run_sha256"] == hashlib.sha256(Path("two/run.yaml").read_bytes()).hexdigest()
    hashes = before.trials.set_index(["case", "seed"]).weights_hash
    assert {(c, int(s)): h for c, of in parent["weights"].items() for s, h in of.items()} == dict(hashes)
    assert twice.environment["parent"]["parent"] == {"name": "two", "run_sha256": parent["run_sha256"]}
    for key in ("device", "threads", "precision", "torch", "message_bytes"):
        assert twice.environment[key] == before.environment[key]
    assert str(tmp_path) not in (once / "environment.json").read_text() + (once / "run.yaml").read_text()


@pytest.mark.parametrize(
    ("sets", "fields"),
    [
        (["train.learning_rate=0.1", "model.hidden=[9]"], ["train.learning_rate", "model.hidden"]),
        (["data.partition=iid", "averaging.by=workers"], ["data.partition", "averaging.by"]),
        (["cases.0.period=6", "evaluation.every_iterations=12", "seeds=[1]"], ["cases.0.period", "seeds", "evalu"]),
        (["topology.levels.1.count=4"], ["topology: has 11 nodes, and the run 9"]),
        (
            ["topology.levels.1.name=phone", "topology.links=[]"],
            ["topology: has 'phone-0' where the run has 'worker-0'"],
        ),
    ],
)
def test_what_changes_learning_is_refused_by_name(tmp_path: Path, sets: list[str], fields: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        retime("two", tmp_path / "again", sets)
    assert len(caught.value.problems) == len(fields)
    for field in fields:
        assert field in str(caught.value)
    assert "anew" in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_a_tree_of_another_shape_is_refused(tmp_path: Path) -> None:
    tree = yaml.safe_load(OTHER)
    sites = tree["root"]["children"]
    sites[0]["children"].append(sites[1]["children"].pop(0))
    (tmp_path / "moved.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match="has 'worker-3' where the run has 'site-1'"):
        retime("two", tmp_path / "again", ["compute.step_s=1"], (), ["slow=slow.yaml"], str(tmp_path / "moved.yaml"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scales": ["nera=2"]}, "--scale nera=2: the run has no profile 'nera'; did you mean 'near'?"),
        ({"scales": ["compute=2"]}, "the run has no profile 'compute'; it has far, near, phone"),
        ({"scales": ["near=0"]}, "found '0'; expected a factor above 0"),
        ({"scales": ["near=1_0"]}, "expected a factor above 0"),
        ({"scales": ["near=nan"]}, "expected a factor above 0"),
        ({"scales": ["near"]}, "expected NAME=FACTOR"),
        ({"scales": ["near=1e300"]}, "--scale near=1e300: profiles.near"),
        ({"profiles": ["near"]}, "expected NAME=FILE"),
        ({"profiles": ["nera=slow.yaml"]}, "--profile nera=slow.yaml: profiles.nera: the topology uses no profile"),
        ({"profiles": ["far=nowhere.yaml"]}, "--profile far=nowhere.yaml: profiles.far: no file 'nowhere.yaml'"),
        ({"topology": "nowhere.yaml"}, "--topology nowhere.yaml: no file 'nowhere.yaml'"),
        ({"sets": ["profiles.far.rtt=1"]}, "did you mean 'rtt_s'"),
    ],
)
def test_bad_changes_are_refused(tmp_path: Path, changes: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        retime("two", tmp_path / "again", **changes)
    assert said in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_the_size_of_a_message_cannot_be_taken_back(tmp_path: Path) -> None:
    once = retime("two", tmp_path / "once", ["message_bytes=1000"])
    assert read_run(retime(once, tmp_path / "twice")).environment["message_bytes"] == 1000
    with pytest.raises(ConfigError, match=r"message_bytes: the run was made with 1000"):
        retime(once, tmp_path / "back", ["message_bytes="])


def test_only_a_finished_run_that_learned_can_be_retimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("two.yaml", tmp_path / "silent", timing_only=True)
    with pytest.raises(ConfigError, match="--timing-only and learned nothing"):
        retime(tmp_path / "silent", tmp_path / "again")
    with pytest.raises(ConfigError, match="is no folder"):
        retime("nowhere", tmp_path / "again")
    part = retime("two", tmp_path / "part")
    with RunStore.open(part) as store:
        store.restart_trial(store.trials[1])
    with pytest.raises(ConfigError, match=r"not finished: local, seed 2; .* --resume"):
        retime(part, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_where_learning_depends_on_time_it_is_retimed_as_long_as_the_order_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Experiment.plan
    monkeypatch.setattr(Experiment, "plan", lambda *args: replace(plan(*args), gate=DeadlineGate, depends_on_time=True))
    retime("three", tmp_path / "same", ["compute.step_s={samples: [0.001, 0.004, 0.0051]}"])
    with pytest.raises(ConfigError, match=r"three: cannot be re-timed: .* depends on when models arrive.* H, seed 1"):
        retime("three", tmp_path / "again", ["profiles.near={rtt_s: {samples: [0.01, 3]}}"])
    assert not (tmp_path / "again").exists()
    # Studies of a finished run ask, too.
    finished = finished_run("three")
    slow = changed_experiment(
        Path("three/run.yaml"), Changes(None, [], ["profiles.near={rtt_s: {samples: [0.01, 3]}}"])
    )
    with pytest.raises(ConfigError, match="cannot be re-timed"):
        global_times_ns(finished, [slow], finished.experiment.schedules[0], [1], 16)


def test_what_is_there_is_kept_without_force(tmp_path: Path) -> None:
    out = retime("three", tmp_path / "out")
    before = read_run(out).curve
    with pytest.raises(ConfigError, match="holds a run already; --force replaces it"):
        retime("three", out, ["compute.step_s=1"])
    retime("three", out, ["compute.step_s=1"], force=True)
    assert (read_run(out).curve.time_s > before.time_s).all()
    with pytest.raises(ConfigError, match="is the run to be re-timed itself"):
        retime("three", "three", force=True)
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="holds no run"):
        retime("three", tmp_path, force=True)
