"""Locks on files: held by a descriptor, so that whatever ends a process releases them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hsgd_emu.errors import RunError

NO_LOCKS = "HSGD_EMU_NO_LOCKS"
"""The environment variable that says: go on where the file system has no locks."""
MARK = b"hsgd-emu: this folder is written by hsgd-emu, and this file is its lock\n"


def try_lock(path: Path) -> int | None:
    """Return the descriptor that holds the lock of a file until it is closed; None where another has it.

    The file is made where there is none, and says that it is ours.
    Raises:  RunError: it is no regular file, cannot be written, or its file system has no locks.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        what = "is a link, and a lock is none; remove it" if error.errno == errno.ELOOP else f"{error.strerror}"
        raise RunError(f"{path}: cannot be opened as a lock ({what})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RunError(f"{path}: is no regular file, so it is no lock of ours; remove it")
        if not _locked(descriptor, path):
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_size == 0:
            os.write(descriptor, MARK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_marked(path: Path) -> bool:
    """Tell whether a file is a lock that we made, by what it says."""
    with contextlib.suppress(OSError), opened(path) as descriptor:
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.read(descriptor, len(MARK) + 1) == MARK
    return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Give a descriptor to look at a file with: no link is followed, nothing blocks. Raises OSError: there is none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Tell whether a process holds the lock of a file.

    Asks for a shared lock without waiting: refused, it has held nothing. Only where nobody holds it is it ours for
    some microseconds, and whoever asks ends then, so that a run which starts later does not meet it again.
    """
    try:
        with opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no locks here: not known
        return False
    return False


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if not os.environ.get(NO_LOCKS):
            text = (
                f"{path.parent}: its file system gives no locks (flock: {error.strerror}), so two runs could write "
                "the same folder unseen; give a folder of another file system (a local disk; copy it when it is done), "
                f"or set {NO_LOCKS}=1 and see to it that one command at a time writes there"
            )
            raise RunError(text) from error
    return True
