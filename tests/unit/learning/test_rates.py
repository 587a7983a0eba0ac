"""Learning-rate schedules at the iterations where their formula can be worked out in the head."""

import pytest

from hsgd_emu.config.run_schema import CosineRate, InverseSqrtRate, StepRate, TrainSpec
from hsgd_emu.learning.rates import learning_rate


def rates(rate, *iterations):
    train = TrainSpec(learning_rate=rate, iterations=100)
    return pytest.approx([learning_rate(train, t) for t in iterations], rel=1e-12)


def test_a_number_is_constant():
    assert rates(0.1, 0, 99) == [0.1, 0.1]


def test_steps_come_after_as_many_iterations_as_the_milestones_say():
    # After 10 iterations: the step after iteration 10 is the first at the lower rate.
    step = StepRate(schedule="step", initial=1.0, milestones=(10, 20), factor=0.5)
    assert rates(step, 0, 9, 10, 19, 20, 99) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_goes_from_initial_to_final_over_all_iterations():
    # Half way it is at the mean, 0.6; after a third at final + (initial - final) * 3 / 4.
    cosine = CosineRate(schedule="cosine", initial=1.0, final=0.2)
    assert rates(cosine, 0, 50, 100) == [1.0, 0.6, 0.2]
    train = TrainSpec(learning_rate=cosine, iterations=99)
    assert learning_rate(train, 33) == pytest.approx(0.2 + 0.8 * 0.75, rel=1e-12)


def test_inverse_square_root():
    # initial / sqrt(1 + t / scale): with scale 4, t = 12 halves it.
    assert rates(InverseSqrtRate(schedule="inverse_sqrt", initial=1.0, scale=4.0), 0, 12, 32) == [1, 1 / 2, 1 / 3]


def test_power_counts_steps_from_one():
    assert rates({"schedule": "power", "initial": 2, "exponent": 0.5}, 0, 3, 99) == [2, 1, 0.2]
    assert rates({"schedule": "power", "initial": 2, "exponent": 1}, 0, 1, 3) == [2, 1, 0.5]
    assert rates({"schedule": "power", "initial": 2, "exponent": 0}, 0, 99) == [2, 2]
    inverse = rates({"schedule": "inverse_sqrt", "initial": 1}, 0, 5, 50)
    assert rates({"schedule": "power", "initial": 1, "exponent": 0.5}, 0, 5, 50) == inverse.expected


def test_a_cosine_warms_up_in_equal_steps():
    plain = rates({"schedule": "cosine", "initial": 1}, 0, 1, 2, 3, 4, 50).expected
    warm = [0.25 * plain[0], 0.5 * plain[1], 0.75 * plain[2], *plain[3:]]
    assert rates({"schedule": "cosine", "initial": 1, "warmup": 4}, 0, 1, 2, 3, 4, 50) == warm
