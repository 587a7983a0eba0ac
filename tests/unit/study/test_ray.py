"""Training on a Ray cluster: the local bits, whatever node is lost."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.study.training import on_ray as ray_executor
from hsgd_emu.study.training.executors import TrainingProgress, train
from hsgd_emu.study.training.library import Learned, Library
from hsgd_emu.study.training.wanted import Wanted, resources, wanted
from hsgd_emu.trials import Progress

pytest.importorskip("ray")

RUN = """
name: small
topology: {levels: [{name: site, count: 2, uplink: {rtt_s: 0.3}}, {name: worker, count: 2, uplink: {rtt_s: 0.1}}]}
compute: {step_s: 0.01}
data: {dataset: npz, folder: d.npz, partition: by_label, root: .}
model: {name: "net:make", options: {notes: NOTES}}
train: {iterations: 24, momentum: 0.9}
cases: [{name: local, period: 4}, {name: H, periods: [12, 4]}]
seeds: [1, 2]
"""
# Notes who learns, and takes its time, so that a node is lost in the middle of it.
NET = """
import os, time
from pathlib import Path
import torch

def make(input_shape, num_classes, notes):
    with Path(notes).open("a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.3)
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 8), torch.nn.ReLU(), torch.nn.Linear(8, num_classes))
"""


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def trials(tmp_path_factory) -> list[Wanted]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "run.yaml").write_text(RUN.replace("NOTES", str(folder / "notes")))
    (folder / "net.py").write_text(NET)
    _save(folder / "d.npz", 1)
    experiment, here = load_experiment(folder / "run.yaml"), resources("cpu")
    return [wanted(experiment, case.name, seed, here) for case in experiment.cases for seed in experiment.seeds]


def notes_of(trials: list[Wanted]) -> Path:
    return Path(trials[0].base) / "notes"


def without_wall_s(got: dict[str, Learned]) -> dict[str, Learned]:
    return {key: replace(learned, wall_s=0.0) for key, learned in got.items()}


class LosingNode(TrainingProgress):
    """Takes a node away after the first trial, once both have begun to learn."""

    def __init__(self, cluster, node, notes: Path) -> None:
        self.cluster, self.node, self.notes = cluster, node, notes
        self.ended: list[str] = []

    def end(self, wanted: Wanted) -> None:
        self.ended.append(wanted.label)
        if len(self.ended) == 1:
            while len(set(self.notes.read_text().split())) < 2:
                time.sleep(0.05)
            self.cluster.remove_node(self.node, allow_graceful=False)


def test_a_lost_node_loses_nothing_and_the_bits_are_the_local_ones(cluster, trials, tmp_path):
    library = Library(tmp_path / "ray")
    # The first one was begun here, and is gone on with there.
    library.learn(replace(trials[0], until=8), Progress(), lambda: None)
    notes_of(trials).unlink()
    lost = cluster.add_node(num_cpus=1)
    progress = LosingNode(cluster, lost, notes_of(trials))
    got = train(trials, library, "ray", progress=progress, ray_address=cluster.address)
    assert sorted(progress.ended) == sorted(one.label for one in trials)
    assert str(os.getpid()) not in notes_of(trials).read_text().split()
    here = Library(tmp_path / "here")
    for one in trials:
        here.learn(one, Progress(), lambda: None)
    assert without_wall_s(got) == without_wall_s({one.key: here.find(one) for one in trials})
    assert not any((library.folder / "incoming").iterdir())


def test_without_a_cluster(trials, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"no Ray cluster at '127.0.0.1:1'; start one with `ray start --head`"):
        train(trials, Library(tmp_path), "ray", ray_address="127.0.0.1:1")


def test_without_ray(trials, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsgd-emu\[ray\]'"):
        ray_executor.train_on_ray(trials, Library(tmp_path), None, TrainingProgress(), None)


@pytest.fixture(scope="module")
def connected(cluster):
    """Connected already, so that the processes of the nodes are used again."""
    import ray

    ray.init(cluster.address, log_to_driver=False)
    yield cluster.address
    ray.shutdown()


def test_a_partial_trial_comes_back_with_what_it_takes_to_go_on(connected, trials, tmp_path):
    library, one = Library(tmp_path / "library"), trials[1]
    part = train([replace(one, until=8)], library, "ray", ray_address=connected)[one.key]
    assert (part.iteration, part.finished) == (8, False)
    warned = Warned()
    library.learn(one, warned, lambda: None)
    assert warned.rounds == [12, 16, 20, 24]
    assert library.find(one).finished


class Warned(Progress):
    def __init__(self) -> None:
        self.rounds: list[int] = []

    def round(self, key, record):
        self.rounds.append(record.iteration)

    def warn(self, text):
        # The node runs the package as it is installed, which may be of another commit than this checkout.
        if "(commit differ)" not in text:
            raise AssertionError(text)


def test_a_node_with_other_versions_or_data_is_refused(connected, trials, tmp_path):
    facts = tuple((name, "0.1" if name == "torch" else value) for name, value in trials[0].facts)
    with pytest.raises(ConfigError, match=r"node .*is not like where the study was started: torch is .* and not 0\.1"):
        train([replace(trials[0], facts=facts)], Library(tmp_path), "ray", ray_address=connected)
    elsewhere = replace(trials[0], data_root=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"node .*npz was not found"):
        train([elsewhere], Library(tmp_path), "ray", ray_address=connected)


def test_a_node_that_sees_other_data_or_code_is_refused_and_its_process_sees_the_right_ones_again(
    connected, trials, tmp_path
):
    folder, one, library = Path(trials[0].base), replace(trials[0], until=4), Library(tmp_path)
    for name, changed, what in (
        ("d.npz", lambda path: _save(path, 2), "data has changed"),
        (
            "net.py",
            lambda path: path.write_text(path.read_text() + "# another\n"),
            "own module net has changed",
        ),
    ):
        kept = (folder / name).read_bytes()
        changed(folder / name)
        with pytest.raises(ConfigError, match=rf"node .*is not like where the study was started: {what}"):
            train([one], library, "ray", ray_address=connected)
        (folder / name).write_bytes(kept)
        assert library.progress_of(one) is None
    assert train([one], library, "ray", ray_address=connected)[one.key].iteration == 4


def _save(path: Path, seed: int) -> None:
    x, y = np.random.default_rng(seed).normal(size=(80, 6)).astype(np.float32), np.arange(80) % 4
    np.savez(path, train_x=x, train_y=y, test_x=x, test_y=y)
