"""One data set by its name, whatever it is made of; those of the user's own are made here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.learning.data.builtin import PUBLISHED, load_digits, load_published
from hsgd_emu.learning.data.cache import Told
from hsgd_emu.learning.data.dataset import OPTIONAL, REQUIRED, Dataset, from_arrays, normalisation, peculiarities
from hsgd_emu.learning.data.images import load_image_folder
from hsgd_emu.learning.data.leaf import load_leaf
from hsgd_emu.learning.data.npz import read_npz
from hsgd_emu.learning.data.spec import candidates, check_data_spec, missing
from hsgd_emu.learning.own_code import modules_of
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.rng import seed_of


def load_dataset(
    spec: DataSpec,
    base: Path,
    progress: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Dataset:
    """Return the data set of the run file whose folder is `base`, decoding or downloading it where needed.

    Args:    progress: told in a short sentence when something takes long.
             warn: told what is valid and should not be overlooked, such as files that are not used.
    Raises:  ConfigError: the spec, the files or the arrays are not as they must be.
    """
    findings = check_data_spec(spec)
    if findings:
        raise ConfigError(Problem("", field, message) for field, message in findings)
    tell = Told(progress or (lambda text: None), warn or (lambda text: None))
    try:
        dataset = _load(spec, base, tell)
    except OSError as error:  # a folder that may not be read, a file that went away meanwhile
        raise ConfigError.of(str(error.filename or ""), "data.folder", f"cannot be read: {error.strerror}") from None
    if (spec.augment.crop or spec.augment.flip) and dataset.train_x.ndim != 4:
        text = f"only images can be cropped or flipped; samples have shape {dataset.train_x.shape[1:]}"
        right = " (grey images of floats are (N, 1, H, W))" if dataset.train_x.ndim == 3 else ""
        raise ConfigError.of("", "data.augment", text + right)
    for text in peculiarities(dataset):
        tell.warn(text)
    if spec.normalize is None:
        return dataset
    mean, std = normalisation(spec.normalize.mean, spec.normalize.std, dataset.train_x)
    return replace(dataset, mean=mean, std=std)


def _load(spec: DataSpec, base: Path, tell: Told) -> Dataset:
    if spec.dataset == "digits":
        return load_digits()
    if spec.dataset in PUBLISHED:
        return load_published(spec, base, tell)
    if spec.dataset == "image_folder":
        return load_image_folder(spec, base, tell)
    if spec.dataset == "leaf":
        return load_leaf(spec, base, tell)
    return load_npz(spec, base) if spec.dataset == "npz" else load_factory(spec, base)


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
