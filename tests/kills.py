"""Kills at every moment that matters: the state of the disk before each write, fsync, rename, unlink and statement.

A kill leaves the files as they are at that moment. So one run, its folders copied before each such act, gives what a
kill at each of them would leave; a kill in the middle of a write leaves half of the file.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ACTS = ("replace", "rename", "fsync", "unlink", "remove", "rmdir", "mkdir")
State = dict[str, bytes]
"""The files of the watched folders by name; folders that are empty have a slash at the end."""


class Moments:
    """The different states of some folders, each with the act before which they were so."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders, self.found = folders, list[tuple[str, State]]()
        self._seen: set[bytes] = set()

    def take(self, act: str) -> None:
        state = state_of(self.folders)
        self._add(act, state)
        for name, content in state.items():
            if name.endswith(".new"):
                self._add(f"{act}, half written", state | {name: content[: len(content) // 2]})

    def _add(self, act: str, state: State) -> None:
        # What is in -shm is made anew from the log.
        parts = sorted((name, content) for name, content in state.items() if not name.endswith("-shm"))
        digest = hashlib.sha256(repr(parts).encode()).digest()
        if digest not in self._seen:
            self._seen.add(digest)
            self.found.append((act, state))


def state_of(folders: Sequence[Path]) -> State:
    state: State = {}
    for folder in folders:
        for root, names, files in os.walk(folder):
            state |= {os.path.join(root, name): Path(root, name).read_bytes() for name in files}
            if not names and not files:
                state[f"{root}/"] = b""
    return state


def put_back(folders: Sequence[Path], state: State) -> None:
    """Make the folders as they were."""
    import shutil

    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for name, content in state.items():
        if name.endswith("/"):
            os.makedirs(name, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            Path(name).write_bytes(content)


@contextmanager
def acts_watched(tell: Callable[[str], None]) -> Iterator[None]:
    """Call `tell` before each act that changes a file, in this process."""

    class Told(sqlite3.Connection):
        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            if not sql.lstrip().upper().startswith("SELECT"):
                tell(sql.split("(")[0][:40])
            return super().execute(sql, *rest)

        def close(self) -> None:
            tell("close")
            super().close()

    def told(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            tell(f"{name} {arguments[0]}")
            return function(*arguments, **named)

        return act

    connect = sqlite3.connect
    with ExitStack() as stack:
        for name in ACTS:
            stack.enter_context(patch.object(os, name, told(name, getattr(os, name))))
        stack.enter_context(patch("sqlite3.connect", lambda *a, **named: connect(*a, **{"factory": Told} | named)))
        yield


def moments_of(folders: Sequence[Path], work: Callable[[], object]) -> list[tuple[str, State]]:
    """Return the states that a kill at any act of some work would leave behind, and the one at its end."""
    moments = Moments(folders)
    with acts_watched(moments.take):
        work()
    moments.take("the end")
    return moments.found


def leftovers(folders: Sequence[Path]) -> list[str]:
    """Return what no finished command leaves: journals, and files that were never whole."""
    names = [name.rstrip("/") for name in state_of(folders)]
    ends = ("-journal", "-wal", "-shm", ".new")
    return [name for name in names if name.endswith(ends)]
