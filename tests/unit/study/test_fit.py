"""Fit: constants are found again from the times they make, exact or rounded, and what is not determined is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from rich.console import Console

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.results.read import read_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import run
from hsgd_emu.study.finished import finished_run, global_times_ns
from hsgd_emu.study.fitting.fit import Model, fit, parse_fixed
from hsgd_emu.study.fitting.result import Fit
from hsgd_emu.study.fitting.table import Measured
from hsgd_emu.study.retime import retime

TWO = """
name: two
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]
  links: [{between: [worker, root], profile: far}]
profiles: {near: {rtt_s: {distribution: lognormal, median: 0.05, sigma: 0.3}}, far: {rtt_s: 0.1}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 100, learning_rate: 0.1}
cases:
  - {name: "P=5",  period: 5}
  - {name: "P=20", period: 20}
  - {name: "G=20, I=5", periods: [20, 5]}
  - {name: "G=20, I=10", periods: [20, 10]}
targets: {test_loss: [2.2, 0.001]}
seeds: [1, 2, 3]
"""
THREE = """
name: three
topology:
  root: {aggregation_s: {distribution: uniform, low: 0, high: 0.02}}
  levels: [{name: region, count: 2, uplink: wan}, {name: site, count: 2, uplink: metro},
           {name: w, count: 2, uplink: lan}]
profiles: {wan: {rtt_s: 1}, metro: {up_s: 0.3, down_s: 0.1}, lan: {rtt_s: 0.2}}
compute: {step_s: 0.1}
model: {name: mlp, hidden: [8]}
train: {iterations: 200}
cases:
  - {name: all, period: 10}
  - {name: "40,20,10", periods: [40, 20, 10]}
  - {name: "40,none,5", periods: [40, none, 5]}
  - {name: "40,20,20", periods: [40, 20, 20]}
  - {name: uneven, periods: {root: 40, region: 20, site: 10, site-0: 5}}
"""
C, NEAR, FAR = 0.004, 0.0186, 0.2286


def seconds(case: str, iterations: int) -> float:
    """The time on the two-level network: P pays far and steps a round; H also G/I exchanges with its site."""
    if case.startswith("P"):
        return iterations * C + iterations / int(case[2:]) * FAR
    return iterations * C + iterations / 20 * FAR + iterations / int(case.rpartition("=")[2]) * NEAR


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    for name, text in (("two", TWO), ("three", THREE)):
        (folder / f"{name}.yaml").write_text(text)
    run(folder / "two.yaml", folder / "two", threads=1, device="cpu")
    run(folder / "three.yaml", folder / "three", timing_only=True)
    return folder


def write(path: Path, rows: list[tuple[object, ...]], header: str = "case,time_s,iterations") -> Path:
    path.write_text("\n".join([header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]) + "\n")
    return path


def values(found: Fit) -> dict[str, float]:
    return {value.name: value.value_s for value in found.values}


CASES = [("P=5", 400), ("P=20", 2000), ("G=20, I=5", 600), ("G=20, I=10", 1000)]


@pytest.mark.parametrize("digits", [9, 1])
def test_two_levels_from_exact_and_from_rounded_totals(place: Path, tmp_path: Path, digits: int) -> None:
    table = write(tmp_path / "t.csv", [(case, round(seconds(case, num), digits), num) for case, num in CASES])
    found = fit(place / "two", table)
    # The model may say 2% at most; of times like 20.0 s with one decimal that is what is left.
    assert values(found) == pytest.approx({"far": FAR, "near": NEAR, "compute": C}, rel=1e-6 if digits == 9 else 0.02)
    assert found.freedom == 1
    assert max(abs(row.off) for row in found.rows) < (1e-8 if digits == 9 else 0.003)
    for value, truth in zip(found.values, (FAR, NEAR, C), strict=True):
        assert value.determined
        assert value.low_s is not None
        assert value.high_s is not None
        assert value.low_s <= truth * (1 + 1e-6)
        assert truth * (1 - 1e-6) <= value.high_s


def test_three_levels_from_their_own_emulated_totals(place: Path, tmp_path: Path) -> None:
    truth = {"wan": 0.4, "metro": 0.05, "lan": 0.004, "compute": 0.003}
    sets = ("profiles.wan.rtt_s=0.4", "profiles.metro={up_s: 0.0375, down_s: 0.0125}", "profiles.lan.rtt_s=0.004")
    sets += ("topology.root.aggregation_s=0.01",)
    run(place / "three.yaml", tmp_path / "true", timing_only=True, sets=(*sets, "compute.step_s=0.003"))
    curve = read_run(tmp_path / "true").curve
    last = curve[curve.iteration == 200]
    for digits in (9, 2):
        table = write(tmp_path / "t.csv", [(r.case, round(r.time_s, digits), 200) for r in last.itertuples()])
        found = fit(place / "three", table)
        assert values(found) == pytest.approx(truth, rel=1e-5 if digits == 9 else 0.02)
    # 3:1 as in the run; root's aggregations, 10 ms expected, are no unknown.
    assert yaml.safe_load(found.snippet())["profiles"]["metro"]["up_share"] == 0.75


def test_a_guess_that_would_take_another_way_does_not_mislead(place: Path, tmp_path: Path) -> None:
    # With near at 85 s even a site's own workers go by way of the root, so that no route uses near.
    guess = retime(place / "two", tmp_path / "guess", ["profiles.near.rtt_s=85"])
    table = write(tmp_path / "t.csv", [(case, seconds(case, num), num) for case, num in CASES])
    assert values(fit(guess, table)) == pytest.approx({"far": FAR, "near": NEAR, "compute": C}, rel=1e-5)


def test_times_to_targets_are_taken_where_the_run_reached_them(place: Path, tmp_path: Path) -> None:
    targets = read_run(place / "two").targets
    assert set(targets[targets.target == 2.2].dropna().case) == {case for case, _ in CASES}
    rows: list[tuple[object, ...]] = []
    for case, _ in CASES:
        reached = sorted(targets[(targets.case == case) & (targets.target == 2.2)].iteration)
        rows.append((case, seconds(case, int(reached[1])), "test_loss", 2.2, ""))
    first = targets[(targets.case == "P=5") & (targets.target == 2.2) & (targets.seed == 1)].iteration.item()
    rows.append(("P=5", seconds("P=5", int(first)), "test_loss", 2.2, 1))
    found = fit(place / "two", write(tmp_path / "t.csv", rows, "case,time_s,metric,target,seed"))
    assert values(found) == pytest.approx({"far": FAR, "near": NEAR, "compute": C}, rel=1e-5)
    assert found.rows[-1].measured.reached == {1: first}
    assert list(found.rows[0].measured.reached) == [1, 2, 3]


def published(place: Path, folder: Path, rows: list[dict[str, object]]) -> Path:
    """The run with published times put in; re-timing keeps what was learned."""
    text = f"published={yaml.safe_dump({'source': 'Them, Table 2', 'times': rows}, default_flow_style=True)}"
    return retime(place / "two", folder, [text.strip()])


def test_without_a_table_the_published_times_are_fitted(place: Path, tmp_path: Path) -> None:
    targets = read_run(place / "two").targets
    rows: list[dict[str, object]] = []
    for case, _ in CASES:
        at = sorted(targets[(targets.case == case) & (targets.target == 2.2)].iteration)[1]
        rows.append({"case": case, "metric": "test_loss", "target": 2.2, "time_s": seconds(case, int(at))})
    # One that was never reached, and one that needs no target.
    rows.append({"case": "P=5", "metric": "test_loss", "target": 0.001, "time_s": 99.0})
    rows.append({"case": "P=5", "iterations": 400, "time_s": seconds("P=5", 400)})
    found = fit(published(place, tmp_path / "run", rows))
    assert values(found) == pytest.approx({"far": FAR, "near": NEAR, "compute": C}, rel=1e-5)
    assert [row.measured.case for row in found.rows] == [*(case for case, _ in CASES), "P=5"]
    lines = found.lines()
    assert lines[0].startswith("5 times in Them, Table 2, 3 unknown constants")
    assert lines[-1] == "Left out: 'P=5' did not reach test loss 0.001 (0 of 3 seeds did)."
    assert "fitted to Them, Table 2" in found.snippet()


def test_without_a_table_and_without_published_times_both_ways_are_told(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no published times; give `--table FILE`.*--set published=FILE --out DIR`"):
        fit(place / "two")
    never: list[dict[str, object]] = [{"case": "P=5", "metric": "test_loss", "target": 0.001, "time_s": 99.0}]
    with pytest.raises(ConfigError, match="no published time can be compared: 'P=5' did not reach"):
        fit(published(place, tmp_path / "never", never))


def test_what_is_not_determined_is_told_with_what_is(place: Path, tmp_path: Path) -> None:
    # Every row pays 5 steps per exchange: T = rounds x (far + 5 x compute).
    table = write(tmp_path / "t.csv", [("P=5", seconds("P=5", num), num) for num in (100, 400)])
    found = fit(place / "two", table)
    assert [value.name for value in found.values if value.determined] == []
    (together,) = found.combinations
    assert together.weights == pytest.approx({"far": 1, "compute": 5})
    assert together.value_s == pytest.approx(FAR + 5 * C)
    text = "\n".join(found.lines())
    assert "Not determined by these times: far, near, compute." in text
    assert "They determine only far + 5 x compute = 0.2486 s." in text
    assert "No time depends on near." in text
    assert found.snippet() == ""
    # Fixing one gives the other.
    found = fit(place / "two", table, {"compute": C})
    assert values(found)["far"] == pytest.approx(FAR, rel=1e-6)
    assert [value.name for value in found.values if value.determined] == ["far"]
    assert "compute: 0.004 s, as given" in found.lines()


def test_as_many_times_as_unknowns(place: Path, tmp_path: Path) -> None:
    found = fit(place / "two", write(tmp_path / "t.csv", [("P=5", 100.0, 500)]), {"compute": C, "near": NEAR})
    # 100 s = 500 x 0.004 + 100 far; half a second of rounding, 1.96 / sqrt(12) s on 98.
    (value,) = found.values
    assert value.value_s == pytest.approx(0.98)
    assert (value.high_s or 0) - value.value_s == pytest.approx(1.96 / 12**0.5 / 100, rel=0.01)
    assert "no more times than unknowns" in "\n".join(found.lines())


def test_intervals_cover_what_made_the_noisy_times(place: Path, tmp_path: Path) -> None:
    # 95% intervals of 12 tables, three constants each: 34 of 36 expected; 28 or fewer has a probability of 0.1%.
    rng = np.random.default_rng(1)
    rows = [(case, seconds(case, num * k), num * k) for case, num in CASES for k in (1, 2)]
    covered = 0
    for _ in range(12):
        noisy = [(case, time_s * np.exp(rng.normal(0, 0.02)), num) for case, time_s, num in rows]
        found = fit(place / "two", write(tmp_path / "t.csv", noisy))
        for value, truth in zip(found.values, (FAR, NEAR, C), strict=True):
            covered += (value.low_s or 0) <= truth <= (value.high_s or 0)
    assert covered > 28


def test_the_model_is_the_clock(place: Path) -> None:
    # The model times two rounds of a steady case and goes on in a straight line; here all rounds are timed.
    finished = finished_run(place / "three")
    names = [schedule.name for schedule in finished.experiment.schedules]
    rows = [Measured(name, 1.0, {1: 40 * number}) for name in names for number in (1, 2, 5)]
    model = Model.of(finished, rows, {})
    by_model = model.times_ns(np.array([[10**9, 4 * 10**8, 2 * 10**8, 10**8]]))[0].reshape(len(names), 3)
    constant = load_experiment(place / "three.yaml", ["topology.root.aggregation_s=0.01"])
    for schedule, times_ns in zip(finished.experiment.schedules, by_model, strict=True):
        whole = global_times_ns(finished, [constant], schedule, [1], 200)[0, 0]
        assert list(times_ns) == [whole[schedule.num_rounds(40 * number) - 1] for number in (1, 2, 5)]


def test_partial_participation_is_timed_as_the_seeds_draw_it(place: Path) -> None:
    finished = finished_run(place / "two")
    everybody = finished.experiment.schedules[2]
    schedule = replace(everybody, stages=tuple(replace(stage, participation=0.5) for stage in everybody.stages))
    experiment = replace(finished.experiment, schedules=(schedule,))
    model = Model.of(replace(finished, experiment=experiment), [Measured(schedule.name, 1.0, {2: 100})], {})
    sets = [f"profiles.far.rtt_s={FAR}", f"profiles.near.rtt_s={NEAR}", f"compute.step_s={C}"]
    constant = replace(load_experiment(place / "two.yaml", sets), schedules=(schedule,))
    exact = global_times_ns(finished, [constant], schedule, [2], 100)[0, 0, -1]
    assert model.times_ns(np.array([[round(value_s * 1e9) for value_s in (FAR, NEAR, C)]]))[0, 0] == exact


def test_the_snippet_pasted_into_the_run_gives_the_times(place: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [(case, seconds(case, num), num) for case, num in CASES])
    found = fit(place / "two", table)
    document = yaml.safe_load(TWO) | yaml.safe_load(found.snippet())
    (tmp_path / "pasted.yaml").write_text(yaml.safe_dump(document))
    load_experiment(tmp_path / "pasted.yaml")
    curve = read_run(run(tmp_path / "pasted.yaml", tmp_path / "out", timing_only=True).folder).curve
    for case, _ in CASES:
        time_s = curve[(curve.case == case) & (curve.iteration == 100)].time_s
        assert list(time_s) == pytest.approx([seconds(case, 100)] * 3, rel=1e-5)


def test_printed(place: Path, tmp_path: Path) -> None:
    found = fit(place / "two", write(tmp_path / "t.csv", [(case, seconds(case, num), num) for case, num in CASES]))
    lines = found.lines()
    assert lines[0] == "4 times in t.csv, 3 unknown constants; a message has 2,440 bytes."
    assert lines[1].startswith("far: RTT 0.2286 s (95%: ")
    assert lines[3].startswith("compute: step 0.004000 s (95%: ")
    with (tmp_path / "out").open("w") as file:
        console = Console(width=200, record=True, file=file)
        console.print(found.result_table())
    assert "+0.00%" in console.export_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["t.csv:1: the first line is to name the columns, at least case and time_s"]),
        ("case;time_s\nP=5;1", ["t.csv:1: the first line is to name the columns, divided by commas, at least case"]),
        ("case,time_s\n", ["t.csv:1: there are no rows"]),
        ("case,times,iterations\nP=5,1,5\n", ["t.csv:1: unknown key 'times'; did you mean 'time_s'?"]),
        ("case,case,time_s\nP=5,P=5,1\n", ["t.csv:1: the column 'case' stands twice"]),
        ("case,iterations\nP=5,5\n", ["t.csv:1: the column 'time_s' is missing"]),
        (
            "case,time_s,iterations\nP=6,1,5\n\nP=20,1,30\nP=5,-1,5\nP=5,1_0,5\nP=5,nan,5\nP=5,2,2.5\n,1,5\nP=5,,5\n",
            [
                "t.csv:2: case: the run has no case 'P=6'; did you mean 'P=5'?",
                "t.csv:4: iterations: 30 is not a multiple of the global period 20; 20 and 40 are",
                "t.csv:5: time_s: found -1; expected a number of seconds above 0",
                "t.csv:6: time_s: found '1_0'; expected a number of seconds",
                "t.csv:7: time_s: found nan; expected a finite number",
                "t.csv:8: iterations: found 2.5; expected a whole number",
                "t.csv:9: case: is missing",
                "t.csv:10: time_s: is missing",
            ],
        ),
        ("case,time_s,iterations\nG=20, I=5,1,20\n", ["t.csv:2: 4 cells for 3 columns; a name with a comma"]),
        (
            "case,time_s,metric,target,seed,iterations\nP=5,1,test_loss,2.2,9,\nP=5,1,test_loss,,,\nP=5,1,,2,,\n"
            "P=5,1,loss,2,,\nP=5,1,test_loss,2,,5\nP=5,1,,,,\nP=20,1,test_loss,0.001,,\n",
            [
                "t.csv:2: seed: the run has no seed 9; it has 1, 2, 3",
                "t.csv:3: target: is missing; it goes with metric",
                "t.csv:4: metric: is missing; it goes with target",
                "t.csv:5: metric: found 'loss'; expected one of test_accuracy, test_loss, training_set_loss",
                "t.csv:6: iterations: stands beside a metric or target",
                "t.csv:7: target: is missing: which target was reached? The run has 2 (test_loss 2.2, test",
                "t.csv:8: target: in the run 'P=20' did not reach test loss 0.001 (0 of 3 seeds did); give iterations",
            ],
        ),
    ],
)
def test_every_mistake_in_a_table_is_told_with_its_line(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(text)
    with pytest.raises(ConfigError) as caught:
        fit(place / "two", "t.csv")
    found = str(caught.value).splitlines()
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


def test_the_same_table_as_yaml(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"case": case, "time_s": seconds(case, num), "iterations": num} for case, num in CASES]
    Path("t.yaml").write_text(yaml.safe_dump(rows))
    as_csv = write(Path("t.csv"), [tuple(row.values()) for row in rows])
    assert values(fit(place / "two", "t.yaml")) == values(fit(place / "two", as_csv))
    Path("t.yaml").write_text("- {case: P=5, time_s: 1, iterations: 5}\n- {case: P=5, time: 1}\n- 3\n")
    with pytest.raises(ConfigError) as caught:
        fit(place / "two", "t.yaml")
    found = str(caught.value).splitlines()
    assert found[0].startswith("t.yaml:2: time: unknown key 'time'; did you mean 'time_s'?")
    assert found[1].startswith("t.yaml:3: found 3; expected a mapping of keys")
    Path("t.yaml").write_text("case: P=5\n")
    with pytest.raises(ConfigError, match=r"t\.yaml:1: found a mapping \(case\); expected a list of rows"):
        fit(place / "two", "t.yaml")
    with pytest.raises(ConfigError, match=r"t\.csvv: no such file; did you mean 't.csv'?"):
        fit(place / "two", "t.csvv")


def test_what_is_fixed_must_be_there(place: Path, tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", [("P=5", 1, 5)])
    for fixed, said in [
        ({"nera": 1.0}, "--fix nera=1: the run has no profile 'nera'; did you mean 'near'?"),
        ({"near": -1.0}, "--fix near=-1: found -1; expected a number of seconds of at least 0"),
        ({"near": 1.0, "far": 1.0, "compute": 0.0}, "nothing is left to fit: every profile is fixed"),
    ]:
        with pytest.raises(ConfigError) as caught:
            fit(place / "two", table, fixed)
        assert said in str(caught.value)
    assert parse_fixed(["a=b=1e-3", "compute = 0"]) == {"a=b": 0.001, "compute": 0}
    for text, said in [("near", "expected NAME=SECONDS"), ("near=x", "found 'x'"), ("near=1_0", "found '1_0'")]:
        with pytest.raises(ConfigError, match=said):
            parse_fixed([text])


def test_runs_that_do_not_know_when_a_target_was_reached(place: Path, tmp_path: Path) -> None:
    by_target = write(tmp_path / "t.csv", [("P=5", 1, "test_loss", 2.2)], "case,time_s,metric,target")
    by_iterations = write(tmp_path / "i.csv", [("P=5", seconds("P=5", 5), 5)])
    run(place / "two.yaml", tmp_path / "silent", timing_only=True)
    part = retime(place / "two", tmp_path / "part")
    with RunStore.open(part) as store:
        store.restart_trial(store.trials[1])
    for folder, said in [
        (tmp_path / "silent", "--timing-only and learned nothing, so when it reaches a target is not known"),
        (part, "not finished: P=5, seed 2"),
    ]:
        with pytest.raises(ConfigError, match=said):
            fit(folder, by_target)
        # Where the table has the iterations, nothing has to have been learned.
        found = fit(folder, by_iterations, {"near": 1.0, "compute": C})
        assert values(found) == pytest.approx({"far": FAR})
    with pytest.raises(ConfigError, match="is no folder"):
        fit(tmp_path / "nowhere", by_iterations)
