"""The report: deterministic, self-contained, escaped, and true to the run's numbers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import write_report
from hsgd_emu.report.content import COLOURS, Point, gather, median_points, thin
from hsgd_emu.report.page import script_json
from hsgd_emu.report.sentences import accuracy_in_time, parts_in_words
from hsgd_emu.results.rows import BarrierRow, CurveRow, TrialKey
from hsgd_emu.results.store import RunStore

LOCAL, HSGD = "P=5", "G=50 I=5"
HOSTILE = ("<script>alert(1)</script>", "<b>bold</b> & \"q\" 'r' %{y} </script>")


def row(number: int, time_s: float, accuracy: float | None) -> CurveRow:
    loss = None if accuracy is None else 1 - accuracy
    return CurveRow(number, 50 * number, time_s, time_s, 1.0, time_s - 1.0, 0.0, loss, loss, accuracy)


def make_run(
    folder: Path,
    cases: tuple[str, str] = (LOCAL, HSGD),
    *,
    timing_only: bool = False,
    unfinished: bool = False,
    name: str = "demo",
    targets: tuple[tuple[str, float], ...] = (("test_accuracy", 0.5), ("test_accuracy", 0.8)),
) -> Path:
    """The local case reaches 50% at 40 s and 80% at 80 s; the other at 10 s and 20 s. Seed 2 is better."""
    local, hierarchical = (json.dumps(case) for case in cases)
    entries = f"- {{name: {local}, period: 5}}\n- {{name: {hierarchical}, periods: [50, 5]}}\n"
    run = f"name: {json.dumps(name)}\nmodel: {{name: mlp}}\ncases:\n{entries}"
    keys = [TrialKey(case, seed) for case in cases for seed in (1, 2)]
    with RunStore.create(folder, run, {"python": "3.11", "host": {"cpus": 2}}, keys, targets) as store:
        for key in keys:
            step_s = 40.0 if key.case == cases[0] else 10.0
            for number, accuracy in enumerate((0.55, 0.85), start=1):
                value = None if timing_only else accuracy + 0.02 * (key.seed - 1)
                barrier = BarrierRow("root", 50 * number, 1.0, "site-1", "site-1--root", 0.5)
                store.commit_round(key, 50 * number, row(number, step_s * number, value), [], [barrier], [])
            if not (unfinished and key == keys[-1]):
                store.finish_trial(key, "weights-hash", "timeline-hash", "simpy", 1.0)
        store.finish_run()
    return folder


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def figure_data(html: str) -> dict[str, Any]:
    line = re.search(r"^const FIGURES = (.*);$", html, re.MULTILINE)
    assert line
    return dict(json.loads(line[1]))


class Elements(HTMLParser):
    """Collects the tags, with their attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._raw = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text.append(data)

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attrs for name, attrs in self.tags if name == tag)


def parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    return elements


def words(html: str) -> str:
    return " ".join(" ".join(parse(html).text).split())


def test_same_run_gives_the_same_bytes_in_other_processes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    pages = set()
    for seed in ("1", "2"):
        code = "import sys, pathlib, hsgd_emu.report as r; r.write_report(pathlib.Path(sys.argv[1]))"
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
        pages.add((folder / "report.html").read_bytes())
    assert len(pages) == 1


def test_page_fetches_nothing(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run"))
    elements = parse(html)
    for tag, attrs in elements.tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attrs), (tag, attrs)
    policies = [attrs["content"] for attrs in elements.named("meta") if "http-equiv" in attrs]
    assert policies[0] is not None
    assert policies[0].startswith("default-src 'none'")
    assert '"showSendToCloud": false' in html
    assert '"plotlyServerURL": ""' in html
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert html.count("plotly.js v") == 1, "plotly.js stands in the page once"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    elements = parse(page(make_run(tmp_path / "plain")))
    html = page(make_run(tmp_path / "run", HOSTILE, name="<img src=x onerror=alert(1)>"))
    hostile = parse(html)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in elements.tags]
    assert "<script>alert(1)</script>" not in html
    assert all(name in words(html) for name in HOSTILE)
    names = {trace["name"] for figure in figure_data(html).values() for trace in figure["data"]}
    # plotly reads tags in names as markup, so they are escaped once more for it
    assert names == {
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;b&gt;bold&lt;/b&gt; &amp; \"q\" 'r' %{y} &lt;/script&gt;",
    }


def test_json_cannot_end_its_script_element() -> None:
    text = script_json(json.dumps({"a": "</script><!--&\u2028"}, ensure_ascii=False))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


def test_page_says_the_answer_and_the_table(tmp_path: Path) -> None:
    text = words(page(make_run(tmp_path / "run")))
    # 80 s / 20 s = 4
    assert "To 80% test accuracy, G=50 I=5 takes 20.0 s, 4.0 times less than the best local SGD (P=5, 80.0 s)" in text
    assert "20.00 s fastest 100 iterations, 95% communication" in text
    assert "site-1--root" in text
    assert "host.cpus" in text
    assert "weights-hash" in text
    assert "not finished" not in text


def test_page_is_accessible(tmp_path: Path) -> None:
    elements = parse(page(make_run(tmp_path / "run")))
    assert next(elements.named("html"))["lang"] == "en"
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("title") == tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    plots = [attrs for attrs in elements.named("div") if attrs.get("class") == "plot"]
    assert [plot["id"] for plot in plots] == ["accuracy-time", "accuracy-iterations", "loss-time"]
    assert all(plot["role"] == "img" and len(plot["aria-label"] or "") > 40 for plot in plots)
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_figures_carry_the_curves_and_targets(tmp_path: Path) -> None:
    figure = figure_data(page(make_run(tmp_path / "run")))["accuracy-time"]
    medians = [trace for trace in figure["data"] if trace["line"]["width"] == 3]
    assert [trace["name"] for trace in medians] == [LOCAL, HSGD]
    assert medians[0]["x"] == [40.0, 80.0]
    # seeds 0.55 and 0.57, 0.85 and 0.87
    assert medians[0]["y"] == pytest.approx([0.56, 0.86])
    assert len(figure["data"]) == 2 * (2 + 1), "two seeds and the median of each case"
    assert [shape["y0"] for shape in figure["layout"]["shapes"]] == [0.5, 0.8]
    # 80% must be on the picture, with its label
    assert figure["layout"]["yaxis"]["range"][1] > 0.87


def test_case_has_one_colour_everywhere(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run"))
    for figure in figure_data(html).values():
        colours = {(trace["name"], trace["line"]["color"]) for trace in figure["data"]}
        assert colours == {(LOCAL, COLOURS[0]), (HSGD, COLOURS[1])}
    buttons = re.findall(r'data-case="(\d)".*?stroke="(#\w+)"', html)
    assert buttons == [("0", COLOURS[0]), ("1", COLOURS[1])]


def test_timing_only_run_shows_time_and_says_so(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run", timing_only=True))
    assert list(figure_data(html)) == ["time-iterations"]
    text = words(html)
    assert "Timing only: nothing was trained in this run" in text
    assert "Learning: this run is timing only." in text
    assert "not reached" not in text


def test_unfinished_run_says_so_at_the_top(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run", unfinished=True))
    notice = "This run is not finished: 3 of 4 trials are done, 1 under way."
    assert notice in html
    assert html.index(notice) < html.index('class="answer"')


def test_run_that_has_just_begun_has_a_page_too(tmp_path: Path) -> None:
    keys = [TrialKey(LOCAL, 1)]
    RunStore.create(tmp_path / "run", "name: x\ncases: [{name: P=5, period: 5}]", {}, keys, []).close()
    assert "No trial has finished yet." in page(tmp_path / "run")


def test_run_without_targets_has_no_target_lines(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run", targets=()))
    assert "No target was set." in html
    assert not figure_data(html)["accuracy-time"]["layout"].get("shapes")


def test_out_is_honoured_and_a_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    out = tmp_path / "new" / "page.html"
    assert write_report(folder, out) == out
    assert out.stat().st_size > 1_000_000
    assert not (folder / "report.html").exists()
    with pytest.raises(ConfigError, match=r"has no run\.sqlite"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(folder, folder / "run.yaml" / "page.html")


def test_sentences_follow_from_the_data(tmp_path: Path) -> None:
    content = gather(make_run(tmp_path / "run"))
    # At 20 s the local case has no point yet (its first is at 40 s), so nothing is said of it.
    assert accuracy_in_time(content) == "G=50 I=5 is first at 80% test accuracy, after 20.00 s."
    # last row: compute 1 s of 80 s and of 20 s
    assert parts_in_words(content.cases) == "Communication is 99% of the time of P=5 and 95% of G=50 I=5."


def test_median_needs_half_of_the_seeds() -> None:
    curves = [[row(1, 1.0, 0.2), row(2, 2.0, 0.4)], [row(1, 3.0, 0.4)], [row(1, 5.0, 0.9)]]
    # iteration 100 has one seed of three
    assert median_points(curves) == [Point(50, 3.0, 0.4, pytest.approx(0.6))]


def test_diverged_losses_are_left_out() -> None:
    bad = CurveRow(1, 50, 1.0, 1.0, 1.0, 0.0, 0.0, float("inf"), float("inf"), 0.1)
    assert median_points([[bad]]) == [Point(50, 1.0, 0.1, None)]


def test_thinning_keeps_both_ends() -> None:
    points = [Point(i, float(i), None, None) for i in range(10_000)]
    kept = thin(points, 100)
    assert len(kept) == 100
    assert (kept[0].iteration, kept[-1].iteration) == (0, 9_999)
    assert thin(points[:5], 100) == tuple(points[:5])
