"""A run or a study as one self-contained HTML page: nothing is fetched, and the same results give the same bytes."""

from __future__ import annotations

from pathlib import Path

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import REPORT_FILE, write_atomically
from hsgd_emu.study.sweep.store import is_study_folder

__all__ = ["write_report"]


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report of the run or study in `folder` to `out` (default: its report.html) and return the path.

    It may still be going on; the page says so then.

    Raises:  ConfigError: the folder holds neither, or `out` cannot be written.
    """
    path = out or folder / REPORT_FILE
    html = _study(folder) if is_study_folder(folder) else _run(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html)
    except OSError as error:
        raise ConfigError.of(str(path), "", f"cannot be written ({error.strerror})") from error
    return path


def _run(folder: Path) -> str:
    from hsgd_emu.report.content import gather
    from hsgd_emu.report.page import render

    return render(gather(folder))


def _study(folder: Path) -> str:
    from hsgd_emu.report.study_content import gather
    from hsgd_emu.report.study_page import render

    return render(gather(folder))
