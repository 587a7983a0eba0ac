"""How much memory data may take, decided from what their headers say, before any of it is taken."""

from __future__ import annotations

import os
from pathlib import Path

from hsgd_emu.errors import ConfigError

MIB, GIB = 2**20, 2**30
BOMB_BYTES = 256 * MIB
BOMB_RATIO = 200
"""What unpacks to more than so many bytes and to so many times its size is taken for a decompression bomb."""
_SHARE = 0.5  # of the free memory; the rest is for the models and for copies on the way


def check_fits(num_bytes: int, what: str, where: str, field: str, advice: str) -> None:
    """Raise ConfigError where data would take more than half of the memory that is free."""
    free = free_memory()
    if free is not None and num_bytes > _SHARE * free:
        text = f"{what} need {_said(num_bytes)} of memory, more than half of the {_said(free)} that are free"
        raise ConfigError.of(where, field, f"{text}; {advice}")


def check_unpacked(num_bytes: int, packed_bytes: int, what: str, where: str, field: str, advice: str) -> None:
    """Raise ConfigError where data would unpack to so much more than their files that these must be made for it."""
    if num_bytes > BOMB_BYTES and num_bytes > BOMB_RATIO * packed_bytes:
        ratio = num_bytes // max(1, packed_bytes)
        text = f"{what} would unpack to {_said(num_bytes)}, {ratio:,} times their size (a decompression bomb?)"
        raise ConfigError.of(where, field, f"{text}; {advice}")


def free_memory() -> int | None:
    """Return the bytes that this process may still take, None where the system does not tell."""
    known = [free for free in (_system_free(), _group_limit()) if free is not None]
    return min(known, default=None)


def _system_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _group_limit() -> int | None:
    """Return a container's memory limit (control groups, version 2)."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return None


def _said(num_bytes: int) -> str:
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:,.1f} MiB"
