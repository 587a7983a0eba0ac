"""Figures as image files."""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import images, write_report
from hsgd_emu.report.images import Image, Key, job, write_images
from hsgd_emu.report.study.content import gather
from hsgd_emu.report.study.images import study_images
from hsgd_emu.report.study.page import cloud_sides
from hsgd_emu.run import run
from hsgd_emu.study.sweep.store import read_study
from tests.unit.report.html_fixture import HOSTILE, words
from tests.unit.report.study_fixture import FAR, HARD, HSGD, LOCAL, NEAR, SPECS, crossover, far_near, grid, make_study

RUN = """
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {far: {rtt_s: 0.2}, near: {rtt_s: 0.02}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: mlp
train: {iterations: 20}
cases: [{name: "P=10", period: 10}, {name: "<b>G</b>", periods: [10, 5]}]
"""
DRAW = images._draw
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    (place / "run.yaml").write_text(RUN)
    run(place / "run.yaml", place / "run", timing_only=True)
    return place / "run"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What the browser is given to draw; nothing is drawn."""
    given: list[dict] = []

    def draw(kaleido: object, some: list[dict]) -> None:
        given.extend(some)
        for one in some:
            Path(one["path"]).write_bytes(PNG if one["opts"]["format"] == "png" else b"<svg></svg>")

    monkeypatch.setattr(images, "_draw", draw)
    return given


def _png() -> bytes:
    file = BytesIO()
    Pillow.new("RGB", (1, 1)).save(file, "PNG")
    return file.getvalue()


PNG = _png()


@pytest.mark.parametrize("format", ["png", "svg"])
def test_only_images_of_ours_are_overwritten_without_force(folder, jobs, tmp_path, format):
    path = tmp_path / f"network.{format}"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="hsgd-emu did not write it; --force"):
        write_images([folder], format, tmp_path, ["network"])
    assert path.read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    write_images([folder], format, tmp_path, ["network"], force=True)
    write_images([folder], format, tmp_path, ["network"])
    assert b"drawn by hsgd_emu" in path.read_bytes()
    if format == "png":
        with Pillow.open(path) as image:
            image.load()
            assert image.info["Software"] == "drawn by hsgd_emu"


def test_every_figure_once_unless_some_are_named(folder, jobs, tmp_path):
    names = [path.name for path in write_images([folder], "png", tmp_path)]
    assert names[:2] == ["curves-time_s-iteration.png", "time-spent.png"]
    assert len(names) == len({name.split("-")[0] for name in names} | {"each"})
    named = write_images([folder], "svg", tmp_path, ["curves", "network", "curves-time_s-bytes"])
    assert [path.name for path in named] == ["curves-time_s-iteration.svg", "curves-time_s-bytes.svg", "network.svg"]


def test_a_picture_has_a_title_and_one_entry_per_case_in_its_key(folder, jobs, tmp_path):
    write_images([folder], "png", tmp_path, ["curves-time_s-bytes"])
    (figure,) = (job["fig"] for job in jobs)
    assert figure["layout"]["title"]["text"] == "Curves: bytes over all links"
    assert [t["name"] for t in figure["data"] if t["showlegend"]] == ["P=10", "&lt;b&gt;G&lt;/b&gt;"]
    assert figure["layout"]["paper_bgcolor"] == "#ffffff"


def test_the_colours_of_a_figure_with_a_key_are_explained(folder, jobs, tmp_path):
    write_images([folder], "png", tmp_path, ["network"])
    shown = [trace["name"] for trace in jobs[0]["fig"]["data"] if trace["showlegend"]]
    assert shown == ["far: 200 ms RTT expected", "near: 20.0 ms RTT expected", "server", "worker"]


@pytest.mark.parametrize(
    ("format", "wanted", "message"),
    [
        ("pgn", [], "'pgn' is not png or svg; did you mean 'png'?"),
        ("png", ["curve"], "no such figure; did you mean 'curves'?"),
    ],
)
def test_what_is_not_there_is_told(folder, jobs, tmp_path, format, wanted, message):
    with pytest.raises(ConfigError) as error:
        write_images([folder], format, tmp_path, wanted)
    assert message in str(error.value)


def test_without_kaleido_the_message_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsgd-emu\[images\]'"):
        write_images([folder], "png", tmp_path)


def test_without_a_browser_the_message_says_what_to_install(folder, tmp_path, monkeypatch):
    import kaleido
    from kaleido.errors import ChromeNotFoundError

    def fail(*args, **options):
        raise ChromeNotFoundError

    monkeypatch.setattr(kaleido, "write_fig_from_object_sync", fail)
    with pytest.raises(ConfigError, match="none was found; install Chrome or Chromium"):
        write_images([folder], "png", tmp_path)


@pytest.mark.skipif(BROWSER is None, reason="needs Chrome or Chromium")
def test_images_are_drawn(folder, study, jobs, tmp_path):
    import kaleido

    (png,) = write_images([folder], "png", tmp_path / "new", ["network"])
    svg, _ = write_images([study], "svg", tmp_path, ["best"])
    # Both at once: the browser takes seconds to start.
    places = {path.name: path for path in (tmp_path / "new", tmp_path) for path in path.iterdir()}
    DRAW(kaleido, [{**one, "path": places[Path(one["path"]).name]} for one in jobs])
    with Pillow.open(png) as image:
        assert image.width == 1920
        assert len(image.convert("RGB").getcolors(10_000) or []) > 4
    assert "The fastest case in each scenario: 80% test accuracy" in svg.read_text(encoding="utf-8")


# --- studies ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map: to 80% nobody gets there at far 1, near 1; a quarter of the trials never do."""
    place = tmp_path_factory.mktemp("study") / "map"
    return far_near(place, chance=(1, 0.5, 1.5, None), spread=0.5, unreached=[0])


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("study") / "chart"
    return make_study(place, grid(far=(1, 2, 4)), spread=0.5, crossovers=[crossover("far", {}, LOCAL, HSGD, 2.0)])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenarios that are no grid."""
    far = [{"far": 1 + i, "near": 1 + 3 * i % 10, "step": 1 + 7 * i % 10} for i in range(10)]
    return make_study(tmp_path_factory.mktemp("study") / "cloud", far)


def drawn(folder: Path, name: str) -> dict[str, Any]:
    """Return what the browser is given for one picture."""
    image = next(image for image in study_images(gather(folder)) if image.name == name)
    found: dict[str, Any] = job(image, folder, "png")["fig"]
    return found


def legend(figure: dict[str, Any]) -> list[str]:
    return [trace["name"] for trace in figure["data"] if trace["showlegend"]]


def test_every_figure_of_a_study_once_as_its_page_opens(study, chart, sample, jobs, tmp_path):
    def names(folder, wanted=()):
        return [path.stem for path in write_images([folder], "png", tmp_path, wanted)]

    # 80% is the hardest target reached in half of the scenarios; far 4, near 4 (scenario 3) is the middle one.
    ends = ["best-test_accuracy-0.8", "gain-test_accuracy-0.8", "tornado-test_accuracy-0.8-1"]
    assert names(study) == [*ends, "spread-test_accuracy-0.8-scenario3"]
    assert names(study, ["best"]) == ["best-test_accuracy-0.8", "best-test_accuracy-0.5"]
    assert names(chart) == ["chart-test_accuracy-0.8", "tornado-test_accuracy-0.8-1"]
    clouds = [name for name in names(sample, ["cloud"]) if "-0.8-" in name]
    assert sorted(clouds) == [f"cloud-test_accuracy-0.8-{x}-{y}" for x in "123" for y in "123" if x != y]
    x, y = cloud_sides(gather(sample))
    assert names(sample)[0] == clouds[0] == f"cloud-test_accuracy-0.8-{x + 1}-{y + 1}"


def test_axes_that_are_not_drawn_are_in_the_title_and_numbered_in_the_name(tmp_path):
    scenarios = grid(far=FAR, near=NEAR, step=(1, 2), link=["a", "b"])
    folder = make_study(tmp_path / "study", scenarios, targets=[HARD])
    found = {image.name: image.title for image in study_images(gather(folder)) if image.of == "best"}
    assert list(found) == [f"best-test_accuracy-0.8-{step}-{link}" for step in (1, 2) for link in (1, 2)]
    assert found["best-test_accuracy-0.8-2-1"].endswith(": 80% test accuracy, step 2 s, link a")


def test_titles_are_those_of_the_page(study, chart, sample):
    for folder in (study, chart, sample):
        page = words(write_report(folder).read_text(encoding="utf-8"))
        for image in study_images(gather(folder)):
            assert image.title.split(": 80%")[0].split(": 50%")[0].split(" (dot")[0] in page


def test_a_map_has_its_key_its_crossover_and_what_nobody_reaches(study):
    figure = drawn(study, "best-test_accuracy-0.8")
    assert legend(figure) == [LOCAL, HSGD, "no case reaches it"]
    line = next(trace for trace in figure["data"] if trace.get("line", {}).get("color") == "#111")
    # equal at far = 2 near; far 1 and 16 are no crossover
    assert {(2, 1), (8, 4)} <= set(zip(line["x"], line["y"], strict=True))
    assert figure["layout"]["paper_bgcolor"] == "#ffffff"
    assert figure["layout"]["plot_bgcolor"] != "#ffffff", "what nobody reaches is grey"


def test_the_scale_of_the_gain_says_who_is_faster(study, sample):
    for trace in (
        drawn(study, "gain-test_accuracy-0.8")["data"][0],
        drawn(sample, "cloud-gain-test_accuracy-0.8-1-2")["data"][0]["marker"],
    ):
        assert trace["showscale"]
        words = trace["colorbar"]["ticktext"]
        assert [words[0].split()[:2], words[2], words[-1].split()[0]] == [["local", "SGD"], "equal", "H-SGD"]
        assert trace["colorbar"]["tickvals"] == [-1, -0.5, 0, 0.5, 1]


def test_marks_of_a_cloud_stand_where_their_scenarios_do(sample):
    figure = drawn(sample, "cloud-test_accuracy-0.8-3-1")
    assert set(legend(figure)) == {LOCAL, HSGD}
    at = {s: spot for t in figure["data"] for s, *spot in zip(t.get("customdata", ()), t["x"], t["y"], strict=False)}
    assert at == {i: [1 + 7 * i % 10, 1 + i] for i in range(10)}
    assert figure["layout"]["xaxis"]["title"]["text"] == "step (s)"


def test_the_spread_shows_the_trials_of_its_scenario(study):
    # scenario 4 is far 16, near 1: local SGD 160 s, and half and one and a half times as long, by two seeds
    figure = drawn(study, "spread-test_accuracy-0.8-scenario4")
    rows = read_study(study).times
    mine = rows[(rows["scenario"] == 4) & (rows["target"] == 0.8) & (rows["case"] == LOCAL)]["time_s"].dropna()
    parts = {trace["meta"][0]: trace for trace in figure["data"] if trace["meta"][1] == 0}
    assert parts["dots"]["x"] == sorted(mine) == [80, 80, 160, 160, 240, 240]
    assert parts["median"]["x"] == [160]
    # a quarter never do: the 90% quantile is never, an arrow at the latest time
    assert parts["range"]["x"] == [80, 240]
    assert parts["range"]["marker"]["size"] == [0, 12]
    head = figure["layout"]["annotations"][0]["text"]
    assert head == f"<b>{LOCAL}</b>  median 160 s  ·  10% to 90% of trials: 80.0 s to never  ·  never in 2 of 8"
    assert figure["layout"]["annotations"][2]["text"] == "<b>P=50</b>  ·  never in 8 of 8"


def test_the_chart_and_the_tornado_have_their_keys(chart):
    figure = drawn(chart, "chart-test_accuracy-0.8")
    assert legend(figure) == [LOCAL, HSGD, "P=50"]
    assert figure["layout"]["annotations"][0]["text"] == "2 s", "the crossover"
    # at far 1 local SGD is the fastest, at far 4 H-SGD
    names = ["at the lowest value", "at the highest", f"{LOCAL} fastest", f"{HSGD} fastest"]
    assert legend(drawn(chart, "tornado-test_accuracy-0.8-1")) == names


def test_names_of_users_are_text_and_plotly_knows_every_attribute(study, chart, sample, tmp_path):
    import plotly.graph_objects as go

    bad, worse = HOSTILE
    scenarios = [{"far": far, bad: link} for far in FAR for link in (worse, "<img src=x>")]
    specs = {"far": SPECS["far"], bad: {"profile": bad}}
    hostile = make_study(tmp_path / "study", scenarios, cases=(bad, worse), specs=specs, chance=(1, 2))
    for folder in (study, chart, sample, hostile):
        first = {image.of: image for image in reversed(study_images(gather(folder)))}
        for image in first.values():
            figure = job(image, tmp_path, "png")["fig"]
            go.Figure(figure)
            said = [figure["layout"]["title"]["text"].replace("<br>", ""), *legend(figure)]
            assert not any("<" in text for text in said)


def test_a_long_title_and_many_names_have_room():
    few, many = (
        job(Image("a", "a", title, 300, lambda: {"data": [], "layout": {}}, key), Path("a.png"), "png")
        for title, key in (("short", ()), ("long " * 50, tuple(Key(f"case {i}" * 5, "#123456") for i in range(12))))
    )
    assert few["opts"]["height"] < many["opts"]["height"]
    assert many["fig"]["layout"]["margin"]["t"] > 3 * few["fig"]["layout"]["margin"]["t"]
    assert many["fig"]["layout"]["title"]["text"].count("<br>") == 2


def test_what_a_study_has_not_is_told(study, folder, jobs, tmp_path):
    unfinished = far_near(tmp_path / "unfinished", finished=False)
    for folders, wanted, message in (
        (
            [study],
            ["best-test_accuracy-0.9"],
            "no such figure; did you mean 'best-test_accuracy-0.8'?; there are best,",
        ),
        ([study], ["chart"], "no such figure; there are best, gain, tornado, spread, best-test_accuracy-0.8"),
        ([unfinished], [], "there is no figure yet; its report (--format html) says why"),
        ([folder, study], [], "is a study, whose report stands alone"),
    ):
        with pytest.raises(ConfigError) as error:
            write_images(folders, "png", tmp_path, wanted)
        assert message in str(error.value)
