"""How long it will take to learn what a study lacks."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hsgd_emu.study.training.library import Library
from hsgd_emu.study.training.processes import Reached, TrainingProgress, train_here
from hsgd_emu.study.training.wanted import CASE, Wanted

Cost = tuple[int, int, float]
"""Iterations, evaluations and host seconds of something learned."""
_PERIODS = (2, 10)
_ROUNDS = 200
_ENOUGH_S = 0.5


def estimate_wall_s(wanted: Sequence[Wanted], library: Library) -> float:
    """Return about how many host seconds learning the missing trials takes, one after the other.

    From trials in the library that differ in schedule, seed or length only; where there are none, a few rounds are
    learned and thrown away. Not modelled: aggregations at local servers, the start of processes, and that trials
    learned side by side slow each other down.
    """
    kinds: dict[str, dict[str, Wanted]] = {}
    for one in wanted:
        if library.find(one) is None:
            kinds.setdefault(one.kind, {})[one.key] = one
    total_s = 0.0
    for alike in kinds.values():
        first = next(iter(alike.values()))
        step_s, evaluation_s = fitted(library.alike(first) or [_probed(first, period) for period in _PERIODS])
        for one in alike.values():
            known = library.progress_of(one)
            left = one.until - (known.iteration if known else 0)
            total_s += left * (step_s + evaluation_s / one.evaluated_every)
    return total_s


def fitted(costs: Sequence[Cost]) -> tuple[float, float]:
    """Return the host seconds of an iteration (of all workers) and of an evaluation that explain the costs best.

    Each cost counts alike, large or small. Where one of the two came out below nothing, it is taken to be nothing.
    """
    table = np.array(costs, dtype=float)
    table = table[:, :2] / table[:, 2:]
    both = np.linalg.lstsq(table, np.ones(len(table)), rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    kept = int(both.argmax())
    alone = float(table[:, kept].sum() / (table[:, kept] ** 2).sum())
    return (alone, 0.0) if kept == 0 else (0.0, alone)


class _EnoughError(Exception):
    """The probe has told what it was made for."""


class _Stopwatch(TrainingProgress):
    def __init__(self) -> None:
        self.rounds_s: list[float] = []

    def round(self, wanted: Wanted, reached: Reached) -> None:
        self.rounds_s.append(time.perf_counter())
        if len(self.rounds_s) > 2 and self.rounds_s[-1] - self.rounds_s[0] > _ENOUGH_S:
            raise _EnoughError


def _probed(wanted: Wanted, period: int) -> Cost:
    """Return what a round of `period` iterations costs, without the first one, which warms up."""
    run = json.loads(wanted.run_yaml)
    run["cases"] = [{"name": CASE, "period": period}]
    run["train"]["iterations"] = iterations = period * _ROUNDS
    run["evaluation"] = {"every_iterations": 1}
    probe = replace(wanted, key=f"period-{period}", run_yaml=json.dumps(run), iterations=iterations, until=iterations)
    watch = _Stopwatch()
    with TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        train_here([probe], Library(Path(folder)), 1, watch)
    spans = [end - start for start, end in pairwise(watch.rounds_s)]
    return period, 1, statistics.median(spans)
