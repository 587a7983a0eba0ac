"""The page of a plan: the race drawn, who led when, the ranking."""

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import write_plan
from hsgd_emu.report.plan import leaders, lines, race
from tests.unit.report.html_fixture import words
from tests.unit.study.test_plan_table import FAST, SLOW, STILL, plan_of

EARLY = [0.25, *[0.26] * 9]


def test_the_race_is_drawn_until_each_stopped(tmp_path):
    plan = plan_of(tmp_path, [SLOW] * 3, [EARLY] * 3, [FAST] * 3, [STILL] * 3)
    drawn = lines(plan)
    assert [line.name for line in drawn] == ["G=50 I=5", "P=5", "P=10", "P=1"]
    first, second = drawn[:2]
    # The fourth evaluation is 0.8: at 36 s of one draw, 44 s of the other, 40 s in the median.
    assert (first.time_s[-1], first.figures[-1]) == (40, pytest.approx(0.7))
    assert first.fate == "reached the target"
    assert second.time_s[-1] == 40
    assert second.fate == "was later for certain"
    figure = race(plan, drawn)
    assert figure.plotly().data[0].x[-1] == 40
    assert {trace.name for trace in figure.plotly().data} == {line.name for line in drawn}
    assert "was the first to 80% test accuracy, at 40.0 s" in figure.pictures[0].text


def test_who_led_when(tmp_path):
    plan = plan_of(tmp_path, [SLOW] * 3, [EARLY] * 3, [FAST] * 3, [STILL] * 3)
    led = leaders(plan)
    # 0.25 at the first evaluation (in half of the draws after 11 s), against 0.2; from the second on 0.4 against 0.26.
    assert [name for name, _, _ in led] == ["P=10", "G=50 I=5"]
    assert led[0][1] == pytest.approx(11, abs=0.3)
    assert led[0][2] == pytest.approx(20, abs=2.5)
    assert led[1][2] == 40


def test_the_page_says_what_the_terminal_says(tmp_path):
    plan = plan_of(tmp_path, [SLOW] * 3, [EARLY] * 3, [FAST] * 3, [STILL] * 3)
    page = write_plan(plan, tmp_path / "out" / "plan.html")
    text = words(page.read_text())
    for line in plan.lines():
        assert line in text
    assert all(row[1] in text for row in plan.table().rows)
    before = page.read_bytes()
    assert write_plan(plan, page).read_bytes() == before
    # A race without a winner has a page too.
    for budget in (1.0, 0.3, 0.01):
        stopped = plan_of(tmp_path, *[[STILL] * 3] * 4, budget=budget)
        assert stopped.lines()[0] in words(write_plan(stopped, page).read_text())


def test_a_file_that_is_not_ours_is_not_overwritten(tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    plan = plan_of(tmp_path, *[[STILL] * 3] * 4)
    with pytest.raises(ConfigError, match="did not write it"):
        write_plan(plan, tmp_path / "mine.html")
    assert write_plan(plan, tmp_path / "mine.html", force=True).read_text() != "mine"
