"""A small run with numbers that can be followed by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hsgd_emu.metrics import Metrics
from hsgd_emu.results.rows import BarrierRow, CurveRow, TimelineRow, TrialKey, WaitRow
from hsgd_emu.results.store import RunStore

RUN_YAML = """\
name: small
cases:
- {name: "P=5", period: 5, periods: null}
- {name: "G=50 I=5", period: null, periods: [50, 5]}
"""
CASES = ("P=5", "G=50 I=5")
SEEDS = (1, 2, 3)
KEYS = tuple(TrialKey(case, seed) for case in CASES for seed in SEEDS)


def curve_row(number: int, time_s: float, accuracy: float | None, loss: float | None = 1.0) -> CurveRow:
    """A row whose time is one quarter compute and three quarters communication."""
    metrics = Metrics(train_loss=loss, test_loss=loss, test_accuracy=accuracy)
    return CurveRow(number, 50 * number, time_s, time_s - 0.1, time_s / 4, 3 * time_s / 4, 0.0, 0, 0, metrics)


def timeline_rows(number: int) -> list[TimelineRow]:
    return [
        TimelineRow("NA", "compute", float(number), number + 0.1, 50 * number, 0, ""),
        TimelineRow("NA", "upload", number + 0.1, number + 0.3, 50 * number, 4000, "root"),
    ]


def commit(store: RunStore, key: TrialKey, row: CurveRow) -> None:
    number = row.round
    barriers = [BarrierRow("root", row.iteration, row.aggregated_s, "NA", "NA--root", 0.05)]
    store.commit_round(key, row.iteration, row, timeline_rows(number), barriers, [WaitRow("NA", 0.25)])


def write_trial(store: RunStore, key: TrialKey, points: list[tuple[float, float | None]]) -> None:
    for number, (time_s, accuracy) in enumerate(points, start=1):
        commit(store, key, curve_row(number, time_s, accuracy))
    store.finish_trial(key, "w", "t", "simpy", 0.5)


NewStore = Callable[..., RunStore]


@pytest.fixture
def new_store(tmp_path: Path) -> NewStore:
    """Return a function that makes a run in a new folder."""

    def make(
        name: str = "run",
        targets: tuple[tuple[str, float], ...] = (("test_accuracy", 0.8),),
        run: str = RUN_YAML,
    ) -> RunStore:
        return RunStore.create(tmp_path / name, run, {"python": "3.11", "a": 1}, KEYS, targets)

    return make
