"""One learning, one key: what decides the bits is in it, what does not is not; a trial of the library is the run's."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.metrics import METRICS, Metrics
from hsgd_emu.results.read import read_run
from hsgd_emu.run import run
from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.wanted import Resources, Wanted, resources, wanted
from hsgd_emu.trials import Progress

RUN = """
name: two
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near, compute: phone}]}
profiles:
  near: {rtt_s: {distribution: lognormal, median: 0.02, sigma: 0.3}}
  far: {latency_s: {distribution: gamma, shape: 2, scale: 0.05}, bandwidth_bps: {up: 1e6, down: 4e6}, model: raw}
  phone: {step_s: {distribution: normal, mean: 0.004, std: 0.002}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 24, participation: 0.7, momentum: 0.5}
cases:
  - {name: local, period: 4}
  - {name: even, periods: [12, 4]}
  - {name: own I, periods: {root: 12, site-0: 2, site-1: 6}}
averaging: {by: samples}
evaluation: {every_iterations: 10}
targets: {test_accuracy: [0.1]}
seeds: [1, 2]
"""
CPU = Resources("cpu", "cpu", "fp32")


class Counting(Progress):
    rounds = 0

    def round(self, key, record):
        self.rounds += 1


@pytest.fixture(autouse=True)
def look_anew():
    resources("cpu")


def key(folder: Path, *sets: str, text: str = RUN, case: str = "even", seed: int = 1, by: Resources = CPU) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(text)
    return wanted(load_experiment(folder / "run.yaml", sets), case, seed, by).key


def test_a_key_does_not_change_with_what_is_not_learned(tmp_path):
    first = key(tmp_path / "a")
    other_times = RUN.replace("median: 0.02", "median: 2").replace("mean: 0.004", "mean: 0.4").replace("far}", "near}")
    assert key(tmp_path / "a", text=other_times.replace("far:", "# far:")) == first
    assert key(tmp_path / "b") == first
    names = ("cases.1.name=G=12", "name=other", "description=x", "targets={test_loss: [1]}", "seeds=[1]")
    assert key(tmp_path / "a", *names, "message_bytes=5", "timeline=none", case="G=12") == first
    links = "links: [{between: [worker, root], profile: far}], levels:"
    assert key(tmp_path / "a", text=RUN.replace("levels:", links)) == first
    # The same periods by name, and the same share of workers given by the case.
    assert key(tmp_path / "a", "cases.1.periods={root: 12, site: 4}") == first
    assert key(tmp_path / "a", "train.participation=0.2", "cases.1.participation=0.7") == first


def test_local_sgd_is_a_schedule_whose_servers_pass_models_through(tmp_path):
    assert key(tmp_path, case="local") == key(tmp_path, "cases.1.periods=[4, none]")


CHANGES = (
    "train.learning_rate=0.03",
    "train.iterations=36",
    "train.batch_size=10",
    "train.momentum=0.6",
    "train.dtype=float64",
    "train.participation=0.3",
    "model.hidden=[9]",
    "data.partition=iid",
    "data.grouping=random",
    "averaging.by=workers",
    "evaluation.every_iterations=24",
    "cases.1.periods=[12, 6]",
    "topology.levels.1.count=4",
    "topology.levels.1.name=phone",
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_with_whatever_changes_the_learning(tmp_path, change):
    assert key(tmp_path, change) != key(tmp_path)


def test_a_key_changes_with_seed_case_and_resources(tmp_path, monkeypatch):
    others = [key(tmp_path, seed=2), key(tmp_path, case="own I"), key(tmp_path, case="local")]
    for change in ({"precision": "bf16"}, {"threads": 2}, {"engine": "vmap:2"}, {"device_name": "H200"}):
        others.append(key(tmp_path, by=replace(CPU, **change)))
    monkeypatch.setattr("hsgd_emu.learning.material.version", lambda name: "0")
    others.append(key(tmp_path))
    monkeypatch.undo()
    assert len({key(tmp_path), *others}) == 1 + len(others)


def save(path: Path, first: float) -> None:
    x = np.arange(24, dtype=np.float32).reshape(12, 2)
    x[0, 0] = first
    np.savez(path, train_x=x, train_y=np.arange(12) % 2, test_x=x, test_y=np.arange(12) % 2)
    os.utime(path, (1, 1))


def test_data_are_told_by_their_content_wherever_they_lie(tmp_path):
    own = ("data={dataset: npz, folder: d.npz}",)
    keys = []
    for folder, first in (("a", 0.5), ("b", 0.5), ("c", 0.25)):
        save(tmp_path / f"{folder}.npz", first)
        (tmp_path / folder).mkdir()
        os.replace(tmp_path / f"{folder}.npz", tmp_path / folder / "d.npz")
        keys.append(key(tmp_path, *own, f"data.root={tmp_path / folder}"))
    assert keys[0] == keys[1] != keys[2]
    # Changed in place, its size and time kept: the next study sees it.
    save(tmp_path / "a" / "d.npz", 0.75)
    resources("cpu")
    assert key(tmp_path, *own, f"data.root={tmp_path / 'a'}") not in keys


NET = """
import numpy
import torch
from parts import layer as one

def make(input_shape, num_classes):
    return torch.nn.Linear(*input_shape, num_classes)
"""


def test_a_model_of_ones_own_is_told_by_its_source_and_what_it_imports(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "layer.py").write_text("from . import width\n")
    (tmp_path / "parts" / "width.py").write_text("WIDTH = 1\n")
    (tmp_path / "unrelated.py").write_text("")
    before = key(tmp_path, "model=net:make")
    (tmp_path / "unrelated.py").write_text("X = 1\n")
    resources("cpu")
    assert key(tmp_path, "model=net:make") == before
    for file in ("net.py", "parts/layer.py", "parts/width.py", "parts/__init__.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "# changed\n")
        resources("cpu")
        after = key(tmp_path, "model=net:make")
        assert after != before, file
        before = after


def test_data_that_are_missing_are_told_with_their_line(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.folder.*npz was not found"):
        key(tmp_path, "data={dataset: npz}", f"data.root={tmp_path}")


def wanted_of(path: Path, case: str, seed: int, until: int | None = None) -> Wanted:
    return wanted(load_experiment(path), case, seed, resources("cpu"), until)


@pytest.mark.parametrize("case", ["local", "even", "own I"])
def test_a_trial_of_the_library_is_that_of_a_run(tmp_path, case):
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    whole = run(path, tmp_path / "out", device="cpu", threads=1, engine="usual")
    library = Library(tmp_path / "library")
    for seed in (1, 2):
        one = wanted_of(path, case, seed)
        assert library.progress_of(one) is None
        library.learn(one, Progress(), lambda: None)
        learned = library.find(one)
        curve = whole.curve[(whole.curve["case"] == case) & (whole.curve["seed"] == seed)]
        trials = whole.trials.set_index(["case", "seed"])
        assert learned.weights_hash == trials.loc[(case, seed), "weights_hash"]
        rows = curve[list(METRICS)].to_dict("records")
        figures = [Metrics(**{name: None if math.isnan(x) else x for name, x in row.items()}) for row in rows]
        assert learned.metrics == dict(zip(curve["iteration"], figures, strict=True))
        assert (learned.finished, learned.iteration) == (True, 24)
        assert learned.message_bytes == whole.environment["message_bytes"]
    # Nothing of a trial's times means anything, so nothing of them is kept.
    assert read_run(library.folder_of(one)).timeline.empty


def test_a_trial_is_learned_as_far_as_it_is_wanted_and_then_further(tmp_path):
    path, library = tmp_path / "run.yaml", Library(tmp_path / "library")
    path.write_text(RUN)
    part, whole = wanted_of(path, "local", 1, until=10), wanted_of(path, "local", 1)
    assert part.key == whole.key
    assert (part.until, whole.until) == (12, 24)  # the global aggregation at or after 10
    progress = Counting()
    library.learn(part, progress, lambda: None)
    assert (library.find(part).iteration, library.find(part).finished, library.find(whole)) == (12, False, None)
    assert list(library.progress_of(whole).metrics) == [12]  # evaluated at the first one at or after 10
    library.learn(part, progress, lambda: None)
    assert progress.rounds == 3
    library.learn(whole, progress, lambda: None)
    assert progress.rounds == 6
    again = Library(tmp_path / "again")
    again.learn(whole, progress, lambda: None)
    assert replace(library.find(whole), wall_s=0.0) == replace(again.find(part), wall_s=0.0)


def test_trials_alike_in_all_but_schedule_seed_and_length_tell_what_another_costs(tmp_path):
    path, library = tmp_path / "run.yaml", Library(tmp_path / "library")
    path.write_text(RUN)
    library.learn(wanted_of(path, "local", 1, until=12), Progress(), lambda: None)
    ((iterations, evaluations, wall_s),) = library.alike(wanted_of(path, "own I", 2))
    assert (iterations, evaluations) == (12, 1)
    assert 0 < wall_s < 60
    path.write_text(RUN.replace("hidden: [8]", "hidden: [9]"))
    assert library.alike(wanted_of(path, "local", 1)) == []


def test_only_one_learns_a_trial_at_a_time(tmp_path):
    path, library = tmp_path / "run.yaml", Library(tmp_path / "library")
    path.write_text(RUN)
    one = wanted_of(path, "local", 1)
    lock = library.try_lock(one)
    assert lock is not None
    assert Library(tmp_path / "library").try_lock(one) is None
    waited = []

    def waiting() -> None:
        waited.append(len(waited))
        if len(waited) == 3:
            os.close(lock)

    progress = Counting()
    library.learn(one, progress, waiting)
    assert (waited, progress.rounds) == ([0, 1, 2], 6)
