"""The verbs of the Python API that end in results: read, run, retime, run_study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsgd_emu import run as runs
from hsgd_emu.results.read import RunResults, read_run
from hsgd_emu.study import retime as retiming
from hsgd_emu.study.sweep import run_study as studies
from hsgd_emu.study.sweep.store import StudyResults, is_study_folder, read_study
from hsgd_emu.trials import Session

if TYPE_CHECKING:
    from hsgd_emu.study.training.shelf import Shelf


def read(folder: Path | str) -> RunResults | StudyResults:
    """Return the results in the folder of a run or a study, finished or not, as pandas frames.

    Raises:  ConfigError: the folder holds neither.
    """
    return read_study(folder) if is_study_folder(Path(folder)) else read_run(folder)


def run(path: Path | str, out: Path | str | None = None, *, library: Path | str | None = None, **options: Any) -> Any:
    """Run a run file and return its results; see `hsgd_emu.run.run`.

    library: of learned trials (default: runs/out/trials; "none": neither look for trials there nor keep any).
    """

    def shelf(session: Session) -> Shelf | None:
        from hsgd_emu.study.training.shelf import shelf_of  # with it comes torch

        return shelf_of(session, library)

    return runs.run(path, out, shelf_of=shelf, **options)


def retime(folder: Path | str, out: Path | str, **changes: Any) -> RunResults:
    """Re-time the run in `folder` into `out` and return its results; see `hsgd_emu.study.retime.retime`."""
    return read_run(retiming.retime(folder, out, **changes))


def run_study(path: Path | str, out: Path | str | None = None, **options: Any) -> StudyResults:
    """Run the study of a file and return its results; see `hsgd_emu.study.sweep.run_study.run_study`."""
    return read_study(studies.run_study(path, out, **options))
