"""The page of a run: deterministic, self-contained, escaped, and true to the run's numbers."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.metrics import Metrics
from hsgd_emu.report import write_report
from hsgd_emu.report.content import Point, Spread, gather, median_points, spread, thin
from hsgd_emu.report.figure import Column, Figure, Picture, Ref, Rows, plotly_text
from hsgd_emu.report.looks import COLOURS, OTHER_COLOUR, colours
from hsgd_emu.report.page import script_json
from hsgd_emu.report.sections import sections
from hsgd_emu.results.read import export, read_csv, read_run
from hsgd_emu.results.rows import BarrierRow, CurveRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import insert
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime
from tests.unit.report.html_fixture import HOSTILE, constant, parse, words

LOCAL, HSGD = "P=5", "G=50 I=5"
SMALL = """
name: small
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
profiles:
  far: {rtt_s: {distribution: lognormal, median: 0.2, sigma: 0.3}}
  near: {rtt_s: 0.02}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {iterations: 40}
cases: [{name: "P=4", period: 4}, {name: "P=20", period: 20}, {name: "G=20 I=4", periods: [20, 4]}]
targets: {test_accuracy: [0.3, 0.99], test_loss: [2]}
seeds: [1, 2, 3]
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, with everything that a run writes."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(SMALL)
    run(folder / "small.yaml", folder / "run", device="cpu", threads=1)
    return folder / "run"


def row(number: int, time_s: float, accuracy: float | None) -> CurveRow:
    loss = None if accuracy is None else 1 - accuracy
    return CurveRow(
        number,
        50 * number,
        time_s,
        time_s,
        1.0,
        time_s - 1.0,
        0.0,
        0,
        0,
        Metrics(train_loss=loss, test_loss=loss, test_accuracy=accuracy),
    )


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
        store.finish()
    return folder


def page(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_same_run_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    here = write_report(folder).read_bytes()
    code = "import sys, pathlib, hsgd_emu.report as r; r.write_report(pathlib.Path(sys.argv[1]))"
    # Sets and hashes of texts are in another order there.
    environment = {**os.environ, "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=environment)
    assert (folder / "report.html").read_bytes() == here


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
    pictures = [p for figure in constant(html, "FIGURES").values() for p in figure["pictures"].values()]
    names = {
        trace["name"] for picture in pictures for trace in picture["data"] if "meta" in trace and trace.get("name")
    }
    # plotly reads tags in names as markup and %{y} as a value, so they are escaped once more for it
    assert names == {
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;b&gt;bold&lt;/b&gt; &amp; \"q\" 'r' %&#123;y} &lt;/script&gt;",
    }


def test_plotly_text_is_read_back_as_it_was() -> None:
    import html

    assert all(html.unescape(plotly_text(name)) == name for name in HOSTILE)
    assert not {"<", ">"} & set(plotly_text("".join(HOSTILE)))
    assert "%{" not in plotly_text("%{y} %%{x}")


def test_json_cannot_end_its_script_element() -> None:
    text = script_json(json.dumps({"a": "</script><!--&\u2028"}, ensure_ascii=False))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028"}


def test_page_says_the_answer_and_the_table(tmp_path: Path) -> None:
    text = words(page(make_run(tmp_path / "run")))
    # 80 s / 20 s = 4
    assert "To 80% test accuracy, G=50 I=5 takes 20.0 s, 4.0 times less than the best local SGD (P=5, 80.0 s)" in text
    assert "20.00 s fastest 100 iterations, 95% communication" in text
    assert "site-1--root" in json.dumps(constant(page(tmp_path / "run"), "FIGURES")["blame"])
    assert "host.cpus" in text
    assert "weights-hash" in text
    assert "not finished" not in text


def test_page_is_accessible(small: Path) -> None:
    html = page(small)
    elements = parse(html)
    assert next(elements.named("html"))["lang"] == "en"
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("title") == tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table")
    plots = [attrs for attrs in elements.named("div") if attrs.get("class") == "plot"]
    drawn = [id for id, figure in constant(html, "FIGURES").items() if figure["pictures"]]
    assert [plot["id"] for plot in plots] == drawn
    assert all(plot["role"] == "img" and len(plot["aria-label"] or "") > 40 for plot in plots)
    ids = [attrs["id"] for _, attrs in elements.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_a_real_run_has_every_figure(small: Path) -> None:
    figures = constant(page(small), "FIGURES")
    expected = ("curves", "time-spent", "waiting", "blame", "network", "links", "each-link", "timeline")
    assert list(figures) == [*expected, "sandwich", "targets"]
    for id, figure in figures.items():
        lengths = {len(values) for _, _, _, values in figure["columns"]}
        assert len(lengths) == 1, id
        assert all(picture["text"].endswith(".") for picture in figure["pictures"].values()), id


def test_plotly_takes_every_picture(small: Path) -> None:
    # go.Figure validates: a misspelt attribute is an error here, not a silently different picture.
    with gather([small]) as content:
        pictures = [(f, p) for section in sections(content) for f in section.figures for p in f.pictures]
        for figure, picture in pictures:
            assert figure.plotly(picture.key).data
    assert len(pictures) > 20


def test_the_numbers_are_those_of_the_export(small: Path, tmp_path: Path) -> None:
    figures = constant(page(small), "FIGURES")
    export(small, "csv", tmp_path)
    curve, targets = read_csv(tmp_path / "curve.csv"), read_csv(tmp_path / "targets.csv")

    drawn = rows_of(figures["curves"])
    medians = curve.groupby(["case", "iteration"], sort=False)
    assert len(drawn) == len(medians)
    for one in drawn:
        rows = medians.get_group((one["case"], one["iteration"]))
        for name, column in (("time", "time_s"), ("test_accuracy",) * 2, ("test_loss",) * 2, ("train_loss",) * 2):
            middle, least, most = (one[key] for key in (column, *spread_names(name, column)))
            assert (middle, least, most) == (rows[column].median(), rows[column].min(), rows[column].max())

    for one in rows_of(figures["targets"]):
        rows = targets[(targets["case"] == one["case"]) & (targets["target"] == one["target"])]
        assert one["num_reached"] == rows["time_s"].notna().sum()
        if one["num_reached"] == 3:
            assert one["time_s"] == rows["time_s"].median()
            assert one["iterations"] == rows["iteration"].median()
        if one["num_reached"] < 2:
            assert one["time_s"] is None
    assert {one["num_reached"] for one in rows_of(figures["targets"])} == {0, 3}


def rows_of(figure: dict[str, Any]) -> list[dict[str, Any]]:
    names = [name for name, *_ in figure["columns"]]
    return [dict(zip(names, values, strict=True)) for values in zip(*(c[3] for c in figure["columns"]), strict=True)]


def spread_names(name: str, column: str) -> tuple[str, str]:
    return (f"{name}_least_s", f"{name}_most_s") if column == "time_s" else (f"{name}_least", f"{name}_most")


def test_case_has_one_colour_everywhere(small: Path) -> None:
    html = page(small)
    pictures = constant(html, "FIGURES")["curves"]["pictures"].values()
    lines = [
        trace for picture in pictures for trace in picture["data"] if trace.get("mode") == "lines" and "name" in trace
    ]
    assert {(t["meta"], t["line"]["color"]) for t in lines if t["line"].get("width")} == set(enumerate(COLOURS[:3]))
    buttons = re.findall(r'data-case="(\d)".*?stroke="(#\w+)"', html)
    assert buttons == [(str(i), COLOURS[i]) for i in range(3)]


def test_there_is_a_colour_for_any_number_of_cases() -> None:
    assert len(set(colours(12))) == 12
    assert colours(14)[12:] == [OTHER_COLOUR] * 2


def test_several_runs_stand_side_by_side(small: Path, tmp_path: Path) -> None:
    slower = retime(small, tmp_path / "slower", scales=["far=2"])
    html = write_report([small, slower], tmp_path / "both.html").read_text(encoding="utf-8")
    text = words(html)
    # Both run files are called `small`, so the folders' names tell the two apart.
    names = [f"{run}: {case}" for run in ("run", "slower") for case in ("P=4", "P=20", "G=20 I=4")]
    assert [one["case"] for one in rows_of(constant(html, "FIGURES")["targets"])[::3]] == names
    assert "run and slower" in text
    assert "re-timed from" in text
    once, twice = (read_run(folder).summary()["time_s"] for folder in (small, slower))
    shown = [one["time_s"] for one in rows_of(constant(html, "FIGURES")["targets"])]
    assert [math.nan if t is None else t for t in shown] == pytest.approx([*once, *twice], nan_ok=True)


def test_a_target_of_one_run_only_says_so_in_the_others(small: Path, tmp_path: Path) -> None:
    other = retime(small, tmp_path / "other", sets=["targets={test_accuracy: [0.5]}"])
    text = words(write_report([small, other], tmp_path / "both.html").read_text(encoding="utf-8"))
    # three cases without the new target, and three without each of the two that it replaced
    assert text.count("not a target of this run") == 3 + 3 * 2


def test_timing_only_run_shows_time_and_says_so(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run", timing_only=True))
    text = words(html)
    assert "Learning: this run is timing only." in text
    assert "not reached" not in text
    assert {key.split()[0] for key in constant(html, "FIGURES")["curves"]["pictures"]} == {"time_s"}


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
    pictures = constant(html, "FIGURES")["curves"]["pictures"].values()
    assert not any(picture["layout"].get("shapes") for picture in pictures)


def test_a_network_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    # A run file of another version: what was measured is shown, and why the network is not.
    text = words(page(make_run(tmp_path / "run")))
    assert "The network of demo cannot be shown:" in text


def test_out_is_honoured_and_a_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    out = tmp_path / "new" / "page.html"
    assert write_report(folder, out) == out
    assert out.stat().st_size > 1_000_000
    assert not (folder / "report.html").exists()
    with pytest.raises(ConfigError, match=r"has no run\.sqlite"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match=r"has no run\.sqlite"):
        write_report([folder, tmp_path])
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(folder, folder / "run.yaml" / "page.html")


def test_a_long_run_stays_small_and_keeps_its_crossings(tmp_path: Path) -> None:
    """5 cases x 5 seeds x 2,000 rounds: below 15 MB, and the round that reaches a target is drawn."""
    cases = [f"P={i}" for i in range(1, 6)]
    entries = "\n".join(f'- {{name: "{case}", period: 1}}' for case in cases)
    keys = [TrialKey(case, seed) for case in cases for seed in range(5)]
    folder = tmp_path / "run"
    with RunStore.create(folder, f"name: long\ncases:\n{entries}\n", {}, keys, [("test_accuracy", 0.8)]) as store:
        for key in keys:
            rows = [
                CurveRow(
                    i,
                    i,
                    i * 0.1,
                    i * 0.1,
                    0.0,
                    i * 0.1,
                    0.0,
                    0,
                    0,
                    Metrics(train_loss=1 / i, test_loss=1 / i, test_accuracy=accuracy),
                )
                for i in range(1, 2001)
                for accuracy in [1 - 800 / (i + 4000 - key.seed)]
            ]
            insert(store.connection, "curve", ((key.case, key.seed, *row.cells) for row in rows))
            store.connection.execute("UPDATE trials SET round = 2000, iteration = 2000")
            store.finish_trial(key, "w", "t", "simpy", 1.0)
    html = page(folder)
    assert len(html) < 15_000_000
    # 0.8 is reached where i + 4000 - seed >= 4000, that is at i = seed (at 1 by the first two), by the median at 2
    drawn = rows_of(constant(html, "FIGURES")["curves"])
    assert len(drawn) < 5 * 610
    for case in cases:
        assert {1, 2, 3, 4} <= {one["iteration"] for one in drawn if one["case"] == case}


def test_thinning_keeps_both_ends_and_what_must_stay() -> None:
    points = [point(i) for i in range(10_000)]
    kept = thin(points, {17, 9_001}, 100)
    assert [p.iteration for p in kept if p.iteration in (17, 9_001)] == [17, 9_001]
    assert len(kept) == 102
    assert (kept[0].iteration, kept[-1].iteration) == (0, 9_999)
    assert thin(points[:5], set(), 100) == tuple(points[:5])


def point(iteration: int) -> Point:
    one = Spread(float(iteration), float(iteration), float(iteration))
    return Point(iteration, 1, one, one, None, {})


def test_median_needs_half_of_the_seeds() -> None:
    curves = [[row(1, 1.0, 0.2), row(2, 2.0, 0.4)], [row(1, 3.0, 0.4)], [row(1, 5.0, 0.9)]]
    # iteration 100 has one seed of three
    (found,) = median_points(curves)
    assert (found.iteration, found.num_seeds) == (50, 3)
    assert found.time_s == (3.0, 1.0, 5.0)
    assert found.metrics["test_accuracy"] == (0.4, 0.2, 0.9)
    assert found.metrics["test_loss"] == pytest.approx((0.6, 0.1, 0.8))


def test_diverged_losses_are_worse_than_all_others() -> None:
    assert spread(iter([math.inf, math.nan, None])) is None
    assert spread(iter([math.inf, 2.0, 1.0])) == (2.0, 1.0, 2.0)
    assert spread([None, 0.7, 0.9], larger_is_better=True) == (0.7, 0.7, 0.9)
    assert spread([None, 0.7], larger_is_better=True) is None, "one of the two in the middle"
    assert spread([None, None, 0.9], larger_is_better=True) is None


def test_parts_of_columns_stand_for_arrays() -> None:
    columns = (Column("a", "A", "count", [1, 2, 3, 4]), Column("b", "B", "count", [5, 6, 7, 8]))
    trace = {"x": Ref("a", 1, 3), "customdata": Rows((Ref("a", 1, 3), Ref("b", 1, 3))), "line": {"width": 2}}
    figure = Figure("f", "F", (Picture(("k", "l"), "Text.", [trace], {}),), columns)
    (drawn,) = json.loads(figure.as_json())["pictures"]["k l"]["data"]
    assert drawn["x"] == {"$": ["a", 1, 3]}
    assert drawn["customdata"] == {"$rows": [{"$": ["a", 1, 3]}, {"$": ["b", 1, 3]}]}
    scatter = figure.plotly(("k", "l")).data[0]
    assert list(scatter.x) == [2, 3]
    assert [list(one) for one in scatter.customdata] == [[2, 6], [3, 7]]
