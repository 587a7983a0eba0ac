"""Laws that any clock of DESIGN section 4 must keep, whatever the numbers are."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle.drive import engine, experiment_of, plan_of, run_data
from oracle.worlds import costs, runs

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.record import RoundRecord

FIXED = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def entries(specs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield every entry of a tree's specification."""
    for spec in specs:
        yield spec
        yield from entries(spec.get("children", []))


def tree_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a run's tree, after taking its further links away: routes are the tree's own."""
    data["topology"]["links"] = []
    return list(entries(data["topology"]["root"]["children"]))


def more(value: Any, extra: float) -> Any:
    """Return a cost of which every draw is later by `extra` (other distributions are left as they are)."""
    if isinstance(value, int | float):
        return value + extra
    if "samples" in value:
        return {"samples": [one + extra for one in value["samples"]]}
    if value["distribution"] == "uniform":
        return {**value, "low": value["low"] + extra, "high": value["high"] + extra}
    return value


def slower(profile: dict[str, Any], extra: float) -> dict[str, Any]:
    names = ("rtt_s", "up_s", "down_s", "latency_s")
    return {key: more(value, extra) if key in names else value for key, value in profile.items()}


def ends(records: list[RoundRecord]) -> dict[tuple[int, str, int], int]:
    """Return when each activity (node, kind, iteration) ended; waits are no activities of their own."""
    return {
        (row.node, row.kind, row.iteration): row.end_ns
        for record in records
        for row in record.activities
        if row.kind != "wait"
    }


def durations(records: list[RoundRecord]) -> dict[tuple[int, str, int], int]:
    """Return how long each activity took: what was drawn for it."""
    return {
        (row.node, row.kind, row.iteration): row.end_ns - row.start_ns
        for record in records
        for row in record.activities
        if row.kind != "wait"
    }


@settings(FIXED, max_examples=60)
@given(data=runs(), extra=st.sampled_from([1e-9, 0.01, 0.37]), which=st.sampled_from(["links", "steps", "one link"]))
def test_slower_links_or_steps_make_nothing_earlier(data: dict[str, Any], extra: float, which: str) -> None:
    # Times are max-plus sums of costs, and those grow with every cost.
    tree = tree_of(data)
    before, _ = engine(experiment_of(data), case=1)
    for entry in tree if which != "one link" else tree[-1:]:
        if which == "steps" and "compute" in entry:
            entry["compute"] = {"step_s": more(entry["compute"]["step_s"], extra)}
        elif which != "steps":
            entry["uplink"] = slower(entry["uplink"], extra)
    after, _ = engine(experiment_of(data), case=1)
    then, now = ends(before), ends(after)
    assert then.keys() == now.keys()
    assert all(then[key] <= now[key] for key in then)
    assert all(one.time_ns <= other.time_ns for one, other in zip(before, after, strict=True))


@settings(FIXED, max_examples=60)
@given(data=runs(), rtt=costs(), steps=costs())
def test_changing_one_profile_leaves_all_other_draws(data: dict[str, Any], rtt: Any, steps: Any) -> None:
    # Common random numbers: each entity draws from a stream of its own, keyed by its name.
    entry = next(one for one in tree_of(data) if "children" not in one)
    before, experiment = engine(experiment_of(data), case=1)[0], experiment_of(data)
    changed = set(experiment.topology.named(entry["name"]))
    entry["uplink"] = {"rtt_s": rtt}
    link, _ = engine(experiment_of(data), case=1)
    drawn, now = durations(before), durations(link)
    # Its own steps stay as well: only its transfers are others.
    others = [key for key in drawn if key[0] not in changed or key[1] == "compute"]
    assert {key: drawn[key] for key in others} == {key: now[key] for key in others}
    entry["compute"] = {"step_s": steps}
    step, _ = engine(experiment_of(data), case=1)
    others = [key for key in now if key[0] not in changed or key[1] != "compute"]
    again = durations(step)
    assert {key: now[key] for key in others} == {key: again[key] for key in others}


@settings(FIXED, max_examples=30)
@given(data=runs())
def test_a_case_does_not_depend_on_the_other_cases(data: dict[str, Any]) -> None:
    both = experiment_of(data)
    hashes = {both.cases[number].name: engine(both, number)[1] for number in range(2)}
    turned = copy.deepcopy(data)
    turned["cases"].reverse()
    alone = copy.deepcopy(data)
    alone["cases"] = alone["cases"][1:]
    assert engine(experiment_of(turned), 0)[1] == hashes["H-SGD"]
    assert engine(experiment_of(turned), 1)[1] == hashes["local"]
    assert engine(experiment_of(alone), 0)[1] == hashes["H-SGD"]


@settings(FIXED, max_examples=30)
@given(data=runs())
def test_more_rounds_continue_the_same_trial(data: dict[str, Any]) -> None:
    # Draw k does not depend on how many follow: a longer trial begins with the shorter one.
    short, _ = engine(experiment_of(data), case=1)
    longer = {**data, "train": {**data["train"], "iterations": 2 * data["train"]["iterations"]}}
    long, _ = engine(experiment_of(longer), case=1)
    assert [record.time_ns for record in long[: len(short)]] == [record.time_ns for record in short]
    assert long[len(short) - 1].activities == short[-1].activities


@settings(FIXED, max_examples=30)
@given(data=runs())
def test_what_is_kept_changes_neither_the_hash_nor_the_times(data: dict[str, Any]) -> None:
    experiment = experiment_of(data)
    full, digest = engine(experiment, case=1)
    for keep in ("rounds", "none"):
        records: list[RoundRecord] = []
        assert emulate(plan_of(experiment, 1), Operations(), records.append, keep) == digest  # type: ignore[arg-type]
        for one, other in zip(records, full, strict=True):
            assert (one.time_ns, one.split, one.waits_ns) == (other.time_ns, other.split, other.waits_ns)
            about_root = [row for row in other.activities if 0 in (row.node, row.peer)]
            assert one.activities == (about_root if keep == "rounds" else [])


TIED = run_data(
    {
        "levels": [
            {"name": "site", "count": 3, "uplink": {"rtt_s": {"samples": [0.1, 0.2]}}},
            {"name": "worker", "count": 3, "uplink": {"rtt_s": {"distribution": "gamma", "shape": 2, "scale": 0.1}}},
        ],
        # A ring of equal links, so that routes tie, and participation, so that workers are drawn.
        "links": [
            {"between": ["worker", "site-1"], "profile": {"rtt_s": 0.05}},
            {"between": ["worker", "worker"], "profile": {"rtt_s": 0.05}},
        ],
    },
    [{"name": "local", "period": 2}, {"name": "H-SGD", "periods": [4, 2]}],
    40,
    {"distribution": "lognormal", "median": 0.01, "sigma": 0.5},
    participation=0.6,
)
PRINT_HASHES = "from test_clock_laws import TIED, engine, experiment_of; e = experiment_of(TIED); "
PRINT_HASHES += "print(*(engine(e, case, seed)[1] for case in (0, 1) for seed in (1, 2)))"


@pytest.fixture(scope="module")
def hashes_here() -> list[str]:
    experiment = experiment_of(TIED)
    return [engine(experiment, case, seed)[1] for case in (0, 1) for seed in (1, 2)]


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
def test_python_hash_seed_changes_nothing(hash_seed: str, hashes_here: list[str]) -> None:
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), str(here.parents[1])])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.split() == hashes_here
    assert len(set(hashes_here)) == 4
