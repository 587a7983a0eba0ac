"""Data sets of the user's own: an .npz file, or a factory function in a module."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data.dataset import OPTIONAL, REQUIRED, Dataset, from_arrays
from hsgd_emu.learning.data.npz import read_npz
from hsgd_emu.learning.data.roots import candidates, missing
from hsgd_emu.learning.own_code import modules_of
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.rng import seed_of

LAYOUT = "a NumPy .npz file with the arrays train_x, train_y, test_x and test_y"


def load_npz(spec: DataSpec, base: Path) -> Dataset:
    """Return the arrays of `<root>/<folder>`, a .npz file (or of the root itself, if that is one).

    See `from_arrays` for the shapes and types accepted. Never unpickles.
    Raises:  ConfigError: no such file, not a .npz file, or arrays that do not fit.
    """
    # Whatever is there is this file: that it may be no regular file is said when it is opened.
    file = next((path for path in candidates(spec, base) if path.exists() and not path.is_dir()), None)
    if file is None:
        raise missing(spec, base, LAYOUT)
    return from_arrays(read_npz(file, (*REQUIRED, *OPTIONAL), LAYOUT), str(file), "data.folder", spec.layout)


def load_factory(spec: DataSpec, base: Path) -> Dataset:
    """Return what `module:factory` makes when called with `**spec.options`, the module sought in `base`
    first.

    It returns a Dataset, a mapping, or the tuple (train_x, train_y, test_x, test_y). The global generators of Python,
    NumPy and PyTorch are seeded for it, so that the data are the same in every process and for every seed of the run.
    Raises:  ConfigError: the module or factory fails, or what it returns does not fit.
    """
    module_name, _, factory_name = spec.dataset.partition(":")
    try:
        with modules_of(base, module_name), seeded_generators(seed_of(0, "data")):
            made = getattr(importlib.import_module(module_name), factory_name)(**spec.options)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        message = f"{type(error).__name__}: {error} (modules are sought in {base} first)"
        raise ConfigError.of(spec.dataset, "data.dataset", message) from None
    return from_arrays(_mapping(spec.dataset, made), spec.dataset, layout=spec.layout)


def _mapping(name: str, made: Any) -> Mapping[str, Any]:
    if isinstance(made, Dataset):
        return {field.name: getattr(made, field.name) for field in fields(made)}
    if isinstance(made, Mapping):
        return made
    if isinstance(made, tuple | list) and len(made) == len(REQUIRED):
        return dict(zip(REQUIRED, made, strict=True))
    message = (
        f"it returned {type(made).__name__}; return the tuple ({', '.join(REQUIRED)}), a mapping with these "
        f"names (and {', '.join(OPTIONAL)} if wanted), or a Dataset"
    )
    raise ConfigError.of(name, "data.dataset", message)
