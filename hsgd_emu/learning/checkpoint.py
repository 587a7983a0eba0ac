"""A trial's learning state on disk, whole whenever the process is killed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

_PATIENCE = 20
"""Writing may take one part in this of a trial's time: short rounds are not all kept."""


KEPT_BYTES = 2**28
"""A finished trial's checkpoint above this is not kept."""


class Checkpoints:
    """The last two checkpoints of one trial, one file each.

    A checkpoint is written when the global server has the new model, before the round is committed to the database.
    Killed between the two, the database still names an earlier round: then the other file, which is older, is used.
    Where writing takes long beside the rounds, several rounds pass between two checkpoints, and a resumed trial learns
    them again; what is recorded is never lost.
    """

    def __init__(self, folder: Path, trial: str) -> None:
        """trial: what its files are called."""
        self.folder, self.trial = folder, trial
        self._next = 0
        self._due = 0.0

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.trial}-{number % 2}.pt"

    def is_due(self) -> bool:
        """Return whether enough time has passed since the last one was written."""
        return time.perf_counter() >= self._due

    def save(self, iteration: int, state: dict[str, Any]) -> None:
        """Write the state after a round, in place of the one before the last."""
        begin = time.perf_counter()
        self.folder.mkdir(exist_ok=True)
        path = self._file(self._next)
        beside = path.with_suffix(".new")
        # Not synchronised to the disk: a kill cannot tear it, and after a power failure `load` finds it unreadable.
        torch.save({"iteration": iteration, **state}, beside)
        os.replace(beside, path)
        self._next = 1 - self._next
        end = time.perf_counter()
        self._due = end + _PATIENCE * (end - begin)

    def load(self, iteration: int) -> dict[str, Any] | None:
        """Return the newest state at `iteration` or before, or None if no file holds one whole."""
        best: dict[str, Any] | None = None
        for number in (0, 1):
            try:
                state: dict[str, Any] = torch.load(self._file(number), weights_only=True)
                is_better = (best["iteration"] if best else -1) < state["iteration"] <= iteration
            except Exception:  # missing, torn or from another version: all mean that it cannot be used
                continue
            if is_better:
                best, self._next = state, 1 - number
        return best

    def keep_last(self) -> None:
        """Delete all but the newest, from which the trial can go on to more iterations; that too where it is large."""
        newest = self._file(1 - self._next)
        self._file(self._next).unlink(missing_ok=True)
        if newest.exists() and newest.stat().st_size > KEPT_BYTES:
            newest.unlink()

    def remove(self) -> None:
        """Delete the trial's files."""
        for number in (0, 1):
            self._file(number).unlink(missing_ok=True)
