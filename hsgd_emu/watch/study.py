"""How far a study is. Its trials are learned in the library's folders: only their number is in its database."""

from __future__ import annotations

import contextlib
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text

from hsgd_emu.study.sweep.store import connect_to_read, read_study
from hsgd_emu.watch.board import is_written
from hsgd_emu.watch.drawing import bar


@dataclass(frozen=True)
class StudyNow:
    """A study at one moment. num_timed: scenarios that are timed and written."""

    name: str
    num_scenarios: int
    num_timed: int
    num_trials: int
    finished: bool
    written: bool

    @property
    def over(self) -> bool:
        """Whether no more will come."""
        return self.finished or not self.written


class StudyBoard:
    """Looks at the study in a folder again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = str(read_study(folder).study["name"])

    def read(self) -> StudyNow:
        """Return the study as it is now.

        Raises:  ConfigError: the folder holds no study.
        """
        from hsgd_emu.study.sweep.run_study import is_finished

        # The lock first, as in `RunBoard.read`.
        written = is_written(self.folder)
        with contextlib.closing(connect_to_read(self.folder)) as connection:
            connection.execute("BEGIN")
            tables = (("scenario", "scenarios"), ("scenario", "summary"), ("trial", "trials"))
            counts = (f"SELECT count(DISTINCT {column}) FROM {table}" for column, table in tables)
            num_scenarios, num_timed, num_trials = (connection.execute(sql).fetchone()[0] for sql in counts)
        return StudyNow(self._name, num_scenarios, num_timed, num_trials, is_finished(self.folder), written)


def draw_study(study: StudyNow) -> Text:
    """Return one line: the study's name, bar and counts."""
    share = study.num_timed / max(1, study.num_scenarios)
    line = Text(f"{study.name}  ", style="bold")
    line.append(f"{bar(share, 20)} {math.floor(100 * share)}%", style="green" if study.finished else "cyan")
    line.append(f"  {study.num_timed:,} of {study.num_scenarios:,} scenarios timed", style="not bold")
    if not study.num_timed and study.written:
        line.append(f"; its {study.num_trials:,} trials are learned first", style="not bold")
    return line


def study_last_words(folder: Path, study: StudyNow) -> list[str]:
    """Return what is to be said when no more will come: the answers, or that the study was left and how to go on."""
    if study.finished:
        from hsgd_emu.study.sweep.wording import answers

        return ["", *answers(folder)]
    if study.written:
        return []
    left, where = "Nobody writes this study any more, and it is not finished", shlex.quote(str(folder))
    return ["", f"{left}: `hsgd-emu study FILE --out {where}` goes on."]
