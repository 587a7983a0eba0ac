"""Steps that workers skip (MLL-SGD's rates): in each iteration a worker takes its step with a probability of its own.

The stream (seed, "steps", worker) has one uniform for each iteration, and the step is taken where it is below the
probability: the same on every network, whatever else is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.reader import Path_
from hsgd_emu.errors import listed, nearest
from hsgd_emu.rng import stream
from hsgd_emu.timing.costs import Nanoseconds, Stream, TooLongError
from hsgd_emu.topology.tree import Topology
from hsgd_emu.units import MOST_NS

Probabilities = float | Mapping[str, float] | None
"""As a run file gives them: one for all workers, or by name or class of workers; those that are not named have 1."""
_FIRST = 1024
"""Iterations looked at when the first is asked for; then as many again each time."""


def probabilities(given: Probabilities, topology: Topology) -> dict[int, float]:
    """Return by worker that may skip steps with which probability it takes one; its name goes before its class."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(topology.workers, given) if given < 1 else {}
    by_class = {node: p for name, p in given.items() if name not in topology.index for node in topology.named(name)}
    by_name = {topology.index[name]: p for name, p in given.items() if name in topology.index}
    return {node: p for node, p in sorted((by_class | by_name).items()) if p < 1}


def by_own_names(given: Probabilities, topology: Topology) -> Probabilities:
    """Return what means the same on a tree whose nodes have no classes: None where no step is skipped."""
    found = probabilities(given, topology)
    if not isinstance(given, Mapping):
        return given if found else None
    return {topology.nodes[worker].name: p for worker, p in found.items()} or None


def mistakes_in(given: Probabilities, topology: Topology) -> list[tuple[Path_, str]]:
    """Return what is wrong with the names in probabilities, each with its place in them."""
    if not isinstance(given, Mapping):
        return []
    nodes, found = topology.nodes, list[tuple[Path_, str]]()
    for name in given:
        named = topology.named(name)
        if named and all(nodes[node].is_worker for node in named):
            continue
        known = list(dict.fromkeys(n for w in topology.workers for n in (nodes[w].class_name, nodes[w].name)))
        what = "is a server, and only workers take steps" if named else "is no worker of the topology"
        found.append(((name,), f"'{name}' {what}{nearest(name, known) or f'; workers are {listed(known)}'}"))
    return found


def _uniforms(seed: int, worker: str) -> np.random.Generator:
    return stream(seed, "steps", worker)


class Taken:
    """Which steps one worker takes. Its own steps are numbered from 0; iteration t stands for the step after it."""

    def __init__(self, seed: int, worker: str, probability: float) -> None:
        self._rng, self._probability = _uniforms(seed, worker), probability
        self._known = 0
        self._iterations: NDArray[np.int64] = np.empty(0, np.int64)
        """After which iterations a step is taken, of the first `_known`."""

    def before(self, iteration: int) -> int:
        """Return how many steps are taken in the iterations up to `iteration`: the number of the next one."""
        while self._known < iteration:
            self._look_further()
        return int(np.searchsorted(self._iterations, iteration))

    def iterations(self, begin: int, num_steps: int) -> list[int]:
        """Return after which iterations the worker's steps begin, begin + 1, ... of its own counting are taken."""
        while len(self._iterations) < begin + num_steps:
            self._look_further()
        found: list[int] = self._iterations[begin : begin + num_steps].tolist()
        return found

    def _look_further(self) -> None:
        num = max(_FIRST, self._known)
        more = np.flatnonzero(self._rng.random(num) < self._probability) + self._known
        self._iterations, self._known = np.concatenate([self._iterations, more]), self._known + num


class TakenOnly:
    """A stream of the costs of steps, one drawn for each iteration, of which only those that are taken are spent."""

    def __init__(self, costs: Stream, seed: int, worker: str, probability: float) -> None:
        self._costs, self._rng, self._probability = costs, _uniforms(seed, worker), probability

    def take(self, num: int) -> int:
        return sum(self._spent(num).tolist())

    def sums(self, num: int, each: int) -> Nanoseconds:
        spent = self._spent(num * each)
        if int(spent.max()) > MOST_NS // each:
            raise TooLongError
        return np.asarray(spent.reshape(num, each).sum(axis=1))

    def _spent(self, num: int) -> NDArray[Any]:
        return np.where(self._rng.random(num) < self._probability, self._costs.sums(num, 1), 0)
