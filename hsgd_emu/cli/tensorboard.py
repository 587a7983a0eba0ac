"""`run --tensorboard`: the progress of a run, written as TensorBoard scalars as well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.tensorboard import RunEvents, require_tensorboard
from hsgd_emu.run import folder_of
from hsgd_emu.trials import Passing, Progress, curve_row


class TensorboardProgress(Passing):
    """Tells another progress everything, and writes every evaluated round."""

    def __init__(self, inner: Progress, events: RunEvents) -> None:
        super().__init__(inner)
        self.events = events

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        self.events.begin(key)
        self.inner.begin(key, iterations, done)

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        row = curve_row(record)
        if row is not None:
            self.events.add(key, row)
        self.inner.round(key, record)

    def end(self, key: TrialKey) -> None:
        self.events.end(key)
        self.inner.end(key)


@contextlib.contextmanager
def with_tensorboard(progress: Progress, experiment: Experiment, out: Path | None) -> Iterator[Progress]:
    """Yield `progress` with TensorBoard's event files beside it, below the folder that the run is written to.

    Raises:  ConfigError: tensorboard is not installed.
    """
    require_tensorboard("--tensorboard")
    events = RunEvents(folder_of(experiment, out), [case.name for case in experiment.cases])
    with contextlib.closing(events):
        yield TensorboardProgress(progress, events)
