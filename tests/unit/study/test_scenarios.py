"""Scenarios put together from parts are the experiments that their whole run files would give."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsgd_emu.engine.network import Network
from hsgd_emu.experiment import Experiment
from hsgd_emu.study.changes import Changes, changed_experiment
from hsgd_emu.study.sweep.scenarios import Scenarios, Settings
from hsgd_emu.study.sweep.study_file import Study, load_study
from hsgd_emu.trials import Progress, Session

RUN = """\
name: base
topology:
  root: {aggregation_s: 0.1}
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near, compute: phone}]
  links: [{between: [worker, root], profile: direct}]
profiles:
  near: {latency_s: 0.01, bandwidth_bps: {up: 1.0e+6, down: 4.0e+6}, model: raw, source: a guess}
  far: {rtt_s: {distribution: lognormal, median: 0.2, sigma: 0.3}}
  direct: {up_s: 0.4, down_s: {samples: [0.1, 0.3]}}
  phone: {step_s: {distribution: gamma, shape: 2, scale: 0.002}}
  compute: {rtt_s: 1}
compute: {step_s: 0.004}
model: {name: mlp, hidden: [4]}
train: {iterations: 100}
cases: [{name: P=5, period: 5}, {name: H, periods: [50, 5]}]
targets: {test_accuracy: [0.5]}
"""
NETWORK = """\
levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
links: [{between: [site, site], profile: near}]
"""
LTE = "rtt_s: {samples: [0.2, 0.5]}\n"

# An axis, its values, and each as the command line's `--set`, `--scale`, `--profile` or `--topology` has it.
AXES: dict[str, tuple[str, list[Any], str]] = {
    "rtt_s: far": ("sets", [0.3, 2], "profiles.far={{rtt_s: {}}}"),
    "rtt_s: near": ("sets", [0, 0.05], "profiles.near={{rtt_s: {}}}"),
    "profile: direct": ("profiles", ["lte.yaml"], "direct={}"),
    "scale: far": ("scales", [0.5, 3], "far={}"),
    "scale: near": ("scales", [4], "near={}"),
    "scale: phone": ("scales", [2, 0.25], "phone={}"),
    "scale: compute": ("scales", [2], "compute={}"),
    "set: compute.step_s": ("sets", [0.5, {"samples": [1, 2]}], "compute.step_s={}"),
    "set: profiles.near.latency_s": ("sets", [0.7], "profiles.near.latency_s={}"),
    "set: profiles.near.bandwidth_bps.up": ("sets", [1e5], "profiles.near.bandwidth_bps.up={}"),
    "set: profiles.phone": ("sets", [{"step_s": 0.1}], "profiles.phone={}"),
    "set: profiles.far.rtt_s.median": ("sets", [0.9], "profiles.far.rtt_s.median={}"),
    "set: topology.levels.1.count": ("sets", [1, 4], "topology.levels.1.count={}"),
    "set: cases.1.periods.0": ("sets", [25, 100], "cases.1.periods.0={}"),
    "set: train.learning_rate": ("sets", [0.5], "train.learning_rate={}"),
    "set: message_bytes": ("sets", [1, 10**7], "message_bytes={}"),
    "set: topology": ("topology", ["network.yaml"], "{}"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenarios")
    # A profile called compute is one of the topology's; most runs have none. There the run's own is the workers'.
    (folder / "run.yaml").write_text(RUN.replace("  compute: {rtt_s: 1}\n", ""))
    named = RUN.replace("count: 2, uplink: far", "count: 2, uplink: compute").replace(", compute: phone", "")
    unused = ("  far:", "  phone:")
    (folder / "named.yaml").write_text("\n".join(line for line in named.splitlines() if not line.startswith(unused)))
    (folder / "network.yaml").write_text(NETWORK)
    (folder / "lte.yaml").write_text(LTE)
    return folder


def study_of(place: Path, axes: list[str], run: str = "run.yaml") -> Study:
    texts = [f"{{name: x{i}, {axis}, values: {json.dumps(AXES[axis][1])}}}" for i, axis in enumerate(axes)]
    (place / "s.yaml").write_text(f"name: s\nrun: {run}\naxes: [{', '.join(texts)}]\n")
    return load_study(place / "s.yaml")


def built_in_full(place: Path, axes: list[str], values: tuple[Any, ...]) -> Experiment:
    changes: dict[str, Any] = {"sets": [], "scales": [], "profiles": [], "topology": None}
    for axis, value in zip(axes, values, strict=True):
        kind, _, form = AXES[axis]
        given = str(place / f"{value.text}.yaml") if kind in ("topology", "profiles") else value.data
        text = form.format(given if isinstance(given, str) else json.dumps(given))
        changes[kind] = text if kind == "topology" else [*changes[kind], text]
    return changed_experiment(place / "run.yaml", Changes(**changes))


def overlap(one: str, other: str) -> bool:
    """Whether a study refuses two axes: both change the same value, or one of them all of what the other is part of."""
    if (one.startswith("scale") or other.startswith("scale")) and one != other:
        return False
    keys = [
        tuple(a[5:].split(".")) if a.startswith("set") else ("profiles", a.partition(": ")[2]) for a in (one, other)
    ]
    shorter = min(map(len, keys))
    return keys[0][:shorter] == keys[1][:shorter]


def contents(network: Network) -> list[Any]:
    links = {ref: transfer.profile for ref, transfer in network.transfers.items()}
    return [links, *({node: cost.value for node, cost in of.items()} for of in (network.steps, network.aggregations))]


@st.composite
def some_axes(draw: st.DrawFn) -> list[str]:
    chosen: list[str] = []
    for axis in draw(st.lists(st.sampled_from(list(AXES)), min_size=1, max_size=4, unique=True)):
        if not any(overlap(axis, other) for other in chosen):
            chosen.append(axis)
    if "set: topology" in chosen:  # the other network has neither phones nor direct links
        chosen = [axis for axis in chosen if "phone" not in axis and "direct" not in axis]
    return chosen


@given(axes=some_axes())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_put_together_is_built_in_full(place: Path, axes: list[str]) -> None:
    study = study_of(place, axes)
    made = Settings(Scenarios(study))
    for values in study.scenarios:
        full, setting = built_in_full(place, axes, values), made.setting(values)
        found = setting.experiment
        assert found.topology == full.topology
        assert found.schedules == full.schedules
        # And so the clock is given the very plans of a run.
        assert contents(found.network) == contents(full.network)
        session = Session.of(full, Progress(), setting.message_bytes, {})
        for schedule in found.schedules:
            assert setting.routes[schedule.pairs] == session.cases[schedule.name][1]


def test_random_is_what_draws(place: Path) -> None:
    study = study_of(place, ["rtt_s: far", "set: profiles.phone", "profile: direct"])
    (setting, *_) = [Settings(Scenarios(study)).setting(values) for values in study.scenarios]
    assert setting.is_random  # the direct links' samples
    constant = load_study(
        place / "s.yaml", ["set={profiles.direct: {rtt_s: 1}}", "axes=[{name: p, set: profiles.phone, values: "
        "[{step_s: 1}, {step_s: {samples: [1]}}]}, {name: f, rtt_s: far, values: [1]}]"]
    )  # fmt: skip
    found = [Settings(Scenarios(constant)).setting(values).is_random for values in constant.scenarios]
    assert found == [False, True]
    random = load_study(
        place / "s.yaml", ["set={profiles.direct: {rtt_s: 1}, profiles.phone: {step_s: 1}, topology.root.aggregation_s:"
        " {samples: [1]}}", "axes=[{name: f, rtt_s: far, values: [1]}]"]
    )  # fmt: skip
    assert Settings(Scenarios(random)).setting(random.scenarios[0]).is_random


def test_a_profile_called_compute_is_the_topologys(place: Path) -> None:
    study = study_of(place, ["scale: compute", "set: compute.step_s"], "named.yaml")
    found = Scenarios(study).network(study.scenarios[0])
    assert found.transfers["compute"].profile.rtt_s == 2
    assert {cost.value for cost in found.steps.values()} == {0.5}


def test_many_scenarios_share_what_they_can(place: Path) -> None:
    text = "{{name: {0}, rtt_s: {0}, values: {{from: 0.01, to: 1, num: {1}, spacing: log}}}}"
    axes = [text.format("far", 70), text.format("near", 48), "{name: step, set: compute.step_s, values: [1, 2, 3]}"]
    (place / "many.yaml").write_text(f"name: s\nrun: run.yaml\naxes: [{', '.join(axes)}]\n")
    begin = time.perf_counter()
    study = load_study(place / "many.yaml")
    made = Settings(Scenarios(study))
    found = [made.setting(values) for values in study.scenarios]
    wall_s = time.perf_counter() - begin
    assert len(found) == 70 * 48 * 3
    assert len({id(one.experiment.network.transfers["far"]) for one in found}) == 70
    assert len({id(one.experiment.network.steps) for one in found}) == 3
    # Ways of local SGD: the direct link or through the site; of a site: far, or through a worker and its direct link.
    assert len({id(routes) for one in found for routes in one.routes.values()}) <= 6
    # About 1.5 s on one core; a full build of each would take above 20.
    assert wall_s < 10
