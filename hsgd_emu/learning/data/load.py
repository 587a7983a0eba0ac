"""One data set by its name, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.learning.data.builtin import PUBLISHED, load_digits, load_published
from hsgd_emu.learning.data.cache import Told
from hsgd_emu.learning.data.dataset import Dataset, normalisation, peculiarities
from hsgd_emu.learning.data.images import load_image_folder
from hsgd_emu.learning.data.leaf import load_leaf
from hsgd_emu.learning.data.own import load_factory, load_npz
from hsgd_emu.learning.data.spec import check_data_spec


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
    mean, std = normalisation(spec.normalize.mean, spec.normalize.std, dataset.train_x, "", "data.normalize")
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
