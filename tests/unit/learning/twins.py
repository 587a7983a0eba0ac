"""The same small trial for the stacked learner and its readable twin, and how far apart they may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hsgd_emu.config.run_schema import Augment, TrainSpec
from hsgd_emu.config.server_schema import Direction, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.operations import Held, Learner
from hsgd_emu.engine.skipped import Taken
from hsgd_emu.learning.data.dataset import Dataset
from hsgd_emu.learning.engines import Way
from hsgd_emu.learning.network import TrialSetup
from hsgd_emu.learning.readable import ReadableLearner
from hsgd_emu.learning.samples import Augmentation, BatchOrder, ResidentData
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.tuning import Choice
from hsgd_emu.metrics import Metrics

from .by_node import ByNode

RELATIVE = 1e-9
"""Both twins work in float64 (about 1e-16); only the order in which they add differs."""


def synthetic(shape: Sequence[int], num_train: int = 24, num_classes: int = 4, images: bool = False) -> Dataset:
    """Return noise with labels in turn: bytes with a normalisation for images, else floats."""
    rng = np.random.default_rng(len(shape) + num_train)
    size = (num_train + 10, *shape)
    x = rng.integers(0, 256, size, dtype=np.uint8) if images else rng.normal(size=size).astype(np.float32)
    y = np.arange(num_train + 10) % num_classes
    statistics = {"mean": (0.5,) * shape[0], "std": (0.25,) * shape[0]} if images else {}
    return Dataset(x[:num_train], y[:num_train], x[num_train:], y[num_train:], num_classes, **statistics)


def shards_of(sizes: Iterable[int]) -> list[np.ndarray[Any, Any]]:
    """Return neighbouring shards of these sizes."""
    ends = np.cumsum(list(sizes))
    return [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def in_turns(group: int, iteration: int) -> list[int]:
    """Return who takes part in a local period of two: rows that are no neighbours, workers that rest."""
    return [[[1], [0], [0, 1], [1]], [[3], [2], [2], [3]]][group][iteration // 2]


class Trial:
    """Four workers in two groups (0, 1 and 2, 3); nodes 4 and 5 are the local servers, 6 is the global one."""

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        dataset: Dataset,
        sizes: Sequence[int] = (6, 6, 6, 6),
        augment: Augment | None = None,
        device: str = "cpu",
        seed: int = 3,
        skips: Mapping[int, float] | None = None,
        averaged_after: int | None = None,
        servers: Mapping[int, ServerSpec] | None = None,
        senders: Mapping[tuple[int, Direction], Sender] | None = None,
        **train: Any,
    ) -> None:
        """skips: by worker that skips steps, with which probability it takes one.

        averaged_after, servers, senders: as in `TrialSetup`.
        """
        spec = {"batch_size": 3, "learning_rate": 0.1, "iterations": 8, "dtype": "float64"} | train
        self.make_model, self.dataset = make_model, dataset
        num = len(sizes)
        self.groups = [range(num // 2), range(num // 2, num)]
        self.servers, self.root = [num, num + 1], num + 2
        names = [f"worker-{i}" for i in range(num)]
        taken = {worker: Taken(seed, names[worker], share) for worker, share in (skips or {}).items()}
        slots, own = (
            {i: i for i in range(num + 3)},
            {"servers": servers or {}, "senders": senders or {}, "averaged_after": averaged_after},
        )
        self.setup = TrialSetup(seed, names, slots, TrainSpec(**spec), taken, **own)
        order = BatchOrder(seed, names, shards_of(sizes), self.setup.train.batch_size)
        augmentation = Augmentation(seed, names, augment or Augment(), order)
        dtype = torch.float64 if spec["dtype"] == "float64" else torch.float32
        self.data = ResidentData(dataset, order, augmentation, torch.device(device), dtype)

    def model(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make_model()

    def stacked(self, way: Way | None = None, chunk: int | None = None) -> ByNode:
        choice = Choice(way, chunk or (1 if way == "one_by_one" else len(self.setup.worker_names))) if way else None
        return self.by_node(StackedLearner(self.model(), self.data, self.setup, choice))

    def readable(self) -> ByNode:
        return self.by_node(ReadableLearner(self.model(), self.data, self.setup))

    def by_node(self, learner: Learner) -> ByNode:
        return ByNode(learner, list(self.setup.slots))

    def run(
        self,
        learner: ByNode,
        local: int = 2,
        global_: int = 4,
        begin: int = 0,
        end: int | None = None,
        evaluate_every: int = 4,
        members: Callable[[int, int], Sequence[int]] | None = None,
    ) -> list[Metrics]:
        """Run H-SGD (Algorithm 1) from iteration `begin` to `end`; members(group, iteration) take part."""
        found = []
        for t in range(begin, end or self.setup.train.iterations, local):
            for number, (group, server) in enumerate(zip(self.groups, self.servers, strict=True)):
                present = members(number, t) if members else list(group)
                for worker in present:
                    learner.local_steps(worker, t, local)
                held = Held(1 - len(present) / len(group), t, t + local)
                learner.aggregate(server, present, [1 / len(present)] * len(present), held)
            if (t + local) % global_ == 0:
                learner.aggregate(self.root, self.servers, [0.5, 0.5])
                if (t + local) % evaluate_every == 0:
                    found.append(learner.evaluate(self.root, t + local))
                learner.send_down(self.root)
                for server in self.servers:
                    learner.hand_down(self.root, server)
            for group, server in zip(self.groups, self.servers, strict=True):
                learner.send_down(server)
                for worker in group:
                    learner.hand_down(server, worker)
        return found

    def assert_twins(self, way: Way | None = None, chunk: int | None = None, **schedule: Any) -> ByNode:
        """Hold the stacked learner to the readable one: all figures, and the whole model of every node."""
        readable = self.readable()
        return self.assert_is(readable, self.run(readable, **schedule), way, chunk, **schedule)

    def assert_is(
        self,
        readable: ByNode,
        expected: list[Metrics],
        way: Way | None = None,
        chunk: int | None = None,
        **schedule: Any,
    ) -> ByNode:
        """Hold the stacked learner to what the readable one has become; expected: its figures on the way there."""
        stacked = self.stacked(way, chunk)
        assert len(expected) > 0
        assert_close_metrics(self.run(stacked, **schedule), expected)
        stacked.flush()
        for node in self.setup.slots:
            assert_close_models(stacked.model_of(node), readable.model_of(node))
        return stacked


def assert_close_metrics(found: list[Metrics], expected: list[Metrics], relative: float = RELATIVE) -> None:
    figures = [[[math.nan if x is None else x for x in metrics] for metrics in some] for some in (found, expected)]
    np.testing.assert_allclose(*figures, rtol=relative)


def assert_close_models(tensors: dict[str, torch.Tensor], model: nn.Module, relative: float = RELATIVE) -> None:
    """Every parameter and buffer, in its own type, to `relative` of its largest entry."""
    expected = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = [name for name in expected if not name.endswith(".mask")]
    assert sorted(tensors) == sorted(names)
    for name in names:
        one, other = tensors[name].detach(), expected[name].detach()
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        if one.is_floating_point():
            scale = max(float(other.abs().max()), 1e-3) if other.numel() else 1.0
            assert float((one - other).abs().amax()) <= relative * scale if other.numel() else True, name
        else:
            assert torch.equal(one, other), name


def steps_away(model: ByNode, start: nn.Module) -> float:
    """Return how far worker 0 is from the start, so that no test passes for want of learning."""
    tensors = model.model_of(0)
    pairs = [(tensors[name], p.detach().to(tensors[name].dtype)) for name, p in start.named_parameters()]
    return max(float((one - other).abs().max()) for one, other in pairs)


class Notes(dict):
    """The hashes of a trial's checkpoints, kept in memory."""

    def note(self, iteration, sha256):
        self[sha256] = iteration

    def known(self):
        return self
