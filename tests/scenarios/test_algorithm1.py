"""Whole runs against Algorithm 1 of Wang et al. 2022, written out in NumPy.

`batch_size: full`, `softmax_regression` (starts at zero) and `by_label` leave nothing random, so every figure of a
run's curve follows from the paper and the data alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.learning.data import partition
from hsgd_emu.rng import stream
from hsgd_emu.run import run

RATE, ITERATIONS, NUM_CLASSES = 0.5, 24, 10

_digits = sklearn.datasets.load_digits()
TRAIN_X, TEST_X = _digits.data[:1437] / 16, _digits.data[1437:] / 16
TRAIN_Y, TEST_Y = _digits.target[:1437], _digits.target[1437:]


def by_label(num_workers: int) -> list[np.ndarray]:
    """Return equal shards of the samples sorted stably by label."""
    return list(np.argsort(TRAIN_Y, kind="stable")[: 1437 // num_workers * num_workers].reshape(num_workers, -1))


# --- Algorithm 1 -----------------------------------------------------------------------------------------


def loss_and_gradient(w, x, y):
    """Return the mean cross-entropy of softmax(x W + b), its gradient, and the accuracy; w is (65, 10)."""
    inputs = np.hstack([x, np.ones((len(x), 1))])
    logits = inputs @ w
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    error = np.exp(log_p)
    error[np.arange(len(y)), y] -= 1
    loss = -log_p[np.arange(len(y)), y].mean()
    return loss, inputs.T @ error / len(y), (logits.argmax(1) == y).mean()


def algorithm1(
    shards: Sequence[np.ndarray],
    servers: Mapping[str, tuple[int, Sequence[int | str], Sequence[float]]],
    evaluate_every: int = 1,
    present: Mapping[tuple[str, int], Sequence[int]] | None = None,
) -> list[tuple[int, float, float, float]]:
    """Return (iteration, train_loss, test_loss, test_accuracy) of every row.

    servers: from the root down, each with its period, its children (worker numbers or servers) and their weights;
    present: by (server, iteration before a local period) the workers that take part in it.
    """
    model = {name: np.zeros((65, NUM_CLASSES)) for name in [*range(len(shards)), *servers]}
    rows, losses, begin = [], [], {}
    for t in range(ITERATIONS):
        begin |= {name: t for name, (period, _, _) in servers.items() if t % period == 0}
        away = set()
        for name, (_, children, _) in servers.items():
            if present is not None and (name, begin[name]) in present:
                away |= {c for c in children if not isinstance(c, str)} - set(present[name, begin[name]])
        for worker, shard in enumerate(shards):
            if worker not in away:
                loss, gradient, _ = loss_and_gradient(model[worker], TRAIN_X[shard], TRAIN_Y[shard])
                model[worker] = model[worker] - RATE * gradient
                losses.append(loss)
        due = [name for name, (period, _, _) in servers.items() if (t + 1) % period == 0]
        for name in reversed(due):
            _, children, weights = servers[name]
            pairs = [(c, w) for c, w in zip(children, weights, strict=True) if c not in away]
            model[name] = sum(w * model[c] for c, w in pairs) / sum(w for _, w in pairs)
        if "root" in due:
            last = (t + 1) // evaluate_every > (t + 1 - servers["root"][0]) // evaluate_every
            if last or t + 1 == ITERATIONS:
                test_loss, _, accuracy = loss_and_gradient(model["root"], TEST_X, TEST_Y)
                rows.append((t + 1, float(np.mean(losses)), test_loss, accuracy))
                losses = []
        for name in due:
            for child in servers[name][1]:
                model[child] = model[name]
    return rows


# --- the same by a run ------------------------------------------------------------------------------------

UNEVEN = """
  root:
    children:
      - {name: site, uplink: far, children: [{name: worker, count: 3, uplink: near}]}
      - {name: site, uplink: far, children: [{name: worker, count: 5, uplink: near}]}
      - {name: site, uplink: far, children: [{name: worker, count: 2, uplink: near}]}
"""
THREE_LEVELS = """
  levels:
    - {name: site, count: 2, uplink: far}
    - {name: rack, count: 2, uplink: far}
    - {name: worker, count: 3, uplink: near}
"""
RUN = """
name: exact
topology: {topology}
profiles: {{near: {{rtt_s: {{distribution: gamma, shape: 2.0, scale: 0.1}}}}, far: {{rtt_s: 0.3}}}}
compute: {{step_s: {{distribution: lognormal, median: 0.01, sigma: 1.0}}}}
data: {{dataset: digits, partition: {partition}}}
model: softmax_regression
train: {{batch_size: full, learning_rate: {rate}, iterations: {iterations}, dtype: {dtype}}}
evaluation: {{every_iterations: {evaluate_every}}}
averaging: {{by: {by}}}
cases:
{cases}
"""
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
GROUPS = {"site-0": [0, 1, 2], "site-1": [3, 4, 5, 6, 7], "site-2": [8, 9]}
SIZES = (3, 5, 2)


def curves(tmp_path: Path, topology: str, cases: Sequence[str], dtype="float64", **settings):
    """Run the cases; return by case the figures of its curve, and the results."""
    given = {"partition": "by_label", "evaluate_every": 1, "by": "workers"} | settings
    lines = "\n".join(f"  - {case}" for case in cases)
    text = RUN.format(topology=topology, cases=lines, dtype=dtype, rate=RATE, iterations=ITERATIONS, **given)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    frame = run(path, tmp_path / "out", device="cpu").curve
    columns = ["iteration", "train_loss", "test_loss", "test_accuracy"]
    return {case: rows[columns].to_numpy() for case, rows in frame.groupby("case", sort=False)}


def assert_equal(found, expected, dtype="float64"):
    assert len(expected) > 0
    np.testing.assert_allclose(found, np.array(expected), rtol=TOLERANCE[dtype])


def two_levels(period: int, *periods: int | None):
    """Return the servers of the uneven topology; a site without a period only passes its workers' models through."""
    kept = [(name, workers, p) for (name, workers), p in zip(GROUPS.items(), periods, strict=True)]
    children, weights, sites = [], [], {}
    for name, workers, own in kept:
        if own is None:
            children, weights = children + workers, weights + [1] * len(workers)
        else:
            children, weights = [*children, name], [*weights, len(workers)]
            sites[name] = (own, workers, [1] * len(workers))
    return {"root": (period, children, weights), **sites}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("evaluate_every", [1, 10])
def test_local_sgd_and_hsgd_on_uneven_groups(tmp_path, dtype, evaluate_every):
    cases = {
        '{name: "P=1", period: 1}': two_levels(1, None, None, None),
        '{name: "P=4", period: 4}': two_levels(4, None, None, None),
        '{name: "G=8 I=2", periods: [8, 2]}': two_levels(8, 2, 2, 2),
        '{name: "per group", periods: {root: 8, site-0: 1, site-1: 2, site-2: 8}}': two_levels(8, 1, 2, 8),
        '{name: "through", periods: {root: 8, site-0: none, site-1: 4, site-2: 2}}': two_levels(8, None, 4, 2),
    }
    found = curves(tmp_path, UNEVEN, list(cases), dtype, evaluate_every=evaluate_every)
    for rows, servers in zip(found.values(), cases.values(), strict=True):
        assert_equal(rows, algorithm1(by_label(10), servers, evaluate_every), dtype)
    # The schedules really differ: by label, rarer averages cost accuracy.
    finals = [rows[-1, 2] for rows in found.values()]
    assert len(set(finals)) == len(finals)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_three_levels(tmp_path, dtype):
    racks = {f"rack-{i}": (2, [3 * i, 3 * i + 1, 3 * i + 2], [1] * 3) for i in range(4)}
    sites = {f"site-{i}": (4, [f"rack-{2 * i}", f"rack-{2 * i + 1}"], [1, 1]) for i in range(2)}
    servers = {"root": (12, ["site-0", "site-1"], [1, 1]), **sites, **racks}
    found = curves(tmp_path, THREE_LEVELS, ['{name: "12 4 2", periods: [12, 4, 2]}'], dtype)
    assert_equal(found["12 4 2"], algorithm1(by_label(12), servers), dtype)


def with_site_weights(weights: Sequence[float], worker_weights: Sequence[float]):
    sites = {name: (2, workers, [worker_weights[w] for w in workers]) for name, workers in GROUPS.items()}
    return {"root": (8, list(GROUPS), list(weights)), **sites}


def test_groups_weigh_as_many_workers_as_they_have(tmp_path):
    # The objective (2): f = sum n_i/n f_i. With G = I the global model is the plain average of all workers.
    case = '{name: "a", periods: [8, 2]}'
    found = curves(tmp_path, UNEVEN, [case], by="workers")["a"]
    assert_equal(found, algorithm1(by_label(10), with_site_weights(SIZES, [1] * 10)))


def test_uniform_weights_are_the_papers_algorithm_to_the_letter(tmp_path):
    # Algorithm 1 itself averages the groups with 1/N whatever their sizes.
    found = curves(tmp_path, UNEVEN, ['{name: "a", periods: [8, 2]}'], by="uniform")["a"]
    assert_equal(found, algorithm1(by_label(10), with_site_weights([1, 1, 1], [1] * 10)))
    other = algorithm1(by_label(10), with_site_weights(SIZES, [1] * 10))
    assert abs(found[-1, 2] - other[-1][2]) > 1e-3


def test_workers_and_groups_weigh_their_samples(tmp_path):
    found = curves(tmp_path, UNEVEN, ['{name: "a", periods: [8, 2]}'], by="samples", partition="dirichlet, alpha: 0.5")
    spec = DataSpec(partition="dirichlet", alpha=0.5)
    shards = partition(spec, TRAIN_Y, None, list(GROUPS.values()), seed=1)
    sizes = [len(shard) for shard in shards]
    assert len(set(sizes)) > 5
    groups = [sum(sizes[w] for w in workers) for workers in GROUPS.values()]
    assert_equal(found["a"], algorithm1(shards, with_site_weights(groups, sizes)))


def test_partial_participation(tmp_path):
    # Half of each group (1.5 -> 2, 2.5 -> 2, 1 of 2), drawn anew every two iterations from the group's own stream.
    present = {}
    for (name, workers), num in zip(GROUPS.items(), (2, 2, 1), strict=True):
        rng = stream(1, "participation", name)
        for t in range(0, ITERATIONS, 2):
            drawn = rng.choice(len(workers), num, replace=False)
            present[name, t] = sorted(workers[i] for i in drawn)
    found = curves(tmp_path, UNEVEN, ['{name: "a", periods: [8, 2], participation: 0.5}'])["a"]
    assert_equal(found, algorithm1(by_label(10), with_site_weights(SIZES, [1] * 10), present=present))
