"""Runs or a study as one self-contained HTML page: nothing is fetched, and the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hsgd_emu.atomic import refuse_foreign, write_atomically
from hsgd_emu.errors import ConfigError, unwritable
from hsgd_emu.results.folder import REPORT_FILE
from hsgd_emu.study.sweep.store import is_study_folder

if TYPE_CHECKING:
    from hsgd_emu.study.planning.result import PlanResult

_MARK = '<meta name="generator" content="hsgd_emu">'
"""In the head of every page that we write, by which it is known as ours."""

__all__ = ["only_study", "write_plan", "write_report"]


def write_report(folders: Path | Sequence[Path], out: Path | None = None, force: bool = False) -> Path:
    """Write the report of the runs in `folders` on one page, or of one study, and return its path.

    They may still be going on; the page says so then.

    Args:    out: default: report.html in the (first) folder.  force: overwrite a file that is no report of ours.
    Raises:  ConfigError: a folder holds neither, a study is not alone, or `out` cannot be written.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    path = out or folders[0] / REPORT_FILE
    refuse_foreign(path, _MARK, force)
    study = only_study(folders)
    _write(path, _study(study) if study else _runs(folders))
    return path


def write_plan(result: PlanResult, out: Path | None = None, force: bool = False) -> Path:
    """Write the page of a plan and return its path.

    Args:    out: default: plan.html in runs/out/<name>-plan.  force: overwrite a file that is no page of ours.
    Raises:  ConfigError: `out` is such a file, or cannot be written.
    """
    from hsgd_emu.report.plan import render

    path = out or Path("runs/out") / f"{result.candidates[0].variant.experiment.name}-plan" / "plan.html"
    refuse_foreign(path, _MARK, force)
    _write(path, render(result))
    return path


def _write(path: Path, html: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html)
    except OSError as error:
        raise unwritable(path, error) from error


def only_study(folders: Sequence[Path]) -> Path | None:
    """Return the folder of the study, or None where all are of runs. Raises ConfigError: a study is not alone."""
    studies = [folder for folder in folders if is_study_folder(folder)]
    if studies and len(folders) > 1:
        text = "is a study, whose report stands alone; right would be one study, or one run or several"
        raise ConfigError.of(str(studies[0]), "", text)
    return studies[0] if studies else None


def _runs(folders: Sequence[Path]) -> str:
    from hsgd_emu.report.content import gather
    from hsgd_emu.report.page import render

    with gather(folders) as content:
        return render(content)


def _study(folder: Path) -> str:
    from hsgd_emu.report.study.content import gather
    from hsgd_emu.report.study.page import render

    return render(gather(folder))
