"""The verbs of the Python API that end in results: read, retime, run_study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.study import retime as retiming
from hsgd_emu.study.sweep import run_study as studies
from hsgd_emu.study.sweep.store import StudyResults, is_study_folder, read_study


def read(folder: Path | str) -> RunResults | StudyResults:
    """Return the results in the folder of a run or a study, finished or not, as pandas frames.

    Raises:  ConfigError: the folder holds neither.
    """
    return read_study(folder) if is_study_folder(Path(folder)) else read_run(folder)


def retime(folder: Path | str, out: Path | str, **changes: Any) -> RunResults:
    """Re-time the run in `folder` into `out` and return its results; see `hsgd_emu.study.retime.retime`."""
    return read_run(retiming.retime(folder, out, **changes))


def run_study(path: Path | str, out: Path | str | None = None, **options: Any) -> StudyResults:
    """Run the study of a file and return its results; see `hsgd_emu.study.sweep.run_study.run_study`."""
    return read_study(studies.run_study(path, out, **options))
