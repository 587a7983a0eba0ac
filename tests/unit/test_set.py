"""KEY=VALUE means the same in every command and in a study's `set`, wherever what it changes stands."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.study.changes import Changes, changed_experiment
from hsgd_emu.study.retime import retime
from hsgd_emu.study.sweep.study_file import load_study

RUN = """
name: named
topology: sites
profiles: {far: ../measured/far.yaml}
compute: step
model: mlp
data: {dataset: digits, partition: dirichlet, alpha: 0.5}
train: {iterations: 40, batch_size: 10, learning_rate: {schedule: cosine, initial: 0.1}, momentum: 0.5}
cases: [{name: P=5, period: 5}, {name: h, periods: [20, 5]}]
targets: {test_accuracy: [0.5, 0.6], test_loss: [1.0]}
"""
FILES = {
    "work/runs/run.yaml": RUN,
    "work/topologies/sites.yaml": """
name: sites
levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near}]
links: [{between: [worker, root], profile: far}]
""",
    "work/latency_profiles/near.yaml": "name: near\nrtt_s: {csv: pings.csv, column: s}\nup_share: 0.3\n",
    "work/latency_profiles/pings.csv": "s\n0.01\n0.03\n",
    "work/latency_profiles/step.yaml": "step_s: {distribution: lognormal, median: 0.004, sigma: 0.2}\n",
    "work/measured/far.yaml": "latency_s: 0.1\nbandwidth_bps: {up: 1.0e+6, down: 4.0e+6}\nmodel: raw\n",
    "work/studies/study.yaml": "name: s\nrun: ../runs/run.yaml\naxes: [{name: far, rtt_s: far, values: [0.1, 0.2]}]\n",
}
SETS = {
    "a level of a topology's file": (["topology.levels.0.count=4"], ("topology", "levels", 0, "count"), 4),
    "a link of a topology's file": (["topology.links=[]"], ("topology", "links"), []),
    "a rate of a bound profile": (
        ["profiles.far.bandwidth_bps.up=2e6"],
        ("profiles", "far", "bandwidth_bps", "up"),
        2e6,
    ),
    "a whole rate": (["profiles.far.bandwidth_bps=3e6"], ("profiles", "far", "bandwidth_bps"), 3e6),
    "a profile that only the topology names": (["profiles.near.up_share=0.4"], ("profiles", "near", "up_share"), 0.4),
    "another cost": (["profiles.near.rtt_s=0.02"], ("profiles", "near", "rtt_s"), 0.02),
    "the spread of a compute profile": (["compute.step_s.sigma=0.3"], ("compute", "step_s", "sigma"), 0.3),
    "a step's cost": (["compute.step_s=0.01"], ("compute", "step_s"), 0.01),
    "a case": (["cases.1.periods.0=40"], ("cases", 1, "periods", 0), 40),
    "a model's key": (["model.hidden=[30]"], ("model", "hidden"), [30]),
    "a mapping": (["train={iterations: 80, momentum: 0.9}"], ("train", "momentum"), 0.9),
    "one list of targets": (["targets.test_loss=[0.8]"], ("targets", "test_loss"), [0.8]),
}
SAME_LEARNING = ("rate", "profile", "cost", "spread", "step")


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path / "work")


def cli(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def put(data, keys, value):
    for key in keys[:-1]:
        data = data[key]
    data[keys[-1]] = value


def resolved(experiment):
    data = yaml.safe_load(experiment.resolved())
    return {key: value for key, value in data.items() if key not in ("name", "timeline")}


@pytest.mark.parametrize("what", SETS)
def test_a_setting_changes_this_and_nothing_else_in_every_command(what):
    sets, keys, value = SETS[what]
    expected = resolved(load_experiment("runs/run.yaml"))
    put(expected, keys, value)
    if what == "a mapping":
        expected["train"]["iterations"] = 80
    assert resolved(load_experiment("runs/run.yaml", sets)) == expected
    assert resolved(changed_experiment(Path("runs/run.yaml"), Changes(sets=sets))) == expected
    assert resolved(load_study("studies/study.yaml", sets).experiment) == expected
    for args in (["check", "runs/run.yaml"], ["check", "studies/study.yaml"], ["show", "runs/run.yaml"]):
        done = cli(*args, "--set", sets[0])
        assert done.exit_code == 0, done.stderr


def test_retime_and_show_of_a_topology_file_take_the_same_settings():
    short = ["--set", "train.iterations=20", "--set", "model=softmax_regression"]
    assert cli("run", "runs/run.yaml", *short, "--out", "r").exit_code == 0
    for place, (what, (sets, keys, value)) in enumerate(SETS.items()):
        if any(word in what for word in SAME_LEARNING) and "case" not in what:
            data = yaml.safe_load((retime("r", f"again-{place}", sets) / "run.yaml").read_text())
            expected = yaml.safe_load(Path("r/run.yaml").read_text())
            put(expected, keys, value)
            assert data == expected
    done = cli("show", "topologies/sites.yaml", "--set", "levels.0.count=5")
    assert "15 workers" in done.stdout


def test_a_profile_bound_by_path_keeps_what_is_beside_it_in_its_file():
    # The column lies beside the profile's file, not beside the run.
    found = resolved(load_experiment("runs/run.yaml", ["profiles.near.description=ours"]))["profiles"]["near"]
    assert found["rtt_s"] == {"samples": [0.01, 0.03]}
    assert found["up_share"] == 0.3
    assert found["description"] == "ours"


def test_a_nested_set_of_a_study_keeps_the_other_keys():
    nested = {
        "train": {"iterations": 80, "learning_rate": {"initial": 0.2}},
        "data": {"alpha": 0.1},
        "profiles": {"far": {"bandwidth_bps": 1e6, "latency_s": 0.2, "model": "raw"}},
        "targets": {"test_accuracy": [0.7]},
        "model": {"hidden": [20]},
    }
    study = yaml.safe_load(FILES["work/studies/study.yaml"]) | {"set": nested}
    Path("studies/study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    expected = resolved(load_experiment("runs/run.yaml"))
    expected["train"] |= {"iterations": 80}
    expected["train"]["learning_rate"] |= {"initial": 0.2}
    expected["data"] |= {"alpha": 0.1}
    expected["profiles"]["far"] = nested["profiles"]["far"]
    # A list replaces the list.
    expected["targets"]["test_accuracy"] = [0.7]
    expected["model"]["hidden"] = [20]
    assert resolved(load_study("studies/study.yaml").experiment) == expected


def test_an_axis_of_mappings_keeps_the_other_keys():
    axis = {"name": "data", "set": "data", "values": [{"alpha": 0.1}, {"partition": "iid", "alpha": None}]}
    study = yaml.safe_load(FILES["work/studies/study.yaml"]) | {"axes": [axis]}
    Path("studies/study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    from hsgd_emu.study.sweep.scenarios import Scenarios

    first, second = Scenarios(load_study("studies/study.yaml")).bases()
    assert (first.data.partition, first.data.alpha) == ("dirichlet", 0.1)
    assert (second.data.partition, second.data.alpha) == ("iid", None)


@pytest.mark.parametrize(
    ("sets", "section", "expected"),
    [
        (["profiles.far={rtt_s: 0.5}"], "profiles", {"far": {"rtt_s": 0.5}}),
        (
            ["profiles.far={latency_s: 0.1, bandwidth_bps: 1.0e+6, model: raw}", "profiles.far={rtt_s: 0.5}"],
            "profiles",
            None,
        ),
        (["compute={step_s: {samples: [0.1]}}"], "compute", {"step_s": {"samples": [0.1]}}),
        (["compute.step_s={distribution: uniform, low: 0, high: 1}"], "compute", None),
        (["train.learning_rate={schedule: inverse_sqrt, initial: 0.3}"], "train", None),
    ],
)
def test_what_excludes_the_old_replaces_it(sets, section, expected):
    found = resolved(load_experiment("runs/run.yaml", sets))[section]
    if expected is not None:
        assert {key: found[key] for key in expected} == expected


def test_another_topology_drops_bindings_of_names_that_it_lacks():
    Path("topologies/flat.yaml").write_text("levels: [{name: worker, count: 2, uplink: near}]", encoding="utf-8")
    sets = ["topology=flat", "cases=[{name: P=5, period: 5}]"]
    assert "far" not in resolved(load_experiment("runs/run.yaml", sets))["profiles"]


def test_settings_reach_the_studys_own_cases_and_targets():
    study = yaml.safe_load(FILES["work/studies/study.yaml"])
    study |= {
        "cases": [{"name": "P=10", "period": 10}, {"name": "P=20", "period": 20}],
        "targets": {"train_loss": [2.0]},
    }
    Path("studies/study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    found = load_study("studies/study.yaml", ["cases.1.period=40", "targets.test_loss=[1.5]", "run.train.momentum=0"])
    assert [case.period for case in found.experiment.cases] == [10, 40]
    assert found.experiment.target_levels() == [("test_loss", 1.5), ("train_loss", 2.0)]
    assert found.experiment.train.momentum == 0
    with pytest.raises(ConfigError, match="'2' is not an index of this list; it has 0 to 1"):
        load_study("studies/study.yaml", ["cases.2.period=40"])


def test_a_wrong_setting_is_told_where_it_was_given():
    for command in (["run", "runs/run.yaml"], ["check", "studies/study.yaml"], ["plan", "runs/run.yaml"]):
        extra = ["--target", "test_accuracy=0.5"] if command[0] == "plan" else []
        for text, message in {
            "topology.levels.0.coutn=3": "topology.levels.0.coutn: unknown key 'coutn'; did you mean 'count'?",
            "profiles.far.bandwith_bps=3": "profiles.far.bandwith_bps: unknown key 'bandwith_bps'",
            "topology.levels.7.count=3": "topology.levels.7: '7' is not an index of this list; it has 0 to 1",
            "profiles.fra.rtt_s=3": "profiles.fra: the topology uses no profile 'fra'; did you mean 'far'?",
        }.items():
            done = cli(*command, *extra, "--set", text)
            assert done.exit_code == 2
            assert f"--set {text}: {message}" in done.stderr
