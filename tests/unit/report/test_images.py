"""Figures as image files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import images
from hsgd_emu.report.images import write_images
from hsgd_emu.run import run

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
    monkeypatch.setattr(images, "_draw", lambda kaleido, some: given.extend(some))
    return given


def test_every_figure_once_unless_some_are_named(folder, jobs, tmp_path):
    names = [path.name for path in write_images([folder], "png", tmp_path)]
    assert names[:2] == ["curves-time_s-iteration.png", "time-spent.png"]
    assert len(names) == len({name.split("-")[0] for name in names} | {"each"})
    named = write_images([folder], "svg", tmp_path, ["curves", "network", "curves-time_s-bytes"])
    assert [path.name for path in named] == ["curves-time_s-iteration.svg", "curves-time_s-bytes.svg", "network.svg"]


def test_a_picture_has_a_title_and_one_entry_per_case_in_its_key(folder, jobs, tmp_path):
    write_images([folder], "png", tmp_path, ["curves-time_s-bytes"])
    (figure,) = (job["fig"] for job in jobs)
    assert figure["layout"]["title"]["text"] == "Curves: bytes sent"
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
def test_images_are_drawn(folder, tmp_path):
    from PIL import Image

    (png,) = write_images([folder], "png", tmp_path / "new", ["network"])
    with Image.open(png) as image:
        assert image.width == 1920
        assert len(image.convert("RGB").getcolors(10_000) or []) > 4
    (svg,) = write_images([folder], "svg", tmp_path, ["network"])
    assert "worker-3" in svg.read_text()
