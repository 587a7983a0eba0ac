"""Pages of runs whose seeds end at different iterations, or diverge: every number is one of the export's."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hsgd_emu.metrics import Metrics
from hsgd_emu.report import write_report
from hsgd_emu.results.read import read_run
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.summary import summarise
from hsgd_emu.results.wording import answer, number, render_rows
from tests.unit.report.html_fixture import constant, words

RUN = """
name: tiny
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {rtt_s: 0.2}}
compute: {step_s: 0.004}
data: {dataset: digits}
model: mlp
message_bytes: 1000
train: {iterations: 200, until_targets: true}
"""
TARGETS = (("test_accuracy", 0.5), ("test_accuracy", 0.8))
ENDS = {"A": (50, 100, 150, 200), "B": (100, 100, 150, 50)}
"""By case: where seeds 1 to 4 end. Seed 4 of B never reaches 80%: it is at 70% there."""


def row(seed: int, number: int, last: int, top: float) -> CurveRow:
    iteration, time_s = 10 * number, number * (1 + seed / 10)
    accuracy = top * iteration / last
    metrics = Metrics(train_loss=1 - accuracy, test_loss=1 - accuracy, test_accuracy=accuracy)
    return CurveRow(number, iteration, time_s, time_s, 0.3 * time_s, 0.7 * time_s, 0.0, 0, 0, metrics)


def write(folder: Path, ends: dict[str, tuple[int, ...]], tops: dict[tuple[str, int], float]) -> Path:
    """Write a run whose trials rise to 85% (or their top) at their ends."""
    text = RUN + "cases:\n" + "".join(f"  - {{name: {case}, period: 10}}\n" for case in ends)
    keys = [TrialKey(case, seed) for case, lasts in ends.items() for seed in range(1, len(lasts) + 1)]
    text += (
        f"seeds: [{', '.join(dict.fromkeys(str(key.seed) for key in keys))}]\ntargets: {{test_accuracy: [0.5, 0.8]}}\n"
    )
    with RunStore.create(folder, text, {}, keys, TARGETS) as store:
        for key in keys:
            last = ends[key.case][key.seed - 1]
            for place in range(1, last // 10 + 1):
                one = row(key.seed, place, last, tops.get((key.case, key.seed), 0.85))
                store.commit_round(key, one.iteration, one, [], [], [])
            store.finish_trial(key, "weights", "timeline", "simpy", 1.0)
    return folder


def columns(figure: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({name: values for name, _, _, values in figure["columns"]})


def median(values: list[float]) -> float:
    """The mean of the two in the middle, and inf, never, where one of them is."""
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


@pytest.mark.parametrize("num_seeds", [4, 3])
def test_where_seeds_end_at_different_iterations_all_numbers_agree(tmp_path: Path, num_seeds: int) -> None:
    ends = {case: lasts[:num_seeds] for case, lasts in ENDS.items()}
    folder = write(tmp_path / "run", ends, {("B", 4): 0.7})
    run, html = read_run(folder), write_report(folder).read_text(encoding="utf-8")
    figures, text = constant(html, "FIGURES"), words(html)
    curve, bars, targets = (columns(figures[name]) for name in ("curves", "time-spent", "targets"))
    last = run.curve.groupby(["case", "seed"]).tail(1)
    for case in ends:
        mine = last[last["case"] == case]
        end_s, iterations = median(mine["time_s"].tolist()), median(mine["iteration"].tolist())
        accuracy = median(mine["test_accuracy"].tolist())
        assert f"{100 * accuracy:.1f}% {number(end_s)} s, {iterations:,.0f} iterations" in text, "the table"
        bar = bars[(bars["case"] == case) & (bars["until"] == "the end")].iloc[0]
        assert bar["time_s"] == pytest.approx(end_s, rel=1e-12)
        assert bar["num_reached"] == bar["num_seeds"] == num_seeds
        point = curve[curve["case"] == case].iloc[-1]
        assert (point["time_s"], point["test_accuracy"]) == pytest.approx((end_s, accuracy), rel=1e-12)
        assert point["num_seeds"] == num_seeds
        # Two workers, one message up and one down a period.
        sent = columns(figures["links"])
        assert sent[sent["case"] == case]["bytes"].sum() == point["bytes"] == 4 * 1000 * iterations / 10
    for _, target in TARGETS:
        label = f"{100 * target:.0f}% test accuracy"
        for case in ends:
            at = run.targets[(run.targets["case"] == case) & (run.targets["target"] == target)]
            time_s = median(at["time_s"].tolist())
            told = targets[(targets["case"] == case) & (targets["target"] == target)].iloc[0]
            bar = bars[(bars["case"] == case) & (bars["until"] == label)].iloc[0]
            assert math.isinf(time_s) == (told["time_s"] is None or math.isnan(told["time_s"]))
            if math.isfinite(time_s):
                assert (told["time_s"], bar["time_s"]) == pytest.approx((time_s, time_s), rel=1e-12)
                assert told["communication_share"] == pytest.approx(bar["communication_share"]) == pytest.approx(0.7)
            assert told["num_reached"] == at["time_s"].notna().sum()
    assert "the seed in the middle" in text


def test_a_target_that_exactly_half_of_the_seeds_reach_is_not_reached_anywhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", {"A": (100, 100), "B": (50, 100)}, {("A", 2): 0.7})
    html = write_report(folder).read_text(encoding="utf-8")
    assert "not reached (1 of 2 seeds)" in words(html)
    rings = [t for t in constant(html, "FIGURES")["curves"]["pictures"]["test_accuracy time_s"]["data"] if "text" in t]
    assert [len(ring["x"]) for ring in rings] == [1, 2], "A reaches 50% only"
    assert summarise(folder)[0].targets[1].median_time_s is None
    # 85% and 70%: the mean of the two in the middle, and so below 80%.
    assert render_rows(summarise(folder), details=False)[0][-2:] == ["77.5%", "11.50 s"]


def diverged(folder: Path, seeds: dict[int, int | None], case: str = "A") -> Path:
    """Write a run in which seeds diverge at an iteration (None: never), where accuracy goes on to look good."""
    keys = [TrialKey(name, seed) for name in (case, "C") for seed in seeds]
    text = RUN + f"cases: [{{name: {case}, period: 10}}, {{name: C, period: 50}}]\nseeds: {[*seeds]}\n"
    text += "targets: {test_accuracy: [0.5, 0.8]}\n"
    with RunStore.create(folder, text, {}, keys, TARGETS) as store:
        for key in keys:
            at = seeds[key.seed] if key.case == case else None
            for place in range(1, 21):
                one = row(key.seed, place, 200, 0.85)
                if at is not None and one.iteration == at:
                    one = one._replace(metrics=replace(one.metrics, test_loss=math.inf, test_accuracy=0.85))
                store.commit_round(key, one.iteration, one, [], [], [])
            store.finish_trial(key, "weights", "timeline", "simpy", 1.0)
    return folder


def test_a_page_tells_which_trial_diverged_where_and_draws_it_no_further(tmp_path: Path) -> None:
    # Seed 2 is infinite at 130, after 50% (at 120) and before 80%, and looks well again afterwards.
    folder = diverged(tmp_path / "run", {1: 10, 2: 130, 3: 10})
    html = write_report(folder).read_text(encoding="utf-8")
    said = "3 trials diverged (A seed 1 at iteration 10, A seed 2 at iteration 130, A seed 3 at iteration 10)"
    assert said in html
    assert said in answer(summarise(folder))
    assert html.index(said) < html.index('class="answer"')
    text, figures = words(html), constant(html, "FIGURES")
    assert "not reached (1 of 3 seeds)" in text, "50% was reached before it diverged"
    assert re.search(r"diverged 24\.00 s, 200 iterations", text), "at the end it has no accuracy"
    curve = columns(figures["curves"])
    assert curve[curve["case"] == "A"]["test_accuracy"].isna().all(), "fewer than half of the seeds are finite"
    assert "A has diverged" in figures["curves"]["pictures"]["test_accuracy iteration"]["text"]
    assert "C is first at 80%" in figures["curves"]["pictures"]["test_accuracy time_s"]["text"]
    assert "by then A has diverged" in figures["curves"]["pictures"]["test_accuracy time_s"]["text"]
    run = read_run(folder)
    assert run.trials["diverged_at"].tolist()[:3] == [10, 130, 10]
    assert run.trials["diverged_at"].isna().tolist()[3:] == [True] * 3
    assert run.targets[run.targets["case"] == "A"]["iteration"].dropna().tolist() == [120]


def test_one_diverged_seed_of_three_is_the_worst_of_them(tmp_path: Path) -> None:
    folder = diverged(tmp_path / "run", {1: None, 2: 130, 3: None})
    summary = summarise(folder)[0]
    assert summary.diverged == ((2, 130),)
    assert [(t.num_reached, t.median_iterations) for t in summary.targets] == [(3, 120), (2, 190)]
    assert summary.final_accuracy == pytest.approx(0.85)
    figures = constant(write_report(folder).read_text(encoding="utf-8"), "FIGURES")
    curve = columns(figures["curves"])
    mine = curve[curve["case"] == "A"]
    assert mine["test_accuracy"].iloc[-1] == pytest.approx(summary.final_accuracy)


def test_a_run_of_which_all_trials_diverge_has_a_page_and_an_answer(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    keys = [TrialKey("A", 1)]
    text = RUN + "cases: [{name: A, period: 10}]\nseeds: [1]\ntargets: {test_accuracy: [0.5]}\n"
    with RunStore.create(folder, text, {}, keys, TARGETS) as store:
        metrics = Metrics(train_loss=math.nan, test_loss=math.nan, test_accuracy=0.9)
        store.commit_round(keys[0], 10, CurveRow(1, 10, 1.0, 0.9, 0.1, 0.9, 0.0, 0, 0, metrics), [], [], [])
        store.finish_trial(keys[0], "weights", "timeline", "simpy", 1.0)
    text = words(write_report(folder).read_text(encoding="utf-8"))
    assert (
        "No case reached 50% test accuracy with more than half of its seeds. No case ends with a finite model." in text
    )
    assert "Timing only" not in text
    assert "1 trial diverged (A seed 1 at iteration 10)" in text
    assert render_rows(summarise(folder), details=False) == [
        ["A", "not reached (0 of 1 seed)", "not reached (0 of 1 seed)", "diverged", "1.000 s"]
    ]
