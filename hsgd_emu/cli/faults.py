"""What went wrong that is no mistake in a file: the system's faults, a damaged folder, or a failure of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hsgd_emu.errors import ConfigError

_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says it, in a RuntimeError."""


def explained(error: Exception) -> str | None:
    """Return what the system refused, with the path; None where it is no fault of the system."""
    # Loaded already where there is such an error.
    import sqlite3

    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY):
        return "memory is used up; what was finished is kept. Fewer --jobs, a smaller model or batch need less"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error}; what was finished is kept"
    if isinstance(error, sqlite3.OperationalError):
        return f"a database could not be read or written ({error}); is the disk full, or the folder gone?"
    return None


def complaint_about(arguments: Iterable[Any]) -> ConfigError | None:
    """Return what is wrong with a folder among the arguments of a command that failed; None: nothing."""
    from hsgd_emu.results.verify import complaint
    from hsgd_emu.study.sweep.verify import study_complaint

    paths = [path for value in arguments for path in (value if isinstance(value, list) else [value])]
    found = (complaint(path) or study_complaint(path) for path in paths if isinstance(path, Path))
    return next((one for one in found if one is not None), None)
