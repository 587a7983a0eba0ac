"""The engine against a second implementation, on whatever worlds hypothesis thinks up."""

from __future__ import annotations

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


small = st.integers(0, 3)


@settings(FIXED, max_examples=150)
@given(
    workers=st.lists(st.tuples(small, small, small), min_size=1, max_size=5),
    groups=st.integers(1, 2),
    aggregation=small,
    participation=st.sampled_from([0.3, 0.5, 1.0]),
    seed=st.integers(0, 3),
)
def test_ties_are_decided_alike(
    workers: list[tuple[int, int, int]], groups: int, aggregation: int, participation: float, seed: int
) -> None:
    """Whole seconds from 0 to 3 everywhere, so that nearly every barrier is a tie: blame and splits agree too.

    With participation, a worker that sat out may be done receiving in the very moment of the next release.
    """
    children = [
        {"name": f"w{number}", "uplink": {"up_s": up, "down_s": down}, "compute": {"step_s": step}}
        for number, (step, up, down) in enumerate(workers)
    ]
    site = {"name": "site", "count": groups, "uplink": {"rtt_s": 2}, "aggregation_s": aggregation, "children": children}
    data = run_data({"root": {"children": [site]}}, [{"name": "H-SGD", "periods": [2, 1]}], 12)
    data["train"]["participation"] = participation
    assert_engine_is_recursion(experiment_of(data), 0, seed)
