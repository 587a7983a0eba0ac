"""A trial's learning state on disk, whole whenever the process is killed, and known by its SHA-256."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

import torch

from hsgd_emu.atomic import make_folder, replacing

_PATIENCE = 20
"""Writing may take one part in this of a trial's time: short rounds are not all kept."""


KEPT_BYTES = 2**28
"""A finished trial's checkpoint above this is not kept."""


class Ledger(Protocol):
    """Where the hashes of a trial's checkpoints are kept: away from the files, so that it tells what became of them."""

    def note(self, iteration: int, sha256: str) -> None:
        """Note a checkpoint, for good, before it is put in its place."""

    def known(self) -> Mapping[str, int]:
        """Return the iterations of the last checkpoints noted, three or more, by hash."""


class Checkpoints:
    """The last two checkpoints of one trial, one file each.

    A checkpoint is written when the global server has the new model, before the round is committed to the database.
    Killed between the two, the database still names an earlier round: then the other file, which is older, is used.
    Where writing takes long beside the rounds, several rounds pass between two checkpoints, and a resumed trial learns
    them again; what is recorded is never lost.
    """

    def __init__(self, folder: Path, trial: str, ledger: Ledger) -> None:
        """trial: what its files are called."""
        self.folder, self.trial, self.ledger = folder, trial, ledger
        self.damaged: list[Path] = []
        """Files that `load` found to be other than what was written."""
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
        make_folder(self.folder)
        # Not synchronised to the disk: a kill cannot tear it, and after a power failure `load` finds another hash.
        with replacing(self._file(self._next), synced=False) as file:
            hashed = _Hashed(file)
            torch.save({"iteration": iteration, **state}, cast(IO[bytes], hashed))
            self.ledger.note(iteration, hashed.sha256.hexdigest())
        self._next = 1 - self._next
        end = time.perf_counter()
        self._due = end + _PATIENCE * (end - begin)

    def load(self, iteration: int) -> dict[str, Any] | None:
        """Return the newest state at `iteration` or before, or None if no file holds one whole."""
        self.damaged = []
        known = self.ledger.known()
        found = {number: known.get(sha256) for number in (0, 1) if (sha256 := self._sha256(number)) is not None}
        self.damaged = [self._file(number) for number, at in found.items() if at is None]
        usable = {number: at for number, at in found.items() if at is not None and at <= iteration}
        for number in sorted(usable, key=usable.__getitem__, reverse=True):
            try:
                state: dict[str, Any] = torch.load(self._file(number), weights_only=True)
            except Exception:  # whole, but of another version of torch: it cannot be used
                self.damaged.append(self._file(number))
                continue
            self._next = 1 - number
            return state
        return None

    def _sha256(self, number: int) -> str | None:
        """Return the hash of a file as it is now, None where there is none; empty: it cannot be read, or is a link."""
        try:
            descriptor = os.open(self._file(number), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return None if error.errno == errno.ENOENT else ""

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


class _Hashed:
    """A file being written whose hash is known when it is, without being read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
