"""A run as one self-contained HTML page: nothing is fetched, and the same run gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import REPORT_FILE, write_atomically

__all__ = ["write_report"]


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the run in `folder` to `out` (default: its report.html) and return the path.

    The run may still be going on; the page says so then.

    Raises:  ConfigError: the folder holds no run, or `out` cannot be written.
    """
    from hsgd_emu.report.content import gather
    from hsgd_emu.report.page import render

    path = out or folder / REPORT_FILE
    html = render(gather(folder))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html)
    except OSError as error:
        raise ConfigError.of(str(path), "", f"cannot be written ({error.strerror})") from error
    return path
