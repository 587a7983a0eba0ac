"""Write the shipped examples to a folder: the same files as in the repository."""

from __future__ import annotations

import os
from pathlib import Path

from hsgd_emu.atomic import write_atomically
from hsgd_emu.config.profiles import examples_root
from hsgd_emu.errors import ConfigError, listed, unwritable

_KINDS = ("topologies", "latency_profiles", "runs", "runs/paper", "runs/studies")


def write_examples(folder: Path, force: bool = False) -> list[Path]:
    """Copy the example files below `folder` and return their paths.

    Raises:  ConfigError: a file is there already with other content, and `force` is not set.
    """
    root = examples_root()
    sources = [path for kind in _KINDS for path in sorted((root / kind).iterdir()) if path.is_file()]
    targets = [folder / path.relative_to(root) for path in sources]
    changed = [
        target
        for source, target in zip(sources, targets, strict=True)
        if os.path.lexists(target) and (not target.is_file() or target.read_bytes() != source.read_bytes())
    ]
    if changed and not force:
        raise ConfigError.of(str(folder), "", f"{listed(changed)} would be overwritten; --force does so")
    try:
        for source, target in zip(sources, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, source.read_bytes())
    except OSError as error:
        raise unwritable(folder, error) from None
    return targets
