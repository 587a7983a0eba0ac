"""Decoded data sets, kept so that the next run need not decode them again. Any file here may be deleted."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from hsgd_emu.learning.data.dataset import Dataset, from_arrays
from hsgd_emu.learning.data.roots import env_root, user_cache

FORMAT = 1
"""Counted up when the decoded form changes, so that older files are no longer found."""

Tell = Callable[[str], None]


def fingerprint(kind: str, options: dict[str, Any], folder: Path, files: Iterable[Path]) -> str:
    """Return the key of a decoded data set: what was asked for, and name, size and time of every file.

    The folder counts too: archives often set all times alike, so two data sets could agree in all the rest.
    Not modelled: a file changed in place with its size and time kept.
    """
    asked = json.dumps([FORMAT, kind, options, str(folder.resolve())], sort_keys=True, default=str)
    digest = hashlib.sha256(asked.encode())
    for file in files:
        stat = file.stat()
        digest.update(
            f"{file.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogateescape")
        )
    return f"{kind}-{digest.hexdigest()[:32]}"


def cached(key: str, build: Callable[[], Dataset], tell: Tell) -> Dataset:
    """Return the data set stored under `key`, else build and store it.

    A torn or damaged file is built anew; where nothing can be written the data set is used without being
    stored.
    """
    folder = cache_folder()
    file = None if folder is None else folder / f"{key}.npz"
    stored = None if file is None else _read(file, tell)
    if stored is not None:
        return stored
    dataset = build()
    if file is None:
        tell("no cache folder can be written: the data set will be decoded again next time")
    else:
        _write(file, dataset, tell)
    return dataset


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


def _read(file: Path, tell: Tell) -> Dataset | None:
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as stored:  # the zip's checksums are checked while reading
            return from_arrays({name: stored[name] for name in stored.files}, str(file))
    except Exception as error:  # whatever a damaged file raises, the sources are still there
        tell(f"cached data set {file.name} is damaged ({type(error).__name__}); decoding again")
        return None


def _write(file: Path, dataset: Dataset, tell: Tell) -> None:
    values = {field.name: getattr(dataset, field.name) for field in fields(dataset)}
    arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
    beside = file.with_name(f".{file.stem}-{uuid.uuid4().hex}.tmp")
    try:
        with beside.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
        os.replace(beside, file)
    except OSError as error:
        tell(f"the decoded data set could not be stored ({error}); it will be decoded again next time")
    finally:
        beside.unlink(missing_ok=True)
