"""Hubs that mix, phases and figures of workers on a page: what is said of them is what the tables have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import hsgd_emu
from hsgd_emu.report import gantt
from hsgd_emu.report.blame import blame
from hsgd_emu.report.content import Content, gather
from hsgd_emu.report.curves import curves
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.sandwich import sandwich
from hsgd_emu.report.sections import sections
from hsgd_emu.report.target_table import target_data
from hsgd_emu.report.waiting import waiting
from hsgd_emu.report.workers import workers
from hsgd_emu.results.read import read_run
from hsgd_emu.results.trace import write_trace

RUN = """
name: hubs
topology: {levels: [{name: hub, count: 3, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {far: {rtt_s: 0.3}, near: {rtt_s: {distribution: uniform, low: 0.01, high: 0.03}}}
compute: {step_s: 0.004}
data: {partition: by_label}
model: softmax_regression
train: {learning_rate: 0.1, iterations: 40}
cases:
  - {name: hubs, periods: [10, 5], mixing: {graph: complete}}
  - {name: phases, phases: [{iterations: 20, period: 1}, {period: 10}]}
  - {name: once, period: once}
evaluation: {workers: true, averaged: {after: 0}}
message_bytes: 1000
timeline: full
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("hubs")
    (here / "run.yaml").write_text(RUN)
    hsgd_emu.run(here / "run.yaml", here / "run", threads=1, library="none")
    return here / "run"


@pytest.fixture
def content(folder: Path) -> Iterator[Content]:
    with gather([folder]) as found:
        yield found


def values(figure: Figure | None, name: str, case: str) -> list[object]:
    assert figure is not None
    columns = {one.name: one.values for one in figure.columns}
    return [value for value, own in zip(columns[name], columns["case"], strict=True) if own == case]


def test_every_case_says_what_it_computes(content: Content) -> None:
    assert [str(case.algorithm) for case in content.cases] == [
        "MLL-SGD: G = 10, I = 5, hubs mix with neighbours (complete)",
        "post-local SGD: P = 1 until 20, then P = 10",
        "one-shot averaging: P = T (once)",
    ]
    assert "algorithm" in [column.name for column in target_data(content).columns]


def test_rounds_and_bytes_of_curves_are_those_of_the_table(content: Content, folder: Path) -> None:
    figure = curves(content)
    assert values(figure, "round", "phases") == [*range(1, 23)]
    assert values(figure, "iteration", "phases") == [*range(1, 21), 30, 40]
    assert values(figure, "uploaded_bytes", "phases")[-1] == 22 * 6 * 1000
    # Six workers every 5 iterations, and three hubs to two others every 10.
    assert values(figure, "uploaded_bytes", "hubs")[-1] == 8 * 6 * 1000 + 4 * 6 * 1000
    assert values(figure, "averaged_test_accuracy", "once")[-1] is not None


def test_a_timeline_of_hubs_has_all_of_them_below_a_server_that_does_nothing(content: Content) -> None:
    figure = gantt.timeline(content)
    assert set(values(figure, "node", "hubs")) == {*(f"hub-{i}" for i in range(3)), *(f"worker-{i}" for i in range(6))}
    assert figure is not None
    text = figure.pictures[0].text
    assert "hubs aggregates twice at each hub and with neighbours once." in text
    assert "there is no global aggregation" in text
    figure.plotly()


def test_hubs_wait_for_neighbours_and_the_global_server_for_nobody(content: Content) -> None:
    figure = waiting(content)
    assert figure is not None
    groups = values(figure, "group", "hubs")
    waits = dict(zip(groups, values(figure, "wait_share", "hubs"), strict=True))
    assert waits["root"] is None
    assert all(waits[f"hub-{i}"] > 0 for i in range(3))
    assert "from its own result to the last of its neighbours'" in figure.note
    blamed = blame(content)
    assert blamed is not None
    assert "for the neighbour whose model arrives last" in blamed.note


def test_worst_and_best_workers_are_those_of_the_table(content: Content, folder: Path) -> None:
    figure = workers(content)
    assert figure is not None
    run = read_run(folder)
    for case in ("hubs", "phases", "once"):
        table = run.workers[run.workers.case == case]
        by_iteration = table.groupby("iteration").accuracy
        assert values(figure, "worst", case) == pytest.approx(list(by_iteration.min()))
        assert values(figure, "mean", case) == pytest.approx(list(by_iteration.mean()))
        assert values(figure, "best", case) == pytest.approx(list(by_iteration.max()))
        assert values(figure, "spread", case) == pytest.approx(list(by_iteration.max() - by_iteration.min()))
        last = table[table.iteration == 40]
        assert values(figure, "worst_worker", case)[-1] in set(last[last.accuracy == last.accuracy.min()].worker)
    assert "is served worst: " in figure.pictures[0].text
    assert len(figure.pictures) == 6
    for picture in figure.pictures:
        figure.plotly(picture.key)


def test_no_section_is_empty_and_there_is_no_sandwich_of_hubs(content: Content) -> None:
    assert sandwich(content) is None
    assert "theory" not in [section.id for section in sections(content)]
    assert all(section.figures for section in sections(content))


def test_a_trace_of_the_first_round_of_hubs_goes_until_they_have_mixed(folder: Path, tmp_path: Path) -> None:
    write_trace(folder, tmp_path / "trace.json", ["hubs"], rounds=1)
    found = [one for one in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if one["ph"] == "X"]
    assert max(one["args"]["iteration"] for one in found) == 10
    uploads = [one["args"]["peer"] for one in found if one["name"] == "upload"]
    assert sorted({*uploads}) == ["hub-0", "hub-1", "hub-2"]
    assert len(uploads) == 2 * 6 + 3 * 2
