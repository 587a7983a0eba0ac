"""What the learning benchmarks share: the workloads, the driver of a learner, the hardware they ran on."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import torchvision

from hsgd_emu.config.run_schema import Augment, DataSpec, ModelSpec, TrainSpec
from hsgd_emu.engine.operations import Learner, Operations, Version
from hsgd_emu.learning.engines import Precision
from hsgd_emu.learning.world import World, choose_device, choose_precision, make_deterministic
from hsgd_emu.metrics import Metrics

SEED, ROOT = 1, 0
BATCH_SIZE, LOCAL_PERIOD, LEARNING_RATE = 20, 10, 0.02
_FOLDER = Path(__file__).resolve().parent
_ENDLESS = 1_000_000

_CIFAR = {"channels": 3, "size": 32, "num_classes": 10, "num_train": 50_000, "num_test": 10_000}
_GREY = {"channels": 1, "size": 28, "num_train": 60_000, "num_test": 10_000}
_AUGMENT = Augment(crop=4, flip=True)


@dataclass(frozen=True)
class Workload:
    """A network on data.

    sizes: numbers of workers; real: the data set that stands for the synthetic one when asked for.
    """

    name: str
    model: ModelSpec
    data: DataSpec
    real: DataSpec
    sizes: tuple[int, ...]


def _images(options: dict[str, int], augment: Augment) -> DataSpec:
    return DataSpec(dataset="synthetic:images", options=options, augment=augment)


_DIGITS = DataSpec(dataset="digits")
_CIFAR_JPEG = DataSpec(dataset="image_folder", folder="cifar10_jpeg", augment=_AUGMENT)
_FEMNIST = DataSpec(dataset="leaf", folder="femnist_leaf")
_PLAIN = Augment()
WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("mlp", ModelSpec(name="mlp", hidden=(200,)), _DIGITS, _DIGITS, (10, 50)),
        Workload(
            "lenet28",
            ModelSpec(name="synthetic:lenet28"),
            _images(_GREY | {"num_classes": 10}, _PLAIN),
            _FEMNIST,
            (10, 50),
        ),
        Workload(
            "femnist_cnn",
            ModelSpec(name="femnist_cnn"),
            _images(_GREY | {"num_classes": 62}, _PLAIN),
            _FEMNIST,
            (10, 50),
        ),
        Workload("cifar_cnn", ModelSpec(name="cifar_cnn"), _images(_CIFAR, _AUGMENT), _CIFAR_JPEG, (10, 50, 100)),
        Workload("vgg11", ModelSpec(name="vgg11"), _images(_CIFAR, _AUGMENT), _CIFAR_JPEG, (10,)),
    )
}
# The digits are too few for thousands of workers: 64 numbers a sample again, twenty samples for each of 10,000.
_VECTORS = DataSpec(
    dataset="synthetic:vectors",
    options={"num_features": 64, "num_classes": 10, "num_train": 200_000, "num_test": 1000},
)
MLP_VECTORS = replace(WORKLOADS["mlp"], data=_VECTORS, sizes=(50, 1000, 10_000))
_FEW_IMAGES = _images(_CIFAR | {"num_train": 2000, "num_test": 500}, _AUGMENT)
REHEARSAL = replace(WORKLOADS["cifar_cnn"], name="rehearsal", data=_FEW_IMAGES, sizes=(10,))
"""A convolutional network on so few images that everything which is done with vgg11 is done in seconds."""


@dataclass(frozen=True)
class Settings:
    """What all variants have in common; precision: of the product's products (default: fp32)."""

    device: torch.device
    threads: int
    precision: str | None = None

    def apply(self) -> None:
        """Pin threads, algorithms and precision as a run does."""
        make_deterministic(self.device, self.threads, self._precision())

    def world(self, model: ModelSpec, data: DataSpec, num_workers: int) -> World:
        """Return the world of `num_workers` workers in one group below the root.

        Raises:  ConfigError: the data are not there.
        """
        train = TrainSpec(batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, iterations=_ENDLESS)
        names, group = [f"worker-{i}" for i in range(num_workers)], list(range(num_workers))
        return World(data, model, train, names, [group], _FOLDER, self.device, self._precision(), print)

    def _precision(self) -> Precision:
        return choose_precision(self.precision or "fp32", self.device, "float32")


def slots_of(num_workers: int) -> dict[int, int]:
    """Return node -> row as a run does: the root is node 0, the workers follow; rows begin with the workers."""
    return {worker + 1: worker for worker in range(num_workers)} | {ROOT: num_workers}


class Driver:
    """Calls a learner's port as the engine does, for one group of workers below the root."""

    def __init__(self, learner: Learner, num_workers: int, num_steps: int, device: torch.device) -> None:
        """num_steps: local steps per round."""
        self.learner, self.num_steps, self.device = learner, num_steps, device
        self.workers: Sequence[int] = range(1, num_workers + 1)
        self.iteration = 0
        self.operations = Operations(learner)
        self.model = self.operations.start()

    def sent(self, worker: int, version: Version) -> Version:
        """Return what arrives of what a worker sends."""
        return version

    def round(self, evaluated: bool) -> Metrics | None:
        """Take one round and wait until all of it is done; return the figures if it is evaluated."""
        workers, operations = self.workers, self.operations
        made = [
            self.sent(worker, operations.steps(worker, self.model, self.iteration, self.num_steps))
            for worker in workers
        ]
        self.iteration += self.num_steps
        self.model = operations.combine(ROOT, self.model, made, [1 / len(workers)] * len(workers))
        metrics = operations.evaluate(self.model, self.iteration) if evaluated else None
        flush: Callable[[], None] = getattr(self.learner, "flush", lambda: None)
        flush()
        synchronise(self.device)
        return metrics

    def rounds_wall_s(self, warm_up: int, at_least: int, seconds: float) -> list[float]:
        """Return the seconds of each of some rounds without evaluation, after the warm-up."""
        for _ in range(warm_up):
            self.round(False)
        spans: list[float] = []
        while len(spans) < at_least or sum(spans) < seconds:
            begun = time.perf_counter()
            self.round(False)
            spans.append(time.perf_counter() - begun)
        return spans


def medians_in_turns(drivers: Mapping[str, Driver], seconds: float) -> dict[str, float]:
    """Return the median seconds of a round of each driver; they take turns, each timed for about so many seconds."""
    spans = {name: list[float]() for name in drivers}
    for driver in drivers.values():
        driver.round(False)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds * len(drivers):
        for name, driver in drivers.items():
            spans[name] += driver.rounds_wall_s(0, 1, 0.1)
    return {name: median(found) for name, found in spans.items()}


def compared(doc: str | None, print_table: Callable[[Workload, int, Settings, float], None]) -> None:
    """Read the command line of a benchmark that compares rules on workloads, and print a table of each.

    print_table: of a workload, a number of workers, settings, and seconds of timed work per rule.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["mlp", "cifar_cnn"])
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="timed work per rule")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    settings = Settings(choose_device(args.device), args.threads)
    settings.apply()
    for name in args.workloads:
        print_table(WORKLOADS[name], args.workers, settings, args.seconds)
    print("\n" + "\n".join(hardware(settings, num_cores())))


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for, so that the clock may be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release(device: torch.device) -> int:
    """Free what no one uses any more and count the peak of the GPU's memory from here; return the bytes in use."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def engine_of(learner: object) -> str:
    """Return the engine that a learner says it chose and its workers per batch, an empty string if it says nothing."""
    engine = getattr(learner, "engine", "")
    if isinstance(engine, str) and engine:
        return engine
    choice = getattr(learner, "choice", None)
    if choice is not None:
        return f"{choice.way}, {choice.chunk} at a time"
    return str(getattr(learner, "way", ""))


def num_cores() -> int:
    """Return the cores this process may run on: as `hsgd_emu.spawning.num_cores`."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(settings: Settings, cores: int) -> list[str]:
    """Return the lines that go with every figure: the hardware, then the versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    parts = [names[0] if names else platform.processor(), f"{cores} cores", f"torch threads {settings.threads}"]
    gpu = torch.cuda.get_device_name(settings.device) if settings.device.type == "cuda" else "no GPU used"
    precision = [f"precision {settings.precision}"] if settings.precision else []
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    return [", ".join([*parts, gpu, *precision, platform.system()]), versions]
