"""What can be said about the `data:` section of a run file without loading anything, and where its data lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.config.schema import is_factory
from hsgd_emu.errors import ConfigError, listed, nearest

DEFAULT_FOLDERS = {
    "cifar10": "cifar10",
    "mnist": "mnist",
    "fashion_mnist": "fashion_mnist",
    "image_folder": "images",
    "leaf": "femnist_leaf",
    "npz": "data.npz",
}
"""Folder (npz: file) of each data set below the root, unless `data.folder` names another."""

DATASETS = ("digits", *DEFAULT_FOLDERS)
"""Known names; beside them `module:factory` is a data set of the user's own."""

_WITHOUT_WRITERS = ("digits", "cifar10", "mnist", "fashion_mnist", "image_folder")

Finding = tuple[str, str]


def check_data_spec(spec: DataSpec) -> list[Finding]:
    """Return (dotted field, message) of each mistake that shows without loading the data."""
    return [*_dataset(spec), *_partition(spec), *_normalize(spec)]


def _dataset(spec: DataSpec) -> list[Finding]:
    name = spec.dataset
    if not is_factory(name) and name not in DATASETS:
        known = ", ".join(DATASETS)
        hint = nearest(name, DATASETS)
        return [("data.dataset", f"{name!r} is not a data set; known are {known} and module:factory{hint}")]
    findings = []
    if spec.options and not is_factory(name):
        findings.append(("data.options", f"only a module:factory takes options; {name} takes none"))
    if spec.folder is not None and name not in DEFAULT_FOLDERS:
        findings.append(("data.folder", f"{name} reads no folder; leave it out"))
    if spec.image_size is not None and name not in ("image_folder", "leaf"):
        findings.append(("data.image_size", f"only image_folder and leaf resize image files; {name} does not"))
    if spec.layout is not None and name not in ("npz", "leaf") and not is_factory(name):
        text = f"only arrays of your own (npz, leaf, module:factory) leave it open; that of {name} is known"
        findings.append(("data.layout", text))
    if name == "digits" and (spec.augment.crop or spec.augment.flip):
        findings.append(("data.augment", "digits are vectors of 64 pixels; only images can be cropped or flipped"))
    return findings


def _partition(spec: DataSpec) -> list[Finding]:
    findings = []
    for field, value, owner in (
        ("classes_per_worker", spec.classes_per_worker, "shards"),
        ("alpha", spec.alpha, "dirichlet"),
    ):
        if spec.partition == owner and value is None:
            findings.append((f"data.{field}", f"is missing; partition {owner} needs it"))
        if spec.partition != owner and value is not None:
            message = f"belongs to partition {owner}, not to {spec.partition}; leave it out or use {owner}"
            findings.append((f"data.{field}", message))
    if spec.grouping == "random" and spec.partition in ("group_iid", "group_non_iid"):
        message = f"random cannot be combined with {spec.partition}, which says itself what each group holds"
        findings.append(("data.grouping", message))
    if spec.partition == "natural" and spec.dataset in _WITHOUT_WRITERS:
        message = f"natural needs the writer of each sample, which {spec.dataset} does not have; leaf does"
        findings.append(("data.partition", message))
    return findings


def _normalize(spec: DataSpec) -> list[Finding]:
    if spec.normalize is None:
        return []
    num_means, num_stds = len(spec.normalize.mean), len(spec.normalize.std)
    if num_means != num_stds and 1 not in (num_means, num_stds):
        return [("data.normalize", f"has {num_means} means and {num_stds} stds; give as many of each, or one")]
    return []


def user_cache() -> Path:
    """Return this program's folder in the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("hsgd_emu", appauthor=False))


def env_root() -> Path | None:
    """Return the folder named by HSGD_EMU_DATA, None where it is unset or empty."""
    value = os.environ.get("HSGD_EMU_DATA", "").strip()
    return Path(os.path.expanduser(value)) if value else None


def dataset_root(spec: DataSpec, base: Path | None = None) -> Path:
    """Return `data.root` (relative to `base`), else $HSGD_EMU_DATA, else the user's cache folder."""
    if spec.root is not None:
        return (base or Path()) / os.path.expanduser(spec.root)
    return env_root() or user_cache()


def candidates(spec: DataSpec, base: Path) -> tuple[Path, Path]:
    """Return the two places looked in: the folder below the root, and the root itself."""
    root = dataset_root(spec, base)
    return root / (spec.folder or DEFAULT_FOLDERS[spec.dataset]), root


def find_folder(spec: DataSpec, base: Path, layout: str, is_root: Callable[[Path], bool]) -> Path:
    """Return the folder of the data set: `<root>/<folder>` if it exists, else the root if `is_root` accepts
    it.

    Raises:  ConfigError: neither; the message names both, the expected `layout` and how to name another root.
    """
    folder, root = candidates(spec, base)
    if folder.is_dir():
        return folder
    if root.is_dir() and is_root(root):
        return root
    raise missing(spec, base, layout)


def missing(spec: DataSpec, base: Path, layout: str, why: str = "") -> ConfigError:
    """Return the error of a data set that is not where it should be."""
    looked_in = candidates(spec, base)
    message = (
        f"{spec.dataset} was not found; looked in {listed(looked_in)}. Expected there: {layout}. "
        "Name the folder that holds your data sets with --set data.root=FOLDER or HSGD_EMU_DATA=FOLDER"
    )
    return ConfigError.of(str(looked_in[0]), "data.folder", f"{message} ({why})" if why else message)
