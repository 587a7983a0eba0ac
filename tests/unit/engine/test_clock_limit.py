"""The clock holds 2^63 - 1 ns, 292 years: what is longer is refused, before it starts where that can be known."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from oracle.drive import experiment_of, plan_of, run_data
from oracle.worlds import tied_world

from hsgd_emu.engine import plan
from hsgd_emu.engine.plan import expected_end_ns
from hsgd_emu.engine.times import simulated_times
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.study.clock import times
from hsgd_emu.timing.transfers import Message

LONG: Any = 10**9
"""Seconds: nine of these fit, ten do not."""


def world(iterations: int, compute: Any, rtt: Any = 0, period: int = 1, levels: int = 1, **train: Any) -> Any:
    names = [*(f"server{level}" for level in range(1, levels)), "worker"]
    topology = {"levels": [{"name": name, "count": 2, "uplink": {"rtt_s": rtt}} for name in names]}
    return run_data(topology, [{"name": "P", "period": period}], iterations, compute, **train)


def ends_ns(experiment: Experiment) -> list[int]:
    """Return when each clock says that the run ends."""
    trial = plan_of(experiment)
    both = [times([trial], clock="auto"), times([trial], clock="simpy")]
    return [int(one.time_ns_SR[0, -1]) for one in both]


@pytest.mark.parametrize(
    "data",
    [
        world(9, LONG),
        world(9, LONG, period=9),
        world(9, 0, LONG),
        world(9, LONG, 0.2),
        world(3, 0, LONG, levels=3),
        world(92, 10**8, 0.2, period=4),
        world(10**8, 92, period=10**8),
    ],
)
def test_what_just_fits_is_exact_in_both_clocks(data: Any) -> None:
    fast, slow = ends_ns(experiment_of(data))
    assert fast == slow == pytest.approx(expected_end_ns(plan_of(experiment_of(data))), rel=1e-12)
    assert 8.9e18 < fast < 2**63


@pytest.mark.parametrize(
    "data",
    [
        world(10, LONG),
        world(10, LONG, period=10),
        world(10, 0, LONG),
        world(9, LONG, 0.3e9),
        world(4, 0, LONG, levels=3),
        world(10**8, 93, period=10**8),
        world(10**8, 0, {"distribution": "gamma", "shape": 10, "scale": 10}),
        world(10, {"samples": [LONG]}),
        world(10, LONG, participation=0.5),
    ],
)
def test_what_does_not_fit_is_refused_before_it_starts(data: Any) -> None:
    with pytest.raises(ConfigError, match=r"train.iterations: 'P' would take .* years .* the clock can hold 292"):
        experiment_of(data)


def test_bandwidth_counts_once_the_size_of_the_model_is_known() -> None:
    data = world(100, 0)
    data["topology"]["levels"][0]["uplink"] = {"latency_s": 0, "bandwidth_bps": 9e-3, "model": "raw"}
    experiment = experiment_of(data)
    # 100 exchanges of 2 x 8 x 10^6 bits at 0.009 bit/s: 1.8 x 10^11 s.
    trial = plan_of(experiment, message_bytes=10**6)
    for clock in ("auto", "simpy"):
        with pytest.raises(ConfigError, match=r"would take|ends later"):
            times([trial], clock=clock)


@pytest.mark.parametrize("cost", [{"distribution": "uniform", "low": 0, "high": LONG}, {"samples": [LONG, 0.0]}])
@pytest.mark.parametrize("period", [1, 18])
def test_a_tail_that_passes_the_end_is_refused_where_it_does(cost: Any, period: int) -> None:
    # Eighteen draws of half of it on average: half of all seeds pass the end, and both clocks refuse the same ones.
    refused = []
    data = world(18, cost, period=period)
    data["topology"]["levels"][0]["count"] = 1
    for seed in range(12):
        trial = plan_of(experiment_of(data), seed=seed)
        ends = []
        for clock in ("auto", "simpy"):
            try:
                ends.append(int(times([trial], clock=clock).time_ns_SR[0, -1]))
            except ConfigError as error:
                ends.append(str(error).partition("ends later")[1])
        assert ends[0] == ends[1]
        refused.append(ends[0] == "ends later")
    assert 0 < sum(refused) < 12


def test_a_run_without_randomness_never_ends_before_it_is_expected_to() -> None:
    for number in range(200):
        data = tied_world(Random(number))
        for worker in data["topology"]["root"]["children"]:
            for child in worker.get("children", [worker]):
                child["uplink"]["down_s"] = 1
        experiment = experiment_of(data)
        end_ns = int(simulated_times([plan_of(experiment)]).time_ns_SR[0, -1])
        assert expected_end_ns(plan_of(experiment)) <= end_ns
        # The quick look never lets anything pass that the exact one would not.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan, "MOST_NS", end_ns)
            assert not plan.surely_fits(experiment.network, Message(1), experiment.train.iterations)


def test_many_scenarios_of_very_many_rounds_are_refused_before_memory_is_taken() -> None:
    trial = plan_of(experiment_of(world(10**8, 0.001)))
    with pytest.raises(ConfigError, match="100000000 global aggregations in each of 3 scenarios"):
        times([trial] * 3)
