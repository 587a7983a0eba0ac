"""The ranked table of a plan, and what was not tried, on findings made by hand."""

import numpy as np

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import read_text
from hsgd_emu.experiment import build_experiment
from hsgd_emu.study.planning.candidates import Variant, candidates
from hsgd_emu.study.planning.result import PlanResult, Training
from hsgd_emu.study.planning.search import Finding

RUN = """
name: r
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.01}, far: {rtt_s: 0.1}}
compute: {step_s: 0.004}
model: mlp
train: {iterations: 100}
cases: [{name: P=5, period: 5}, {name: P=10, period: 10}, {name: "G=50 I=5", periods: [50, 5]}, {name: P=1, period: 1}]
"""
INF = float("inf")


def plan_of(tmp_path, findings) -> PlanResult:
    experiment = build_experiment(draft_run(read_text(RUN, "run.yaml", tmp_path)))
    choice = candidates([Variant("", experiment, num_own=len(experiment.cases))])
    return PlanResult("test_accuracy", 0.8, tuple(choice), tuple(findings), (1, 2, 3), 2, Training(0.1, 0.2, 100, 0))


def finding(fate, time_s, times_s, until) -> Finding:
    return Finding(fate, time_s, time_s, np.array(times_s), until, (0.5,) * 3)


def test_rank_time_spread_seeds_and_what_was_learned(tmp_path):
    plan = plan_of(
        tmp_path,
        [
            finding("reached", 20.0, [[19.0, 21.0], [20.0, 20.0], [INF, INF]], (50, 50, 100)),
            finding("beaten", 30.0, [[INF, INF]] * 3, (10, 10, 10)),
            finding("reached", 10.0, [[10.0, 10.0]] * 3, (30, 30, 30)),
            finding("dropped", INF, [[INF, INF]] * 3, (0, 0, 0)),
        ],
    )
    table = plan.table()
    assert table.header == ("", "schedule", "median", "low-high", "reached", "learned")
    assert table.rows == [
        ("1", "G=50 I=5", "10.0 s", "", "3 of 3", "30%"),
        ("2", "P=5", "20.0 s", "19.0-21.0", "2 of 3", "67%"),
        ("", "P=10", "beaten", "looked 30.0 s", "0 of 3", "10%"),
        ("", "P=1", "dropped", "", "0 of 3", "0%"),
    ]


def test_not_tried_names_the_periods_that_were_also_where_all_cases_are_the_runs_own(tmp_path):
    plan = plan_of(tmp_path, [finding("open", INF, [[INF, INF]] * 3, (0, 0, 0))] * 4)
    assert "Not tried: periods other than 1, 5, 10, 50; " in plan.lines()[-1]
    assert [row[2] for row in plan.table().rows] == ["still open"] * 4
