"""A run file, its topology and its profiles put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsgd_emu.config.load import bind_profiles, draft_topology, load_run, raise_problems
from hsgd_emu.config.reader import read_text
from hsgd_emu.config.run_schema import ModelSpec
from hsgd_emu.config.schema import Samples
from hsgd_emu.config.writer import to_yaml
from hsgd_emu.errors import ConfigError, Problem, Problems
from hsgd_emu.experiment import load_experiment

RUN = """\
name: a
topology: {levels: [{name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 1}}
compute: {step_s: 1}
model: mlp
train: {iterations: 10}
cases: [{name: P, period: 5}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_defaults_are_filled_in() -> None:
    draft = load_run(put("run.yaml", RUN))
    assert draft.problems == []
    assert draft.sections["model"] == ModelSpec(name="mlp")
    assert draft.sections["seeds"] == (1,)
    assert draft.sections["data"].dataset == "digits"


def test_binding_beats_a_file_of_that_name() -> None:
    put("latency_profiles/near.yaml", "rtt_s: 7")
    draft = load_run(put("run.yaml", RUN))
    assert draft.topology is not None
    assert draft.topology.links["near"].rtt_s == 1  # type: ignore[union-attr]
    unbound = load_run(put("run.yaml", RUN.replace("profiles: {near: {rtt_s: 1}}\n", "")))
    assert unbound.topology is not None
    assert unbound.topology.links["near"].rtt_s == 7  # type: ignore[union-attr]


def test_a_bound_path_is_relative_to_the_run_file_and_a_used_one_to_the_topology() -> None:
    put("net/topologies/two.yaml", "levels: [{name: worker, count: 2, uplink: ../link.yaml}]")
    put("net/link.yaml", "rtt_s: 2")
    put("runs/step.yaml", "step_s: 3")
    run = RUN.replace("{levels: [{name: worker, count: 2, uplink: near}]}", "../net/topologies/two.yaml")
    run = run.replace("profiles: {near: {rtt_s: 1}}\n", "").replace("{step_s: 1}", "./step.yaml")
    draft = load_run(put("runs/run.yaml", run))
    assert draft.problems == []
    assert draft.topology is not None
    assert draft.topology.links["../link.yaml"].rtt_s == 2  # type: ignore[union-attr]
    assert draft.compute is not None
    assert draft.compute.step_s == 3


def test_aggregation_costs_are_read_from_csv() -> None:
    put("cost.csv", "s\n1\n2\n")
    run = RUN.replace("topology: {", "topology: {root: {aggregation_s: {csv: cost.csv, column: s}}, ")
    draft = load_run(put("run.yaml", run))
    assert draft.topology is not None
    assert list(draft.topology.aggregations.values()) == [Samples(samples=(1.0, 2.0))]


def test_a_topology_by_itself_may_leave_names_to_the_run_file() -> None:
    document = read_text("levels: [{name: worker, count: 2, uplink: near}]", "t.yaml", Path())
    problems = Problems()
    draft = draft_topology(document, problems)
    assert draft is not None
    bind_profiles(draft, problems, {}, document.source, lenient=True)
    assert problems == []
    bind_profiles(draft, problems, {}, document.source)
    assert len(problems) == 1


def test_problems_come_by_file_and_line_each_once() -> None:
    draft = load_run(put("run.yaml", RUN))
    problems = [Problem("b.yaml:9", "", "x"), Problem("run.yaml:10", "", "x"), Problem("run.yaml:9", "", "x")]
    problems += [Problem("b.yaml:9", "", "x"), Problem("--set a=b:3", "", "x")]
    with pytest.raises(ConfigError) as error:
        raise_problems(problems, first=draft.source)
    assert [p.where for p in error.value.problems] == ["run.yaml:9", "run.yaml:10", "b.yaml:9", "--set a=b:3"]
    raise_problems([])


PUBLISHED = """\
source: >
  Table 2,
  of others
times:
  - {case: P, time_s: 673.5}
  - {case: P, iterations: 10, time_s: 7}
"""


def test_published_times_are_read_from_the_run_files_folder_and_written_inline() -> None:
    put("runs/paper/table2.yaml", PUBLISHED)
    path = put("runs/run.yaml", RUN + "targets: {test_loss: [1]}\npublished: paper/table2.yaml\n")
    experiment = load_experiment(path)
    assert experiment.published is not None
    # The first time gives no target: the run's only one is meant.
    rows = [(row.metric, row.target, row.iterations, row.time_s) for row in experiment.published.times]
    assert rows == [("test_loss", 1.0, None, 673.5), (None, None, 10, 7.0)]
    resolved = put("elsewhere/run.yaml", experiment.resolved())
    assert load_experiment(resolved).published == experiment.published
    # A path on the command line is relative to the current folder.
    other = put("mine.yaml", PUBLISHED.replace("673.5", "1"))
    changed = load_experiment(path, [f"published={other}"]).published
    assert changed is not None
    assert changed.times[0].time_s == 1
    without = load_experiment(path, ["published=null"])
    assert without.published is None
    assert "published" not in without.resolved()


@pytest.mark.parametrize("value", ["1e-3", "0o17", "0x1F", "010", "no", "~", "10:30", ".5", "1.", "a\x85b", " x", "é"])
def test_text_stays_text_when_written_and_read(value: str) -> None:
    assert read_text(to_yaml({"a": value}), "f", Path()).data == {"a": value}


@pytest.mark.parametrize("value", [1e-5, 1e300, 0.1, 5, -3, 2**70, True, None, float("inf"), [], {}, [[1], {"b": []}]])
def test_values_stay_what_they_are_when_written_and_read(value: object) -> None:
    assert read_text(to_yaml({"a": value}), "f", Path()).data == {"a": value}
