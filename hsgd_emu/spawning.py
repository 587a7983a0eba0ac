"""Processes of this machine that learn: how many, and what they may bring along and say."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hsgd_emu.errors import HsgdError, RunError

_main_lock = threading.Lock()


def num_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Child:
    """A process of this machine, and this side of its pipe."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        """work: what it does, told the other side of the pipe and `arguments`."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, *arguments), daemon=True)
        with _main_lock:
            # It would run the main module again, of which it needs nothing: a script that is not guarded by __name__
            # would start all over.
            main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                self.process.start()
            finally:
                sys.modules["__main__"] = main
        # The process alone holds its end: when it dies, ours is told.
        theirs.close()

    def stop(self) -> None:
        """End it now; what it has begun can be gone on with."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def portable(error: Exception, label: str) -> Exception:
    """Return the error itself if it can travel to another process, else one that says the same."""
    if not isinstance(error, HsgdError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RunError(f"{label}: {type(error).__name__}: {error}")
    return error
