"""What the time depends on, by hand: local SGD takes 10 far, H-SGD 2 far + 16 near, the middle is far 4, near 4."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsgd_emu.report import write_report
from hsgd_emu.report.study.content import StudyContent, gather
from hsgd_emu.report.study.tornado import NEVER, bars, lines_of, ranks, ranks_in_words, subjects, tornado_kind, tornados
from tests.unit.report.html_fixture import HOSTILE, constant, figure_in, parse, words
from tests.unit.report.study_fixture import FAR, HSGD, LOCAL, SPECS, far_near, grid, make_study

ONE_AT_A_TIME = [{"far": 4, "near": 4}, {"far": 1, "near": 4}, {"far": 16, "near": 4}, {"far": 4, "near": 1}]
# Neighbours are swapped, so no axis is changed alone.
SAMPLE = [{"far": 1 + i, "near": 1 + (i ^ 1)} for i in range(8)]


def found(content: StudyContent, subject: str) -> list[tuple[str, float, float, float]]:
    """Return name, times at the ends and width of each bar to 80%."""
    lines = lines_of(content)
    assert lines
    mine = next(one for one in subjects(content) if one.label == subject)
    made = bars(content, content.targets[1], mine, lines)
    return [(content.axes[bar.axis].name, bar.low.time_s, bar.high.time_s, bar.width_s) for bar in made]


@pytest.mark.parametrize("scenarios", [grid(far=FAR, near=(1, 4)), ONE_AT_A_TIME], ids=["grid", "list"])
def test_each_axis_is_changed_alone_and_the_widest_comes_first(tmp_path: Path, scenarios: list[Any]) -> None:
    content = gather(make_study(tmp_path / "study", scenarios))
    # reference: min(40, 72); far 1: min(10, 66), far 16: min(160, 96); near 1: min(40, 24), near 4 is the reference
    assert found(content, "the fastest case") == [("far", 10, 96, 86), ("near", 24, 40, 16)]
    # 8 + 64; far: 2 + 64 and 32 + 64; near: 8 + 16
    assert found(content, "the best H-SGD") == [("near", 24, 72, 48), ("far", 66, 96, 30)]
    # local SGD does not care for near
    assert found(content, LOCAL) == [("far", 10, 160, 150), ("near", 40, 40, 0)]


def test_names_have_no_order_but_their_times_have(tmp_path: Path) -> None:
    specs = {"far": SPECS["far"], "near": {"profile": "near"}}
    content = gather(make_study(tmp_path / "study", grid(far=FAR, near=["4", "1", "8"]), specs=specs))
    # reference: far 4, near 1: 8 + 16; at near 8: 8 + 128; far 1: 2 + 16, far 16: 32 + 16
    assert found(content, "the best H-SGD") == [("near", 24, 136, 112), ("far", 18, 48, 30)]


def test_ends_on_one_side_stand_under_each_other(tmp_path: Path) -> None:
    content = gather(make_study(tmp_path / "study", grid(far=FAR)))
    target = content.targets[1]
    # no real time does this: 40 s in the middle, more at both ends
    median_SC = np.array([[70.0, np.inf, np.inf], [40, np.inf, np.inf], [50, np.inf, np.inf]])
    content = replace(content, targets=(target, replace(target, median_SC=median_SC)))
    assert found(content, "the fastest case") == [("far", 70, 50, 30)], "from the reference to the longer one"
    figure = next(one for _, number, key, one in tornados(content) if (number, key) == (1, "0"))
    lanes = [trace["y"][0] for trace in figure["data"] if trace["type"] == "bar"]
    assert lanes[0] > lanes[1]


def test_never_is_wider_than_any_time(tmp_path: Path) -> None:
    # scenario 2 is far 4, near 1
    content = gather(far_near(tmp_path / "study", unreached=(2,)))
    assert found(content, "the fastest case") == [("near", math.inf, 40, math.inf), ("far", 10, 96, 86)]
    figure = next(one for _, target, key, one in tornados(content) if (target, key) == (1, "0"))
    labels = [text for trace in figure["data"] for text in trace.get("text", [])]
    assert f" 1 s: {NEVER} " in labels
    places = {trace["text"][0]: trace["x"][0] for trace in figure["data"] if "text" in trace}
    assert places[f" 1 s: {NEVER} "] > max(at for text, at in places.items() if NEVER not in text), "at the edge"
    assert "near (never at 1 s, 40.0 s at 4 s)" in figure["text"]


def test_no_time_at_all_is_no_bar(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study", never=(LOCAL, HSGD)))
    figures = [one for _, target, _, one in tornados(content) if target == 1]
    assert all(figure["data"] == [] for figure in figures)
    assert figures[0]["text"] == "In none of these scenarios does the fastest case reach 80% test accuracy."


def test_figure_says_where_it_starts_and_what_matters(tmp_path: Path) -> None:
    html = write_report(far_near(tmp_path / "study")).read_text(encoding="utf-8")
    assert "the others stay at the middle scenario: far 4 s, near 4 s" in words(html)
    figures = constant(html, "FIGURES")["tornado"]["1"]
    assert list(figures) == [str(i) for i in range(6)], "the fastest, two kinds, three cases"
    assert figures["0"]["text"] == (
        "Time of the fastest case to 80% test accuracy at far 4 s, near 4 s: 40.0 s; what changes it most is far "
        "(10.0 s at 1 s, 96.0 s at 16 s); then near (24.0 s at 1 s, 40.0 s at 4 s)."
    )
    assert figures["3"]["text"].endswith("far (10.0 s at 1 s, 160 s at 16 s); near changes nothing.")
    data = figure_in(html, "tornado", 1, "0")["data"]
    drawn = [(t["base"][0], t["base"][0] + t["x"][0]) for t in data if t["type"] == "bar"]
    assert drawn == [(40, 24), (40, 40), (40, 10), (40, 96)], "bottom first, all from the reference"
    columns = {name: values for name, _, _, values in figures["0"]["columns"]}
    assert columns["high_time_s"] == [96, 40]
    assert columns["high_case"] == [HSGD, LOCAL]
    assert columns["reference_value"] == ["4 s", "4 s"]
    options = [attrs["value"] for attrs in parse(html).named("option")]
    assert options == list(figures), "everything that can be chosen is there"


def test_ranks_where_no_axis_is_changed_alone(tmp_path: Path) -> None:
    content = gather(make_study(tmp_path / "study", SAMPLE))
    assert tornado_kind(content) == "ranks"
    local = next(one for one in subjects(content) if one.label == LOCAL)
    by_axis = {content.axes[r.axis].name: r.correlation for r in ranks(content, content.targets[1], local)}
    # 10 far goes with far; near is one rank off eight times: 1 - 6 * 8 / (8 * 63)
    assert by_axis == {"far": pytest.approx(1), "near": pytest.approx(1 - 48 / 504)}
    assert ranks_in_words(content, content.targets[1], local) == (
        f"Over 8 scenarios, the time of {LOCAL} to 80% test accuracy rises most with far (rank correlation +1.00); "
        "then comes near (+0.90)."
    )
    html = write_report(tmp_path / "study").read_text(encoding="utf-8")
    assert "Spearman's rank correlation" in words(html)


def test_never_ranks_last_and_one_time_for_all_has_no_rank(tmp_path: Path) -> None:
    content = gather(make_study(tmp_path / "study", SAMPLE, unreached=(0,)))
    local, never = (next(one for one in subjects(content) if one.label == name) for name in (LOCAL, "P=50"))
    far = next(r for r in ranks(content, content.targets[1], local) if content.axes[r.axis].name == "far")
    # far 1 is last instead of first: d = 7, and seven times 1: 1 - 6 * (49 + 7) / 504
    assert far.correlation == pytest.approx(1 - 336 / 504)
    assert [r.correlation for r in ranks(content, content.targets[1], never)] == [None, None]


def test_too_few_scenarios_have_neither(tmp_path: Path) -> None:
    content = gather(make_study(tmp_path / "study", SAMPLE[:7]))
    assert tornado_kind(content) == ""
    assert list(tornados(content)) == []
    assert "What the time depends on" not in write_report(tmp_path / "study").read_text(encoding="utf-8")


def test_hostile_and_long_names_stay_text(tmp_path: Path) -> None:
    bad, worse = HOSTILE
    long = "x" * 300
    specs = {"far": SPECS["far"], bad: {"profile": bad}}
    scenarios = [{"far": far, bad: link} for far in FAR for link in (worse, long)]
    study = make_study(tmp_path / "study", scenarios, cases=(bad, worse), specs=specs)
    html = write_report(study).read_text(encoding="utf-8")
    figure = figure_in(html, "tornado", 1, "0")
    said = [text for trace in figure["data"] for text in [*trace["hovertext"], *trace.get("text", [])]]
    said += [note["text"] for note in figure["layout"]["annotations"]]
    for text in said:
        assert "<" not in text.replace("<b>", "").replace("</b>", "").replace("<br>", "")
    assert max(len(note["text"]) for note in figure["layout"]["annotations"]) < 200
