"""Files that a user names or sent us: regular files only, and never more of one than its reader allows."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hsgd_emu.errors import ConfigError, nearest

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_PART = 2**20


def open_regular(path: Path, what: str = "a regular file") -> int:
    """Return a descriptor, to be closed by the caller, of a regular file opened for reading; it never blocks.

    what: what is expected there, as in "a run file".
    Raises:  ConfigError: nothing of that name, no regular file (links are followed), or not to be opened.
    """
    try:
        _refuse_special(os.stat(path), path, what)  # before it is opened: opening a pipe or a tape does something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigError.of(str(path), "", f"no such file{nearest_beside(path)}") from None
    except OSError as error:
        raise ConfigError.of(str(path), "", f"cannot be read: {_reason(error)}") from None
    except ValueError:
        raise ConfigError.of(str(path).replace("\0", "?"), "", "not a file name") from None
    try:
        _refuse_special(os.fstat(descriptor), path, what)  # it may have been exchanged meanwhile
    except ConfigError:
        os.close(descriptor)
        raise
    return descriptor


def read_text_bounded(path: Path, limit: int, what: str = "a regular file") -> str:
    """Return the text of a regular UTF-8 file of at most `limit` bytes, whatever its size was said to be.

    A byte order mark is left out.  what: what is expected there, as in "a run file".
    Raises:  ConfigError: as `open_regular`; or it is larger, not UTF-8, or cannot be read.
    """
    with os.fdopen(open_regular(path, what), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        content = bytearray()
        try:
            while size <= limit and len(content) <= limit:
                part = file.read(min(_PART, limit + 1 - len(content)))
                if not part:
                    return bytes(content).decode("utf-8-sig")
                content += part
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError.of(f"{path}:{line}", "", "not UTF-8 text; save the file as UTF-8") from None
        except OSError as error:
            raise ConfigError.of(str(path), "", f"cannot be read: {_reason(error)}") from None
    found = f"{size} bytes" if size > limit else "grows while it is read"
    raise ConfigError.of(str(path), "", f"{found}; at most {limit} bytes are read")


def _refuse_special(found: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise ConfigError.of(str(path), "", f"is {kind}; {what} is expected")


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its symbolic links lead round in a circle"
    return os.strerror(error.errno) if error.errno else "it is not there as a file"


def nearest_beside(path: Path) -> str:
    """Return ``; did you mean 'x'?`` for the file beside `path` whose name is nearest."""
    try:
        return nearest(path.name, sorted(entry.name for entry in path.parent.iterdir()))
    except (OSError, ValueError):
        return ""
