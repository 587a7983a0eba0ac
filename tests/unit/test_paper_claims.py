"""benchmarks/paper_claims.py: what the paper says of its curves, on curves made up so that it is so, or is not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import paper_claims as claims

from hsgd_emu.results.wording import CaseSummary, TargetSummary


def curve(periods: tuple[int, ...], level: float, groups: int = 2, partition: str = "by_label", seeds=(1,), every=50):
    """Return a curve of ten evaluations that rises from 0.1 by `level` each."""
    values = {every * at: 0.1 + level * at for at in range(1, 11)}
    return claims.Curve(periods, 1 if len(periods) == 1 else groups, partition, {seed: dict(values) for seed in seeds})


def test_a_gap_is_the_mean_over_common_evaluations_and_a_count():
    above = claims.Curve((50, 5), 2, "by_label", {1: {0: 0.1, 50: 0.2, 100: 0.3, 150: 0.4, 200: 0.5, 250: 0.9}})
    below = claims.Curve((50,), 1, "by_label", {1: {0: 0.1, 50: 0.1, 100: 0.2, 150: 0.5, 200: 0.4}})
    found = claims.gap(above, below)
    # 0, +0.1, +0.1, -0.1, +0.1 at the five that both have; the sixth is only one's.
    assert found is not None
    assert (found.num, found.num_above, found.until) == (5, 4, 200)
    assert found.mean == pytest.approx(0.04)
    assert found.text() == (
        "G=50 I=5 over P=50: +4.0 points in the mean, at least as high at 4 of 5 evaluations until iteration 200, "
        "one seed"
    )


def test_only_seeds_that_both_have_count_and_their_median():
    low, high = dict.fromkeys(range(5), 0.2), dict.fromkeys(range(5), 0.8)
    one = claims.Curve((5,), 1, "iid", {1: high, 2: high, 3: low, 4: low})
    other = claims.Curve((10,), 1, "iid", {3: low, 1: low, 2: low})
    found = claims.gap(one, other)
    assert found is not None
    assert (found.num_seeds, found.mean) == (3, pytest.approx(0.6))
    assert claims.gap(one, claims.Curve((10,), 1, "iid", {9: low})) is None
    assert claims.gap(one, claims.Curve((10,), 1, "iid", {1: {0: 0.1, 1: 0.2, 2: 0.2, 3: 0.2, 9: 0.2}})) is None


def test_higher_in_the_mean_by_a_single_evaluation_is_not_above():
    one = claims.Curve((5,), 1, "iid", {1: dict(enumerate((0.1, 0.1, 0.1, 0.1, 0.9)))})
    other = claims.Curve((10,), 1, "iid", {1: dict(enumerate((0.2, 0.2, 0.2, 0.2, 0.2)))})
    found = claims.gap(one, other)
    assert found is not None
    assert found.mean > 0
    assert not found.is_above


def test_the_sandwich_is_shown_where_both_its_sides_are():
    often, between, seldom = curve((5,), 0.05), curve((50, 5), 0.04), curve((50,), 0.03)
    assert claims.sandwich([often, between, seldom]).verdict == "shown"
    assert claims.sandwich([curve((5,), 0.03), between, seldom]).verdict == "not shown"
    assert claims.sandwich([often, between, curve((50,), 0.05)]).verdict == "not shown"
    assert claims.sandwich([often, seldom]).verdict == "no data"
    # One side is all there is: it is said.
    assert len(claims.sandwich([often, between]).details) == 1
    # Local SGD on other data is no side.
    assert claims.sandwich([curve((5,), 0.05, partition="iid"), between]).verdict == "no data"


def test_more_groups_are_compared_with_the_same_periods():
    two, five = curve((50, 5), 0.05), curve((50, 5), 0.04, groups=5)
    assert claims.more_groups_are_worse([two, five]).verdict == "shown"
    assert claims.more_groups_are_worse([curve((50, 5), 0.03), five]).verdict == "not shown"
    assert claims.more_groups_are_worse([two, curve((50, 10), 0.04, groups=5)]).verdict == "no data"


def test_a_longer_global_and_a_shorter_local_period():
    usual, local = curve((50, 5), 0.04, every=50), curve((10,), 0.041)
    # Evaluated every 200 iterations: two of the usual one's ten evaluations, too few.
    assert claims.smaller_i_makes_up_for_larger_g([usual, curve((200, 2), 0.2, every=200)]).verdict == "no data"
    rare = claims.Curve((200, 2), 2, "by_label", {1: {at: 0.02 + value for at, value in usual.accuracy[1].items()}})
    assert claims.smaller_i_makes_up_for_larger_g([usual, rare]).verdict == "shown"
    assert claims.smaller_i_makes_up_for_larger_g([usual]).verdict == "no data"
    # The mean of at / 1000 over 1..10 is 0.0055, within 0.02.
    assert claims.is_like_frequent_local_sgd([usual, local]).verdict == "shown"
    assert claims.is_like_frequent_local_sgd([usual, curve((10,), 0.08)]).verdict == "not shown"


@pytest.mark.parametrize("partition", ["by_label", "group_non_iid"])
def test_group_iid_is_compared_with_half_the_period(partition):
    iid = curve((50, 10), 0.04, partition="group_iid")
    half, whole = curve((50, 5), 0.042, partition=partition), curve((50, 10), 0.01, partition=partition)
    claim = claims.group_iid_saves_local_aggregations([whole, half, iid])
    assert claim.verdict == "shown"
    assert claim.details[0].startswith("G=50 I=10 (group-IID) over G=50 I=5")
    assert claims.group_iid_saves_local_aggregations([whole, curve((50, 5), 0.09), iid]).verdict == "not shown"
    assert claims.group_iid_saves_local_aggregations([whole, iid]).verdict == "no data"


def summary(case: str, time_s: float | None, finished: int = 3, local: bool = False) -> CaseSummary:
    reached = finished if time_s is not None else 0
    target = TargetSummary("test_accuracy", 0.5, finished, reached, time_s, time_s, time_s, 400.0, None)
    easier = TargetSummary("test_accuracy", 0.2, finished, finished, 1.0, 1.0, 1.0, 10.0, None)
    return CaseSummary(case, local, 3, finished, (easier, target), 0.5, 1.0, 100.0, 20_000.0)


def test_hsgd_is_first_if_its_slowest_case_is_before_every_local_sgd():
    fast, slow = summary("G=50 I=5", 160.0), summary("G=50 I=10", 381.0)
    local, never = summary("P=5", 673.0, local=True), summary("P=50", None, local=True)
    claim = claims.hsgd_is_first([local, never, fast, slow])
    assert claim.verdict == "shown"
    assert claim.text.startswith("H-SGD reaches 50% test accuracy")
    assert "P=50: not reached in 20,000 iterations (0 of 3 seeds)" in claim.details
    assert claims.hsgd_is_first([summary("P=10", 300.0, local=True), local, fast, slow]).verdict == "not shown"
    assert claims.hsgd_is_first([local, fast, summary("G=50 I=10", None)]).verdict == "not shown"


@pytest.mark.parametrize("summaries", [[], [summary("P=5", 9.0, 0, True), summary("G=50 I=5", 1.0)]])
def test_without_finished_trials_nothing_is_known(summaries):
    assert claims.hsgd_is_first(summaries).verdict == "no data"


def test_where_nobody_reached_the_target_nothing_is_known():
    assert claims.hsgd_is_first([summary("P=5", None, local=True), summary("G=50 I=5", None)]).verdict == "no data"
