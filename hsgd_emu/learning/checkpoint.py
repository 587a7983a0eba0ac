"""A trial's learning state on disk, whole whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


class Checkpoints:
    """The last two checkpoints of one trial, one file each.

    A checkpoint is written when the global server has the new model, before the round is committed to the database.
    Killed between the two, the database still names the checkpoint before, which the other file holds.
    """

    def __init__(self, folder: Path, trial: int) -> None:
        self.folder, self.trial = folder, trial

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.trial}-{number % 2}.pt"

    def save(self, round_: int, iteration: int, state: dict[str, Any]) -> None:
        """Write the state after a round, in place of the one two rounds before."""
        self.folder.mkdir(exist_ok=True)
        path = self._file(round_)
        beside = path.with_suffix(".new")
        # Not synchronised to the disk: a kill cannot tear it, and after a power failure `load` finds it unreadable.
        torch.save({"iteration": iteration, **state}, beside)
        os.replace(beside, path)

    def load(self, iteration: int) -> dict[str, Any] | None:
        """Return the state after `iteration`, or None if no file holds it whole."""
        for number in (0, 1):
            try:
                state: dict[str, Any] = torch.load(self._file(number), weights_only=True)
            except Exception:  # missing, torn or from another version: all mean that it cannot be used
                continue
            if state.get("iteration") == iteration:
                return state
        return None

    def remove(self) -> None:
        """Delete the trial's files."""
        for number in (0, 1):
            self._file(number).unlink(missing_ok=True)
