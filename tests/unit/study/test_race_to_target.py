"""The race to a target, over oracles whose whole learning is known: as exact as learning everything."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsgd_emu.rng import stream
from hsgd_emu.study.planning import race as racing
from hsgd_emu.study.planning.chances import ahead_now, ahead_when_it_arrives, lag_behind
from hsgd_emu.study.planning.race import Entrant, Race, Racer, median_time

NEVER = math.inf


class World:
    """Entrants with random clocks and curves, and an oracle that tells no more than what is asked for."""

    def __init__(self, seed, num_entrants=6, seeds=3, draws=2, length=40, lost=0.0):
        rng = stream(seed, "world")
        self.entrants, self.values, self.asked = [], [], []
        for _ in range(num_entrants):
            every = int(rng.integers(1, 8))
            iterations = np.arange(every, length + 1, every)
            steps = rng.lognormal(0, 0.5, (seeds, draws, len(iterations))) * every * rng.lognormal(0, 0.7)
            self.entrants.append(Entrant(iterations, steps.cumsum(axis=2), float(rng.integers(1, 4))))
            slow, top = rng.uniform(3, 30), rng.uniform(0.4, 1)
            noise = rng.normal(0, 0.08, (seeds, len(iterations)))
            values = top * (1 - np.exp(-iterations / slow)) + noise
            values[rng.random(values.shape) < lost] = np.nan
            self.values.append(values)

    def learn(self, requests):
        self.asked.extend(requests)
        found = []
        for number, seed, until in requests:
            iterations = self.entrants[number].iterations
            pairs = zip(iterations.tolist(), self.values[number][seed], strict=True)
            found.append({iteration: value for iteration, value in pairs if iteration <= until})
        return found

    def exhaustive(self, target):
        """Return the median of every entrant, with everything learned; one with a diverged seed has none."""
        medians = []
        for entrant, values in zip(self.entrants, self.values, strict=True):
            times_s = np.full(entrant.time_s.shape[:2], NEVER)
            for seed, row in enumerate(values):
                upto = np.argmax(np.isnan(row)) if np.isnan(row).any() else len(row)
                hits = np.flatnonzero(row[:upto] >= target)
                if hits.size:
                    times_s[seed] = entrant.time_s[seed, :, hits[0]]
            medians.append(median_time(times_s))
        return medians

    def race(self, target, **more):
        race = Race(self.entrants, target, self.learn, **more)
        return race, race.run()


worlds = st.builds(
    World, st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(10, 60)
)


@settings(max_examples=150, deadline=None)
@given(worlds, st.floats(0.05, 0.95), st.integers(1, 4))
def test_it_finds_what_learning_everything_finds(world, target, at_once):
    exact = world.exhaustive(target)
    race, found = world.race(target, at_once=at_once)
    best_s = min((one.time_s for one in found if one.fate == "reached"), default=NEVER)
    assert best_s == min(exact)
    for one, true_s in zip(found, exact, strict=True):
        assert one.at_least_s <= true_s
        assert one.fate in ("reached", "never", "beaten")
        if one.fate == "reached":
            assert one.time_s == true_s
        else:
            assert true_s >= best_s
    assert race.used == pytest.approx(sum_learned(world))
    assert race.share <= 1


def sum_learned(world):
    """Return what was asked for, and assert that nothing was asked for twice or between evaluations."""
    until = {}
    for number, seed, to in world.asked:
        assert to in world.entrants[number].iterations
        assert to > until.get((number, seed), 0)
        until[number, seed] = to
    return sum(world.entrants[number].cost * to for (number, _), to in until.items())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 0.8))
def test_the_steps_change_nothing(seed, target):
    answers = []
    for slice_, first in ((0.25, 0.01), (5.0, 1.0), (0.01, 1e-6)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(racing, "SLICE", slice_)
            patch.setattr(racing, "FIRST", first)
            _, found = World(seed, lost=0.01).race(target, at_once=2)
        best = min(found, key=lambda one: one.time_s)
        answers.append((best.time_s, best.times_s.tolist() if best.time_s < NEVER else None))
    assert answers[0] == answers[1] == answers[2]


def run_few(values, target=0.5, clocks=(1.0, 1.0), **more):
    """Race schedules evaluated every 10 of 40 iterations; values: by schedule and seed, four figures."""
    iterations = np.arange(10, 41, 10)
    entrants = [
        Entrant(iterations, np.tile(clock * iterations, (len(seeds), 1, 1)))
        for clock, seeds in zip(clocks, values, strict=True)
    ]

    def learn(requests):
        return [dict(zip(iterations.tolist(), values[r.entrant][r.seed], strict=True)) for r in requests]

    race = Race(entrants, target, learn, **more)
    return race, race.run()


def test_a_schedule_that_learns_quickly_and_then_stalls_does_not_eat_the_training():
    iterations = np.arange(1, 1001)
    quick = {n: min(0.7, n / 20) for n in iterations.tolist()}
    steady = {n: n / 100 for n in iterations.tolist()}
    entrants = [Entrant(iterations, 1.0 * iterations[None, None, :]) for _ in range(2)]
    race = Race(entrants, 0.8, lambda requests: [(quick, steady)[r.entrant] for r in requests])
    stalled, first = race.run()
    assert (first.fate, first.time_s) == ("reached", 80)
    # Not beyond its moment but for one slice, of a quarter.
    assert stalled.fate == "beaten"
    assert stalled.until[0] <= 100


def test_a_target_that_none_reaches_takes_it_all():
    race, found = run_few([[[0.1, 0.2, 0.3, 0.4]], [[0.1, 0.1, 0.1, 0.1]]])
    assert [one.fate for one in found] == ["never", "never"]
    assert (race.share, race.now_s) == (1, NEVER)
    assert found[0].racer.figure_at(NEVER) == 0.4


def test_more_than_half_of_the_seeds_must_reach_it():
    half = [[0.1, 0.6, 0.6, 0.6], [0.1, 0.2, 0.2, 0.2]]
    assert [one.fate for one in run_few([half, [[0.1] * 4] * 2])[1]] == ["never", "never"]
    found = run_few([[half[0], half[0], [0.1] * 4], [[0.1] * 4] * 3])[1]
    assert (found[0].fate, found[0].time_s, found[0].times_s.ravel().tolist()) == ("reached", 20, [20, 20, NEVER])


def test_an_early_seed_of_two_makes_up_for_a_late_one():
    # At 10 and 30 s: 20 s in the median, before the 22 s of the other one, which needs not be learned then.
    early, late = [0.6, 0.6, 0.6, 0.6], [0.1, 0.1, 0.6, 0.6]
    _, found = run_few([[early, early], [early, late]], clocks=(2.2, 1.0), at_once=2)
    assert [(one.fate, one.time_s) for one in found] == [("beaten", NEVER), ("reached", 20)]


def test_a_budget_stops_all_at_the_same_moment_and_nobody_has_won():
    iterations = np.arange(1, 101)
    curves = [{n: n / 200 for n in iterations.tolist()}, {n: n / 100 for n in iterations.tolist()}]
    entrants = [Entrant(iterations, clock * iterations[None, None, :]) for clock in (1.0, 2.0)]
    race = Race(entrants, 0.9, lambda requests: [curves[r.entrant] for r in requests], budget=0.2)
    found = race.run()
    assert [one.fate for one in found] == ["open", "open"]
    assert 0.15 < race.share <= 0.2
    # Of 200 iterations 40: both by the clock, one with twice the other's steps.
    assert found[0].until[0] == pytest.approx(2 * found[1].until[0], abs=2)
    assert all(one.at_least_s >= race.now_s for one in found)
    assert race.now_s == pytest.approx(26, abs=3)


def test_a_schedule_that_diverges_with_any_seed_before_its_target_is_out_of_the_race():
    good, bad = [0.1, 0.2, 0.6, 0.6], [0.1, math.nan, 0.6, 0.6]
    _, found = run_few([[good, good, bad], [good, good, good]], clocks=(1.0, 2.0))
    assert [(one.fate, one.time_s, one.racer.num_diverged) for one in found] == [
        ("diverged", NEVER, 1),
        ("reached", 60, 0),
    ]
    # After its target it may.
    assert run_few([[[0.1, 0.6, math.nan, math.nan]]], clocks=(1.0,))[1][0].time_s == 20


# --- chances -----------------------------------------------------------------------------------------


def racer(*curves, clock=1.0, target=1.0):
    """Return a racer whose seeds have learned these figures, evaluated every `clock` seconds."""
    iterations = np.arange(1, 101)
    found = Racer(Entrant(iterations, np.tile(clock * iterations, (len(curves), 1, 1))), target)
    num = len(curves[0])
    found.take({s: dict(zip(range(1, num + 1), curve, strict=True)) for s, curve in enumerate(curves)}, num)
    return found


def test_ahead_when_it_arrives_looks_as_far_back_as_ahead():
    # At 40 s it has 0.8 and lacks 0.2; it had 0.6 at 30 s, so it is expected there at 40 * 40 / 30 s.
    n = np.arange(1, 41) / 50
    first = racer(n, n, n)
    behind = racer(n / 2, n / 2 + 0.01, n / 2 - 0.01)
    chance, when_s = ahead_when_it_arrives(first, behind, 40.0)
    assert when_s == pytest.approx(1600 / 30)
    assert 0.99 < chance < 1
    # One that catches up is expected to be ahead by then: 0.5 behind at 30 s, 0.1 at 40 s.
    catching = np.where(np.arange(1, 41) <= 30, 0.1, np.arange(1, 41) / 50 - 0.1)
    chance, _ = ahead_when_it_arrives(first, racer(catching, catching - 0.01, catching + 0.01), 40.0)
    assert chance < 0.5
    assert ahead_now(first, racer(catching, catching - 0.01, catching + 0.01), 40.0) == chance


def test_nothing_is_told_by_one_seed_or_without_history():
    n = np.arange(1, 41) / 50
    assert ahead_when_it_arrives(racer(n), racer(n / 2), 40.0) is None
    early = np.arange(1, 11) / 50  # 0.2: nothing was ever 0.8 below
    assert ahead_when_it_arrives(racer(early, early), racer(early / 2, early / 2), 10.0) is None
    # At present it is ahead for certain.
    assert ahead_now(racer(early, early), racer(early / 2, early / 2), 10.0) == 1


def test_the_lag_of_those_that_arrived_is_the_ratio_of_their_times():
    n = np.arange(1, 41) / 20  # 1.0 at 20 s
    winner = racer(n, n, n)
    lag = lag_behind(winner, racer(n, n, n, clock=1.2))
    assert lag.share == pytest.approx(0.2)
    assert lag.told_apart
    # Ratios 1.0, 1.1, 1.21: mean log(1.1), t = 1.73 of 2.92.
    times = np.stack([np.arange(1, 101) * each for each in (1.0, 1.1, 1.21)])[:, None, :]
    other = Racer(Entrant(np.arange(1, 101), times), 1.0)
    other.take({s: dict(zip(range(1, 41), n, strict=True)) for s in range(3)}, 40)
    lag = lag_behind(winner, other)
    assert lag.share == pytest.approx(0.1)
    assert not lag.told_apart
    assert lag.num_seeds == 5


def test_the_lag_of_one_that_stalled_is_not_its_early_one():
    n = np.arange(1, 41) / 20
    stalled = racer(*[np.minimum(n[:19], 0.25 + s / 1000) for s in range(3)])
    # The winner was beyond 0.25 after 6 s, the other one not before its next evaluation at 20 s.
    assert lag_behind(racer(n, n, n), stalled).share == pytest.approx(20 / 6 - 1)


def test_who_is_dropped_returns_when_the_leader_does_not_arrive():
    iterations = np.arange(1, 1001)
    # The leader stalls at 0.7 of 0.8; the other one is far behind, and arrives at last.
    stalls = {n: min(0.7, n / 100) for n in iterations.tolist()}
    late = {n: max(0.1, min(0.9, (n - 100) / 200)) for n in iterations.tolist()}
    entrants = [Entrant(iterations, np.tile(1.0 * iterations, (3, 1, 1))) for _ in range(2)]
    dropped = []

    def judge(first, other, now_s):
        told = ahead_when_it_arrives(first, other, now_s)
        dropped.append(told is not None and told[0] >= 0.95)
        return told

    race = Race(
        entrants, 0.8, lambda requests: [(stalls, late)[r.entrant] for r in requests], confidence=0.95, judge=judge
    )
    found = race.run()
    assert any(dropped)
    assert [(one.fate, one.time_s) for one in found] == [("beaten", NEVER), ("reached", 260)]


def test_confidence_saves_and_says_what_it_left_out():
    iterations = np.arange(1, 401)
    noise = stream(3, "noise").normal(0, 0.01, (10, 4, 400))
    curves = 1 - np.exp(-iterations / (40 + 20 * np.arange(10)[:, None, None])) + noise
    entrants = [Entrant(iterations, np.tile(1.0 * iterations, (4, 1, 1))) for _ in range(10)]

    def run(**more):
        learn = [[dict(zip(iterations.tolist(), seed, strict=True)) for seed in one] for one in curves]
        race = Race(entrants, 0.9, lambda requests: [learn[r.entrant][r.seed] for r in requests], at_once=2, **more)
        return race, race.run()

    whole, exact = run()
    race, found = run(confidence=0.95, judge=ahead_when_it_arrives)
    assert (found[0].fate, found[0].time_s) == (exact[0].fate, exact[0].time_s) == ("reached", exact[0].time_s)
    left = [one for one in found if one.fate == "dropped"]
    assert left
    saved = sum(one.cost for one in left) / race.total
    assert race.share < whole.share <= race.share + saved + 1e-9
