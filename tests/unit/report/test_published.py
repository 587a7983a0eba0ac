"""The report's published times: beside the run's own, under the fitted network, and why there is no fit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsgd_emu.errors import ConfigError
from hsgd_emu.report import published as module
from hsgd_emu.report import write_report
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.published import published
from hsgd_emu.report.sections import sections
from hsgd_emu.report.target_table import target_data, target_rows
from hsgd_emu.results.read import read_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import run
from hsgd_emu.study.fitting.fit import fit
from hsgd_emu.study.retime import retime
from tests.unit.report.html_fixture import HOSTILE, constant, words
from tests.unit.report.test_time_spent import columns, drawn, table

RUN = """
name: two
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
  links: [{between: [worker, root], profile: far}]
profiles: {near: {rtt_s: 0.05}, far: {rtt_s: 0.1}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 100, learning_rate: 0.1}
cases:
  - {name: "P=5",  period: 5}
  - {name: "P=20", period: 20}
  - {name: "G=20, I=5", periods: [20, 5]}
  - {name: "G=20, I=10", periods: [20, 10]}
targets: {test_loss: [2.2, 0.001]}
seeds: [1, 2, 3]
"""
CASES = ("P=5", "P=20", "G=20, I=5", "G=20, I=10")
C, NEAR, FAR = 0.004, 0.0186, 0.2286
Times = list[dict[str, object]]


def seconds(case: str, iterations: float) -> float:
    """P pays far and its steps a round; H also G/I exchanges with its site."""
    if case.startswith("P"):
        return iterations * C + iterations / int(case[2:]) * FAR
    return iterations * C + iterations / 20 * FAR + iterations / int(case.rpartition("=")[2]) * NEAR


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    (folder / "two.yaml").write_text(RUN)
    run(folder / "two.yaml", folder / "two", device="cpu", threads=1)
    return folder


def truth(place: Path) -> Times:
    """What the four cases would take on the network of C, NEAR and FAR until test loss 2.2."""
    summary = read_run(place / "two").summary()
    at = summary[summary.target == 2.2].set_index("case").iterations
    return [
        {"case": case, "metric": "test_loss", "target": 2.2, "time_s": round(seconds(case, float(at[case])), 9)}
        for case in CASES
    ]


def with_times(place: Path, folder: Path, times: Times, source: str = "Them, Table 2", **more: Any) -> Path:
    text = yaml.safe_dump({"source": source, "times": times, **more}, default_flow_style=True, width=10_000)
    return retime(place / "two", folder, [f"published={text.strip()}"])


@contextmanager
def shown(*folders: Path) -> Iterator[tuple[list[str], Figure | None]]:
    with gather(folders) as content:
        yield published(content)


def figure_of(*folders: Path) -> Figure:
    with shown(*folders) as (texts, figure):
        assert texts[0].startswith("What others measured")
        assert figure is not None
        drawn(figure)
        return figure


def test_a_network_that_made_the_times_is_found_and_every_number_is_in_the_table(place: Path, tmp_path: Path) -> None:
    folder = with_times(place, tmp_path / "run", truth(place))
    figure = figure_of(folder)
    summary = read_run(folder).summary()
    own = summary[summary.target == 2.2]
    found = columns(figure)
    assert found["case"] == list(CASES)
    assert found["until"] == ["test loss 2.2"] * 4
    assert found["published_s"] == [row["time_s"] for row in truth(place)]
    assert found["ours_s"] == own.time_s.tolist()
    assert found["iterations"] == own.iterations.tolist()
    assert found["fitted_s"] == [row.fitted_s for row in fit(folder).rows]
    assert found["fitted_s"] == pytest.approx(found["published_s"], rel=1e-6)
    for row in table(figure):
        assert row["residual_s"] == row["fitted_s"] - row["published_s"]
        assert row["residual_share"] == pytest.approx(row["residual_s"] / row["published_s"], abs=1e-12)
    (picture,) = figure.pictures
    assert picture.text.startswith("With far RTT 0.229 s (95%: ")
    assert "near RTT 0.0186 s (95%: " in picture.text
    assert "our iteration counts explain the 4 published times to within 0.1%. " in picture.text
    assert [trace["name"] for trace in picture.traces] == [label for label, _ in figure.key]
    assert "Published: Them, Table 2." in figure.note


def test_what_was_published_as_known_is_not_fitted(place: Path, tmp_path: Path) -> None:
    # With two times only two of the three constants can be found; the third is given.
    times = [row for row in truth(place) if row["case"] in list(CASES)[-2:]]
    folder = with_times(place, tmp_path / "run", times, known={"compute": C})
    assert [value.cost.name for value in fit(folder).values] == ["far", "near"]
    figure = figure_of(folder)
    assert figure.pictures[0].text.startswith("With far RTT 0.229 s")
    assert "Given too: compute 0.00400 s. Every other RTT and step time is unknown" in figure.note
    wrong = with_times(place, tmp_path / "wrong", times, known={"computer": C})
    with pytest.raises(ConfigError, match=r"published\.known: computer=.*did you mean 'compute'"):
        fit(wrong)


def test_the_sentence_says_the_largest_miss_rounded_up_and_how_our_own_network_compares(
    place: Path, tmp_path: Path
) -> None:
    times = truth(place)
    times[1]["time_s"] = 3 * float(str(times[1]["time_s"]))
    folder = with_times(place, tmp_path / "run", times)
    figure = figure_of(folder)
    found, text = columns(figure), figure.pictures[0].text
    said = re.search(r"to within ([\d.]+)%", text)
    assert said
    worst = max(abs(share) for share in found["residual_share"])
    assert 0 <= float(said[1]) / 100 - worst < 0.01
    ratios = [ours / theirs for ours, theirs in zip(found["ours_s"], found["published_s"], strict=True)]
    said = re.search(r"the same cases take ([\d.]+) to ([\d.]+) times the published time", text)
    assert said
    assert [float(said[1]), float(said[2])] == pytest.approx([min(ratios), max(ratios)], rel=0.05)


def test_what_the_times_do_not_determine_is_told(place: Path, tmp_path: Path) -> None:
    # All three are of one case, at other numbers of iterations: only far + 5 x compute is determined.
    times: Times = [{"case": "P=5", "iterations": at, "time_s": seconds("P=5", at)} for at in (20, 40, 100)]
    figure = figure_of(with_times(place, tmp_path / "run", times))
    assert columns(figure)["until"] == ["20 iterations", "40 iterations", "100 iterations"]
    assert len(figure.pictures) == 3
    text = figure.pictures[0].text
    assert text.startswith("Under the fitted network our iteration counts explain the 3 published times")
    assert "Not determined by these times: far, near, compute." in text
    assert "They determine only far + 5 x compute = 0.2486 s." in text
    # 0.01 x 20 + 4 x 0.1 = 0.6 s
    assert columns(figure)["ours_s"] == pytest.approx([0.6, 1.2, 3.0])


def test_a_case_that_did_not_get_there_is_left_out_of_the_fit(place: Path, tmp_path: Path) -> None:
    never: Times = [{"case": "P=20", "metric": "test_loss", "target": 0.001, "time_s": 99.0}]
    figure = figure_of(with_times(place, tmp_path / "run", truth(place) + never))
    assert [option for _, option in figure.switches[0].options] == ["test loss 2.2", "test loss 0.001"]
    last = table(figure)[-1]
    assert (last["published_s"], last["ours_s"], last["fitted_s"], last["residual_s"]) == (99.0, None, None, None)
    assert figure.pictures[1].text.endswith("P=20 did not get there in this run.")
    assert "explain the 4 published times" in figure.pictures[1].text


def test_fewer_times_than_constants_are_shown_without_a_fit(place: Path, tmp_path: Path) -> None:
    figure = figure_of(with_times(place, tmp_path / "run", truth(place)[:2]))
    assert columns(figure)["fitted_s"] == [None, None]
    said = "Nothing is fitted: only 2 published times can be compared, and the network has 3 unknown constants."
    assert figure.pictures[0].text.endswith(said)
    assert [label for label, _ in figure.key] == ["published", "ours, under the run's own network"]


def test_a_fit_that_takes_long_or_fails_is_left_out(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = with_times(place, tmp_path / "run", truth(place))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_MOST_WORK", 9)
        assert "takes a while here: `hsgd-emu fit RUN_DIR` does it." in figure_of(folder).pictures[0].text

    def fails(folder: Path) -> Any:
        raise ValueError("x0 is infeasible")

    monkeypatch.setattr(module, "fit", fails)
    assert figure_of(folder).pictures[0].text.endswith("Nothing is fitted: x0 is infeasible.")


def test_without_any_time_of_ours_the_section_says_why(place: Path, tmp_path: Path) -> None:
    never: Times = [{"case": "P=20", "metric": "test_loss", "target": 0.001, "time_s": 99.0}]
    with shown(with_times(place, tmp_path / "never", never)) as (texts, figure):
        assert figure is None
        assert texts[0].startswith("Nothing is fitted: no published time can be compared: 'P=20' did not reach")
    source = tmp_path / "never" / "run.yaml"
    silent = run(source, tmp_path / "silent", timing_only=True).folder
    with gather([silent]) as content:
        section = sections(content)[0]
        assert (section.id, section.figures) == ("published", ())
        assert "--timing-only and learned nothing" in section.texts[0]


def test_a_run_that_goes_on_shows_what_there_is(place: Path, tmp_path: Path) -> None:
    folder = with_times(place, tmp_path / "run", truth(place))
    with RunStore.open(folder) as store:
        store.restart_trial(store.trials[1])
    figure = figure_of(folder)
    assert "Nothing is fitted: not finished: P=5, seed 2" in figure.pictures[0].text
    assert None not in columns(figure)["ours_s"]


def test_several_runs_have_a_picture_each(place: Path, tmp_path: Path) -> None:
    first = with_times(place, tmp_path / "first", truth(place), "Them")
    second = with_times(place, tmp_path / "second", truth(place)[:3], "Others")
    figure = figure_of(first, place / "two", second)
    labels = [label for _, label in figure.switches[0].options]
    assert labels == ["first: test loss 2.2", "second: test loss 2.2"]
    assert len(columns(figure)["case"]) == 7
    assert columns(figure)["case"][0] == "first: P=5"
    assert figure.note.startswith("Published: Them and Others.")


def test_many_times_are_drawn_in_part(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 2)
    figure = figure_of(with_times(place, tmp_path / "run", truth(place)))
    assert [len(trace.x) for trace in figure.plotly().data] == [2, 2, 2]
    assert len(columns(figure)["case"]) == 4
    assert figure.note.endswith("Only the first are drawn; the data have all.")


# --- the page ---------------------------------------------------------------------------------------


def test_the_table_of_targets_has_the_published_times(place: Path, tmp_path: Path) -> None:
    folder = with_times(place, tmp_path / "run", truth(place)[:1])
    with gather([folder]) as content:
        rows, data = target_rows(content), target_data(content)
    assert [cell.published for cell in rows[0].cells] == [f"published {truth(place)[0]['time_s']:#.4g} s", ""]
    assert [cell.published for cell in rows[1].cells] == ["", ""]
    assert columns(data)["published_time_s"] == [truth(place)[0]["time_s"], *[None] * 7]
    page = words(write_report(folder).read_text(encoding="utf-8"))
    assert "on the critical path. Published: Them, Table 2. Case" in page


def test_a_page_without_published_times_says_nothing_of_them(place: Path) -> None:
    page = write_report(place / "two").read_text(encoding="utf-8")
    page = page[: page.index("<script>")]
    assert "ublished" not in page
    with gather([place / "two"]) as content:
        assert published(content) == ([], None)
        assert "published_time_s" not in columns(target_data(content))


def test_the_page_is_the_same_every_time_and_others_words_stay_words(place: Path, tmp_path: Path) -> None:
    folder = with_times(place, tmp_path / "run", truth(place), " ".join(HOSTILE))
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    html = first.decode()
    assert "<script>alert(1)</script>" not in html
    assert all(name in words(html) for name in HOSTILE)
    assert "published" in constant(html, "FIGURES")
    # Where a run lies is no part of its page.
    shutil.move(folder, tmp_path / "moved")
    assert write_report(tmp_path / "moved").read_bytes() == first
