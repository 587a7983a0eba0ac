"""Where results come from: the command that made them and the commit of this package. For people, not for the bits."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

_LEFT_OUT = ("--force", "--resume", "--tensorboard")
_LEFT_OUT_WITH_VALUE = ("--library", "--minutes", "--jobs", "--executor", "--ray-address")
_LEARNING = {"run": ("device", "precision", "threads", "engine"), "study": ("device", "precision")}
"""By command: the options that decide about the last bits, all of which environment.json has as they were."""


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
    return shlex.join(["hsgd-emu", *_without(argv[1:], _LEFT_OUT, _LEFT_OUT_WITH_VALUE)])


def _without(words: Sequence[str], flags: Sequence[str], with_value: Sequence[str]) -> list[str]:
    """Return the words of a command without some of its options."""
    kept, skip = [], False
    for word in words:
        name, _, value = word.partition("=")
        if skip or word in flags:
            skip = False
        elif name in with_value:
            skip = not value
        else:
            kept.append(word)
    return kept


# --- how to reproduce ---------------------------------------------------------------------------------


_OF_ITSELF: Mapping[str, Any] = {"command": "", "parent": None, "retimed_with": {}}
"""Of an environment: what a run does not share with its parent, nothing of which is there."""


def making_commands(environment: Mapping[str, Any]) -> list[str]:
    """Return the commands that make a run or a study again where it was made, those of a run's parents first.

    None where one of them was no command.
    """
    parent = environment.get("parent")
    before = [] if parent is None else making_commands({**environment, **_OF_ITSELF, **parent})
    now = str((environment.get("retimed_with") or environment).get("command") or "")
    if not now or (parent is not None and not before):
        return []
    return [*before, _as_learned(now, environment)]


def command_alone(what: str, environment: Mapping[str, Any], resolved: Mapping[str, Any]) -> str:
    """Return the command that makes a run (what: run) or a study again from its resolved file alone, saved as
    run.yaml or study.yaml.

    resolved: the file's content.
    """
    command = f"hsgd-emu {what} {what}.yaml"
    if environment.get("timing_only"):
        command += " --timing-only"
        # How large a model's message is may only its code tell.
        if resolved.get("message_bytes") is None:
            command += f" --set message_bytes={environment['message_bytes']}"
    return _as_learned(command, environment)


def _as_learned(command: str, environment: Mapping[str, Any]) -> str:
    """Return a command with the options that decide about the last bits as they were, also where they were chosen."""
    words = shlex.split(command)
    names = _LEARNING.get(words[1] if len(words) > 1 else "", ())
    if environment.get("timing_only"):
        return command
    words = _without(words, (), [f"--{name}" for name in names])
    given = [(name, environment.get(name)) for name in names]
    return shlex.join([*words, *(word for name, value in given if value for word in (f"--{name}", str(value)))])


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
