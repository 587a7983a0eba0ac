"""What the script of a study's page makes of its data, against the same worked out by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.report import write_report
from tests.browser.conftest import Browser
from tests.browser.test_reports import wait_for
from tests.unit.report.html_fixture import HOSTILE
from tests.unit.report.study_fixture import FAR, HSGD, LOCAL, NEVER, SPECS, far_near, make_study


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """far 1, 4, 16 and near 1, 4; local SGD takes 10 far, H-SGD 2 far + 16 near; a quarter of the trials never do."""
    path = write_report(far_near(tmp_path_factory.mktemp("study") / "study", chance=(1, 0.5, 1.5, None), spread=0.5))
    browser.open(path)
    return path


def test_words_of_a_scenario(page: Path, browser: Browser) -> None:
    # scenario 2 is far 4, near 1: 40 s against 24 s; the interval is half of the median off it
    assert browser.js("return hover(1, 2)").split("<br>") == [
        "far 4 s, near 1 s",
        f"<b>{HSGD}: 24.0 s (12.0 to 36.0)</b>",
        f"{LOCAL}: 40.0 s (20.0 to 60.0)",
        f"not reached: {NEVER}",
        f"1.67 times less than {LOCAL}",
        "first in 75% of matched trials",
    ]


def test_table_of_the_map(page: Path, browser: Browser) -> None:
    columns = {name: values for name, _, _, values in browser.js("return columnsOf('best')")}
    # by row, near 1 then near 4, and far 1, 4, 16
    assert columns["far_s"] == [1, 4, 16] * 2
    assert columns["fastest"] == [LOCAL, HSGD, HSGD, LOCAL, LOCAL, HSGD]
    assert columns["time_s"] == [10, 24, 48, 10, 40, 96]
    assert columns["low_s"] == [5, 12, 24, 5, 20, 48]
    assert columns["margin"] == pytest.approx([1.8, 40 / 24, 160 / 48, 6.6, 1.8, 160 / 96])
    assert columns[f"{NEVER}: time_s"] == [None] * 6
    gains = {name: values for name, _, _, values in browser.js("return columnsOf('gain')")}
    assert gains["gain"] == pytest.approx([10 / 18, 40 / 24, 160 / 48, 10 / 66, 40 / 72, 160 / 96])


def test_tables_follow_the_target(page: Path, browser: Browser) -> None:
    details = browser.one("[data-table=best]")
    details.find_element("css selector", "summary").send_keys(" ")
    for button, first in ((0, "5 s"), (1, "10 s")):
        browser.all("[data-show]")[button].send_keys(" ")
        # to 50% H-SGD takes half of local SGD's 10 s
        wait_for(lambda: details.find_elements("css selector", "tbody td"))
        cells = details.find_elements("css selector", "tbody tr:first-child td")
        assert cells[3].get_attribute("textContent") == first
    assert "time to 80% test accuracy" in details.find_element("css selector", "caption").text


def test_csv_is_quoted_where_it_must_be(page: Path, browser: Browser) -> None:
    rows = list(csv.reader(io.StringIO(browser.js("return csvText(columnsOf('spread'))"))))
    assert rows[0] == ["case", "seed", "replication", "time_s", "far_s", "near_s"]
    # three cases, two seeds, four replications, at the middle scenario: far 4, near 4
    assert len(rows) == 1 + 3 * 2 * 4
    assert rows[1:5] == [[LOCAL, "1", str(r), t, "4", "4"] for r, t in enumerate(("40", "20", "60", ""))]


def test_spread_follows_the_chosen_scenario(page: Path, browser: Browser) -> None:
    assert dots(browser, LOCAL) == [20, 20, 40, 40, 60, 60]
    choose(browser, "[data-choice='0']", "0")
    # far 1
    assert dots(browser, LOCAL) == [5, 5, 10, 10, 15, 15]
    head = browser.js("return document.getElementById('spread-0').layout.annotations[0].text")
    assert "median 10.0 s" in head
    assert "never in 2 of 8" in head
    assert browser.one("#spread-0-text").text.startswith("At far 1 s, near 4 s, time to 80% test accuracy:")
    choose(browser, "[data-choice='0']", "1")


def test_tornado_follows_its_subject(page: Path, browser: Browser) -> None:
    choose(browser, "[data-subject]", "1")
    assert browser.one("#tornado-0-text").text.startswith("Time of the best H-SGD to 80% test accuracy")
    choose(browser, "[data-subject]", "0")
    low, high = browser.js("return document.getElementById('tornado-0').layout.xaxis.range")
    # from 10 s to 96 s, with room for labels on both sides
    assert low < 10 < 96 < high


def test_hostile_names_are_text(browser: Browser, tmp_path: Path) -> None:
    bad, worse = HOSTILE
    scenarios: list[dict[str, Any]] = [{"far": far, bad: link} for far in FAR for link in (worse, "<img src=x>")]
    specs = {"far": SPECS["far"], bad: {"profile": bad}}
    browser.open(
        write_report(make_study(tmp_path / "study", scenarios, cases=(bad, worse), specs=specs, chance=(1, 2)))
    )
    assert browser.complaints() == []
    said = browser.js("return hover(0, 0)")
    assert "<script" not in said
    assert "&lt;script&gt;" in said
    assert browser.js("return document.getElementById('spread-0').layout.annotations[0].text").startswith(
        "<b>&lt;script"
    )
    for summary in browser.all("[data-table] summary"):
        summary.send_keys(" ")
    assert browser.all("main img") == []
    read = "return [...document.querySelectorAll('[data-table=tornado] td')].map((cell) => cell.textContent)"
    wait_for(lambda: browser.js(read))
    assert worse in browser.js(read)


def choose(browser: Browser, selector: str, value: str) -> None:
    script = "const list = arguments[0]; list.value = arguments[1]; list.dispatchEvent(new Event('change'))"
    browser.js(script, browser.one(selector), value)


def dots(browser: Browser, case: str) -> list[float]:
    """Return the times drawn of a case."""
    mine = f"trace.meta[0] === 'dots' && trace.meta[1] === {[LOCAL, HSGD, NEVER].index(case)}"
    return sorted(browser.js(f"return document.getElementById('spread-0').data.find((trace) => {mine}).x"))
