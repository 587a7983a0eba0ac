"""Statistics of times to a target, against hand computations, SciPy's bootstrap and simulated coverage."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hsgd_emu.results.summary import median_reached
from hsgd_emu.rng import stream
from hsgd_emu.study.sweep import outcome
from hsgd_emu.study.sweep.outcome import NUM_RESAMPLES, best, median, probability, summarise

INF = math.inf
FIELDS = ("num_reached", "median_s", "q10_s", "q90_s", "low_s", "high_s")
TIME_S = st.one_of(st.floats(1e-6, 1e6), st.sampled_from([1.0, 2.0, INF]))


@st.composite
def tables(draw):
    """Times of some rows, and how many replications each seed has."""
    num_rows, num_seeds, num_replications = (draw(st.integers(1, most)) for most in (3, 5, 4))
    return draw(arrays(float, (num_rows, num_seeds * num_replications), elements=TIME_S)), num_replications


def same(one, other):
    return all(np.array_equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


# --- median and quantiles -----------------------------------------------------------------------------


def test_a_row_by_hand():
    # Sorted 1 2 3 4 8: the middle is 3; places 0.4 and 3.6 of 0..4 are 1 + 0.4*(2-1) and 4 + 0.6*(8-4).
    stats = summarise(np.array([8.0, 2, 1, 4, 3]))
    assert (stats.num, stats.num_reached) == (5, 5)
    assert (stats.median_s, stats.q10_s, stats.q90_s) == pytest.approx((3, 1.4, 6.4))


@given(st.lists(TIME_S, min_size=1, max_size=12))
def test_the_median_is_that_of_the_time_to_target_table(times_s):
    expected = median_reached([None if math.isinf(time_s) else time_s for time_s in times_s])
    assert summarise(np.array(times_s)).median_s == (INF if expected is None else expected)
    assert median(np.array(times_s)) == (INF if expected is None else expected)


@given(arrays(float, st.tuples(st.integers(1, 3), st.integers(1, 12)), elements=st.floats(1e-6, 1e6)))
def test_quantiles_of_reached_rows_are_numpys(times_s):
    stats = summarise(times_s)
    np.testing.assert_allclose(stats.q10_s, np.quantile(times_s, 0.1, axis=-1), rtol=1e-12)
    np.testing.assert_allclose(stats.q90_s, np.quantile(times_s, 0.9, axis=-1), rtol=1e-12)


def test_never_is_later_than_all_others():
    # Of 10 values the 90% place is 8.1: with one never between the 9th value and never, so never. The middle, 4.5, lies
    # between the 5th value and never where five of them are.
    one, five = np.arange(1.0, 11), np.arange(1.0, 11)
    one[9:], five[5:] = INF, INF
    stats = summarise(np.array([one, five]))
    assert list(stats.num_reached) == [9, 5]
    assert list(stats.q90_s) == [INF, INF]
    assert list(stats.median_s) == [5.5, INF]
    assert list(stats.q10_s) == [1.9, 1.9]


# --- the interval -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_seeds", "num_replications"), [(5, 1), (8, 1), (4, 3), (7, 2)])
def test_the_interval_is_scipys_percentile_bootstrap(num_seeds, num_replications):
    from scipy.stats import bootstrap

    times_SK = stream(5, "test").lognormal(size=(num_seeds, num_replications))
    times_SK = np.sort(times_SK, axis=1)[np.argsort(times_SK.min(axis=1))]  # the order `summarise` brings them to
    result = bootstrap(
        (np.arange(num_seeds),),  # SciPy resamples the seeds, each comes with all its replications
        lambda seeds, axis: np.median(times_SK[seeds].reshape(*seeds.shape[:-1], -1), axis=-1),
        vectorized=True,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        rng=stream(0, "median interval", num_seeds),
    )
    stats = summarise(times_SK.reshape(-1), num_replications)
    # With 999 resamples the 2.5% and 97.5% points are the 25th and the 975th (0.025 * 1000 and 0.975 * 1000).
    expected = np.sort(result.bootstrap_distribution)[[24, 974]]
    assert [stats.low_s, stats.high_s] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("num_seeds", "least", "share"), [(3, 1, 0.75), (5, 1, 0.9375), (21, 7, 0.9216), (51, 19, 0.9511)]
)
def test_intervals_hold_the_median_of_all_seeds_as_often_as_they_must(num_seeds, least, share):
    # With n odd the ends are the j-th and the (n + 1 - j)-th value: j is the first with P(Bin(n, j/n) > n/2) > 2.5%, as
    # a resample's median is at most the j-th value where most of its n draws are. They hold the true median, here 1,
    # with 1 - 2 P(Bin(n, 1/2) < j): 75% for the range of 3, 93.75% for that of 5. Binomial error with 4,000 rows: 0.7%.
    at_most = [1 - _binomial_cdf(num_seeds // 2, num_seeds, place / num_seeds) for place in range(1, num_seeds + 1)]
    assert next(place for place, chance in enumerate(at_most, 1) if chance > 0.025) == least
    assert 1 - 2 * _binomial_cdf(least - 1, num_seeds, 0.5) == pytest.approx(share, abs=1e-4)
    stats = summarise(stream(1, "test").lognormal(size=(4_000, num_seeds)))
    assert np.mean((stats.low_s <= 1) & (stats.high_s >= 1)) == pytest.approx(share, abs=0.02)


def _binomial_cdf(most, num, chance):
    return sum(math.comb(num, k) * chance**k * (1 - chance) ** (num - k) for k in range(most + 1))


def test_replications_of_one_seed_are_not_taken_as_independent():
    # 20 seeds of 5 replications; the seeds differ ten times more than the replications of one of them.
    rng = stream(2, "test")
    times_s = np.exp(rng.normal(size=(1_000, 20, 1)) + 0.1 * rng.normal(size=(1_000, 20, 5))).reshape(1_000, 100)
    shares = []
    for num_replications in (5, 1):
        stats = summarise(times_s, num_replications)
        shares.append(np.mean((stats.low_s <= 1) & (stats.high_s >= 1)))
    assert shares[0] == pytest.approx(0.95, abs=0.03), "about as of 20 independent values"
    assert shares[1] < 0.75, "as 100 independent values the intervals would be far too short"


def test_of_a_single_seed_the_replications_are_resampled():
    times_s = stream(4, "test").lognormal(size=(3, 20))
    assert same(summarise(times_s, num_replications=20), summarise(times_s, num_replications=1))


def test_one_value_or_equal_values_have_no_width():
    for times_s in ([0.3], [0.3] * 7, [INF], [INF] * 4):
        stats = summarise(np.array(times_s))
        assert stats.low_s == stats.median_s == stats.high_s == stats.q10_s == stats.q90_s == times_s[0]


def test_the_upper_end_is_never_where_half_may_never_reach():
    # 11 of 20 reach: the median is known (the 10th and 11th value), but a good part of the resamples has fewer than 10.
    stats = summarise(np.array([*range(1, 12), *[INF] * 9], dtype=float))
    assert (stats.median_s, stats.high_s) == (10.5, INF)
    assert 1 < stats.low_s < 10.5


@given(tables())
def test_never_a_nan_and_always_in_order(table):
    stats = summarise(*table)
    for low, high in (("q10_s", "median_s"), ("median_s", "q90_s"), ("low_s", "median_s"), ("median_s", "high_s")):
        assert (getattr(stats, low) <= getattr(stats, high)).all()  # a NaN would compare false


@given(tables(), st.integers(0, 99))
def test_the_order_of_seeds_and_replications_does_not_matter(table, seed):
    times_RN, num_replications = table
    rng = stream(seed, "test")
    shuffled = rng.permuted(times_RN.reshape(len(times_RN), -1, num_replications), axis=2)
    for row in shuffled:
        rng.shuffle(row, axis=0)
    assert same(summarise(shuffled.reshape(times_RN.shape), num_replications), summarise(times_RN, num_replications))


def test_the_order_of_many_seeds_does_not_matter_either():
    times_RSK = stream(6, "test").lognormal(size=(200, 9, 3))
    shuffled = stream(7, "test").permuted(times_RSK, axis=2)[:, ::-1]
    assert same(summarise(shuffled.reshape(200, 27), 3), summarise(times_RSK.reshape(200, 27), 3))


@given(tables(), arrays(float, (3, 20), elements=st.floats(0, 1e3)))
def test_nothing_gets_less_where_every_time_gets_longer(table, more_s):
    # One set of resamples for all rows: a slower row has the greater median in each of them. Not so with several
    # seeds of several replications: the seeds are brought into one order, which a longer time can change, and then the
    # drawn resamples hold other seeds than before.
    times_RN, num_replications = table
    slower_RN = times_RN + more_s[: len(times_RN), : times_RN.shape[1]]
    stats, slower = summarise(times_RN, num_replications), summarise(slower_RN, num_replications)
    assert (slower.median_s >= stats.median_s).all()
    if num_replications in (1, times_RN.shape[1]):
        assert (slower.low_s >= stats.low_s).all()
        assert (slower.high_s >= stats.high_s).all()


@given(tables())
def test_half_the_unit_halves_every_number(table):
    times_RN, num_replications = table
    stats, halved = summarise(times_RN, num_replications), summarise(times_RN / 2, num_replications)
    assert all(np.array_equal(getattr(stats, field) / 2, getattr(halved, field)) for field in FIELDS[1:])


@given(tables())
@settings(max_examples=30)
def test_a_row_depends_on_itself_only(table):
    times_RN, num_replications = table
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "_ROWS_AT_ONCE", 2)
        stats = summarise(times_RN, num_replications)
    for place, row in enumerate(times_RN):
        alone = summarise(row, num_replications)
        assert all(getattr(stats, field)[place] == getattr(alone, field) for field in FIELDS)


def test_rows_keep_their_shape():
    stats = summarise(np.ones((2, 3, 4)), num_replications=2)
    assert all(getattr(stats, field).shape == (2, 3) for field in FIELDS)
    assert summarise(np.ones((0, 4))).median_s.shape == (0,)


@pytest.mark.parametrize("times_s", [np.ones((2, 0)), np.ones(5), np.array([1.0, math.nan])])
def test_what_is_no_table_of_times_is_refused(times_s):
    with pytest.raises(AssertionError):
        summarise(times_s, num_replications=2)


# --- who is first -------------------------------------------------------------------------------------


def test_probability_by_hand():
    # Before, after, tie, never against 3, neither ever: (1 + 0 + 1/2 + 0 + 1/2) / 5.
    a_s, b_s = np.array([1.0, 4, 2, INF, INF]), np.array([2.0, 3, 2, 3, INF])
    assert probability(a_s, b_s) == pytest.approx(0.4)


@given(tables(), tables())
def test_one_of_two_is_first_for_certain(one, other):
    shape = tuple(min(sizes) for sizes in zip(one[0].shape, other[0].shape, strict=True))
    a_s, b_s = one[0][: shape[0], : shape[1]], other[0][: shape[0], : shape[1]]
    assert probability(a_s, b_s) + probability(b_s, a_s) == pytest.approx(np.ones(shape[0]))
    assert probability(a_s, a_s) == pytest.approx(np.full(shape[0], 0.5))


def test_probability_is_of_pairs_not_of_two_crowds():
    # A is 1 s faster in every pair, though pairs differ by far more.
    b_s = np.array([[10.0, 20, 30], [5, 500, 50]])
    assert probability(b_s - 1, b_s).tolist() == [1, 1]


def test_best_by_hand():
    medians_s = np.array([[4.0, 2, 3], [2, 2, 5], [INF, 7, INF], [INF, INF, INF], [0, 0, 1], [1, 0, 1]])
    place, margin = best(medians_s)
    assert place.tolist() == [1, 0, 1, -1, 0, 1]
    np.testing.assert_array_equal(margin, [1.5, 1, INF, math.nan, 1, INF])


def test_best_of_a_single_case():
    place, margin = best(np.array([3.0]))
    assert (place, margin) == (0, INF)
