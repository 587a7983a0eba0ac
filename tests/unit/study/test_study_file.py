"""A study file says what it means, and every mistake in it is told before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hsgd_emu.config import profiles
from hsgd_emu.config.schema import Samples
from hsgd_emu.errors import ConfigError
from hsgd_emu.study.sweep.prepared import check_study
from hsgd_emu.study.sweep.scenarios import Scenarios, Settings
from hsgd_emu.study.sweep.study_file import Study, load_study, study_data

RUN = """\
name: base
topology: sites
compute: step
model: {name: mlp, hidden: [4]}
train: {iterations: 100}
cases: [{name: P=5, period: 5}, {name: H, periods: [50, 5]}]
targets: {test_accuracy: [0.5]}
"""
FILES = {
    "runs/run.yaml": RUN,
    "topologies/sites.yaml": """\
levels:
  - {name: site, count: 2, uplink: far}
  - {name: worker, count: 2, uplink: near}
""",
    "topologies/others.yaml": """\
levels:
  - {name: site, count: 3, uplink: mid}
  - {name: worker, count: 2, uplink: near}
""",
    "latency_profiles/near.yaml": "rtt_s: 0.01\n",
    "latency_profiles/mid.yaml": "rtt_s: 0.05\n",
    "latency_profiles/far.yaml": "rtt_s: 0.1\n",
    "latency_profiles/step.yaml": "step_s: 0.004\n",
    "studies/bad.yaml": "step_s: 1\n",
    "studies/lte.yaml": "rtt_s: {csv: pings.csv, column: s}\n",
    "studies/pings.csv": "s\n0.2\n0.3\n",
}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(profiles, "examples_root", lambda: tmp_path)
    return tmp_path


def study_of(text: str, *sets: str) -> Study:
    """A study file of this text, below its name and run."""
    Path("studies/s.yaml").write_text(f"name: s\nrun: ../runs/run.yaml\n{text}")
    return load_study("studies/s.yaml", sets)


def shown(study: Study) -> list[list[str | None]]:
    return [[value and value.text for value in values] for values in study.scenarios]


def test_full_grid_in_the_order_of_the_file() -> None:
    study = study_of("axes: [{name: far, rtt_s: far, values: [1, 0.5]}, {name: x, scale: near, values: [2, 1, 3]}]")
    assert shown(study) == [["1", "2"], ["1", "1"], ["1", "3"], ["0.5", "2"], ["0.5", "1"], ["0.5", "3"]]
    assert study.experiment.target_levels() == [("test_accuracy", 0.5)]
    assert study.is_grid


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        # 0.02 * 100^(k/4): each sqrt(10) times the one before.
        ("{from: 0.02, to: 2, num: 5, spacing: log}", [0.02, 0.0632456, 0.2, 0.632456, 2]),
        ("{from: 0, to: 1, num: 5}", [0, 0.25, 0.5, 0.75, 1]),
        ("{from: 0.3, to: 9, num: 1}", [0.3]),
        ("{from: 1, to: 9, num: 4, spacing: log, whole: true}", [1, 2, 4, 9]),
        ("{from: 1, to: 3, num: 9, whole: true}", [1, 2, 3]),
    ],
)
def test_ranges(values: str, numbers: list[float]) -> None:
    study = study_of(f"axes: [{{name: far, rtt_s: far, values: {values}}}]")
    assert [value.data for value in study.axes[0].values] == numbers
    assert all(isinstance(value.data, int) for value in study.axes[0].values) == ("whole" in values)


@pytest.mark.parametrize(
    ("values", "spacing"),
    [
        ("[0.005, 0.02, 0.08]", "log"),
        ("[1, 2, 3, 4]", "linear"),
        ("[0, 1, 10]", "linear"),
        ("[0.1, 1]", "linear"),
        ("{from: 1, to: 2, num: 3, spacing: log}", "log"),
        ("[1, 2, 3], spacing: log", "log"),
    ],
)
def test_spacing(values: str, spacing: str) -> None:
    assert study_of(f"axes: [{{name: far, rtt_s: far, values: {values}}}]").axes[0].spacing == spacing


def test_a_list_of_scenarios_keeps_what_it_does_not_name() -> None:
    study = study_of(
        "axes: [{name: far, rtt_s: far}, {name: link, profile: near}, {name: step, set: compute.step_s}]\n"
        "scenarios: [{far: 0.3}, {link: lte.yaml}, {link: {name: slow, rtt_s: 4}, step: 1}, {}]"
    )
    assert shown(study) == [["0.3", None, None], [None, "lte", None], [None, "slow", "1"], [None, None, None]]
    networks = [Settings(Scenarios(study)).setting(values).experiment.network for values in study.scenarios]
    far, near = ([net.transfers[name].profile.rtt_s for net in networks] for name in ("far", "near"))
    assert far == [0.3, 0.1, 0.1, 0.1]
    # Values of the study file are looked up beside it: the CSV lies there too.
    assert [getattr(cost, "samples", cost) for cost in near] == [0.01, (0.2, 0.3), 4, 0.01]
    own = [axis.own(study.document.data, study.experiment) for axis in study.axes]
    assert [(value.text, value.number) for value in own] == [("0.1", 0.1), ("as in the run", None), ("0.004", 0.004)]


def test_a_sample_is_drawn_by_axis() -> None:
    text = "axes: [{{name: far, rtt_s: far, values: {{from: 0.01, to: 10, spacing: log}}}}{}]\nsample: {{num: 400}}"
    more = ", {name: step, set: compute.step_s, values: [1, 2]}"
    one, two = study_of(text.format("")), study_of(text.format(more))
    far = [values[0].number for values in one.scenarios if values[0] and values[0].number]
    assert shown(one) == [row[:1] for row in shown(two)]
    # log-uniform: a third in each factor of ten, 133 of 400, standard deviation 9.4.
    assert all(abs(sum(10**k <= x < 10 ** (k + 1) for x in far) - 400 / 3) < 40 for k in (-2, -1, 0))
    assert 150 < sum(row[1] == "1" for row in shown(two)) < 250
    assert shown(study_of(text.format(""), "sample.seed=2")) != shown(one)


def test_sets_mean_the_study_or_its_run() -> None:
    study = study_of(
        "set: {train.iterations: 200}\naxes: [{name: far, rtt_s: far, values: [1]}]",
        *("replications=3", "train.batch_size=7", "cases.0.period=10", "targets={test_loss: [1]}"),
        "axes.0.values=[2, 3]",
    )
    assert study.spec.replications == 3
    assert (study.experiment.train.iterations, study.experiment.train.batch_size) == (200, 7)
    assert study.experiment.cases[0].period == 10
    assert study.experiment.target_levels() == [("test_loss", 1.0)]
    assert shown(study) == [["2"], ["3"]]


def test_a_grid_of_periods() -> None:
    study = study_of("cases: {P: [5, 50], G: [50, 20], I: [10, 5]}\naxes: [{name: far, rtt_s: far, values: [1]}]")
    names = ["P=5", "P=50", "G=50 I=10", "G=50 I=5", "G=20 I=10", "G=20 I=5"]
    assert [case.name for case in study.experiment.cases] == names


def test_written_out_it_stands_by_itself(place: Path) -> None:
    study = study_of(
        "set: {data.root: nowhere}\n"
        "axes:\n"
        "  - {name: far, scale: near, values: {from: 1, to: 4, num: 3, spacing: log}}\n"
        "  - {name: link, profile: near, values: [lte.yaml, {rtt_s: 7}]}\n"
        "  - {name: network, set: topology, values: [sites, ../topologies/others.yaml]}\n"
    )
    data = study_data(study)
    assert str(place) not in str(data)
    (place / "alone").mkdir()
    (place / "alone/study.yaml").write_text(yaml.safe_dump(data))
    for name in FILES:
        (place / name).unlink()
    again = load_study("alone/study.yaml")
    assert shown(again) == shown(study)
    found = [Scenarios(again).network(values) for values in again.scenarios]
    costs = [[link.profile.rtt_s for link in one.transfers.values()] for one in found]
    # far and near of sites, mid and near of others; each factor (1, 2, 4) on top of each link (lte, 7 s).
    assert [costs[0][0], costs[1][0], costs[-1]] == [0.1, 0.05, [0.05, 28]]
    assert [one.transfers["near"].profile.rtt_s for one in found[4:6]] == [Samples(samples=(0.4, 0.6))] * 2
    assert study_data(again)["axes"] == data["axes"]


BAD = [
    ("axes: []", "s.yaml:3: axes: found an empty list; expected at least one item"),
    ("axis: [1]", "s.yaml:3: axis: unknown key 'axis'; did you mean 'axes'?"),
    ("axes: [{name: a, rtt_s: far, values: []}]", "s.yaml:3: axes.0.values: found an empty list; expected at least"),
    ("axes: [{name: a, rtt_s: far}]", "axes.0.values: is missing; expected a list of values, as in [0.05, 0.2], or"),
    ("axes: [{name: a, values: [1]}]", "axes.0: gives nothing to change; give one of rtt_s, scale, profile, set"),
    ("axes: [{name: a, rtt_s: far, scale: far, values: [1]}]", "axes.0: gives rtt_s, scale at once; give one of"),
    ("axes: [{name: a, rtt_s: fra, values: [1]}]", "axes.0.rtt_s: the run has no profile 'fra'; did you mean 'far'?"),
    ("axes: [{name: a, scale: cpu, values: [1]}]", "the run has no profile 'cpu'; it has compute, far, near"),
    ("axes: [{name: a, set: trian.iterations, values: [1]}]", "axes.0.set: unknown key 'trian'; did you mean 'train'"),
    ("axes: [{name: a, set: targets.test_loss, values: [[1]]}]", "axes.0.set: targets are no axis; list them all"),
    ("axes: [{name: a, set: train..x, values: [1]}]", "axes.0.set: found 'train..x'; expected a dotted key of the"),
    ("axes: [{name: a, rtt_s: far, values: [1, 1]}]", "axes.0.values.1: '1' stands there twice; remove one"),
    ("axes: [{name: a, rtt_s: far, values: [-1]}]", "axes.0.values.0: found -1; expected a number of seconds, at le"),
    ("axes: [{name: a, rtt_s: far, values: [true]}]", "axes.0.values.0: found true; expected a number of seconds"),
    ("axes: [{name: a, scale: far, values: [0]}]", "axes.0.values.0: found 0; expected a factor above 0, such as"),
    ("axes: [{name: a, scale: far, values: {from: 0, to: 1, num: 2}}]", "axes.0.values: found 0"),
    ("axes: [{name: a, profile: far, values: [fra]}]", "axes.0.values.0: no 'fra' under latency_profiles/; did you m"),
    ("axes: [{name: a, set: topology, values: [sitse]}]", "axes.0.values.0: no 'sitse' under topologies/; did you m"),
    ("axes: [{name: a, rtt_s: far, values: {from: 1, to: 2}}]", "values.num: is missing; expected how many values"),
    ("axes: [{name: a, rtt_s: far, values: {form: 1, to: 2, num: 2}}]", "unknown key 'form'; did you mean 'from'?"),
    ("axes: [{name: a, rtt_s: far, values: {from: 2, to: 1, num: 2}}]", "values.to: 1 is not above 2, where the ran"),
    ("axes: [{name: a, rtt_s: far, values: {from: 0, to: 1, num: 2, spacing: log}}]", "values.from: found 0; a log r"),
    (
        "axes: [{name: a, rtt_s: far, values: [1]}, {name: a, rtt_s: near, values: [1]}]",
        "axes.1.name: 'a' is the name of another axis too",
    ),
    (
        "axes: [{name: a, rtt_s: far, values: [1]}, {name: b, set: profiles.far.rtt_s, values: [1]}]",
        "axes.1.set: changes what the axis 'a' changes too",
    ),
    (
        "axes: [{name: a, rtt_s: far, values: [1]}]\nscenarios: [{b: 1}]",
        "s.yaml:4: scenarios.0.b: there is no axis 'b'; axes are a",
    ),
    (
        "axes: [{name: a, rtt_s: far, values: [1]}]\nscenarios: [{a: 1}]\nsample: {num: 3}",
        "s.yaml:4: scenarios: stands beside `sample`; give one of them",
    ),
    (
        "axes: [{name: a, rtt_s: far, values: {from: 0, to: 1, num: 2000}}, "
        "{name: b, rtt_s: near, values: {from: 0, to: 1, num: 2000}}]",
        "axes: 4,000,000 scenarios; at most 1,000,000 are supported",
    ),
    (
        "cases: {P: [7], G: [50], I: [15]}\naxes: [{name: a, rtt_s: far, values: [1]}]",
        "cases.G: 50 goes with no I here: I divides G and is less\n"
        "studies/s.yaml:3: cases.I: 15 goes with no G here: I divides G and is less\n"
        "studies/s.yaml:3: cases.0.period: train.iterations is 100, not a multiple of the global period 7; 98 and",
    ),
    (
        "set: {targets: {}}\naxes: [{name: a, rtt_s: far, values: [1]}]",
        "targets: is missing, in the run too; expected a mapping, as in {test_accuracy: [0.8]}",
    ),
    (
        "set: {train.iteration: 1}\nreplications: 0\naxes: [{name: a, rtt_s: far, values: [1]}]",
        "s.yaml:3: train.iteration: unknown key 'iteration'; did you mean 'iterations'?\n"
        "studies/s.yaml:4: replications: found 0; expected a whole number of at least 1",
    ),
    # What only the scenarios show: the value's line, the run's field, and the scenario.
    (
        "axes:\n  - {name: a, set: train.iterations, values: [100,\n    110]}",
        "s.yaml:2: cases.1.periods: train.iterations is 110, not a multiple of the global period 50; 100 and 150 are "
        "(in the scenario a = 110)",
    ),
    (
        "axes:\n  - {name: a, set: train.momentum, values: [0,\n    2]}",
        "s.yaml:5: train.momentum: found 2; expected a number below 1 (in the scenario a = 2)",
    ),
    (
        "axes:\n  - {name: a, set: profiles.far.latency_s, values: [1]}",
        "s.yaml:4: profiles.far: gives rtt_s, latency_s at once; give either",
    ),
    (
        "axes: [{name: a, profile: far, values: [bad.yaml]}]",
        "profiles.far.step_s: unknown key 'step_s'; it belongs to a compute profile",
    ),
    (
        "axes: [{name: a, set: topology, values: [sites, others]}, {name: b, rtt_s: far, values: [1]}]",
        "axes.1.values.0: the topology uses no profile 'far' (in the scenario a = others, b = 1)",
    ),
    (
        "axes: [{name: a, profile: far, values: [{latency_s: 1, bandwidth_bps: 1.0e-9, model: raw}]}]",
        "bytes at 1e-09 bit/s take more than",
    ),
]


@pytest.mark.parametrize(("text", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_mistakes_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(Scenarios(study_of(text))).check()
    assert said in str(caught.value)
    assert all(problem.where for problem in caught.value.problems)


def test_a_valid_study_in_one_line() -> None:
    study_of("axes: [{name: far, rtt_s: far, values: [1, 0.5]}]")
    assert check_study("studies/s.yaml") == "a study of 2 scenarios, each with 2 cases x 1 seed"


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[3] / "runs/studies").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_studies_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if "cifar10" in path.name:
        assert len(load_study(path).scenarios) == 195  # its data are not here
    else:
        assert "scenarios" in check_study(path)


def test_mistakes_of_study_and_run_are_told_together() -> None:
    Path("runs/run.yaml").write_text(RUN.replace("period: 5}", "period: 7}"))
    with pytest.raises(ConfigError) as caught:
        study_of("replication: 3\naxes: [{name: a, rtt_s: far, values: [1]}]")
    lines = str(caught.value).splitlines()
    assert lines[0] == "studies/s.yaml:3: replication: unknown key 'replication'; did you mean 'replications'?"
    assert lines[1].startswith("runs/run.yaml:6: cases.0.period: train.iterations is 100, not a multiple of the glob")


@pytest.mark.parametrize("run", ["../runs/runn.yaml", "nowhere", "[1]"])
def test_a_run_that_is_not_there(run: str) -> None:
    with pytest.raises(ConfigError, match=r"(s\.yaml:2|--set.*): run: "):
        study_of("axes: [{name: a, rtt_s: far, values: [1]}]", f"run={run}")
