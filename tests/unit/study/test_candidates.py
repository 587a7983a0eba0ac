"""Which schedules are chosen from."""

from pathlib import Path

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment, plain
from hsgd_emu.study.planning.candidates import (
    MOST_CANDIDATES,
    period_series,
    variants,
    with_candidates,
)

RUNS = Path(__file__).parents[3] / "runs"
DEMO = RUNS / "demo.yaml"
ONE_LEVEL = """
name: star
topology: {levels: [{name: worker, count: 4, uplink: {rtt_s: 0.1}}]}
compute: {step_s: 0.001}
model: softmax_regression
train: {iterations: 100}
cases: [{name: mine, period: 10}]
"""


def names(experiment):
    return [case.name for case in experiment.cases]


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def test_periods_follow_1_2_5_and_leave_four_rounds():
    assert period_series(2000) == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    # 20 does not divide 150, and the divisor nearest to it by ratio is 25 (1.25 against 15's 1.33).
    assert period_series(150) == [1, 2, 5, 10, 25]
    assert period_series(1009) == [1], "a prime has no other schedule"
    assert period_series(1) == period_series(3) == [1]


def test_local_sgd_and_every_pair_of_periods_of_which_one_divides_the_other():
    found = with_candidates(load_experiment(DEMO, ["train.iterations=200"]), [[1, 4, 10, 20]])
    added = names(found)[len(load_experiment(DEMO).cases) :]
    # P=10 is a case of the demo itself; 10 is no multiple of 4.
    assert added == ["P=1", "P=4", "P=20", "G=4 I=1", "G=10 I=1", "G=20 I=1", "G=20 I=4", "G=20 I=10"]
    assert [schedule.name for schedule in found.schedules] == names(found)


def test_the_runs_own_cases_come_first_under_their_own_names():
    own = load_experiment(DEMO, ["cases=[{name: mine, periods: [20, 5]}, {name: G=50 I=5, period: 20}]"])
    found = names(with_candidates(own))
    assert found[:2] == ["mine", "G=50 I=5"]
    assert "G=20 I=5" not in found, "it is `mine`"
    assert "P=20" not in found, "the run calls it G=50 I=5"
    assert "G=50 I=5 (2)" in found, "its name was taken"


def test_a_topology_without_local_servers_has_local_sgd_only(tmp_path):
    found = with_candidates(load_experiment(write(tmp_path, ONE_LEVEL)))
    assert names(found) == ["mine", "P=1", "P=2", "P=5", "P=20"]
    assert all(schedule.is_local_sgd for schedule in found.schedules)


def test_three_levels_have_chains_and_levels_that_only_pass_on():
    found = names(with_candidates(load_experiment(RUNS / "three_levels.yaml"), [[40], [20], [10]]))[5:]
    # 40,20,10 and 40,none,10 are cases of the run.
    assert found == ["P=20", "P=40", "40,20,none"]


def test_uneven_groups_share_the_period_of_their_level():
    run = load_experiment(DEMO, ["topology=uneven", "profiles={phone: {step_s: 0.01}, jetson: {step_s: 0.01}}"])
    found = with_candidates(run, [[10], [5]])
    schedule = next(one for one in found.schedules if one.name == "G=10 I=5")
    assert sorted(schedule.stages[0].period.values()) == [5, 5, 10]


@pytest.mark.parametrize(
    ("periods", "said"),
    [
        ([[1, 3]], "found 3; train.iterations is 2000, a multiple of 1, 2, 5"),
        ([[0]], "found 0"),
        ([[1], [2], [5]], "found 3 lists for 2 levels of servers"),
        ([[1], []], "give one for all levels"),
    ],
)
def test_periods_that_no_schedule_can_have_are_told(periods, said):
    with pytest.raises(ConfigError, match=said):
        with_candidates(load_experiment(DEMO), periods)


def test_too_many_candidates_are_told():
    deep = ", ".join(f"{{name: level{i}, count: 1, uplink: {{rtt_s: 0.1}}}}" for i in range(9))
    sets = [f"topology={{levels: [{deep}]}}", "profiles={}", "train.iterations=4096", "cases=[{name: a, period: 1}]"]
    with pytest.raises(ConfigError, match=f"more than {MOST_CANDIDATES:,} schedules on 9 levels"):
        with_candidates(load_experiment(DEMO, sets), [[2**k for k in range(12)]])


# --- other settings ---------------------------------------------------------------------------------

MOMENTUM = "servers.root={optimizer: momentum, momentum: 0.9}"
RATE = "train.learning_rate=0.5"
PERIODS = [[10, 20]]


def tried(path, *tries, sets=()):
    return variants(path, sets, periods=PERIODS, tries=tries)


def test_settings_of_unlike_keys_are_combined_and_those_of_one_key_are_not(tmp_path):
    found = tried(write(tmp_path, ONE_LEVEL), MOMENTUM, RATE, "train.learning_rate=0.7")
    assert [one.label for one in found] == [
        "",
        *(MOMENTUM, RATE, "train.learning_rate=0.7"),
        *(f"{MOMENTUM}, {RATE}", f"{MOMENTUM}, train.learning_rate=0.7"),
    ]
    assert [one.num_own for one in found] == [1, 0, 0, 0, 0, 0], "what is tried is none of the run's own cases"
    assert all(names(one.experiment) == ["mine", "P=20"] for one in found)
    both = found[4].experiment.alone("P=20")
    assert (both.train.learning_rate, both.servers["root"].momentum) == (0.5, 0.9)
    assert plain(found[4].settings) == {
        "train": {"learning_rate": 0.5},
        "servers": {"root": {"optimizer": "momentum", "momentum": 0.9}},
    }


def test_what_a_setting_does_not_change_is_not_tried_again(tmp_path):
    own = ONE_LEVEL.replace("{name: mine, period: 10}", "{name: mine, period: 10, train: {learning_rate: 0.3}}")
    found = tried(write(tmp_path, own), "train.learning_rate=0.02", RATE, "train.proximal=0")
    # 0.02 is the run's own; the case has a rate of its own, and so only candidates have another one.
    assert [(one.label, names(one.experiment)) for one in found] == [
        ("", ["mine", "P=10", "P=20"]),
        (RATE, ["P=10", "P=20"]),
    ]


def test_schedules_that_the_runs_sections_do_not_allow_are_left_out_and_counted(tmp_path):
    (hubs,) = tried(DEMO, sets=["cases=[{name: mine, periods: [50, 5]}]", "mixing={graph: complete}"])
    assert names(hubs.experiment) == ["mine", "G=20 I=10"]
    assert all(schedule.graph is not None for schedule in hubs.experiment.schedules)
    assert hubs.notes == ["2 schedules left out: without hubs that could mix as the run's do"]
    (single,) = tried(DEMO, sets=["cases=[{name: mine, period: 50}]", "train.correction=scaffold"])
    assert names(single.experiment) == ["mine", "P=10", "P=20"]
    assert "1 schedule left out: found scaffold with servers" in single.notes[0]


def test_settings_that_are_right_alone_and_do_not_go_together_are_told(tmp_path):
    found = tried(write(tmp_path, ONE_LEVEL), "train={optimizer: adam, learning_rate: 0.01}", "train.momentum=0.9")
    assert [one.label for one in found[1:]] == ["train={optimizer: adam, learning_rate: 0.01}", "train.momentum=0.9"]
    assert (
        "not tried together: train={optimizer: adam, learning_rate: 0.01} and train.momentum=0.9" in found[0].notes[0]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train.iterations=50", "changes train.iterations, which all that is compared must have in common"),
        ("train={batch_size: full}", "changes train.batch_size"),
        ("data.grouping=random", "expected a key of train, averaging, servers, mixing, compression"),
        ("servers.root.optimizer=adam", "adam needs a learning rate"),
        ("train.learning_rate", "expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_tried_is_said(tmp_path, text, said):
    with pytest.raises(ConfigError, match=said) as error:
        tried(write(tmp_path, ONE_LEVEL), text)
    assert str(error.value).startswith(f"--try {text}")
