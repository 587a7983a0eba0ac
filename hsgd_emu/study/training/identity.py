"""What decides the bits of a trial beside its run file: versions, the data themselves, the source of a user's model."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.experiment import Experiment
from hsgd_emu.learning.data import Dataset, load_dataset

FORMAT = 1
"""Counted up when the same run file comes to mean another learning, so that older trials are no longer found."""
LIBRARIES = ("hsgd-emu", "torch", "torchvision", "numpy", "scikit-learn")
Facts = tuple[tuple[str, str], ...]


def facts_of(experiment: Experiment) -> Facts:
    """Return (what, version or hash) of all that the learning depends on and the run file only names.

    Data are told by their content, wherever they lie. What was read once is remembered until `forget`.
    """
    spec = experiment.data.model_copy(update={"partition": "iid", "classes_per_worker": None, "alpha": None})
    facts = [("format", str(FORMAT)), *((name, version(name)) for name in LIBRARIES)]
    facts.append(("data", _data_hash(spec, experiment.base)))
    if ":" in experiment.model.name:
        facts.append(("model", source_hash(experiment.model.name.partition(":")[0], experiment.base)))
    return tuple(facts)


def forget() -> None:
    """Read data and sources anew at the next question: they may have changed."""
    _data_hashes.clear()
    source_hash.cache_clear()


_data_hashes: dict[tuple[str, Path], str] = {}


def _data_hash(spec: DataSpec, base: Path) -> str:
    asked = repr(spec), base
    if asked not in _data_hashes:
        _data_hashes[asked] = _content_hash(load_dataset(spec, base))
    return _data_hashes[asked]


def _content_hash(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for field in fields(Dataset):
        value = getattr(dataset, field.name)
        array = np.ascontiguousarray([] if value is None else value)
        digest.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


@lru_cache(maxsize=64)
def source_hash(module: str, base: Path) -> str:
    """Return the hash of a module's source, and of every module that it imports from `base`.

    Not modelled: what it imports from elsewhere, compiled modules, and files that it reads.
    """
    found = dict(_sources(module, base, {}))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _sources(module: str, base: Path, found: dict[str, str]) -> dict[str, str]:
    """Add the sources of a module and of what it imports, by name."""
    for name, path in _files(module, base):
        if name in found:
            continue
        found[name] = path.read_text(encoding="utf-8", errors="surrogateescape")
        for imported in _imports(found[name], name, path.name == "__init__.py"):
            if _files_in(imported, base):
                _sources(imported, base, found)
    return found


def _files(module: str, base: Path) -> list[tuple[str, Path]]:
    """Return the files of a module in `base`, else the one file of an installed module."""
    here = _files_in(module, base)
    if here:
        return here
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    return [(module, Path(spec.origin))] if spec and spec.origin and Path(spec.origin).is_file() else []


def _files_in(module: str, base: Path) -> list[tuple[str, Path]]:
    """Return the module's file in `base` and the __init__ files of the packages around it."""
    parts = module.split(".")
    found = []
    for length in range(1, len(parts) + 1):
        place = base.joinpath(*parts[:length])
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                found.append((".".join(parts[:length]), path))
                break
    return found


def _imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Yield the names of modules that a source may import; nothing where it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level + is_package or None] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from filter(None, [start, *(f"{start}.{alias.name}".lstrip(".") for alias in node.names)])
