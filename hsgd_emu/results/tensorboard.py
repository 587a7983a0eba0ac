"""A run's curves as TensorBoard scalars: one folder per trial, written as the run goes or of a run that exists.

`DIR/<case>/seed-<n>/` holds one event file. A point's step is the iteration and its wall_time the emulated time in
seconds, so TensorBoard's "Step" axis shows iterations and its "Relative" axis emulated time since the first evaluated
round. The tags below `by_time/` have the emulated milliseconds as their step, counted from the start of the trial.
Values are float32, as TensorBoard keeps them. Not modelled: rounds within one millisecond share a step of `by_time/`,
where TensorBoard shows the last.

The package tensorboard is an optional dependency (hsgd-emu[tensorboard]); torch is not needed.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
import unicodedata
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from hsgd_emu.atomic import make_folder
from hsgd_emu.errors import ConfigError, unwritable
from hsgd_emu.metrics import METRICS
from hsgd_emu.results.folder import TENSORBOARD, remove_events, require_run_folder
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.tables import connect_to_read, curve_rows, trial_rows

SCALARS = {
    "emulated_time_s": "time_s",
    "split/compute_s": "compute_s",
    "split/communication_s": "communication_s",
    "split/aggregation_s": "aggregation_s",
    "bytes/uploaded": "uploaded_bytes",
    "bytes/downloaded": "downloaded_bytes",
}
"""By tag, beside those of the metrics: the column of `curve`."""
_MOST_NAME_BYTES = 120


def require_tensorboard(where: str) -> None:
    """Raise ConfigError, naming the option `where`, unless the package tensorboard is installed."""
    try:
        import tensorboard.summary.writer.record_writer  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        text = "needs TensorBoard, which is not installed here: pip install 'hsgd-emu[tensorboard]'"
        raise ConfigError.of(where, "", text) from None


def case_folders(cases: Iterable[str]) -> dict[str, str]:
    """Return by case the name of its folder: readable, fit for any file system, no two alike there."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for case in dict.fromkeys(cases):
        safe = re.sub(r"[^\w.,=+() -]", "_", unicodedata.normalize("NFC", case))
        stem = safe.encode()[:_MOST_NAME_BYTES].decode(errors="ignore").strip(" .") or "case"
        name, number = stem, 1
        # Some file systems take upper and lower case for the same.
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[case] = name
    return names


class EventFile:
    """The event file of one trial, in place of those that were in its folder; a point is on disk when it is added."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        # Below what the user named, no link may lead elsewhere.
        make_folder(folder.parent)
        make_folder(folder)
        remove_events(folder)
        # A new name each time: a TensorBoard that looks on would go on reading the old one in its middle.
        self._writer = RecordWriter((folder / f"events.out.tfevents.{time.time():.6f}").open("xb"))
        self._write(file_version="brain.Event:2")

    def add(self, row: CurveRow) -> None:
        """Write the points of one row of `curve`; what is null or NaN has none."""
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        found = {metric: row.metrics[metric] for metric in METRICS}
        found |= {tag: getattr(row, column) for tag, column in SCALARS.items()}
        values = {tag: value for tag, value in found.items() if value is not None and not math.isnan(value)}
        by_time = {f"by_time/{tag}": value for tag, value in values.items() if tag != "emulated_time_s"}
        for step, points in ((row.iteration, values), (round(1000 * row.time_s), by_time)):
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()])
            self._write(step=step, wall_time=row.time_s, summary=summary)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

        self._writer.write(Event(**fields).SerializeToString())


class RunEvents:
    """The event files of a run that goes on now, in its folder `tensorboard`.

    A trial's file is written anew when it begins, goes on, or is found finished, from what the database holds: so a
    killed run leaves no point twice and none out.
    """

    def __init__(self, folder: Path, cases: Sequence[str]) -> None:
        self.folder, self._names = folder, case_folders(cases)
        self._open: tuple[TrialKey, EventFile] | None = None

    def begin(self, key: TrialKey) -> None:
        """Write what there is of a trial, and keep its file open for what comes."""
        self.close()
        make_folder(self.folder / TENSORBOARD)
        file = EventFile(trial_folder(self.folder / TENSORBOARD, self._names, key))
        self._open = key, file
        with contextlib.closing(connect_to_read(self.folder)) as connection:
            for _, rows in _trials(connection, key):
                for row in rows:
                    file.add(row)

    def add(self, key: TrialKey, row: CurveRow) -> None:
        """Write one more row of the trial that was begun."""
        assert self._open is not None
        assert self._open[0] == key
        self._open[1].add(row)

    def end(self, key: TrialKey) -> None:
        """Close a trial's file; one that was finished before is written now."""
        if self._open is None or self._open[0] != key:
            self.begin(key)
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


def export_events(folder: Path, out: Path) -> list[Path]:
    """Write the curves of a run, finished or not, below `out` and return the trials' folders.

    Raises:  ConfigError: the folder holds no run, or tensorboard is not installed.
             As `unwritable`: `out` cannot be written.
    """
    require_run_folder(folder)
    require_tensorboard("--format tensorboard")
    paths = []
    try:
        with contextlib.closing(connect_to_read(folder)) as connection:
            connection.execute("BEGIN")
            names = case_folders(trial.case for trial in trial_rows(connection))
            with contextlib.closing(_trials(connection)) as trials:
                for key, rows in trials:
                    path = trial_folder(out, names, key)
                    with contextlib.closing(EventFile(path)) as file:
                        for row in rows:
                            file.add(row)
                    paths.append(path)
    except OSError as error:
        raise unwritable(out, error) from error
    return paths


def trial_folder(out: Path, names: dict[str, str], key: TrialKey) -> Path:
    """Return where the event file of a trial lies; names: see `case_folders`."""
    return out / names[key.case] / f"seed-{key.seed}"


def _trials(connection: Any, key: TrialKey | None = None) -> Generator[tuple[TrialKey, list[CurveRow]], None, None]:
    """Yield each trial (or the one asked for) that has a curve, with its rows."""
    one = ('t."case" = ? AND t.seed = ?', (key.case, key.seed)) if key else ("", ())
    for found, rows in groupby(curve_rows(connection, *one), key=lambda found: found[0]):
        yield found, [row for _, row in rows]
