"""Where data sets lie: run files carry no paths of a machine, only folders below a root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.data.spec import DEFAULT_FOLDERS


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
