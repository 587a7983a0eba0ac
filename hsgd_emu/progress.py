"""Progress of a run on a terminal: what, how far, how long still, accuracy now. Quiet in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.study.sweep.prepared import StudyPlan
from hsgd_emu.study.sweep.run_study import StudyProgress
from hsgd_emu.study.training.executors import Reached
from hsgd_emu.study.training.wanted import Wanted
from hsgd_emu.terminal import Terminal, say
from hsgd_emu.trials import Progress
from hsgd_emu.units import to_s


class _Quiet:
    """Says only what must not be overlooked."""

    def warn(self, text: str) -> None:
        say(f"hsgd-emu: {text}", file=sys.stderr)

    def note(self, text: str) -> None:
        self.warn(f"note: {text}")


class QuietProgress(_Quiet, Progress):
    """Of a run."""


class QuietStudyProgress(_Quiet, StudyProgress):
    """Of a study or a plan."""


class _Drawn(_Quiet):
    """One bar for all, and one for each trial at work."""

    def __init__(self, bars: Bars, label: str, total: int | None) -> None:
        self.bars, self.all = bars, bars.add_task(label, total=total, news="")
        self.at_work: dict[object, TaskID] = {}

    def say(self, text: str) -> None:
        self.bars.update(self.all, news=text)

    def warn(self, text: str) -> None:
        self.bars.console.print(Text(f"hsgd-emu: {text}"))


class TerminalProgress(_Drawn, Progress):
    """One bar for the whole run, one for each trial at work."""

    def __init__(self, bars: Bars, num_trials: int, iterations: int) -> None:
        super().__init__(bars, "all trials", num_trials * iterations)
        self.num_trials, self.iterations = num_trials, iterations
        self.done: dict[TrialKey, int] = {}
        """Iterations by trial."""
        self.finished = 0

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        label = _short(f"{key.case}, seed {key.seed}")
        if key not in self.at_work:  # it is where another process that learned it died
            self.at_work[key] = self.bars.add_task(label, total=self.iterations, news="")
        self.bars.update(self.at_work[key], completed=done)
        self._update(key, done)

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        news = f"round {record.round}, {to_s(record.time_ns):,.1f} s emulated"
        metrics = record.metrics
        if metrics is not None and metrics.test_accuracy is not None:
            news += f", accuracy {100 * metrics.test_accuracy:.1f}%"
        self.bars.update(self.at_work[key], completed=record.iteration, news=news)
        self._update(key, record.iteration)

    def end(self, key: TrialKey) -> None:
        if key in self.at_work:
            self.bars.remove_task(self.at_work.pop(key))
        self.finished += 1
        self._update(key, self.iterations)

    def _update(self, key: TrialKey, iteration: int) -> None:
        self.done[key] = iteration
        news = f"{self.finished} of {self.num_trials} trials done"
        self.bars.update(self.all, completed=sum(self.done.values()), news=news)


class TerminalStudyProgress(_Drawn, StudyProgress):
    """One bar for all that is to be learned and then for all that is to be timed, and one for each trial at work."""

    def __init__(self, bars: Bars) -> None:
        super().__init__(bars, "study", None)

    def planned(self, plan: StudyPlan) -> None:
        for line in plan.lines():
            self.bars.console.print(Text(line))
        self.bars.update(self.all, description="trials", total=plan.num_missing or None, completed=0, news="")

    def begin(self, wanted: Wanted, learned: int) -> None:
        label = _short(wanted.label)
        self.at_work[wanted.key] = self.bars.add_task(label, total=wanted.until, completed=learned, news="")

    def round(self, wanted: Wanted, reached: Reached) -> None:
        if wanted.key in self.at_work:
            self.bars.update(self.at_work[wanted.key], completed=reached.iteration)
            if reached.accuracy is not None:
                self.bars.update(self.at_work[wanted.key], news=f"accuracy {100 * reached.accuracy:.1f}%")

    def end(self, wanted: Wanted) -> None:
        if wanted.key in self.at_work:
            self.bars.remove_task(self.at_work.pop(wanted.key))
        self.bars.advance(self.all)

    def timed(self, num: int, num_scenarios: int) -> None:
        news = f"{num:,} of {num_scenarios:,} re-timed"
        self.bars.update(self.all, description="scenarios", total=num_scenarios, completed=num, news=news)


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def show_progress(num_trials: int, iterations: int) -> Iterator[Progress]:
    """Yield the progress of a run: bars on standard error where it is a terminal."""
    with _bars() as bars:
        yield QuietProgress() if bars is None else TerminalProgress(bars, num_trials, iterations)


@contextmanager
def show_study_progress() -> Iterator[QuietStudyProgress | TerminalStudyProgress]:
    """Yield the progress of a study or a plan, shown in the same way."""
    with _bars() as bars:
        yield QuietStudyProgress() if bars is None else TerminalStudyProgress(bars)


@contextmanager
def _bars() -> Iterator[Bars | None]:
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[news]}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield bars
