"""Crossovers of known functions, and boundaries in words."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hsgd_emu.study.sweep.crossover import Crossing, Crossover, Line, best_case, find_all, sentences

INF = math.inf
TWO = {"L": (1, 2), "H": (3, 1)}  # 1 + 2x = 3 + x at x = 2
THREE = {"L": (0, 4), "M": (1, 2), "H": (2, 1)}  # 4x = 1 + 2x at 1/2, 1 + 2x = 2 + x at 1


def find_crossovers(values, best, evaluate, **more):
    """Search one line alone."""
    return find_all([Line(values, best)], lambda asked: [evaluate(value) for _, value in asked], **more)[0]


class Linear:
    """Medians that are linear in the axis: constant + slope * value; counts its calls."""

    def __init__(self, functions):
        self.functions = functions
        self.num_calls = 0

    def __call__(self, value):
        self.num_calls += 1
        return {case: constant + slope * value for case, (constant, slope) in self.functions.items()}

    def many(self, asked):
        self.num_calls += 1
        return [
            {case: constant + slope * value for case, (constant, slope) in self.functions.items()} for _, value in asked
        ]

    def find(self, values):
        best = [best_case(self(value)) for value in values]
        self.num_calls = 0
        return find_crossovers(values, best, self)


# --- the search ---------------------------------------------------------------------------------------


def test_two_lines_cross_where_they_are_equal():
    (crossing,) = Linear(TWO).find([0.5, 1, 5, 10])
    assert (crossing.below, crossing.above) == ("L", "H")
    assert crossing.value == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize("values", [[0.1, 10], [0, 3], [-5, 5], [10, 0.1]])
def test_three_cases_within_one_interval_are_all_found(values):
    first, second = Linear(THREE).find(values)
    assert (first.below, first.above, second.below, second.above) == ("L", "M", "M", "H")
    assert (first.value, second.value) == pytest.approx((0.5, 1), rel=1e-3)


def test_no_crossover_asks_nothing():
    linear = Linear({"L": (1, 1), "H": (2, 1)})
    assert linear.find([0.1, 1, 10]) == []
    assert linear.num_calls == 0


def test_a_tie_is_the_first_cases_and_no_crossover():
    assert Linear({"L": (1, 2), "H": (1, 2)}).find([1, 2, 3]) == []
    assert best_case({"H": 2.0, "L": 2.0}) == "H"


def test_a_tie_at_a_value_of_the_axis_is_the_crossover():
    for functions in (TWO, dict(reversed(TWO.items()))):
        (crossing,) = Linear(functions).find([1, 2, 4])
        assert crossing == Crossing("L", "H", pytest.approx(2, rel=1e-3))


def test_where_no_case_reaches_the_target_nothing_changes():
    assert best_case({"L": INF, "H": INF}) is None
    assert best_case({"L": INF, "H": 3.0}) == "H"
    assert best_case({}) is None
    assert find_crossovers([1, 2, 3], ["L", None, "H"], Linear(TWO)) == []
    # L is best below 1 and H above 2; between them no case reaches.
    never = {"L": INF, "H": INF}
    found = find_crossovers([0.5, 4], ["L", "H"], lambda value: never if 1 < value < 2 else Linear(TWO)(value))
    assert found == []


def test_a_wide_axis_is_halved_by_ratio():
    # From 1e-3 to 1e3 there are ln(1e6) / 1e-3 = 13,816 < 2^14 steps of the tolerance; by difference 1e3 / 2e-5 = 2^26.
    linear = Linear({"L": (0, 1), "H": (0.01, 0.5)})
    (crossing,) = linear.find([1e-3, 1e3])
    assert crossing.value == pytest.approx(0.02, rel=1e-3)
    assert linear.num_calls <= 14


def test_a_crossover_next_to_zero_ends():
    linear = Linear({"L": (0, 1), "H": (1e-12, 0.5)})
    (crossing,) = linear.find([0, 1])
    assert crossing.value == pytest.approx(0, abs=1e-8)
    assert linear.num_calls <= 30


def test_a_jump_is_found_too():
    # With random networks and barriers a median may jump; only the sign of the difference counts.
    (crossing,) = find_crossovers([1, 4], ["L", "H"], lambda value: {"L": 5 if value < 3.3 else 50, "H": 7 + value})
    assert crossing.value == pytest.approx(3.3, rel=1e-3)


def test_many_lines_in_step_find_what_each_finds_alone():
    linear = Linear(THREE)
    values = [[0.1 * (1 + place), 10] for place in range(8)]
    lines = [Line(axis, [best_case(linear(value)) for value in axis]) for axis in values]
    linear.num_calls = 0
    together = find_all(lines, linear.many)
    assert linear.num_calls <= 13  # ln(100) / 1e-3 < 2^13, however many lines there are
    assert together == [linear.find(axis) for axis in values]


def test_the_line_of_a_value_is_told():
    # Each line has its own step: L = x, H = step of the line.
    steps_s = [0.2, 0.5, 3]
    lines = [Line([0.1, 5], ["L", "H"])] * 3
    found = find_all(lines, lambda asked: [{"L": value, "H": steps_s[place]} for place, value in asked])
    assert [crossing.value for (crossing,) in found] == pytest.approx(steps_s, rel=1e-3)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=5), st.floats(1.1, 1e4))
def test_crossings_follow_the_lower_envelope(lines, ratio):
    functions = {f"case {place}": line for place, line in enumerate(lines)}
    linear = Linear(functions)
    found = linear.find([0.01, 0.01 * ratio])
    ends = [best_case(linear(0.01)), best_case(linear(0.01 * ratio))]
    assume(ends[0] != ends[1])
    chain = [ends[0], *(crossing.above for crossing in found)]
    assert [crossing.below for crossing in found] == chain[:-1]
    assert chain[-1] == ends[1]
    for crossing in found:
        # Within the tolerance of the crossing both cases are best: no median changes by more than 10 * tolerance.
        medians_s = linear(crossing.value)
        slack_s = 2 * 10 * 1e-3 * crossing.value
        assert medians_s[crossing.below] <= min(medians_s.values()) + slack_s
        assert medians_s[crossing.above] <= min(medians_s.values()) + slack_s
    assert len(set(chain)) == len(chain), "a line is lowest in one interval at most"


# --- in words -----------------------------------------------------------------------------------------

AXES = {"far": "s", "near": "s", "step": "s", "slower": ""}
LOCAL, H_SGD = "local SGD P=10", "H-SGD G=50 I=5"


def crossover(value, axis="far", below=LOCAL, above=H_SGD, metric="test_accuracy", target=0.8, **fixed):
    return Crossover(metric, target, axis, fixed, below, above, value)


def while_(crossovers):
    """The law of the only sentence."""
    (sentence,) = sentences(crossovers, AXES)
    before, law = sentence.split(" while ")
    assert before == "To 80% test accuracy, H-SGD G=50 I=5 wins over local SGD P=10"
    return law


def test_a_ratio():
    # 3.2 * near, each off by up to 3%.
    rows = [crossover(3.2 * near * off, near=near) for near, off in ((0.005, 1.03), (0.02, 0.98), (0.08, 1))]
    assert while_(rows) == "far/near > 3.2."


def test_a_constant():
    assert while_([crossover(0.21 * off, near=near) for near, off in ((0.005, 1.02), (0.02, 1), (0.08, 0.99))]) == (
        "far > 0.21 s."
    )


def test_a_ratio_to_one_axis_whatever_the_other():
    rows = [crossover(3.2 * near, near=near, step=step) for near in (0.01, 0.02, 0.04) for step in (0.001, 0.004)]
    assert while_(rows) == "far/near > 3.2."


def test_of_two_ratios_the_closer_one_is_told():
    # near and step nearly go together here, so both ratios hold within 5%; far is 32 * step exactly.
    rows = [crossover(3.2 * n * off, near=n, step=0.1 * n * off) for n, off in ((0.01, 1.03), (0.02, 0.98), (0.04, 1))]
    assert while_(rows) == "far/step > 32."


def test_a_sum_of_two_axes():
    # What constant costs give: n_L (far/10 + step) = n_H (far/50 + near/5 + step) is linear in near and step.
    rows = [crossover(2.5 * near + 6 * step, near=near, step=step) for near in (0.01, 0.05) for step in (0.002, 0.02)]
    assert while_(rows) == "far > 2.5 x near + 6 x step."


def test_a_sum_with_a_constant():
    rows = [crossover(3 * near + 0.1, near=near) for near in (0.01, 0.05, 0.2)]
    assert while_(rows) == "far > 3 x near + 0.1 s."
    rows = [crossover(3 * near - 0.1, near=near) for near in (0.05, 0.1, 0.2)]
    assert while_(rows) == "far > 3 x near - 0.1 s."


def test_two_points_are_no_sum():
    # Any two points lie on a line; it would not have been tested.
    assert while_([crossover(0.13, near=0.01), crossover(0.25, near=0.05)]) == (
        "far > 0.13 s (near = 0.01 s) ... 0.25 s (near = 0.05 s)."
    )


def test_without_a_law_the_least_and_the_greatest_are_told():
    rows = [crossover(far, near=near) for far, near in ((0.35, 0.08), (0.21, 0.02), (0.3, 0.04), (0.22, 0.06))]
    assert while_(rows) == "far > 0.21 s (near = 0.02 s) ... 0.35 s (near = 0.08 s)."


def test_a_single_crossover_tells_where():
    assert while_([crossover(0.21)]) == "far > 0.21 s."
    assert while_([crossover(0.21, near=0.02)]) == "far > 0.21 s (near = 0.02 s)."


def test_what_is_the_same_at_all_crossovers_is_told():
    rows = [crossover(3.2 * near, near=near, step=0.004, network="two_sites") for near in (0.01, 0.02, 0.04)]
    assert while_(rows) == "far/near > 3.2 (step = 0.004 s, network = two_sites)."


def test_units_of_ratios():
    rows = [crossover(0.5 * slower, slower=slower) for slower in (0.5, 1, 2)]
    assert while_(rows) == "far/slower > 0.50 s."
    rows = [crossover(5 * near, axis="slower", near=near) for near in (0.5, 1, 2)]
    assert while_(rows) == "slower/near > 5.0 per s."


def test_other_networks_make_boundaries_of_their_own():
    rows = [crossover(3.2 * near, near=near, network="two_sites") for near in (0.01, 0.02, 0.04)]
    rows += [crossover(7 * near, near=near, network="ring") for near in (0.01, 0.02)]
    laws = [sentence.split(" while ")[1] for sentence in sentences(rows, AXES)]
    assert laws == ["far/near > 3.2 (network = two_sites).", "far/near > 7.0 (network = ring)."]


def test_a_boundary_seen_along_two_axes_is_told_once_along_the_simpler():
    # Along far a sum; along near the same boundary, with H-SGD below: near = (far - 0.1) / 3. The tie goes to far.
    far = [crossover(3 * near + 0.1, near=near) for near in (0.01, 0.05, 0.2)]
    near = [crossover((f - 0.1) / 3, axis="near", below=H_SGD, above=LOCAL, far=f) for f in (0.2, 0.4, 1)]
    assert while_(near + far) == "far > 3 x near + 0.1 s."
    # Along step it is always the same: simpler.
    step = [crossover(0.01, axis="step", near=near) for near in (0.01, 0.05, 0.2)]
    assert while_(far + near + step) == "step > 0.010 s."


def test_both_directions_along_one_axis_are_told():
    rows = [crossover(0.1), crossover(0.9, below=H_SGD, above=LOCAL)]
    assert sentences(rows, AXES) == [
        "To 80% test accuracy, H-SGD G=50 I=5 wins over local SGD P=10 while far > 0.10 s.",
        "To 80% test accuracy, local SGD P=10 wins over H-SGD G=50 I=5 while far > 0.90 s.",
    ]


def test_each_target_has_its_own_sentence_the_most_seen_boundary_first():
    rows = [crossover(0.2, metric="test_loss", target=0.5, near=0.01)]
    rows += [crossover(3.2 * near, near=near) for near in (0.01, 0.02)]
    first, second = sentences(rows, AXES)
    assert first.startswith("To 80% test accuracy")
    assert second.startswith("To test loss 0.5")


def test_no_crossovers_no_sentences():
    assert sentences([], AXES) == []


def test_a_threshold_at_zero_has_no_law_but_is_told():
    assert while_([crossover(0.0, near=0.02)]) == "far > 0 s (near = 0.02 s)."
