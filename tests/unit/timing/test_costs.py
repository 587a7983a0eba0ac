"""What a cost is drawn from: the laws, their means, and that draw k is draw k however many are taken."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from hsgd_emu.config.schema import Gamma, Lognormal, Normal, Samples, Uniform
from hsgd_emu.errors import ConfigError
from hsgd_emu.timing.costs import BLOCK, ConstantStream, Cost, TooLongError

NUM = 200_000

LAWS = {
    "samples": (Samples(samples=(0.1, 0.2, 0.6)), 0.3),
    # exp(sigma^2 / 2) times the median.
    "lognormal": (Lognormal(distribution="lognormal", median=0.1, sigma=0.5), 0.1 * math.exp(0.125)),
    # Far above 0 nothing is cut away.
    "normal": (Normal(distribution="normal", mean=0.1, std=0.005), 0.1),
    # Half of N(0, s^2) is cut away: the mean of the half-normal law is s * sqrt(2 / pi).
    "half-normal": (Normal(distribution="normal", mean=0.0, std=0.1), 0.1 * math.sqrt(2 / math.pi)),
    "gamma": (Gamma(distribution="gamma", shape=2.5, scale=0.04), 0.1),
    "uniform": (Uniform(distribution="uniform", low=0.1, high=0.4), 0.25),
}


@pytest.mark.parametrize("name", LAWS)
def test_mean_is_the_law_s(name: str) -> None:
    value, expected = LAWS[name]
    assert Cost(value).expected_s == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_draws_have_that_mean(name: str) -> None:
    # Within five standard errors of the sample mean: a right law fails once in two million seeds.
    value, expected = LAWS[name]
    drawn = Cost(value).draw_s(np.random.default_rng(1), NUM)
    assert abs(drawn.mean() - expected) < 5 * drawn.std() / math.sqrt(NUM)
    assert drawn.min() >= 0


@pytest.mark.parametrize(("mean", "std"), [(0.05, 0.1), (-0.1, 0.1), (-0.3, 0.1)])
def test_normal_is_the_law_given_that_it_is_not_negative(mean: float, std: float) -> None:
    # P(X <= x | X >= 0) = (F(x) - F(0)) / (1 - F(0)); the empirical law is within 2.5 / sqrt(n) of it (DKW: 1e-5).
    value, law = Normal(distribution="normal", mean=mean, std=std), NormalDist(mean, std)
    drawn = np.sort(Cost(value).draw_s(np.random.default_rng(2), 20_000))
    left = 1 - law.cdf(0)
    exact = np.array([(law.cdf(x) - law.cdf(0)) / left for x in drawn])
    empirical = np.arange(1, len(drawn) + 1) / len(drawn)
    assert np.abs(exact - empirical).max() < 2.5 / math.sqrt(len(drawn))
    assert Cost(value).expected_s == pytest.approx(mean + std**2 * law.pdf(0) / left, rel=1e-9)


def test_samples_are_drawn_with_replacement_and_evenly() -> None:
    drawn = Cost(Samples(samples=(1.0, 2.0, 2.0, 5.0))).draw_s(np.random.default_rng(3), NUM)
    shares = [float((drawn == one).mean()) for one in (1.0, 2.0, 5.0)]
    # Standard error of a share of one half: 0.0011.
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.006)


def test_lognormal_has_its_median_and_sigma() -> None:
    logs = np.log(
        Cost(Lognormal(distribution="lognormal", median=0.2, sigma=0.7)).draw_s(np.random.default_rng(4), NUM)
    )
    assert np.median(logs) == pytest.approx(math.log(0.2), abs=5 * 1.25 * 0.7 / math.sqrt(NUM))
    assert logs.std() == pytest.approx(0.7, rel=0.01)


@pytest.mark.parametrize("value", [0.0, 0.25, 1e-9, 3, Lognormal(distribution="lognormal", median=0.5, sigma=0.0)])
def test_what_does_not_vary_is_drawn_as_it_is(value: Any) -> None:
    expected = 0.5 if isinstance(value, Lognormal) else value
    assert Cost(value).expected_s == expected
    assert list(Cost(value).draw_ns(np.random.default_rng(5), 3)) == [round(expected * 1e9)] * 3


def test_nanoseconds_are_rounded_half_to_even() -> None:
    value = Samples(samples=(2.5e-9,))
    assert list(Cost(value).draw_ns(np.random.default_rng(6), 1)) == [2]
    assert Cost(3.5e-9).stream(1, "compute").take(1) == 4


def test_a_draw_beyond_thirty_years_is_the_fault_of_the_file() -> None:
    value = Lognormal(distribution="lognormal", median=1e9, sigma=10)
    with pytest.raises(ConfigError, match=r"^profiles: a cost of .* s was drawn; at most 1e\+09 s"):
        Cost(value).draw_ns(np.random.default_rng(7), 100)


@pytest.mark.parametrize("num", [1, 9, 10, 256, 300])
def test_sums_of_the_longest_costs_are_exact_or_refused(num: int) -> None:
    # 10^9 s are 10^18 ns: ten of them are more than 2^63, 256 (a block of draws) wrap round several times.
    value = Samples(samples=(1e9,))
    assert Cost(value).stream(1, "compute", "w").take(num) == Cost(1e9).stream(1, "compute").take(num) == num * 10**18
    for costs in (Cost(value).stream(1, "compute", "w"), Cost(1e9).stream(1, "compute")):
        if num < 10:
            assert set(costs.sums(3, num).tolist()) == {num * 10**18}
        else:
            with pytest.raises(TooLongError):
                costs.sums(3, num)


def test_only_numbers_are_constant() -> None:
    assert Cost(0.3).is_constant
    assert not any(Cost(value).is_constant for value, _ in LAWS.values())


@pytest.mark.parametrize("name", LAWS)
def test_draw_k_does_not_depend_on_how_many_are_taken_at_once(name: str) -> None:
    # Rejection (normal) takes more random numbers than it gives: without blocks, draw k would depend on the sizes.
    value, _ = LAWS[name]
    one_by_one = Cost(value).stream(1, "compute", "worker-0")
    each = [one_by_one.take(1) for _ in range(3 * BLOCK)]
    in_pieces, place = Cost(value).stream(1, "compute", "worker-0"), 0
    for num in (3, BLOCK - 4, 1, 1, BLOCK + 7, 0, 200):
        assert in_pieces.take(num) == sum(each[place : place + num])
        place += num


def test_streams_differ_by_seed_purpose_and_name_only() -> None:
    value, _ = LAWS["gamma"]

    def first(seed: int, purpose: str, *names: str) -> int:
        return Cost(value).stream(seed, purpose, *names).take(1)

    same = first(1, "rtt", "link", "node")
    others = [(2, "rtt", "link", "node"), (1, "up", "link", "node"), (1, "rtt", "link", "node2")]
    # Joined, these two would read alike.
    others += [(1, "rtt", "lin", "knode")]
    assert first(1, "rtt", "link", "node") == same
    assert len({same, *(first(*key) for key in others)}) == 5


def test_constants_cost_the_same_each_time() -> None:
    costs = Cost(0.004).stream(1, "compute", "worker-0")
    assert isinstance(costs, ConstantStream)
    assert [costs.take(1), costs.take(0), costs.take(50)] == [4_000_000, 0, 200_000_000]
