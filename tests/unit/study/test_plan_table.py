"""The ranked table of a plan, and what was not tried, on findings made by hand."""

import math

import numpy as np

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import read_text
from hsgd_emu.experiment import build_experiment
from hsgd_emu.study.planning.candidates import Variant, candidates
from hsgd_emu.study.planning.race import Entrant, Race
from hsgd_emu.study.planning.result import PlanResult, Training

RUN = """
name: r
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.01}, far: {rtt_s: 0.1}}
compute: {step_s: 0.004}
model: mlp
train: {iterations: 100}
cases: [{name: P=5, period: 5}, {name: P=10, period: 10}, {name: "G=50 I=5", periods: [50, 5]}, {name: P=1, period: 1}]
"""


def plan_of(tmp_path, *curves, budget=1.0) -> PlanResult:
    """Race the cases, each with two draws of a clock that costs a second each iteration, to 0.8; curves: by seed."""
    experiment = build_experiment(draft_run(read_text(RUN, "run.yaml", tmp_path)))
    choice = candidates([Variant("", experiment, num_own=len(experiment.cases))])
    iterations = np.arange(10, 101, 10)
    entrants = [Entrant(iterations, np.stack([[0.9 * iterations, 1.1 * iterations]] * 3)) for _ in curves]

    def learn(requests):
        return [dict(zip(iterations.tolist(), curves[r.entrant][r.seed], strict=True)) for r in requests]

    race = Race(entrants, 0.8, learn, budget=budget)
    findings = race.run()
    training = Training(race.share, 100, 0, race.total)
    whole = ("test_accuracy", 0.8, tuple(choice), tuple(findings), (1, 2, 3), 2, training)
    return PlanResult(*whole, race.now_s, race.leader())


def line(slope):
    return [min(1.0, slope * place) for place in range(1, 11)]


FAST, SLOW, STILL = line(0.2), line(0.1), [0.1] * 10


def test_rank_time_spread_seeds_and_what_was_learned(tmp_path):
    lost = [0.1, math.nan, *[0.9] * 8]
    plan = plan_of(tmp_path, [SLOW] * 3, [STILL] * 3, [FAST, FAST, SLOW], [FAST, FAST, lost])
    table = plan.table()
    assert table.header == ("", "schedule", "median", "low-high", "reached", "at 44.0 s", "learned")
    assert table.rows == [
        ("1", "G=50 I=5", "44.0 s", "36.0-44.0", "4 of 6", "80.0%", "40%"),
        ("", "P=5", "> 50.0 s", "", "0 of 6", "40.0%", "40%"),
        ("", "P=10", "> 50.0 s", "", "0 of 6", "10.0%", "40%"),
        ("", "P=1", "diverged", "", "0 of 6", "40.0%", "20%"),
    ]


def test_not_tried_names_the_periods_that_were_also_where_all_cases_are_the_runs_own(tmp_path):
    plan = plan_of(tmp_path, *[[STILL] * 3] * 4)
    assert "Not tried: periods other than 1, 5, 10, 50; " in plan.lines()[-1]
    assert [row[2] for row in plan.table().rows] == ["not reached"] * 4
    assert plan.table().header[5] == "at the end"
