"""Trials that were learned once, for all studies: one ordinary run folder each, named by what decides its learning."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hsgd_emu.errors import ConfigError
from hsgd_emu.locks import try_lock
from hsgd_emu.metrics import Metrics, OfWorker
from hsgd_emu.results.folder import is_run_folder, recorded_message_bytes, remove_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, curve_rows, trial_rows, worker_rows
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.study.training.wanted import Wanted, experiment_of
from hsgd_emu.trials import Progress

DEFAULT_FOLDER = Path("runs/out/trials")
_ALIKE = 20  # as many trials of one kind are looked at to tell how long another will take


@dataclass(frozen=True)
class Learned:
    """What a trial has learned so far."""

    iteration: int
    """Learned up to here."""
    finished: bool
    metrics: Mapping[int, Metrics]
    """By iteration: the evaluated global aggregations."""
    message_bytes: int
    """Size of the model itself as one message."""
    weights_hash: str | None
    """Of the last global model; None until the trial is finished."""
    wall_s: float
    """Host seconds spent on it; what a killed process spent is not in it."""
    workers: Mapping[int, Sequence[OfWorker]] = field(default_factory=dict)
    """By iteration, where figures of workers are asked for."""
    diverged_at: int | None = None
    """The first evaluated iteration at which its model was not finite."""


class Library:
    """A folder of learned trials. Several processes and studies may use it at once."""

    def __init__(self, folder: Path | str = DEFAULT_FOLDER) -> None:
        self.folder = Path(folder)

    def folder_of(self, wanted: Wanted) -> Path:
        """Return the run folder of a trial, there or not."""
        return self.folder / wanted.key

    def find(self, wanted: Wanted) -> Learned | None:
        """Return what a trial has learned if that goes as far as is wanted, else None."""
        found = self.progress_of(wanted)
        if found is None or not (found.finished or found.iteration >= wanted.until < wanted.iterations):
            return None
        if found.finished:
            RunStore.finish_writing(self.folder_of(wanted))
        return found

    def progress_of(self, wanted: Wanted) -> Learned | None:
        """Return what a trial has learned so far, None where it was never begun, or is damaged."""
        with contextlib.suppress(ConfigError):
            return _read(self.folder_of(wanted))
        return None

    def try_lock(self, wanted: Wanted) -> int | None:
        """Return the descriptor that keeps others from learning a trial until it is closed; None if another does."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return try_lock(locks / wanted.key)

    @contextlib.contextmanager
    def locked(self, wanted: Wanted, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold a trial's lock; `waiting` is called again and again while another process has it."""
        while (descriptor := self.try_lock(wanted)) is None:
            waiting()
            time.sleep(0.1)
        try:
            yield
        finally:
            os.close(descriptor)

    def learn(self, wanted: Wanted, progress: Progress, waiting: Callable[[], None]) -> None:
        """Learn a trial in this process, going on where an earlier one stopped; nothing if it is learned already."""
        with self.locked(wanted, waiting):
            if self.find(wanted) is None:
                folder = self.folder_of(wanted)
                try:
                    _read(folder)
                except ConfigError as error:
                    progress.warn(f"a trial of the library is learned again: {error}")
                    remove_run(folder)
                learn(wanted, folder, progress)
                self.remember(wanted)

    def remember(self, wanted: Wanted) -> None:
        """Note a learned trial under its kind, for `alike`."""
        marker = self._kind(wanted) / wanted.key
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()

    def alike(self, wanted: Wanted) -> list[tuple[int, int, float]]:
        """Return (iterations, evaluations, host seconds) of learned trials whose iterations cost the same."""
        folder = self._kind(wanted)
        keys = sorted(marker.name for marker in folder.iterdir()) if folder.is_dir() else []
        found = []
        for key in keys[:_ALIKE]:
            with contextlib.suppress(ConfigError):
                found.append(_read(self.folder / key))
        return [(one.iteration, len(one.metrics), one.wall_s) for one in found if one and one.wall_s > 0]

    def _kind(self, wanted: Wanted) -> Path:
        return self.folder / "kinds" / wanted.kind


def learn(wanted: Wanted, folder: Path, progress: Progress) -> None:
    """Learn a trial in a folder of its own, up to where it is wanted.

    Raises:  ConfigError: the data or the model do not fit, or are not those of the key: then nothing is learned, or
             kept where that shows only at the end.
    """
    given = wanted.resources
    stop_at = wanted.until if wanted.until < wanted.iterations else None
    options = Options(given.device, given.precision, given.engine, resume=True, threads=given.threads, stop_at=stop_at)
    run_experiment(experiment_of(wanted), folder, options, progress, dict(wanted.facts))


def _read(folder: Path) -> Learned | None:
    if not is_run_folder(folder):
        return None
    with contextlib.closing(connect_to_read(folder)) as connection:
        connection.execute("BEGIN")
        trial, curve, workers = trial_rows(connection)[0], list(curve_rows(connection)), worker_rows(connection)
    return Learned(
        iteration=trial.iteration,
        finished=trial.status == "finished",
        metrics={row.iteration: row.metrics for _, row in curve},
        message_bytes=recorded_message_bytes(folder),
        weights_hash=trial.weights_hash,
        wall_s=trial.wall_s or 0.0,
        workers=workers.get(trial.key, {}),
        diverged_at=trial.diverged_at,
    )
