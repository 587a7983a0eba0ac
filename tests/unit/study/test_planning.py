"""Planning: the answer in words and frames, what is asked of the library, and one small plan with real learning."""

import json
import math

import pytest
import yaml

import hsgd_emu
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.metrics import Metrics
from hsgd_emu.study.planning import plan as planning
from hsgd_emu.study.planning.plan import plan_schedule
from hsgd_emu.study.planning.result import as_yaml
from hsgd_emu.study.training.library import Learned
from hsgd_emu.study.training.wanted import Resources

RUN = """
name: small
topology: {topology}
profiles: {{far: {{rtt_s: {far}}}, near: {{rtt_s: 0.002}}}}
compute: {{step_s: 0.001}}
data: {{partition: by_label}}
model: softmax_regression
train: {{batch_size: full, learning_rate: 0.1, iterations: 80}}
cases:
  - {{name: "often", period: 2}}
  - {{name: "mine", periods: [20, 10]}}
seeds: {seeds}
"""
PERIODS = [[1, 2, 4, 10, 20]]


def write(tmp_path, seeds=(1, 2, 3), far="0.2", topology="paper", more=""):
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(seeds=list(seeds), far=far, topology=topology) + more)
    return path


@pytest.fixture
def asked(monkeypatch):
    """Learn by formula instead of by training: the rarer the averages, the slower. Returns what was asked for."""
    asked = []

    def learn(one):
        run = json.loads(one.run_yaml)
        numbers = [p for p in run["cases"][0]["periods"].values() if p != "none"]
        slower = 1 + max(numbers) / 20 + min(numbers) / 5 + 0.3 * (run["data"].get("grouping") == "random")
        figures = {
            n: Metrics(
                test_loss=2 * math.exp(-n / 20 / slower), test_accuracy=0.9 - math.exp(-(n + one.seed) / 20 / slower)
            )
            for n in range(numbers[0], one.until + 1, numbers[0])
        }
        return Learned(one.until, one.until == one.iterations, figures, 1000, None, 0.1)

    def train(wanted, *_):
        asked.extend(wanted)
        return {one.key: learn(one) for one in wanted}

    monkeypatch.setattr(planning, "train", train)
    monkeypatch.setattr(planning, "resources", lambda *_: Resources("cpu", "cpu", "fp32"))
    return asked


def plan(path, level=0.6, metric="test_accuracy", **more):
    return plan_schedule(path, (metric, level), **({"periods": PERIODS} | more))


def text_of(result):
    return "\n".join(result.lines())


def test_the_answer_in_words(tmp_path, asked):
    result = plan(write(tmp_path))
    text = text_of(result)
    frame = result.frame()
    assert result.exact
    assert frame.case[0] == result.best.name
    assert frame.time_s[0] == frame.time_s.min()
    assert f"To 60% test accuracy, {result.best.name} is the first: {frame.time_s[0]:#.3g} s" in text
    assert "median of 3 seeds" in text
    assert "The best of local SGD: P=" in text or "often" in text
    assert "The run's own cases: " in text
    assert "mine" in text
    assert "often" in text
    assert "Not tried: periods other than 1, 2, 4, 10, 20; servers of one level" in text
    assert frame.fate.isin(["reached", "beaten", "never"]).all()
    # What is pasted into a run file is what was found.
    periods = list(result.best.schedule.stages[0].period.values())
    assert f'{{name: "{result.best.name}", periods: [{periods[0]}, {periods[1]}]}}' in text


def test_the_answer_for_programs(tmp_path, asked):
    result = plan(write(tmp_path))
    told = json.loads(json.dumps(result.as_json()))
    assert list(told) == ["target", "best", "ranking", "learned_share", "exact"]
    assert (told["target"], told["exact"], told["learned_share"]) == ("test_accuracy=0.6", True, result.training.used)
    best, (first, *rest) = told["best"], told["ranking"]
    assert list(best) == ["name", "case", "median_s", "low_s", "high_s"]
    assert best["low_s"] <= best["median_s"] <= best["high_s"]
    assert (best["name"], best["median_s"]) == (first["name"], first["median_s"])
    assert best["case"]["periods"] == list(result.best.schedule.stages[0].period.values())[:2]
    assert len(told["ranking"]) == len(result.candidates)
    assert first["reached"] >= 2
    assert first["of"] == 3
    assert first["lead_at_stop"] > 0
    assert all(one["lead_at_stop"] is None or one["lead_at_stop"] < 0 for one in rest if one["median_s"] is None)


def test_only_part_is_learned_and_never_twice(tmp_path, asked):
    result = plan(write(tmp_path))
    learned = {}
    for one in asked:
        assert one.until > learned.get(one.key, 0)
        learned[one.key] = one.until
    total = len(result.candidates) * 3 * 80
    assert sum(learned.values()) < 0.6 * total
    assert result.training.learned == sum(learned.values())
    assert result.training.used == pytest.approx(sum(learned.values()) / total)


def test_a_loss_is_reached_from_above(tmp_path, asked):
    result = plan(write(tmp_path), 1.0, "test_loss")
    assert "To test loss 1, " in text_of(result)
    assert result.figure(result.findings[result.ranking[0]]) == 1.0
    assert result.as_json()["target"] == "test_loss=1"


def test_those_that_cannot_be_told_from_the_winner_are_named_with_it(tmp_path, asked):
    # The oracle's curves differ little and by seed alike; three seeds tell most of them, and who is close is named.
    lines = plan(write(tmp_path)).lines()
    assert any(line.startswith(("Within ", "3 seeds tell it")) for line in lines)


def test_a_target_that_none_reaches(tmp_path, asked):
    result = plan(write(tmp_path), 0.95)
    text = text_of(result)
    assert result.best is None
    assert text.startswith("No schedule reached 95% test accuracy with more than half of its seeds.")
    assert "got furthest: " in text
    assert ", after " in text
    assert "Try a nearer --target, or more --set train.iterations." in text
    assert result.frame().time_s.isna().all()


def test_a_level_that_only_some_seeds_reach(tmp_path, asked):
    # 0.9 - exp(-(80 + seed) / 20 / slower), with slower = 1.3 for P=2: only seed 40 gets to 0.885.
    result = plan(write(tmp_path, seeds=(1, 2, 40)), 0.88)
    text = text_of(result)
    assert result.best is None
    assert result.as_json()["best"] is None
    assert "reached it 1 of 3 times, first after " in text


def test_a_budget_stops_the_race_and_nobody_is_the_best(tmp_path, asked):
    result = plan(write(tmp_path), budget=0.3)
    text = text_of(result)
    assert f"The budget was spent {result.moment} of emulated time" in text
    name = result.candidates[result.leader].name
    assert f"{name} led with " in text
    assert "The chance that another is better: about " in text
    assert "A larger --budget goes on from here." in text
    assert result.training.used <= 0.3
    told = result.as_json()
    assert (told["best"], told["exact"]) == (None, False)
    assert told["ranking"][0]["name"] == name
    assert "How likely another is better cannot be told: one seed" in text_of(plan(write(tmp_path, [1]), budget=0.1))


def test_what_confidence_dropped_is_said(tmp_path, asked):
    result = plan(write(tmp_path, range(1, 7)), 0.7, confidence=0.9)
    exact = plan(write(tmp_path, range(1, 7)), 0.7)
    assert exact.exact
    assert not result.exact
    # 20 iterations between evaluations: the next best is behind by less than that.
    assert result.as_json()["best"]["median_s"] < 1.3 * exact.as_json()["best"]["median_s"]
    assert result.training.used < exact.training.used
    assert "Dropped as beaten with 90% probability each, not for certain: " in text_of(result)
    assert "of all training more." in text_of(result)


def test_one_seed_says_so(tmp_path, asked):
    text = text_of(plan(write(tmp_path, seeds=[4])))
    assert "(one seed)" in text
    assert "1 seed: small differences may be chance" in text


def test_a_random_network_is_drawn_several_times(tmp_path, asked):
    far = "{distribution: lognormal, median: 0.2, sigma: 0.5}"
    result = plan(write(tmp_path, far=far), replications=4)
    best = result.findings[result.ranking[0]]
    assert best.times_s.shape == (3, 4)
    assert len(set(best.times_s[0])) == 4, "replications differ"
    assert "median of 3 seeds x 4 draws of the network" in text_of(result)
    # Constant costs have nothing to draw.
    assert plan(write(tmp_path), replications=4).num_replications == 1


def test_groupings_and_topologies_are_chosen_from_too(tmp_path, asked):
    flat = tmp_path / "flat.yaml"
    flat.write_text("levels: [{name: worker, count: 10, uplink: far}]")
    result = plan(write(tmp_path), groupings=["contiguous", "random"], topologies=[str(flat)])
    labels = list(dict.fromkeys(one.variant.label for one in result.candidates))
    assert labels == ["", "grouping random", f"topology {flat}", f"topology {flat}, grouping random"]
    assert "--grouping" not in text_of(result)
    there = [one for one in result.candidates if one.variant.label == labels[2]]
    assert all(one.is_local_sgd and not one.is_own for one in there)
    assert [one.name for one in there] == [f"P={p}, topology {flat}" for p in PERIODS[0]]


def test_settings_are_chosen_from_too_and_stand_in_the_case_that_is_pasted(tmp_path, asked):
    path = write(tmp_path, (1,))
    result = plan(path, tries=["servers.root={optimizer: momentum, momentum: 0.5}", "train.learning_rate=0.3"])
    frame = result.frame()
    assert set(frame.variant) == {
        "",
        "train.learning_rate=0.3",
        "servers.root={optimizer: momentum, momentum: 0.5}",
        "servers.root={optimizer: momentum, momentum: 0.5}, train.learning_rate=0.3",
    }
    assert set(frame[frame.own].variant) == {""}
    text = text_of(result)
    assert "other settings than these" in text
    best = next(c for c in result.candidates if c.variant.settings.keys() == {"train", "servers"})
    pasted = yaml.safe_load(as_yaml(best))
    assert (pasted["train"], pasted["servers"]["root"]["momentum"]) == ({"learning_rate": 0.3}, 0.5)
    sets = [f"cases=[{as_yaml(best)}]"]
    assert load_experiment(path, sets).cases[0].train.learning_rate == 0.3


def test_one_group_and_sparse_evaluation_and_participation(tmp_path, asked):
    topology = "{levels: [{name: hub, count: 1, uplink: far}, {name: worker, count: 4, uplink: near}]}"
    more = "evaluation: {every_iterations: 8}\n"
    path = write(tmp_path, topology=topology, more=more)
    result = plan(path, sets=["train.participation=0.5"])
    assert result.best is not None
    # Evaluated at the first global aggregation at or after each multiple of 8.
    assert {one.until for one in asked if '"root": 1,' in one.run_yaml} <= set(range(8, 81, 8))


def test_what_is_in_the_library_counts_as_if_it_were_learned(tmp_path, asked, monkeypatch):
    path = write(tmp_path)
    first = plan(path)
    whole = Learned(80, True, {}, 1000, None, 0.1)
    monkeypatch.setattr(planning.Library, "progress_of", lambda *_: whole)
    again = plan(path)
    assert again.lines()[:-2] == first.lines()[:-2]
    assert again.training.used == first.training.used
    assert (again.training.learned, again.training.found) == (0, first.training.learned)
    assert "100% of it was in the library" in text_of(again)


@pytest.mark.parametrize(
    ("target", "more", "said"),
    [
        (("test_acuracy", 0.5), {}, "did you mean 'test_accuracy'"),
        (("test_accuracy", 50), {}, "found 50 for test_accuracy; expected a share"),
        (("test_loss", math.inf), {}, "expected 0 or more"),
        (("test_accuracy", 0.5), {"budget": 0.0}, "--budget"),
        (("test_accuracy", 0.5), {"confidence": 0.4}, "--confidence"),
        (("test_accuracy", 0.5), {"replications": 0}, "--replications"),
        (("test_accuracy", 0.5), {"topologies": ["papre"]}, "did you mean"),
        (("test_accuracy", 0.5), {"groupings": ["rndom"]}, "data.grouping"),
    ],
)
def test_mistakes_are_told(tmp_path, asked, target, more, said):
    with pytest.raises(ConfigError, match=said):
        plan_schedule(write(tmp_path), target, **more)
    assert not asked


def test_a_plan_that_was_killed_learns_nothing_twice(tmp_path, monkeypatch):
    path, real, calls = write(tmp_path, seeds=[1, 2]), planning.train, []

    def killed(wanted, *others):
        calls.append(wanted)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(wanted, *others)

    settings = {"periods": [[2, 10]], "library": tmp_path / "library", "jobs": 1}
    monkeypatch.setattr(planning, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        plan_schedule(path, ("test_accuracy", 0.8), **settings)
    learned = {one.key: one.until for one in calls[0]}
    result = plan_schedule(path, ("test_accuracy", 0.8), **settings)
    assert result.best is not None
    assert result.training.found == sum(learned.values()) > 0
    assert result.training.found + result.training.learned == sum(sum(one.until) for one in result.findings)


def test_a_plan_with_real_learning_gives_the_time_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a run puts what it learns into the library below
    path = write(tmp_path, seeds=[1])
    settings = {"periods": [[2, 10]], "library": tmp_path / "library", "jobs": 1}
    result = plan_schedule(path, ("test_accuracy", 0.6), **settings)
    best, found = result.best, result.findings[result.ranking[0]]
    assert best is not None
    again = plan_schedule(path, ("test_accuracy", 0.6), **settings)
    assert again.training.learned == 0
    assert again.lines()[:-2] == result.lines()[:-2]
    case = best.case.model_dump(exclude_none=True)
    sets = [f"cases=[{json.dumps(case)}]", "targets={test_accuracy: [0.6]}"]
    run = hsgd_emu.run(path, tmp_path / "run", sets=sets, threads=1)
    assert run.targets.time_s[0] == pytest.approx(found.time_s, abs=1e-9)
