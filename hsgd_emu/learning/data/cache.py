"""Decoded data sets, kept so that the next run need not decode them again. Any file here may be deleted."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data.dataset import REQUIRED, Array, Dataset, from_arrays
from hsgd_emu.learning.data.npz import read_npz
from hsgd_emu.learning.data.spec import env_root, user_cache

FORMAT = 2
"""Counted up when the decoded form changes, so that older files are no longer found."""

_STORED = (*REQUIRED, "num_classes", "mean", "std", "writers", "digest")


class Told(NamedTuple):
    """Who is told what a data set takes (`say`), and what should not be overlooked in it (`warn`)."""

    say: Callable[[str], None]
    warn: Callable[[str], None]


def cached(
    kind: str, options: dict[str, Any], folder: Path, files: Sequence[Path], build: Callable[[], Dataset], tell: Told
) -> Dataset:
    """Return the data set decoded before from these files with these options, else build and store it.

    A torn or damaged file is built anew; where nothing can be written the data set is used without being stored.
    Raises:  ConfigError: a file changed while the data set was built.
    """
    key = fingerprint(kind, options, folder, files)
    place = cache_folder()
    file = None if place is None else place / f"{key}.npz"
    stored = None if file is None else _read(file, tell)
    if stored is not None:
        return stored
    dataset = build()
    if fingerprint(kind, options, folder, files) != key:
        raise ConfigError.of(str(folder), "data.folder", "its files changed while they were read; start again")
    if file is None:
        tell.say("no cache folder can be written: the data set will be decoded again next time")
    else:
        _write(file, dataset, tell)
    return dataset


def fingerprint(kind: str, options: dict[str, Any], folder: Path, files: Iterable[Path]) -> str:
    """Return the key of a decoded data set: what was asked for, and what the system knows of every file.

    Size and time of modification can be kept by who changes a file; its number and the time of its last change of any
    kind cannot. The folder counts too: archives often set all times alike.
    Not modelled: a change that the file system does not notice (bytes changed on the disk itself).
    """
    asked = json.dumps([FORMAT, kind, options, str(folder.resolve())], sort_keys=True, default=str)
    digest = hashlib.sha256(asked.encode(errors="surrogateescape"))
    for file in files:
        stat = file.stat()
        known = f"{file.relative_to(folder)}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}\n"
        digest.update(known.encode(errors="surrogateescape"))
    return f"{kind}-{digest.hexdigest()[:32]}"


def cache_folder() -> Path | None:
    """Return where decoded data go: below $HSGD_EMU_DATA if writable, else the user's cache, else None."""
    root = env_root()
    for folder in ([root / ".hsgd_emu_cache"] if root else []) + [user_cache() / "decoded"]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None


def _read(file: Path, tell: Told) -> Dataset | None:
    if not file.exists():
        return None
    try:
        arrays = read_npz(file, _STORED, "a decoded data set")
        if str(arrays.pop("digest", "")) != _digest(file.stem, arrays):
            raise ConfigError.of(str(file), "", "not the content that was stored")
        # Where samples have channels, they are stored first.
        layout = "channels_first" if arrays["train_x"].ndim == 4 else None
        return from_arrays(arrays, str(file), layout=layout)
    except (ConfigError, KeyError):  # the sources are still there
        tell.say(f"cached data set {file.name} is damaged; decoding again")
        return None


def _write(file: Path, dataset: Dataset, tell: Told) -> None:
    values = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    arrays["digest"] = np.asarray(_digest(file.stem, arrays))
    beside = file.with_name(f".{file.stem}-{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("xb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        os.replace(beside, file)
    except OSError as error:
        tell.say(f"the decoded data set could not be stored ({error}); it will be decoded again next time")
    finally:
        beside.unlink(missing_ok=True)


def _digest(key: str, arrays: Mapping[str, Array]) -> str:
    """Return what tells a stored data set from one that was damaged, or stored under another key."""
    digest = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
