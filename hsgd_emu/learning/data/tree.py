"""The files of a data set's folders, at any depth, and what of them is not used."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hsgd_emu.errors import Problem, listed

_SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini", "lost+found", "@eadir")
_SHOWN = 3


class Unused:
    """Paths below one folder that are not used, by the reason why not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_reason: dict[str, list[str]] = {}

    def add(self, path: Path, reason: str) -> None:
        self._by_reason.setdefault(reason, []).append(str(path.relative_to(self.folder)))

    def say(self, warn: Callable[[str], None]) -> None:
        """Tell each reason in one sentence."""
        for reason, paths in self._by_reason.items():
            note = Problem(str(self.folder), "", f"not used: {listed(paths, _SHOWN)} ({reason})")
            warn(str(note.printable()))


def is_passed_over(name: str) -> bool:
    """Return whether a name is hidden, or one that systems leave in everybody's folders; nothing is said of these."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def files_below(folders: Sequence[Path], endings: Sequence[str], what: str, unused: Unused) -> list[list[Path]]:
    """Return for each folder the files in and below it with one of these endings, in the order of their paths.

    Letters of endings may be large. Links to folders are followed, but no folder is read twice, and none of `folders`
    for another one. What is passed over is added to `unused`; what: such as "an image".
    """
    seen = {_number(folder) for folder in folders} | {_number(folders[0].parent)}
    numbers = [_number(folder) for folder in folders]
    found: list[list[Path]] = []
    for index, folder in enumerate(folders):
        if numbers[index] in numbers[:index]:
            unused.add(folder, _READ_ALREADY)
            found.append([])
        else:
            files = _walk(folder, endings, what, unused, seen)
            found.append(sorted(files, key=lambda path: path.parts))
    return found


_READ_ALREADY = "a folder that is read already under another name"


def _number(folder: Path) -> tuple[int, int]:
    state = folder.stat()
    return state.st_dev, state.st_ino


def _walk(start: Path, endings: Sequence[str], what: str, unused: Unused, seen: set[tuple[int, int]]) -> Iterator[Path]:
    folders = [start]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            path = folder / entry.name
            if is_passed_over(entry.name):
                continue
            if _is(entry, os.DirEntry.is_dir):
                number = _number(path)
                if number in seen:
                    unused.add(path, _READ_ALREADY)
                else:
                    seen.add(number)
                    folders.append(path)
            elif not _is(entry, os.DirEntry.is_file):
                unused.add(path, "no regular file, or a broken link")
            elif not entry.name.lower().endswith(tuple(endings)):
                unused.add(path, f"{what} ends in {listed(endings)}")
            else:
                yield path


def _is(entry: os.DirEntry[str], kind: Callable[[os.DirEntry[str]], bool]) -> bool:
    """Return whether an entry is of a kind; a link in a circle is of none."""
    try:
        return kind(entry)
    except OSError:
        return False
