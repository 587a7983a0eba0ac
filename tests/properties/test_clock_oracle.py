"""The engine against a second implementation, on whatever worlds hypothesis thinks up."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle.drive import assert_engine_is_recursion, experiment_of, run_data
from oracle.worlds import runs

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@settings(FIXED, max_examples=200)
@given(data=runs(), seed=st.integers(0, 3))
def test_engine_is_the_max_plus_recursion(data: dict[str, Any], seed: int) -> None:
    """Times, aggregated times, splits, every row, blame and waits, to the nanosecond, for every case."""
    experiment = experiment_of(data)
    for case in range(len(experiment.cases)):
        records = assert_engine_is_recursion(experiment, case, seed)
        assert all(record.split.time_ns == record.time_ns for record in records)


def tied_world(dice: Random) -> dict[str, Any]:
    """Return a world of few whole seconds, so that nearly every barrier is a tie, and in which few take part."""
    workers = [
        {
            "name": f"w{number}",
            "uplink": {"up_s": dice.randint(0, 3), "down_s": {"samples": [dice.randint(0, 6) for _ in range(2)]}},
            "compute": {"step_s": dice.randint(0, 2)},
        }
        for number in range(dice.randint(2, 3))
    ]
    flat = {"root": {"aggregation_s": dice.randint(0, 1), "children": workers}}
    site = {"name": "site", "count": 2, "uplink": {"rtt_s": 2}, "aggregation_s": 1, "children": workers}
    topology, periods = dice.choice([(flat, [1]), ({"root": {"children": [site]}}, [2, 1])])
    return run_data(topology, [{"name": "c", "periods": periods}], 6, participation=dice.choice([0.4, 1.0]))


def test_ties_are_decided_alike() -> None:
    """Blame and splits agree too where several are last at once, or where a worker that sat out has received the
    model before in the very moment of the next release. Worlds from a fixed seed: hypothesis shuns such accidents.
    """
    for number in range(400):
        assert_engine_is_recursion(experiment_of(tied_world(Random(number))))
