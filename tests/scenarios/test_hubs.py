"""Hubs that average with neighbours: times by a recursion of their own, models by algebra, mistakes by text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle.drive import experiment_of, plan_of

from hsgd_emu.check import check_file
from hsgd_emu.engine.emulate import emulate, operations_hash
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.results.read import read_run
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.retime import retime

RUN = """
name: hubs
topology:
  name: t
  root:
    children:
    - {name: a, uplink: far, children: [{name: u, count: 1, uplink: near, compute: slow}]}
    - {name: b, uplink: far, children: [{name: v, count: 2, uplink: near, compute: fast}]}
    - {name: c, uplink: far, children: [{name: w, count: 1, uplink: near, compute: fast}]}
    - {name: d, uplink: far, children: [{name: x, count: 2, uplink: near, compute: slow}]}
  links: [{between: [a, b], profile: ab}, {between: [c, b], profile: bc}, {between: [c, d], profile: cd}]
profiles: {far: {rtt_s: 1}, near: {rtt_s: 0.2}, ab: {up_s: 0.3, down_s: 0.5}, bc: {up_s: 0.01, down_s: 0.02},
           cd: {rtt_s: 2}, slow: {step_s: 0.11}, fast: {step_s: 0.01}}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {iterations: 24, learning_rate: 0.2, dtype: float64}
cases: [{name: line, periods: [4, 2], mixing: {}}, {name: H-SGD, periods: [4, 2]},
        {name: rows, periods: [4, 2], mixing: {graph: complete, weights: ROWS}}]
message_bytes: 1000
""".replace("ROWS", str([[1 / 6, 2 / 6, 1 / 6, 2 / 6]] * 4))
WAY_S = {("a", "b"): 0.3, ("b", "a"): 0.5, ("c", "b"): 0.01, ("b", "c"): 0.02, ("c", "d"): 1.0, ("d", "c"): 1.0}
STEP_S = {"a": 0.11, "b": 0.01, "c": 0.01, "d": 0.11}


def test_times_are_those_of_the_recursion() -> None:
    """ready = max over itself and its neighbours of (when they have their result + the way); 0.1 s down to workers."""
    held, expected = dict.fromkeys(STEP_S, 0.0), []
    for _ in range(6):
        has = {hub: held[hub] + 2 * (2 * STEP_S[hub] + 0.1) + 0.1 for hub in STEP_S}
        ready = {hub: max([has[hub], *(has[k] + way for (k, to), way in WAY_S.items() if to == hub)]) for hub in STEP_S}
        held = {hub: at + 0.1 for hub, at in ready.items()}
        expected.append((max(held.values()), max(ready.values())))
    records: list[RoundRecord] = []
    plan = plan_of(experiment_of(RUN))
    emulate(plan, Operations(), records.append)
    found = [(record.time_ns / 1e9, record.aggregated_ns / 1e9) for record in records]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert all(record.split.time_ns == record.time_ns for record in records)
    assert [record.uploaded_bytes for record in records] == [number * (2 * 6 + 6) * 1000 for number in range(1, 7)]
    assert records[-1].downloaded_bytes == 6 * 2 * 6 * 1000


def test_metropolis_by_hand() -> None:
    """Groups of 1, 2, 1, 2 workers on a line: H[s, k] = min(1/(d_s + 1), b_k/b_s/(d_k + 1))."""
    graph = experiment_of(RUN).schedules[0].graph
    assert graph is not None
    shares = [1 / 6, 2 / 6, 1 / 6, 2 / 6]
    matrix = graph.matrix(shares)
    by_hand = [[1 / 3, 2 / 3, 0, 0], [1 / 3, 0.5, 1 / 6, 0], [0, 1 / 3, 1 / 3, 1 / 3], [0, 0, 1 / 6, 5 / 6]]
    by_hand[0] = [0.5, 0.5, 0, 0]
    by_hand[1] = [0.25, 0.75 - 1 / 6, 1 / 6, 0]
    np.testing.assert_allclose(matrix, by_hand, atol=1e-15)
    np.testing.assert_allclose(np.array(shares) @ matrix, shares, atol=1e-15)
    assert graph.zeta(shares) == pytest.approx(sorted(abs(np.linalg.eigvals(matrix)))[-2])


def test_the_walk_and_the_clock_do_the_same_operations() -> None:
    plan, operations = plan_of(experiment_of(RUN)), Operations()
    emulate(plan, operations, lambda record: None)
    assert operations.digest() == operations_hash(plan)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hubs")
    (folder / "run.yaml").write_text(RUN)
    run(folder / "run.yaml", folder / "out")
    return folder


def run(path: Path, out: Path, sets: Sequence[str] = (), **options: Any) -> None:
    run_experiment(load_experiment(path, sets), out, Options("cpu", engine="usual", threads=1, **options))


def test_zeta_is_told(folder: Path) -> None:
    """The second largest |eigenvalue| of H: by check, and in run.yaml."""
    graph = experiment_of(RUN).schedules[0].graph
    assert graph is not None
    text = f"mixing of 'line': zeta = {graph.zeta([1 / 6, 2 / 6, 1 / 6, 2 / 6]):.6g}"
    assert text in check_file(folder / "run.yaml")
    assert f"# {text}\n" in (folder / "out" / "run.yaml").read_text()


def test_a_matrix_of_the_weights_is_h_sgd(folder: Path) -> None:
    """All rows b, hubs of any size; among equal hubs it is what Metropolis gives on the complete graph."""
    curves = read_run(folder / "out").curve.set_index(["case", "iteration"])
    np.testing.assert_allclose(curves.loc["rows"].test_loss, curves.loc["H-SGD"].test_loss, rtol=1e-12)
    assert not np.allclose(curves.loc["line"].test_loss, curves.loc["H-SGD"].test_loss, rtol=1e-3)
    text = RUN.partition("        {name: rows")[0].rstrip()[:-1].replace("count: 1", "count: 2") + "]"
    equal = experiment_of(text.replace("mixing: {}", "mixing: {graph: complete}")).schedules[0].graph
    assert equal is not None
    np.testing.assert_allclose(equal.matrix([0.25] * 4), np.full((4, 4), 0.25), atol=1e-15)
    assert equal.zeta([0.25] * 4) == pytest.approx(0, abs=1e-12)


def test_retimed_is_fresh(folder: Path, tmp_path: Path) -> None:
    """What is learned does not depend on how far hubs drift apart; the training loss neither."""
    sets = ["profiles.cd.rtt_s=0.1", "profiles.slow.step_s=1"]
    retime(folder / "out", tmp_path / "retimed", sets)
    run(folder / "run.yaml", tmp_path / "fresh", sets)
    retimed, fresh = (read_run(tmp_path / name) for name in ("retimed", "fresh"))
    assert retimed.curve.equals(fresh.curve)
    for name in ("timeline_hash", "weights_hash"):
        assert list(retimed.trials[name]) == list(fresh.trials[name])


def test_resumed_and_ended_early(folder: Path, tmp_path: Path) -> None:
    """Stopped while hubs are apart, a trial goes on to the same bits; with until_targets it ends where it must."""
    out = tmp_path / "out"
    run(folder / "run.yaml", out, stop_at=12)
    run(folder / "run.yaml", out, resume=True)
    whole, resumed = read_run(folder / "out"), read_run(out)
    assert whole.curve.equals(resumed.curve)
    assert list(whole.trials.weights_hash) == list(resumed.trials.weights_hash)
    run(folder / "run.yaml", tmp_path / "until", ["train.until_targets=true", "targets.test_accuracy=[0.4]"])
    ended = read_run(tmp_path / "until").curve.query("case == 'line'")
    same = whole.curve.query("case == 'line'").iloc[: len(ended)]
    assert ended.reset_index(drop=True).equals(same.reset_index(drop=True))
    assert ended.test_accuracy.iloc[-1] >= 0.4 > ended.test_accuracy.iloc[:-1].max()


def test_what_goes_together_does_not_depend_on_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of several workers at once have other last bits than of one: on other links, and with a checkpoint at
    every moment, the same go together."""
    learning = ["model={name: mlp, hidden: [6]}", "train.dtype=float32", "train.batch_size=full"]
    path = tmp_path / "run.yaml"
    path.write_text(RUN.partition("        {name: rows")[0].rstrip()[:-1] + "]")
    never, always = ((lambda self, due=due: due) for due in (False, True))
    curves = {}
    for periods in ("[{first: 1, add: 1}, 1]", "[4, 2]"):
        for name, is_due, sets in [
            ("slow", never, []),
            ("fast", never, ["profiles.cd.rtt_s=0.001", "profiles.slow.step_s=0.01"]),
            ("kept", always, []),
        ]:
            monkeypatch.setattr(Checkpoints, "is_due", is_due)
            out = tmp_path / f"{name}{periods}"
            changes = [*learning, *sets, f"cases.0.periods={periods}", "data.partition=iid"]
            for stop_at in (3, 9, None) if name == "kept" else (None,):
                run(path, out, changes, stop_at=stop_at, resume=True)
            found = read_run(out)
            curves[name] = found.curve[["case", "iteration", "train_loss", "test_loss"]], [*found.trials.weights_hash]
        for name in ("fast", "kept"):
            assert curves[name][0].equals(curves["slow"][0])
            assert curves[name][1] == curves["slow"][1]


@pytest.mark.parametrize(
    ("mixing", "told"),
    [
        (
            "{graph: [[a, b], [c, d]]}",
            "cases.0.mixing.graph: no way leads from a, b to c, d; the graph must be connected",
        ),
        ("{graph: [[a, root]]}", "'root' is none of the servers below the global one; hubs are a, b, c, d"),
        ("{graph: [[a, a]]}", "'a' is paired with itself"),
        ("{weights: [[1, 0], [0, 1]]}", "found 2 rows of 2 numbers; 4 hubs need 4 rows of 4"),
        ("{weights: [[0.9, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}", "the row of 'a' sums to 0.9"),
        (
            "{weights: [[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}",
            "takes 0.5 of 'c', which is no neighbour",
        ),
        ("{weights: [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}", "the mean of all would drift"),
        ("{graph: star}", "mixing.graph"),
    ],
)
def test_mistakes_are_told_where_they_stand(mixing: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        experiment_of(RUN.replace("mixing: {}", f"mixing: {mixing}"))
    assert told in str(error.value)


def test_the_global_server_has_nothing_to_compress() -> None:
    down = "{graph: ring}, compression: {root: {method: top_k, fraction: 0.1, direction: down}}"
    with pytest.raises(ConfigError, match=r"cases\.0\.compression\.root: 'root' sends nothing down"):
        experiment_of(RUN.replace("mixing: {}", f"mixing: {down}"))


def test_a_tree_of_one_level_has_no_hubs() -> None:
    with pytest.raises(ConfigError, match=r"cases\.0\.mixing: needs two servers or more right below the global one"):
        experiment_of(RUN.replace("periods: [4, 2], mixing: {}", "period: 4, mixing: {}"))
