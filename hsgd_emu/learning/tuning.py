"""Which way and how many workers at a time: the usual choice by rule, a better one by a short trial.

The last bits of a result depend on the choice. So it is written into a run's environment (a resumed run keeps it),
remembered in the user's cache folder for the same network, data shape, device and versions, and another than the usual
one must be clearly faster.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import torch

from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.data.spec import user_cache
from hsgd_emu.learning.engines import Way
from hsgd_emu.learning.graphs import Period, cuda_capture
from hsgd_emu.learning.network import Network
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.steps import Taker

FORMAT = 1
"""Counted up when the ways change, so that older choices are no longer found."""
WORTH_STEPS = 5_000
"""A trial with fewer worker steps takes the usual choice: trying would cost more than it could win."""
CHUNKS = (1, 2, 5, 10, 20)
_CLEARLY = 0.75
_REPEATS = 3
_CHUNK_BYTES = {"cpu": 2**28, "cuda": 2**33}
_MOST_CHUNKS = 64
"""More chunks than this are not captured side by side on CUDA."""
_LARGE_BYTES = 16 * 2**20
"""On a CPU, larger models than this learn one worker after the other: batching them loses (docs/performance.md)."""


@dataclass(frozen=True)
class Choice:
    """A way to take steps, and the most workers in one batch."""

    way: Way
    chunk: int

    def text(self) -> str:
        """Return it as `--engine` takes it."""
        return f"{self.way}:{self.chunk}"


def choice_of(text: str, network: Network) -> Choice:
    """Return the choice that --engine names: a way, and after a colon how many workers at once.

    Raises:  ConfigError: it names none, or the network cannot be trained in that way.
    """
    name, _, chunk = text.partition(":")
    possible = _possible(network)
    if name not in possible or (chunk and not (chunk.isdecimal() and int(chunk))):
        known = f"this network can be trained by {listed(possible)}, with a number of workers such as {possible[0]}:5"
        raise ConfigError.of(f"--engine {text}", "", "; ".join(filter(None, [known, network.why_not_batched])))
    way = next(way for way in possible if way == name)
    return Choice(way, 1 if way == "one_by_one" else int(chunk) if chunk else _fitting(network, way))


def _possible(network: Network) -> list[Way]:
    found: list[Way] = ["layered"] if network.layers is not None else []
    return found + (["vmap", "one_by_one"] if network.can_batch else ["one_by_one"])


def can_be(choice: Choice, network: Network) -> bool:
    """Return whether a network can be trained by a choice, which may have been made for that of another seed."""
    return choice.way == "one_by_one" or (network.layers is not None if choice.way == "layered" else network.can_batch)


def _fitting(network: Network, way: Way) -> int:
    """Return how many workers' parameters take about a quarter of a GiB, on CUDA eight."""
    return max(1, min(network.num_workers, _CHUNK_BYTES[network.device.type] // max(1, network.num_bytes(way))))


def usual_choice(network: Network) -> Choice:
    """Return what usually is fastest, from the network and the device alone."""
    way = network.ways()[0]
    on_cpu = network.device.type == "cpu"
    if way == "one_by_one" or (on_cpu and network.num_bytes(way) > _LARGE_BYTES):
        return Choice("layered" if way == "layered" else "one_by_one", 1)
    fitting = _fitting(network, way)
    if not on_cpu or not network.has_convolutions:
        return Choice(way, fitting)
    return Choice(way, min(fitting, 10 if way == "layered" else 20))


def tuned_choice(network: Network, data: ResidentData) -> Choice:
    """Return the usual choice, or one that a short trial (now or earlier) showed to be clearly faster."""
    usual = usual_choice(network)
    candidates = _candidates(network, usual)
    if len(candidates) == 1 or network.num_workers * network.train.iterations < WORTH_STEPS:
        return usual
    key = _key(network, data)
    remembered = _recall(key)
    if remembered in candidates:
        return remembered
    wall_s = _try_all(network, data, candidates)
    best = min(candidates, key=lambda choice: wall_s[choice])
    choice = best if wall_s[best] < _CLEARLY * wall_s[usual] else usual
    _remember(key, choice)
    return choice


def _candidates(network: Network, usual: Choice) -> list[Choice]:
    """Return what is worth trying, the usual choice first."""
    found = [usual]
    small = network.device.type == "cpu" and not network.has_convolutions and usual.chunk > 1
    if not small:
        for way in network.ways():
            fitting = _fitting(network, way)
            chunks = (1,) if way == "one_by_one" else (*(c for c in CHUNKS if c < fitting), min(fitting, CHUNKS[-1]))
            found += [Choice(way, chunk) for chunk in chunks]
    if network.device.type == "cuda":
        found = [choice for choice in found if choice == usual or network.num_workers <= choice.chunk * _MOST_CHUNKS]
    return list(dict.fromkeys(found))


def _try_all(network: Network, data: ResidentData, candidates: list[Choice]) -> dict[Choice, float]:
    """Return host seconds per worker step of each choice: the least of a few turns, all in turn."""
    wall_s = dict.fromkeys(candidates, float("inf"))
    for _ in range(1 + _REPEATS):  # the first turn also warms up, and counts like the others
        for choice in candidates:
            wall_s[choice] = min(wall_s[choice], _try(network, data, choice))
    return wall_s


def _try(network: Network, data: ResidentData, choice: Choice) -> float:
    """Return host seconds per worker step: on CUDA of a captured period of all workers, else of one chunk."""
    alike = [worker for worker in range(network.num_workers) if data.order.size(worker) == data.order.size(0)]
    on_cuda = data.device.type == "cuda"
    workers = list(range(len(alike) if on_cuda else min(choice.chunk, len(alike))))
    chunks = [workers[start : start + choice.chunk] for start in range(0, len(workers), choice.chunk)]
    try:
        stacks = network.stacks(choice.way, len(workers), len(workers))
        taker = Taker(network, network.engine(choice.way), stacks, data)
        if on_cuda:
            for chunk in chunks:
                taker.take(chunk, 0, 1)
        period = Period(taker, chunks, 0, 1, cuda_capture) if on_cuda and choice.way == "layered" else None
        begin = _now(data.device)
        if period:
            period.take([0] * len(workers))
        else:
            for chunk in chunks:
                taker.take(chunk, 0, 1)
        return (_now(data.device) - begin) / len(workers)
    except torch.OutOfMemoryError:
        return float("inf")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _key(network: Network, data: ResidentData) -> str:
    """Return what a choice depends on, as a file-safe string."""
    device = torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else platform.processor()
    shapes = [tuple(parameter.shape) for parameter in network.model.parameters()]
    facts = [FORMAT, str(network.model), shapes, tuple(data.sample().shape[1:]), data.order.size(0)]
    facts += [min(network.num_workers, CHUNKS[-1]), str(data.dtype), network.precision, network.train.momentum > 0]
    facts += [f"{kind}" for kind in (network.train.optimizer, network.train.clip_norm and "clipped") if kind]
    facts += [data.augmentation.is_on, data.device.type, device, torch.__version__, torch.get_num_threads()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _file(key: str) -> Path:
    return user_cache() / "engines" / f"{key}.json"


def _recall(key: str) -> Choice | None:
    try:
        found = json.loads(_file(key).read_text(encoding="utf-8"))
        return Choice(found["way"], found["chunk"])
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole: it is tried again
        return None


def _remember(key: str, choice: Choice) -> None:
    path = _file(key)
    beside = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps({"way": choice.way, "chunk": choice.chunk}), encoding="utf-8")
        os.replace(beside, path)
    except OSError:  # no place to remember it: the next run tries again
        with contextlib.suppress(OSError):
            beside.unlink()
