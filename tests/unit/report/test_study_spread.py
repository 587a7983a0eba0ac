"""The spread over trials: the page's numbers are those of the tables."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hsgd_emu.report import write_report
from hsgd_emu.report.study import content as study_times
from hsgd_emu.report.study.content import chosen, gather
from hsgd_emu.report.study.spread import middle_80, spread_in_words
from hsgd_emu.study.sweep.store import read_study
from tests.unit.report.html_fixture import constant, parse, words
from tests.unit.report.study_fixture import FAR, HSGD, LOCAL, NEAR, NEVER, far_near, grid, make_study


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_every_trial_is_there_as_in_the_table(tmp_path: Path) -> None:
    folder = far_near(tmp_path / "study", chance=(1, 0.5, 1.5, None))
    spread = constant(page(folder), "SPREAD")
    cases = [case["name"] for case in constant((folder / "report.html").read_text(encoding="utf-8"), "DATA")["cases"]]
    targets = [0.5, 0.8]
    rows = read_study(folder).times
    # 6 scenarios, 3 cases, 2 seeds, 4 replications, 2 targets
    assert len(rows) == 6 * 3 * 2 * 4 * 2
    for row in rows.itertuples():
        trial = spread["trials"].index([row.seed, row.replication])
        times = spread["times"][targets.index(row.target)][spread["scenarios"].index(row.scenario)]
        assert times[cases.index(row.case)][trial] == (None if math.isnan(row.time_s) else row.time_s)
    assert len(spread["trials"]) == 8


def test_statistics_are_those_of_the_summary(tmp_path: Path) -> None:
    folder = far_near(tmp_path / "study", chance=(1, 1.5), spread=0.25)
    spread = constant(page(folder), "SPREAD")
    rows = read_study(folder).summary
    hard = rows[(rows["target"] == 0.8) & (rows["case"] == LOCAL)].sort_values("scenario")
    names = ["median_s", "low_s", "high_s", "q10_s", "q90_s"]
    assert [table[0] for table in spread["stats"][1]] == hard[names].to_numpy().tolist()


def test_quantile_beyond_those_who_get_there_is_never(tmp_path: Path) -> None:
    target = gather(far_near(tmp_path / "study", spread=0.25)).targets[1]
    # far 1, near 1: 10 s, 7.5 and 12.5 in the table
    assert middle_80(target, 0, 0, never=0.1) == (7.5, 12.5)
    assert middle_80(target, 0, 0, never=0.2) == (7.5, math.inf)
    assert middle_80(target, 0, 0, never=0.95) == (math.inf, math.inf)


def test_sentence_names_the_fastest_first_and_those_who_never_do(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study", chance=(1, 1, 1, None), spread=0.25))
    assert content.times
    # far 4, near 1 is scenario 2: H-SGD 24 s, local SGD 40 s
    assert spread_in_words(content, content.times, 1, 2) == (
        f"At far 4 s, near 1 s, time to 80% test accuracy: {HSGD} 24.0 s (never in 25% of trials), "
        f"{LOCAL} 40.0 s (never in 25% of trials) and {NEVER} never."
    )
    sure = gather(far_near(tmp_path / "sure", chance=(1, 1.2), spread=0.25))
    assert sure.times
    assert f"{HSGD} 24.0 s (80% of trials in 18.0 s to 30.0 s)" in spread_in_words(sure, sure.times, 1, 2)


def test_scenario_of_a_grid_is_chosen_by_its_axes(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study", chance=(1, 2)))
    lists = [attrs["data-choice"] for attrs in parse(html).named("select") if "data-choice" in attrs]
    assert lists == ["0", "1"]
    options = [(attrs["value"], "selected" in attrs) for attrs in parse(html).named("option")]
    # far 1, 4, 16 and near 1, 4, after the subjects of the tornado; first the middle: far 4, near 4
    assert options[-5:] == [("0", False), ("1", True), ("2", False), ("0", False), ("1", True)]
    places = constant(html, "SPREAD")["places"]
    assert sorted(places) == [[far, near] for far in range(3) for near in range(2)], "every choice leads to a scenario"
    assert "Each dot is one of 4 trials (2 seeds, 2 replications of the network's randomness each)." in words(html)


def test_scenario_of_a_list_is_chosen_out_of_it(tmp_path: Path) -> None:
    html = page(make_study(tmp_path / "study", [{"far": 1, "near": 4}, {"far": 4, "near": 1}], chance=(1,)))
    assert [attrs["data-choice"] for attrs in parse(html).named("select") if "data-choice" in attrs] == ["-1"]
    assert constant(html, "SPREAD")["titles"] == ["far 1 s, near 4 s", "far 4 s, near 1 s"]


def test_of_too_many_scenarios_the_middle_one_and_the_first_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(2, 4, most=4) == (0, 1, 2, 3)
    assert chosen(50, 1000, most=300) == (50, 0, 1, 2, 3, 4)
    assert chosen(2, 1000, most=300) == (2, 0, 1, 3, 4, 5)
    assert chosen(50, 1000, most=0) == (50,)
    monkeypatch.setattr(study_times, "MOST_SCENARIOS", 5)
    html = page(far_near(tmp_path / "study", chance=(1, 2)))
    # far 4, near 4 is scenario 3 of 6
    assert constant(html, "SPREAD")["scenarios"] == [3, 0, 1, 2, 4]
    assert "here are 5 of 6, the middle one first" in words(html)


def test_one_time_is_no_distribution(tmp_path: Path) -> None:
    html = page(make_study(tmp_path / "study", grid(far=FAR, near=NEAR)))
    assert constant(html, "SPREAD") == {}
    assert "spread-title" not in html
