"""Files that appear whole or not at all, and never through a link: every file that we write goes this way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO

from hsgd_emu.errors import ConfigError
from hsgd_emu.locks import opened

_BEGIN, _END = ".hsgd-emu-", ".new"  # of the name of a file that is not whole yet
_MARKED_BYTES = 2**16  # at the beginning and at the end of a file, to look for our mark in


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, a kill at any moment and a power failure leave the old one or the new one.

    Raises:  OSError, with the path in it.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write to; it takes the place of `path` when all is written, and goes if anything fails.

    A link at `path` is replaced itself; what it leads to stays as it is.  synced: whole after a power failure too.
    Raises:  OSError, with the path in it; `path` may be no folder, pipe or device.
    """
    _refuse_special(path)
    remove_leftovers(path.parent)
    try:
        with _new_file(path.parent) as (beside, file):
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
            os.replace(beside, path)
        if synced:
            _sync_folder(path.parent)
    except OSError as error:
        # What fails is the writing of this file, whatever the system calls it.
        raise type(error)(error.errno, error.strerror, str(path)) from error


def refuse_foreign(path: Path, mark: str, force: bool) -> None:
    """Raise ConfigError where a file would be overwritten that is none of ours; mark: what ours have in them."""
    if force or not (path.is_file() or path.is_symlink()) or _has(path, mark.encode()):
        return  # that a folder cannot be overwritten is told by the system
    text = "is there already, and hsgd-emu did not write it; --force overwrites it, --out writes elsewhere"
    raise ConfigError.of(str(path), "", text)


def _has(path: Path, mark: bytes) -> bool:
    """Tell whether a regular file has the mark near its beginning or its end."""
    with contextlib.suppress(OSError), opened(path) as descriptor:
        size = os.fstat(descriptor).st_size if stat.S_ISREG(os.fstat(descriptor).st_mode) else 0
        head = os.pread(descriptor, min(size, _MARKED_BYTES), 0)
        return mark in head or mark in os.pread(descriptor, _MARKED_BYTES, max(0, size - _MARKED_BYTES))
    return False


def make_folder(folder: Path) -> None:
    """Make a folder of ours where there is none.

    Raises:  OSError: it cannot be made, or something else is there: a link too, for what is written would go elsewhere.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    if not stat.S_ISDIR(os.lstat(folder).st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is a link or a file where a folder of ours should be", str(folder))


@contextlib.contextmanager
def replacing_text(path: Path, newline: str = "\n") -> Iterator[TextIO]:
    """Give a text file (UTF-8) to write to, as `replacing`."""
    with replacing(path) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline=newline)
        try:
            yield text
        finally:
            text.detach()


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half written in a folder; a file that is being written is locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_leftover(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError), opened(Path(entry.path)) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def is_leftover(name: str) -> bool:
    """Tell whether a file of this name is one that was never finished."""
    return name.startswith(_BEGIN) and name.endswith(_END)


@contextlib.contextmanager
def _new_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file in the folder, locked against `remove_leftovers`, and remove it if anything fails."""
    beside, descriptor = _created(folder)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield beside, file
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _created(folder: Path) -> tuple[Path, int]:
    while True:
        beside = folder / f"{_BEGIN}{secrets.token_hex(8)}{_END}"
        # A new file, never one that is there, nor what a link leads to.
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(OSError):  # without locks, leftovers stay
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return beside, descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


def _refuse_special(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise OSError(errno.EINVAL, "is no regular file", str(path))


def _sync_folder(folder: Path) -> None:
    """Make the new name last too; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
