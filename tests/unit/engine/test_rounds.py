"""Rounds of unlike lengths: where they end, what is refused, and what else follows."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.drive import engine, experiment_of, plan_of, run_data

from hsgd_emu.config.run_schema import RoundsSpec
from hsgd_emu.engine.emulate import operations_hash
from hsgd_emu.engine.fast import applies
from hsgd_emu.engine.schedule import Rounds, Schedule, Stage
from hsgd_emu.errors import ConfigError
from hsgd_emu.study.retime import retime


def case(period: Any = None, iterations: int = 40, **fields: Any) -> dict[str, Any]:
    """Two sites of two workers, RTT 2 s above and 1 s below, steps of 1 s."""
    levels = [{"name": "site", "count": 2, "uplink": {"rtt_s": 2}}, {"name": "w", "count": 2, "uplink": {"rtt_s": 1}}]
    given = {"name": "c", **({} if period is None else {"period": period}), **fields}
    return run_data({"levels": levels}, [given], iterations, 1)


def schedule_of(*args: Any, **fields: Any) -> Schedule:
    return experiment_of(case(*args, **fields)).schedules[0]


def ends(schedule: Schedule, iterations: int = 40) -> list[int]:
    return [schedule.end_of(number) for number in range(1, schedule.num_rounds(iterations) + 1)]


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        ("once", [40]),
        ({"first": 1, "add": 2}, [1, 4, 9, 16, 25, 36, 40]),
        ({"first": 12, "add": 0}, [12, 24, 36, 40]),
        ({"first": 50, "add": 3}, [40]),
        ({"first": 1, "times": 2}, [1, 3, 7, 15, 31, 40]),
        ({"first": 3, "times": 2, "most": 10}, [3, 9, 19, 29, 39, 40]),
        ({"first": 15, "times": 1}, [15, 30, 40]),
        ({"first": 5, "times": 3, "most": 5}, [5, 10, 15, 20, 25, 30, 35, 40]),
        ({"rounds": [5, 5, 10]}, [5, 10, 20, 30, 40]),
        ({"rounds": [30, 20]}, [30, 40]),
        ({"rounds": [50]}, [40]),
        ({"rounds": [7]}, [7, 14, 21, 28, 35, 40]),
    ],
)
def test_rounds_end_where_their_lengths_add_up_and_the_last_is_cut(period: Any, expected: list[int]) -> None:
    assert ends(schedule_of(period)) == expected
    # And so does what the engine does.
    records, _ = engine(experiment_of(case(period)))
    assert [record.iteration for record in records] == expected
    assert [record.round for record in records] == list(range(1, len(expected) + 1))
    # Compute is all 40 steps, then one exchange of RTT 1 + 2 a round.
    assert records[-1].time_ns == (40 + 3 * len(expected)) * 10**9


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_all_that_is_asked_of_rounds_agrees_with_their_list(data: st.DataObject) -> None:
    iterations = data.draw(st.integers(1, 200))
    kind, first = data.draw(st.sampled_from(["add", "times", "rounds"])), data.draw(st.integers(1, 20))
    if kind == "add":
        spec = RoundsSpec(first=first, add=data.draw(st.integers(0, 7)))
    elif kind == "times":
        most = data.draw(st.none() | st.integers(first, 60))
        spec = RoundsSpec(first=first, times=data.draw(st.integers(1, 4)), most=most)
    else:
        spec = RoundsSpec(rounds=data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=5)))
    # The definition, written out.
    lengths, end, expected = list(spec.rounds or ()), 0, []
    length = first
    while end < iterations:
        if spec.rounds is not None:
            length = lengths[min(len(expected), len(lengths) - 1)]
        end = min(end + length, iterations)
        expected.append(end)
        length = length + spec.add if spec.add is not None else min(length * (spec.times or 1), spec.most or 10**9)
    rounds = Rounds.of(spec, iterations)
    assert [rounds.end_of(number) for number in range(len(expected) + 1)] == [0, *expected]
    for at in range(iterations + 1):
        assert rounds.within(at) == sum(end <= at for end in expected)
    stage = Stage({0: 1}, {1: 0}, {0: (1,)}, 1.0, rounds, None)
    schedule = Schedule("c", (stage,))
    for at in range(1, iterations + 1):
        assert schedule.next_end(at) == next(end for end in expected if end >= at)
        begin, end = next((a, b) for a, b in pairwise([0, *expected]) if a < at <= b)
        assert stage.phases_until(0, at) == expected.index(end) + Fraction(at - begin, end - begin)
    phases = [phase for phase, _ in zip(stage.phases(0), expected, strict=False)]
    assert [(phase.begin, phase.end, phase.round) for phase in phases] == [
        (begin, end, number) for number, (begin, end) in enumerate(pairwise([0, *expected]), start=1)
    ]


def test_local_servers_keep_their_period_in_growing_rounds() -> None:
    records, _ = engine(experiment_of(case(periods=[{"first": 4, "add": 4}, 2], iterations=40)))
    assert [record.iteration for record in records] == [4, 12, 24, 40]
    # In round r, 2 r phases of two steps and an exchange of 1 s below, and one of 2 s with the global server.
    rounds_s = [4 * r + 2 * r + 2 for r in (1, 2, 3, 4)]
    assert [record.time_ns // 10**9 for record in records] == list(accumulate(rounds_s)) == [8, 22, 42, 68]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"periods": [{"first": 4, "add": 2}, 4]},
            "cases.0.periods: round 2 has 6 iterations, not a multiple of 4; 2 divides every round",
        ),
        (
            {"periods": [{"rounds": [20, 20, 60]}, 5], "iterations": 112},
            "cases.0.periods: round 4 is the last one and cut to 12 iterations, not a multiple of 5; "
            "train.iterations 110 or 115 would do",
        ),
        ({"periods": ["once", 3]}, "cut to 40 iterations, not a multiple of 3; train.iterations 39 or 42 would do"),
        ({"periods": [40, "once"]}, "only the global server's rounds may grow, or be one; give a number of iterations"),
        ({"periods": {"root": 40, "site": {"first": 1, "add": 1}}}, "cases.0.periods.site: only the global server's"),
        ({"period": [50, 5]}, "cases.0.period: found .*`periods: .50, 5.` gives .* `period: {rounds: .50, 5.}` rounds"),
        ({"period": {"first": 3}}, r"cases.0.period: expected {first, add}, .* or {rounds: \[...\]}"),
        ({"period": {"first": 3, "add": 1, "times": 2}}, "expected {first, add}"),
        ({"period": {"first": 30, "times": 2, "most": 10}}, "first is 30, above most, 10"),
        ({"period": {"rounds": []}}, "cases.0.period.rounds: "),
        ({"period": "twice"}, "cases.0.period: found .*twice"),
        ({"period": "once", "periods": [40, 5]}, "both period and periods"),
        ({"period": 7}, "train.iterations is 40, not a multiple of the global period 7"),
    ],
)
def test_what_does_not_fit_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment_of(case(**fields))


def test_rounds_of_one_length_have_the_operations_of_a_period() -> None:
    plain, listed, grown = (
        plan_of(experiment_of(case(one))) for one in (10, {"rounds": [10]}, {"first": 10, "add": 0})
    )
    assert operations_hash(plain) == operations_hash(listed) == operations_hash(grown)
    assert all(map(applies, (plain, listed, grown)))
    growing = plan_of(experiment_of(case({"first": 10, "add": 10})))
    assert operations_hash(growing) != operations_hash(plain)


def test_a_run_with_growing_rounds_is_retimed_as_a_fresh_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    from hsgd_emu.results.read import read_run
    from hsgd_emu.run import run

    monkeypatch.chdir(tmp_path)
    data = case(periods=[{"first": 4, "add": 4}, 2], iterations=40) | {"data": {"dataset": "digits"}}
    data["cases"].append({"name": "one", "period": "once"})
    Path("run.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    run("run.yaml", "out", threads=1, engine="usual", jobs=1)
    retime("out", "retimed", ["compute.step_s=3"])
    run("run.yaml", "fresh", sets=["compute.step_s=3"], threads=1, engine="usual", jobs=1)
    one, other = read_run("retimed"), read_run("fresh")
    assert one.curve.equals(other.curve)
    assert list(one.trials.timeline_hash) == list(other.trials.timeline_hash)
    with pytest.raises(ConfigError, match="differs in train"):
        run("run.yaml", "out", resume=True, sets=["train.iterations=60"])
