"""Processes of this machine that learn: how many, and what they may bring along and say."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from types import ModuleType

from hsgd_emu.errors import HsgdError, RunError

_main_lock = threading.Lock()


def num_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def bare_main() -> Iterator[None]:
    """Keep new processes from running the main module again, as they do by default.

    They need nothing of it, and a script that is not guarded by __name__ would start all over in each of them.
    """
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def portable(error: Exception, label: str) -> Exception:
    """Return the error itself if it can travel to another process, else one that says the same."""
    if not isinstance(error, HsgdError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{label}: {type(error).__name__}: {error}")
    return error
