"""The report of a study: deterministic, self-contained, escaped, and true to the study's tables."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import write_report
from hsgd_emu.report.looks import COLOURS, MORE_COLOURS, OTHER_COLOUR
from hsgd_emu.report.study import page as study_data
from hsgd_emu.report.study.content import gather
from hsgd_emu.report.study.grid import MOST_PANELS, make_grid
from hsgd_emu.report.study.maps import between, scale_of
from hsgd_emu.report.study.page import rows
from hsgd_emu.report.study.sentences import answer, findings, hardest, splits
from tests.unit.report.html_fixture import HOSTILE, constant, figure_in, parse, words
from tests.unit.report.study_fixture import (
    CROSSOVERS,
    EASY,
    FAR,
    HARD,
    HSGD,
    LOCAL,
    NEAR,
    NEVER,
    SPECS,
    far_near,
    grid,
    make_study,
)


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


# --- the page ---------------------------------------------------------------------------------------


def test_same_study_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    folder = far_near(tmp_path / "study")
    here = write_report(folder).read_bytes()
    code = "import sys, pathlib, hsgd_emu.report as r; r.write_report(pathlib.Path(sys.argv[1]))"
    # Sets and hashes of texts are in another order there.
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
    assert (folder / "report.html").read_bytes() == here


def test_page_fetches_nothing(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study"))
    for tag, attrs in parse(html).tags:
        assert not {"src", "href", "srcset", "action", "data"} & set(attrs), (tag, attrs)
    assert "default-src 'none'" in html
    assert constant(html, "CONFIG")["showSendToCloud"] is False
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    assert "url(" not in style[1]
    assert html.count("plotly.js v") == 1, "plotly.js stands in the page once"


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plain = parse(page(make_study(tmp_path / "plain", grid(far=FAR, link=["a", "b"]), cases=("x", "y"))))
    bad, worse = HOSTILE
    study = make_study(
        tmp_path / "study",
        [{"far": one["far"], bad: f"{one['link']}{bad}"} for one in grid(far=FAR, link=["a", "b"])],
        cases=(bad, worse),
        name="<img src=x onerror=alert(1)>",
        specs={"far": SPECS["far"], bad: {"profile": bad}},
    )
    html = page(study)
    hostile = parse(html)
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert "<script>alert" not in html
    assert all(name in words(html) for name in HOSTILE)
    # in the data names stand as they are; the script escapes them for plotly (tests/browser)
    assert [case["name"] for case in constant(html, "DATA")["cases"]] == list(HOSTILE)
    figure = figure_in(html, "best", 0)
    texts = [figure["layout"]["yaxis"]["ticktext"][0], figure["layout"]["yaxis"]["title"]["text"]]
    assert not any("<" in text for text in texts)


def test_page_is_accessible(tmp_path: Path) -> None:
    elements = parse(page(far_near(tmp_path / "study")))
    assert next(elements.named("html"))["lang"] == "en"
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("title") == tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    plots = [attrs for attrs in elements.named("div") if "data-map" in attrs]
    assert [plot["id"] for plot in plots] == ["best-0", "gain-0", "tornado-0"]
    assert all(plot["role"] == "img" and len(plot["aria-label"] or "") > 20 for plot in plots)
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(plot["aria-describedby"] in ids for plot in plots)
    # each kind of figure has its data, to be opened and downloaded
    figures = ["best", "gain", "tornado"]
    assert [attrs["data-table"] for attrs in elements.named("details") if "data-table" in attrs] == figures
    buttons = [attrs for attrs in elements.named("button") if "data-csv" in attrs]
    assert [attrs["data-csv"] for attrs in buttons] == figures
    assert all("Download the data of" in (attrs["aria-label"] or "") for attrs in buttons)


def test_page_says_the_answer_first(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study"))
    # 80%: local SGD at far < 2 near, that is at (1, 1), (1, 4) and (4, 4) of six
    assert "To 80% test accuracy, " in words(html)
    shown = [attrs for attrs in parse(html).named("div") if "data-target" in attrs and "hidden" not in attrs]
    assert {attrs["data-target"] for attrs in shown} == {"1"}, "the hardest target that is reached is shown"
    assert html.index('class="answer"') < html.index("<h2")


def test_every_choice_has_its_figure(tmp_path: Path) -> None:
    steps = [1 + i for i in range(MOST_PANELS + 1)]
    html = page(make_study(tmp_path / "study", grid(far=FAR, near=NEAR, step=steps, link=["a", "b"])))
    figures = constant(html, "FIGURES")
    elements = parse(html)
    keys = {attrs["data-key"] for attrs in elements.named("div") if "data-key" in attrs}
    # two links stand side by side, the step is picked
    assert keys == {"*,0", "*,1", ""}
    lists = [attrs for attrs in elements.named("select") if "data-pick" in attrs]
    assert len(lists) == 2, "one list above each group of maps"
    for which in ("best", "gain"):
        for target in ("0", "1"):
            assert set(figures[which][target]) == {f"{step},{link}" for step in range(len(steps)) for link in (0, 1)}


def test_unfinished_study_says_so_and_nothing_else(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study", finished=False))
    assert "This study is not finished: 2 of 6 scenarios are timed." in words(html)
    assert 'class="answer"' not in html


def test_study_without_targets_says_so(tmp_path: Path) -> None:
    assert "This study has no targets" in words(page(make_study(tmp_path / "study", grid(far=FAR), targets=())))


def test_folder_without_run_or_study_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no"):
        write_report(tmp_path)


# --- what it says -----------------------------------------------------------------------------------


def test_answer_counts_scenarios(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study"))
    easy, hard = content.targets
    assert answer(content, easy) == f"To 50% test accuracy, {HSGD} is the fastest in all 6 scenarios."
    # (1, 1): 10 against 18, (1, 4), (4, 4): 40 against 72; H-SGD at (4, 1): 40 against 24, (16, 1) and (16, 4)
    expected = "To 80% test accuracy, H-SGD is the fastest in 3 of 6 scenarios, local SGD in 3."
    assert answer(content, hard) == expected
    assert hardest(content) == 1


def test_kinds_are_not_compared_where_more_than_schedules_tells_cases_apart(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study"))
    assert content.both_kinds
    cases = [case | {"train": {"proximal": 0.1}} for case in content.study["run"]["cases"]]
    content.study["run"]["cases"] = cases
    assert not content.both_kinds
    assert content.kinds == ("one level", "several levels")
    for target in content.targets:
        assert "local SGD" not in " ".join([answer(content, target), *findings(content, target)])


def test_answer_names_the_most_frequent_case(tmp_path: Path) -> None:
    # H-SGD from far 4 on: 16 + 8 against 40
    content = gather(make_study(tmp_path / "study", grid(far=(1, 4, 16))))
    expected = f"H-SGD is the fastest in 2 of 3 scenarios, local SGD in 1; {HSGD} wins most often (2)."
    assert answer(content, content.targets[1]) == f"To 80% test accuracy, {expected}"
    alone = gather(make_study(tmp_path / "alone", grid(far=(1, 4, 16)), cases=(LOCAL, "P=10")))
    assert "P=10 wins most often, in 2 of 3 scenarios." in answer(alone, alone.targets[1])


def test_page_begins_with_the_hardest_target_that_is_usually_reached(tmp_path: Path) -> None:
    scenarios = grid(far=FAR, near=NEAR)
    assert hardest(gather(make_study(tmp_path / "some", scenarios, unreached=(0, 1, 2)))) == 1
    assert hardest(gather(make_study(tmp_path / "few", scenarios, unreached=(0, 1, 2, 3)))) == 0
    rare = gather(make_study(tmp_path / "rare", scenarios, unreached=(0, 1, 2, 3), targets=[HARD]))
    assert answer(rare, rare.targets[0]).endswith("In 4 of 6 scenarios no case reaches it.")


def test_findings_follow_from_the_tables(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study"))
    easy, hard = (findings(content, target) for target in content.targets)
    # 10 far against 5 far, everywhere
    assert "The best local SGD takes 2.0 times as long as the best H-SGD" in easy[0]
    text = " ".join(hard)
    assert "far/near > 2" in text, "the crossover is the law of the fixture"
    # H-SGD: 40/24 = 1.67, 160/48 = 3.33, 160/96 = 1.67
    assert "Where H-SGD is faster, the best local SGD takes 1.7 times as long (median; at most 3.3 times" in text
    assert "at far 16 s, near 1 s" in text
    assert f"{NEVER} never reaches 80% test accuracy" in text
    # every pair of the fixture has probability 3/4
    assert "In 6 scenarios the fastest case is less sure" in text


def test_findings_without_crossovers_tell_what_matters_most(tmp_path: Path) -> None:
    scenarios = [{"far": 1 + i, "near": 8} for i in range(30)]
    content = gather(make_study(tmp_path / "study", scenarios))
    hard = content.targets[1]
    # local SGD below far = 16 (and at it, by order): 16 scenarios; H-SGD above: 14
    (split,) = splits(content, hard)
    assert (split.value, split.low, split.high) == (16.5, (0, 16, 16), (1, 14, 14))
    assert f"up to 16.5 s, {LOCAL} is the fastest in 16 of 16 scenarios; above it, {HSGD} in 14 of 14" in " ".join(
        findings(content, hard)
    )


def test_kind_that_never_gets_there_gains_nothing(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study", never=(LOCAL,)))
    assert all(gain == math.inf for gain in content.targets[1].gain_S)
    assert "In 6 scenarios only H-SGD reaches the target." in findings(content, content.targets[1])
    assert rows(content, content.targets[1])[0].gain == "H-SGD only"
    figure = figure_in(page(tmp_path / "study"), "gain", 1)
    assert {value for row in figure["data"][0]["z"] for value in row} == {1}
    assert figure["text"] == "Only H-SGD reaches the target in 6 of 6 scenarios."


def test_no_case_gets_there(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study", never=(LOCAL, HSGD)))
    assert answer(content, content.targets[1]) == "No case reaches 80% test accuracy in any scenario."
    html = page(tmp_path / "study")
    assert {value for row in figure_in(html, "best", 1)["data"][0]["z"] for value in row} == {None}
    assert figure_in(html, "gain", 1)["text"] == "No case reaches the target."


def test_table_has_every_scenario(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study"))
    first = rows(content, content.targets[1])[0]
    assert first.values == ("1 s", "1 s")
    assert first.case is not None
    # 10 s against 18 s
    assert (first.case.name, first.time, first.next, first.probability, first.gain) == (
        LOCAL,
        "10.0 s",
        f"{HSGD}, 1.8×",
        "75%",
        "local SGD 1.8×",
    )
    assert len(rows(content, content.targets[1])) == len(FAR) * len(NEAR)


# --- the figures ------------------------------------------------------------------------------------


def test_map_has_the_best_case_of_each_cell(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study"))
    figure = figure_in(html, "best", 1)
    plane = figure["data"][0]
    # rows: near 1, near 4; columns: far 1, 4, 16; cases: 0 local, 1 H-SGD
    assert plane["z"] == [[0, 1, 1], [0, 0, 1]]
    assert plane["customdata"] == [[0, 2, 4], [1, 3, 5]]
    # half-way between 1 and 4 by factor is 2; the ends are as far out
    assert plane["x"] == pytest.approx([0.5, 2, 8, 32])
    assert plane["y"] == pytest.approx([0.5, 2, 8])
    assert figure["layout"]["xaxis"]["title"]["text"] == "far RTT (s)"
    assert figure["text"].startswith("Of 6 scenarios, ")
    # what is said of a cell, the script takes out of the data: far 4, near 1 (scenario 2) has 40 s against 24 s
    data = constant(html, "DATA")
    assert [times[2] for times in data["targets"][1]["median"]] == [40, 24, None]
    assert [axis["texts"][at[2]] for axis, at in zip(data["axes"], data["places"], strict=True)] == ["4 s", "1 s"]
    assert data["targets"][1]["probability"][2] == 0.75


def test_borders_go_through_the_crossovers(tmp_path: Path) -> None:
    figure = figure_in(page(far_near(tmp_path / "study")), "best", 1)
    lines = [trace for trace in figure["data"] if trace.get("mode") == "lines"]
    # one border, on its light rim, thick because local SGD meets H-SGD
    assert [line["line"]["width"] for line in lines] == [5.4, 3.0]
    spots = set(zip(lines[1]["x"], lines[1]["y"], strict=True))
    assert {(2.0, 1), (8.0, 4), (4.0, 2.0)} <= spots
    # and out to the edges of the cells
    assert {(2.0, 0.5), (8.0, 8.0)} <= {(x, y if y is None else round(y, 9)) for x, y in spots}
    # to 50% there is one winner and no border
    easy = figure_in(page(tmp_path / "study"), "best", 0)
    assert not [trace for trace in easy["data"] if trace.get("mode") == "lines"]


def test_gain_map_is_equal_in_the_middle(tmp_path: Path) -> None:
    figure = figure_in(page(far_near(tmp_path / "study")), "gain", 1)
    plane = figure["data"][0]
    # gains: 10/18, 40/24, 160/48 (near 1); 10/66, 40/72, 160/96 (near 4); 66/10 needs a scale up to 10
    expected = [[10 / 18, 40 / 24, 160 / 48], [10 / 66, 40 / 72, 160 / 96]]
    assert plane["z"] == [pytest.approx([math.log10(gain) for gain in row], abs=1e-4) for row in expected]
    assert (plane["zmin"], plane["zmax"]) == (-1, 1)
    texts = next(trace["text"] for trace in figure["data"] if trace.get("mode") == "text")
    assert texts == ["1.8×", "1.7×", "3.3×", "6.6×", "1.8×", "1.7×"]


def test_close_scenarios_are_marked(tmp_path: Path) -> None:
    # far = 2 near: a tie; far 8 near 1: 80 against 32
    folder = make_study(tmp_path / "study", grid(far=[2, 8], near=[1, 4]))
    figure = figure_in(page(folder), "best", 1)
    marks = next(trace for trace in figure["data"] if trace.get("mode") == "text")
    assert list(zip(marks["x"], marks["y"], marks["text"], strict=True)) == [(2, 1, "≈"), (8, 4, "≈")]


def test_marks_are_left_out_where_cells_are_small(tmp_path: Path) -> None:
    # 620 pixels for 50 columns
    html = page(make_study(tmp_path / "study", grid(far=[1 + i / 10 for i in range(50)], near=[1, 4])))
    assert "≈" not in words(html)
    assert not any(trace.get("text") for trace in figure_in(html, "best", 1)["data"])


def test_names_are_written_into_large_regions(tmp_path: Path) -> None:
    figure = figure_in(page(far_near(tmp_path / "study")), "best", 1)
    texts = [note["text"] for note in figure["layout"]["annotations"]]
    # black on pink would be wrong on blue: each is written in what is read better
    assert texts == [f'<b style="color:#fff">{LOCAL}</b>', f'<b style="color:#111">{HSGD}</b>']


def test_case_has_one_colour_everywhere(tmp_path: Path) -> None:
    html = page(far_near(tmp_path / "study"))
    assert set(re.findall(r'<i class="patch" style="background:(#\w+)"', html)) == set(COLOURS[:3])
    scale = figure_in(html, "best", 1)["data"][0]["colorscale"]
    assert [colour for _, colour in scale] == [colour for colour in COLOURS[:3] for _ in range(2)]


def test_winners_come_first_where_colours_are_few(tmp_path: Path) -> None:
    cases = (LOCAL, HSGD, *(f"P={i}" for i in range(100, 115)))
    content = gather(make_study(tmp_path / "study", grid(far=FAR, near=NEAR), cases=cases))
    colours = {case.name: case.colour for case in content.cases}
    palette = (*COLOURS, *MORE_COLOURS)
    assert len(set(palette)) == len(palette)
    assert list(colours.values()) == [*palette, *[OTHER_COLOUR] * (len(cases) - len(palette))]
    # without these two, the fourth is always first
    other = gather(make_study(tmp_path / "other", grid(far=FAR), cases=cases, never=(LOCAL, HSGD)))
    assert [case.colour for case in other.cases][3:5] == [COLOURS[0], COLOURS[4]]


def test_words_are_read_on_every_colour_of_the_gain(tmp_path: Path) -> None:
    scale = scale_of(gather(far_near(tmp_path / "study")))
    # white on the dark ends (contrast 6.1 on the brown, 6.9 on the green), black on the light middle
    assert [scale.ink(factor) for factor in (0.1, 1, 10)] == ["#fff", "#111", "#fff"]
    assert between("#000000", "#ff8000", 0.5) == "#804000"


def test_chart_along_one_axis(tmp_path: Path) -> None:
    crossovers = [(*HARD, "far", "{}", LOCAL, HSGD, 2.0)]
    folder = make_study(tmp_path / "study", grid(far=FAR), crossovers=crossovers, spread=0.5)
    html = page(folder)
    figure = figure_in(html, "chart", 1)
    lines = {trace["name"]: trace for trace in figure["data"] if "name" in trace}
    # near is 1: 10 far, and 2 far + 16
    assert lines[LOCAL]["y"] == [10, 40, 160]
    assert lines[HSGD]["y"] == [18, 24, 48]
    assert lines[NEVER]["y"] == [None, None, None]
    bands = [trace["y"] for trace in figure["data"] if "name" not in trace]
    assert bands == [[5, 20, 80], [15, 60, 240], [9, 12, 24], [27, 36, 72]]
    assert [note["text"] for note in figure["layout"]["annotations"]] == ["2 s"]
    strip = [(s["x0"], s["x1"], s["fillcolor"]) for s in figure["layout"]["shapes"] if s["type"] == "rect"]
    assert strip == [(1, 2, COLOURS[0]), (2, 16, COLOURS[1])]
    assert figure["text"] == (
        f"At far 1 s {LOCAL} is the fastest (10.0 s) and at far 16 s {HSGD} is the fastest (48.0 s)."
    )


def test_chart_of_names_has_marks_with_bars(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", grid(link=["lte", "fibre"]), spread=0.5)
    figure = figure_in(page(folder), "chart", 1)
    assert figure["layout"]["xaxis"]["ticktext"] == ["lte", "fibre"]
    first = figure["data"][0]
    assert (first["y"], first["error_y"]["array"], first["error_y"]["arrayminus"]) == ([10, 10], [5, 5], [5, 5])


def test_sample_is_a_cloud_over_the_axes_that_tell_most(tmp_path: Path) -> None:
    # near is a multiple of 7 that has nothing to do with far
    scenarios = [{"near": 1 + (7 * i) % 20 / 20, "far": 0.5 + 0.25 * i} for i in range(20)]
    html = page(make_study(tmp_path / "study", scenarios))
    chosen = [attrs["value"] for attrs in parse(html).named("option") if "selected" in attrs]
    assert chosen[:2] == ["1", "0"], "far, the second axis, lies across"
    axes = constant(html, "CLOUD_AXES")
    assert axes[1]["at"] == [one["far"] for one in scenarios]
    cloud = figure_in(html, "cloud", 1)
    shown = sorted(s for trace in cloud["data"] for s in trace["customdata"])
    assert shown == list(range(20))
    symbols = {symbol.removesuffix("-open") for trace in cloud["data"] for symbol in trace["marker"]["symbol"]}
    assert symbols == {"circle", "diamond"}


def test_few_scenarios_are_a_table_only(tmp_path: Path) -> None:
    html = page(make_study(tmp_path / "study", [{"far": 1, "near": 4}, {"far": 4, "near": 1}]))
    assert "plotly.js" not in html
    assert [attrs for attrs in parse(html).named("details") if "open" in attrs]


@pytest.mark.parametrize(
    "scenarios",
    [
        grid(far=FAR, near=NEAR, link=["a", "b"]),
        grid(far=FAR),
        grid(link=["a", "b"]),
        [{"near": 1 + (7 * i) % 20 / 20, "far": 0.5 + 0.25 * i} for i in range(20)],
    ],
    ids=["maps", "chart", "dots", "cloud"],
)
def test_plotly_knows_every_attribute(tmp_path: Path, scenarios: list[dict[str, Any]]) -> None:
    import plotly.graph_objects as go

    html = page(make_study(tmp_path / "study", scenarios, chance=(0.5, 2), spread=0.5))
    figures = constant(html, "FIGURES")
    assert {"tornado", "spread"} < set(figures)
    names = [(w, t, k) for w, targets in figures.items() for t in ("0", "1") for k in targets[t]]
    for which, target, key in names:
        figure = figure_in(html, which, int(target), key)
        # "none" is the name of a template in Python, which the script does not know and need not
        assert go.Figure(data=figure["data"], layout={**figure["layout"], "template": None}), which


def test_layout_that_figures_share_stands_once(tmp_path: Path) -> None:
    figures = constant(page(far_near(tmp_path / "study")), "FIGURES")["best"]
    assert {"xaxis", "yaxis", "margin"} <= set(figures["layout"])
    # but the names in the regions are each map's own
    assert [set(figures[target][""]["layout"]) for target in ("0", "1")] == [{"annotations"}] * 2


def test_many_times_are_rounded_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_study(tmp_path / "study", grid(far=[1 / 3, 2 / 3], near=NEAR))
    exact = constant(page(folder), "DATA")
    assert (exact["exact"], exact["targets"][1]["median"][0][0]) == (True, 10 * (1 / 3))
    # 4 scenarios, 3 cases and 2 targets
    monkeypatch.setattr(study_data, "MOST_EXACT", 23)
    html = page(folder)
    assert constant(html, "DATA")["targets"][1]["median"][0][0] == 3.33333
    assert "rounded to 6 digits" in words(html)


def test_very_large_study_is_thinned_evenly(tmp_path: Path) -> None:
    content = gather(far_near(tmp_path / "study"))
    layout = make_grid(content.axes, content.places_SA, num_targets=10_000)
    assert layout is not None
    # 4 cells a target: the longer axis loses its middle
    assert layout.shown == ((0, 2), (0, 1))
    assert layout.thinned
    assert layout.cells(()) == [[0, 4], [1, 5]]


def test_targets_keep_their_tables_apart(tmp_path: Path) -> None:
    easy, hard = gather(far_near(tmp_path / "study")).targets
    assert ((easy.metric, easy.level), (hard.metric, hard.level)) == (EASY, HARD)
    # scenario 4: far 16, near 1
    assert (easy.median_SC[4, :2].tolist(), hard.median_SC[4, :2].tolist()) == ([160, 80], [160, 48])
    assert len(easy.crossovers) == 0
    assert len(hard.crossovers) == len(CROSSOVERS)
