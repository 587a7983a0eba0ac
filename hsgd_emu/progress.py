"""Progress of a run on a terminal: what, how far, how long still, accuracy now. Quiet in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.trials import Progress


class QuietProgress(Progress):
    """Says only what must not be overlooked."""

    def warn(self, text: str) -> None:
        print(f"hsgd-emu: {text}", file=sys.stderr)


class TerminalProgress(Progress):
    """One bar for the whole run, one for the trial at work."""

    def __init__(self, bars: Bars, num_trials: int, iterations: int) -> None:
        self.bars, self.num_trials, self.iterations = bars, num_trials, iterations
        self.all = bars.add_task("all trials", total=num_trials * iterations, news="")
        self.trial = bars.add_task("", total=iterations, visible=False, news="")
        self.finished = 0

    def say(self, text: str) -> None:
        self.bars.update(self.all, news=text)

    def warn(self, text: str) -> None:
        self.bars.console.print(Text(f"hsgd-emu: {text}"))

    def begin(self, key: TrialKey, num_rounds: int, done: int) -> None:
        begun = self.iterations // num_rounds * done
        self.bars.reset(self.trial, description=_short(f"{key.case}, seed {key.seed}"), visible=True, news="")
        self.bars.update(self.trial, completed=begun)
        self.bars.update(self.all, news=f"trial {self.finished + 1} of {self.num_trials}")

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        news = f"round {record.round}, {record.time_ns / 1e9:,.1f} s emulated"
        metrics = record.metrics
        if metrics is not None and metrics.test_accuracy is not None:
            news += f", accuracy {100 * metrics.test_accuracy:.1f}%"
        self.bars.update(self.trial, completed=record.iteration, news=news)
        self.bars.update(self.all, completed=self.finished * self.iterations + record.iteration)

    def end(self, key: TrialKey) -> None:
        self.finished += 1
        self.bars.update(self.all, completed=self.finished * self.iterations)


def _short(text: str, most: int = 28) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def show_progress(num_trials: int, iterations: int) -> Iterator[Progress]:
    """Yield the progress of a run: bars on standard error where it is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield QuietProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[news]}", markup=False),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield TerminalProgress(bars, num_trials, iterations)
