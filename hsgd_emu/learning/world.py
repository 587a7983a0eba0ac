"""Data, partition and model of the trials of one run: what all cases of a seed share."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from hsgd_emu.config.run_schema import DataSpec, EvaluationSpec, ModelSpec, TrainSpec
from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.engine.messages import ModelShape
from hsgd_emu.engine.plan import Plan
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.data import Dataset, partition
from hsgd_emu.learning.engines import Precision
from hsgd_emu.learning.examine import copied
from hsgd_emu.learning.material import Material
from hsgd_emu.learning.models import model_bytes, model_shape
from hsgd_emu.learning.names import torchvision_version
from hsgd_emu.learning.network import Network, TrialSetup
from hsgd_emu.learning.readable import ReadableLearner
from hsgd_emu.learning.samples import Augmentation, BatchOrder, ResidentData
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.tuning import Choice, choice_of, tuned_choice, usual_choice


def choose_device(name: str) -> torch.device:
    """Return the device that --device names.

    Raises:  ConfigError: cuda is asked for and not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError.of("--device cuda", "", "PyTorch sees no CUDA device here; use --device cpu")
    return torch.device(name)


def choose_precision(name: str, device: torch.device, dtype: str) -> Precision:
    """Return the precision that --precision names.

    Raises:  ConfigError: the device does not have it, or the run file asks for float64.
    """
    if name == "auto":
        return "tf32" if device.type == "cuda" and dtype == "float32" else "fp32"
    if name == "tf32" and device.type != "cuda":
        raise ConfigError.of("--precision tf32", "", f"only CUDA devices have it, this is {device.type}; use fp32")
    if name != "fp32" and dtype != "float32":
        text = f"products would be less precise than train.dtype: {dtype}; use float32, or --precision fp32"
        raise ConfigError.of(f"--precision {name}", "", text)
    return cast(Precision, name)


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or "cpu"."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def limit_memory(share: float) -> None:
    """Let this process take no more than a share of the GPU's memory; others use it too."""
    torch.cuda.set_per_process_memory_fraction(share)


def _keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where the C library is glibc (elsewhere nothing is done).

    A step makes and frees the same arrays of some megabytes again and again. Given back to the system each time, their
    pages are cleared anew at the next use, which takes a fifth of a step of the small CIFAR network.
    """
    top_pad, mmap_threshold, trim_threshold = -2, -3, -1  # of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            for parameter, num_bytes in ((mmap_threshold, 2**25), (trim_threshold, 2**31 - 1), (top_pad, 2**26)):
                library.mallopt(parameter, num_bytes)


def make_deterministic(device: torch.device, threads: int, precision: Precision = "fp32") -> None:
    """Pin what changes the bits of a result: threads, algorithms, reduced precision."""
    if device.type == "cpu":
        _keep_freed_memory()
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


class World:
    """What learning needs of one run, besides the schedule."""

    def __init__(
        self,
        data: DataSpec,
        model: ModelSpec,
        train: TrainSpec,
        worker_names: Sequence[str],
        groups: Sequence[Sequence[int]],
        base: Path,
        device: torch.device,
        precision: Precision = "fp32",
        progress: Callable[[str], None] | None = None,
        warn: Callable[[str], None] | None = None,
        rules: Sequence[ServerSpec] = (),
    ) -> None:
        """rules: the servers' rules that are the user's own."""
        self.data, self.train = data, train
        self.worker_names, self.groups = worker_names, groups
        self.device, self.precision = device, precision
        self.choice: Choice | None = None
        self.usual: Choice | None = None
        """What would be chosen by rule."""
        self.dtype = torch.float64 if train.dtype == "float64" else torch.float32
        self._warn, self._warned = warn or (lambda text: None), set[str]()
        self.material = Material(data, model, base, progress, self._warn_once, rules)
        self.dataset = self.material.dataset
        _check_batch_size(train, len(self.dataset.train_y))
        # The seeds of a run come one after the other: what they share is kept for the current one only.
        self.shards = lru_cache(maxsize=1)(self._shards)
        self.resident = lru_cache(maxsize=1)(self._resident)

    def _shards(self, seed: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
        dataset = self.dataset
        return partition(self.data, dataset.train_y, dataset.writers, self.groups, seed, self._warn_once)

    def _warn_once(self, text: str) -> None:
        """Say what is the same for every seed once."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def num_samples(self, seed: int) -> list[int]:
        """Return how many samples each worker holds."""
        return [len(shard) for shard in self.shards(seed)]

    def _resident(self, seed: int) -> ResidentData:
        order = BatchOrder(seed, self.worker_names, self.shards(seed), self.train.batch_size)
        augmentation = Augmentation(seed, self.worker_names, self.data.augment, order)
        return ResidentData(self.dataset, order, augmentation, self.device, self.dtype)

    def build(self, seed: int) -> torch.nn.Module:
        """Return the initial model of a seed, on the CPU."""
        return self.material.build(seed)

    def message_bytes(self) -> int:
        """Return the size of one model message."""
        return model_bytes(self.build(0))

    def model_shape(self) -> ModelShape:
        """Return what the model is made of."""
        return model_shape(self.build(0))

    def _setup(
        self,
        seed: int,
        slots: dict[int, int],
        train: TrainSpec | None = None,
        plan: Plan | None = None,
        evaluation: EvaluationSpec | None = None,
    ) -> TrialSetup:
        evaluation = evaluation or EvaluationSpec()
        setup = TrialSetup(
            seed,
            self.worker_names,
            slots,
            train or self.train,
            averaged_after=None if evaluation.averaged is None else evaluation.averaged.after,
            evaluates_workers=bool(evaluation.workers),
            base=self.material.base,
        )
        if plan is None:
            return setup
        taken = {slots[worker]: plan.taken(worker) for worker in plan.step_probability}
        return replace(
            setup,
            taken=taken,
            evaluated_at=plan.evaluated_at,
            servers=plan.servers,
            senders=plan.senders,
            has_hubs=plan.schedule.graph is not None,
        )

    def check(self, seeds: Sequence[int]) -> None:
        """Find out before anything runs whether the network takes what each seed's partition gives to it.

        Raises:  ConfigError: it refuses batches of one sample, as BatchNorm does, and some worker has no others.
        """
        alone: dict[int, list[str]] = {}
        for seed in seeds:
            order = BatchOrder(seed, self.worker_names, self.shards(seed), self.train.batch_size)
            found = [name for worker, name in enumerate(self.worker_names) if order.size(worker) == 1]
            if found:
                alone[seed] = found
        if not alone:
            return
        with self.material.active():
            refusal = _refusal_of_one_sample(self.build(seeds[0]), self.dataset)
        if refusal:
            text = f"the network cannot be trained on batches of one sample: {refusal}"
            where = [f"seed {seed}: {listed(names, 3)}" for seed, names in alone.items()]
            workers = "" if self.train.batch_size == 1 else f"; workers that have only one are, with {listed(where, 4)}"
            raise ConfigError.of("", "train.batch_size", text + workers)

    def choose(self, seed: int, engine: str = "auto") -> Choice:
        """Decide how steps are taken in all trials: as `engine` says, "usual" by rule, "auto" by a short trial (see
        `learning.tuning`).

        Raises:  ConfigError: the network cannot be trained, or not in the way asked for.
        """
        with self.material.active():
            return self._chosen(seed, engine)

    def _chosen(self, seed: int, engine: str) -> Choice:
        model, data = self.build(seed), self.resident(seed)
        network = Network(model, data, self._setup(seed, {}), self.precision)
        self._warn_of(network)
        self.usual = usual_choice(network)
        if engine == "usual":
            self.choice = self.usual
        else:
            self.choice = choice_of(engine, network) if engine != "auto" else tuned_choice(network, data)
        return self.choice

    def _warn_of(self, network: Network) -> None:
        for note in network.findings.notes():
            self._warn_once(note)

    def learner(
        self,
        seed: int,
        slots: dict[int, int],
        train: TrainSpec | None = None,
        plan: Plan | None = None,
        evaluation: EvaluationSpec | None = None,
    ) -> StackedLearner:
        """Return the learner of one trial.

        slots: see `TrialSetup`; train: of its case (default: the run's); plan: tells who skips steps, what is
        evaluated, and what servers and senders do; evaluation: which models, and where.
        """
        choice = self.choice or self.choose(seed)
        model, setup = self.material.model_to_learn(seed), self._setup(seed, slots, train, plan, evaluation)
        with self.material.active():
            learner = StackedLearner(model, self.resident(seed), setup, choice, self.precision)
        self._warn_of(learner.network)
        return learner

    def readable_learner(
        self, seed: int, slots: dict[int, int], train: TrainSpec | None = None, plan: Plan | None = None
    ) -> ReadableLearner:
        """Return the readable twin of the learner."""
        return ReadableLearner(self.build(seed), self.resident(seed), self._setup(seed, slots, train, plan))


def _check_batch_size(train: TrainSpec, num_samples: int) -> None:
    """Refuse batches that no data fill: a slip, and memory for nothing."""
    if train.batch_size != "full" and train.batch_size > num_samples:
        text = f"found {train.batch_size}, and there are {num_samples} training samples"
        text += "; `full` takes the whole local shard each step"
        raise ConfigError.of("", "train.batch_size", text)


def _refusal_of_one_sample(model: torch.nn.Module, dataset: Dataset) -> str:
    """Return why a network cannot be trained on batches of one sample; empty if it can."""
    try:
        with torch.no_grad(), seeded_generators(0):
            logits = copied(model).train()(torch.rand(1, *dataset.train_x.shape[1:]))
    except Exception as error:
        return str(error) or type(error).__name__
    return "its output is NaN" if logits.isnan().any() else ""


def environment(device: torch.device, threads: int, precision: Precision, choice: Choice) -> dict[str, Any]:
    """Return the versions and hardware that the bits of a result depend on."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision_version(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": threads,
        "precision": precision,
        "engine": choice.text(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }
