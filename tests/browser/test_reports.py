"""Every kind of report, opened as a reader opens it: drawn, quiet, operable by mouse and keyboard, readable."""

from __future__ import annotations

import csv
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Browser
from tests.browser.pages import HOSTILE, PAGES

LOOKS = [(1280, False), (1280, True), (400, False), (400, True)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each made once."""
    return functools.cache(lambda name: PAGES[name](tmp_path_factory.mktemp(name) / "run"))


@pytest.fixture(scope="module", params=list(PAGES))
def page(request: pytest.FixtureRequest, browser: Browser, reports: Callable[[str], Path]) -> Path:
    """A report, open at 1280 pixels in the light."""
    path = reports(request.param)
    browser.open(path)
    return path


def test_it_is_quiet_and_asks_for_nothing_but_itself(page: Path, browser: Browser) -> None:
    assert browser.complaints() == []
    assert browser.requests() == [page.absolute().as_uri()]
    assert browser.js("return performance.getEntriesByType('resource').length") == 0


def test_every_figure_is_drawn(page: Path, browser: Browser) -> None:
    drawn = browser.audit("drawn")
    assert drawn
    for figure in drawn:
        assert figure["traces"] > 0, figure
        assert figure["calculated"] == figure["traces"], figure
        assert figure["marks"] > 0, figure


def test_what_is_pressed_is_what_is_shown(page: Path, browser: Browser) -> None:
    for group in browser.all("[data-switch]"):
        id = group.get_attribute("data-switch")
        groups = browser.all(f"[data-switch='{id}']")
        pressed = [one.find_element("css selector", "[aria-pressed=true]").get_attribute("data-key") for one in groups]
        places = [int(one.get_attribute("data-place")) for one in groups]
        found = browser.js(
            "const [id, text] = [arguments[0], document.getElementById(`${arguments[0]}-text`).textContent];"
            "return Object.entries(FIGURES[id].pictures).filter(([, one]) => one.text === text).map(([key]) => key)",
            id,
        )
        assert any([key.split(" ")[place] for place in places] == pressed for key in found), id


def test_everything_that_can_be_used_has_a_name(page: Path, browser: Browser) -> None:
    assert browser.audit("nameless") == []


def test_switches_work_by_mouse_and_keyboard(page: Path, browser: Browser) -> None:
    groups = browser.all("[data-switch], [data-scale]")
    for group in groups:
        buttons = group.find_elements("css selector", "button")
        for number, (button, text) in enumerate(zip(buttons, browser.texts(group, "button"), strict=True)):
            use(button, by_key=number % 2 == 1)
            assert browser.texts(group, "[aria-pressed=true]") == [text]
    test_every_figure_is_drawn(page, browser)
    browser.js("for (const group of arguments[0]) group.querySelector('button').click()", groups)
    assert browser.complaints() == []


def test_the_key_hides_and_shows_a_case_in_every_figure(page: Path, browser: Browser) -> None:
    before = browser.audit("drawn")
    for number, button in enumerate(browser.all("[data-case]")[:2]):
        use(button, by_key=number == 1)
        assert button.get_attribute("aria-pressed") == "false"
        assert sum(f["traces"] for f in browser.audit("drawn")) < sum(f["traces"] for f in before)
        use(button, by_key=number == 1)
        assert browser.audit("drawn") == before


def test_the_data_of_every_figure_open_as_a_table(page: Path, browser: Browser) -> None:
    tables = browser.all("[data-table]")
    assert tables
    for number, details in enumerate(tables):
        use(details.find_element("css selector", "summary"), by_key=number % 2 == 1)
        wait_for(lambda details=details: browser.texts(details, "tbody tr:first-child"))
        heads = browser.texts(details, "thead th")
        assert heads
        assert all(heads)
        use(details.find_element("css selector", "summary"), by_key=number % 2 == 0)


def test_the_data_of_a_figure_are_downloaded_as_csv(page: Path, browser: Browser) -> None:
    button = browser.one("[data-csv]")
    file = browser.downloads / f"{button.get_attribute('data-csv')}.csv"
    file.unlink(missing_ok=True)
    use(button, by_key=True)
    wait_for(file.exists)
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}


def test_a_timeline_is_zoomed_by_its_buttons(page: Path, browser: Browser) -> None:
    for group in browser.all("[data-zoom]"):
        plot = f"document.getElementById('{group.get_attribute('data-zoom')}')"
        widths = []
        for key in ("in", "later", "earlier", "out", "all"):
            use(group.find_element("css selector", f"[data-key={key}]"), by_key=True)
            widths.append(browser.js(f"const [a, b] = {plot}.layout.xaxis.range; return b - a"))
        assert widths[0] == pytest.approx(widths[4] / 2)
        assert widths[:3] == pytest.approx([widths[0]] * 3)
        assert widths[3] == pytest.approx(widths[4])


@pytest.mark.parametrize(("width", "dark"), LOOKS, ids=["wide-light", "wide-dark", "phone-light", "phone-dark"])
def test_it_can_be_read_on_any_screen(page: Path, browser: Browser, width: int, dark: bool) -> None:
    browser.look(width, dark)
    assert browser.audit("overflow") <= 0
    assert browser.audit("faint") == []
    assert browser.js("return Math.max(...[...document.querySelectorAll('.plot')].map((p) => p.clientWidth))") <= width


def test_hostile_names_are_text(browser: Browser, reports: Callable[[str], Path]) -> None:
    browser.open(reports("uneven"))
    assert browser.complaints() == []
    assert not browser.all("main img")
    assert browser.one("h1").text.startswith(HOSTILE[:40])


def use(control: Any, by_key: bool = False) -> None:
    if by_key:
        control.send_keys(" ")
    else:
        control.click()


def wait_for(done: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
