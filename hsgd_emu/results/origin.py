"""Where results come from: the command that made them and the commit of this package. For people, not for the bits."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

_LEFT_OUT = ("--force", "--resume", "--tensorboard")
_LEFT_OUT_WITH_VALUE = ("--out", "--library", "--minutes")


def origin() -> dict[str, str]:
    """Return `command` and `commit`, each only where it is known."""
    found = {"command": command_line(sys.argv), "commit": commit()}
    return {key: value for key, value in found.items() if value}


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return libraries' versions, without those that are missing: a machine that only trains draws no reports."""
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def command_line(argv: Sequence[str]) -> str:
    """Return the hsgd-emu command of a process, empty where it is another program; without what changes no result."""
    program = Path(argv[0] if argv else "")
    if program.name != "hsgd-emu" and program.parts[-3:] != ("hsgd_emu", "cli", "__main__.py"):
        return ""
    kept, skip = ["hsgd-emu"], False
    for word in argv[1:]:
        name, _, value = word.partition("=")
        if skip or word in _LEFT_OUT:
            skip = False
        elif name in _LEFT_OUT_WITH_VALUE:
            skip = not value
        else:
            kept.append(word)
    return shlex.join(kept)


@lru_cache
def commit() -> str:
    """Return the commit that this package was taken from, `-dirty` where its files were changed; empty: not known."""
    return _checked_out() or _installed()


def _checked_out() -> str:
    here = Path(__file__)
    # A package installed below somebody's own repository is none of its files.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return ""
    package = here.parents[1]
    is_clean = _git(package, "diff", "--quiet", "HEAD", "--", str(package)) is not None
    return f"{_git(package, 'rev-parse', '--short=12', 'HEAD') or ''}{'' if is_clean else '-dirty'}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed() -> str:
    """Return the commit that pip noted when it installed from a repository (direct_url.json, PEP 610)."""
    try:
        text = distribution("hsgd-emu").read_text("direct_url.json")
    except PackageNotFoundError:
        return ""
    return str(json.loads(text).get("vcs_info", {}).get("commit_id", "")) if text else ""
