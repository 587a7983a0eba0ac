"""The store: what is written is there, rounds are whole, one writer at a time."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from hsgd_emu.errors import ConfigError, RunError
from hsgd_emu.metrics import Metrics
from hsgd_emu.results.folder import remove_run
from hsgd_emu.results.rows import CurveRow, TimelineRow, TrialKey, TrialRow
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import TABLES

from .conftest import KEYS, NewStore, commit, curve_row, timeline_rows, write_trial

KEY = KEYS[0]


def count(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "run.sqlite") as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_columns_are_those_of_the_design() -> None:
    names = {table: " ".join(column.name for column in columns) for table, columns in TABLES.items()}
    assert names["curve"] == (
        "case seed round iteration time_s aggregated_s compute_s communication_s aggregation_s "
        "uploaded_bytes downloaded_bytes train_loss training_set_loss "
        "test_loss test_accuracy averaged_test_loss averaged_test_accuracy"
    )
    assert names["timeline"] == "case seed node kind start_s end_s iteration bytes peer"
    assert names["targets"] == "case seed metric target time_s iteration round"


def test_new_run_has_its_files_and_every_trial_waiting(new_store: NewStore) -> None:
    with new_store() as store:
        assert store.trials == KEYS
        assert {store.trial_state(key) for key in KEYS} == {TrialRow(*key, "waiting") for key in KEYS}
        assert (store.folder / "environment.json").read_text() == '{\n  "a": 1,\n  "python": "3.11"\n}\n'
        assert (store.folder / "run.yaml").read_text().startswith("name: small")


def test_round_is_read_back_by_another_process_while_the_run_is_open(new_store: NewStore) -> None:
    with new_store() as store:
        commit(store, KEY, curve_row(1, 10.0, 0.5))
        assert [count(store.folder, table) for table in ("curve", "timeline", "barriers", "waits")] == [
            1,
            2,
            1,
            1,
        ]
        assert store.curve_rows(KEY) == [curve_row(1, 10.0, 0.5)]
        assert store.trial_state(KEY) == TrialRow(*KEY, "running", 50, 1)


def test_failing_round_leaves_nothing(new_store: NewStore) -> None:
    bad = [*timeline_rows(1), TimelineRow("NA", "compute", None, 1.0, 1, 0, "")]  # type: ignore[arg-type]
    with new_store() as store:
        with pytest.raises(sqlite3.IntegrityError):
            store.commit_round(KEY, 50, curve_row(1, 10.0, 0.5), bad, [], [])
        assert count(store.folder, "curve") == count(store.folder, "timeline") == 0
        assert store.trial_state(KEY).iteration == 0


def test_numpy_integer_is_refused_rather_than_stored_as_a_blob(new_store: NewStore) -> None:
    with new_store() as store, pytest.raises(sqlite3.IntegrityError, match="cannot store BLOB"):
        store.commit_round(KEY, np.int64(50), None, [], [], [])  # type: ignore[arg-type]


def test_rounds_must_go_forward(new_store: NewStore) -> None:
    with new_store() as store:
        commit(store, KEY, curve_row(1, 10.0, 0.5))
        with pytest.raises(ValueError, match="iteration 50 does not follow"):
            commit(store, KEY, curve_row(1, 10.0, 0.5))


def test_rounds_that_are_not_evaluated_are_counted_too(new_store: NewStore) -> None:
    with new_store() as store:
        store.commit_round(KEY, 50, None, [], [], [("NA", 0.5)])  # type: ignore[list-item]
        store.commit_round(KEY, 100, None, [], [], [("NA", 0.7)])  # type: ignore[list-item]
        rows = sqlite3.connect(store.folder / "run.sqlite").execute("SELECT round, wait_s FROM waits").fetchall()
        assert rows == [(1, 0.5), (2, 0.7)]


def test_diverged_losses_become_null_and_infinite_ones_stay(new_store: NewStore) -> None:
    with new_store(targets=(("test_loss", 0.5),)) as store:
        row = CurveRow(
            1, 50, 1.0, 0.9, 0.5, 0.5, 0.0, 0, 0, Metrics(train_loss=math.nan, test_loss=math.inf, test_accuracy=0.1)
        )
        store.commit_round(KEY, 50, row, [], [], [])
        assert store.curve_rows(KEY)[0].metrics == Metrics(train_loss=None, test_loss=math.inf, test_accuracy=0.1)
        store.finish_trial(KEY, None, "t", "simpy", 1.0)


def test_restarted_trial_waits_again_and_others_keep_their_rows(new_store: NewStore) -> None:
    with new_store() as store:
        write_trial(store, KEYS[0], [(10.0, 0.9)])
        write_trial(store, KEYS[1], [(10.0, 0.9)])
        store.restart_trial(KEYS[0])
        assert store.trial_state(KEYS[0]) == TrialRow(*KEYS[0], "waiting")
        assert store.curve_rows(KEYS[0]) == []
        assert [count(store.folder, t) for t in ("curve", "timeline", "targets", "waits")] == [1, 2, 1, 1]


def target_rows(store: RunStore) -> list[tuple[object, ...]]:
    query = 'SELECT metric, target, time_s, iteration, round FROM targets WHERE "case" = ? AND seed = ?'
    return store.connection.execute(query, (KEY.case, KEY.seed)).fetchall()


def test_target_is_the_first_row_at_or_beyond_and_never_between(new_store: NewStore) -> None:
    levels = (("test_accuracy", 0.5), ("test_accuracy", 0.6), ("test_accuracy", 0.95), ("test_loss", 0.4))
    with new_store(targets=levels) as store:
        # 0.5 is met exactly in the first row; 0.6 is passed between rows 1 and 2: row 2 counts, although
        # accuracy falls again after it; 0.95 never; the loss 0.4 is met exactly in row 3.
        points = [(10.0, 0.5, 1.0), (20.0, 0.7, 0.5), (30.0, 0.55, 0.4)]
        for number, (time_s, accuracy, loss) in enumerate(points, start=1):
            commit(store, KEY, curve_row(number, time_s, accuracy, loss))
        store.finish_trial(KEY, "w", "t", "simpy", 1.0)
        assert target_rows(store) == [
            ("test_accuracy", 0.5, 10.0, 50, 1),
            ("test_accuracy", 0.6, 20.0, 100, 2),
            ("test_accuracy", 0.95, None, None, None),
            ("test_loss", 0.4, 30.0, 150, 3),
        ]


def test_timing_only_trial_reaches_nothing(new_store: NewStore) -> None:
    with new_store() as store:
        write_trial(store, KEY, [(10.0, None)])
        assert target_rows(store) == [("test_accuracy", 0.8, None, None, None)]


def test_reopened_run_goes_on_with_its_targets(new_store: NewStore) -> None:
    with new_store() as store:
        commit(store, KEY, curve_row(1, 10.0, 0.5))
    with RunStore.open(store.folder) as again:
        assert again.trial_state(KEY).iteration == 50
        commit(again, KEY, curve_row(2, 20.0, 0.9))
        again.finish_trial(KEY, "w", "t", "simpy", 1.0)
        assert target_rows(again) == [("test_accuracy", 0.8, 20.0, 100, 2)]


def test_finished_run_is_one_file(new_store: NewStore) -> None:
    with new_store() as store:
        for key in KEYS:
            write_trial(store, key, [(10.0, 0.9)])
        assert {store.trial_state(key).status for key in KEYS} == {"finished"}
        store.finish()
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == ["environment.json", "lock", "run.sqlite", "run.yaml"]


def test_second_writer_is_refused_with_the_folder_in_the_message(new_store: NewStore) -> None:
    with new_store() as store, pytest.raises(RunError, match=f"{store.folder}: another run is writing"):
        RunStore.open(store.folder)
    RunStore.open(store.folder).close()  # released on close


def test_existing_run_is_not_overwritten(new_store: NewStore) -> None:
    new_store().close()
    with pytest.raises(RunError, match="holds a run already"):
        new_store()


def test_removing_a_run_leaves_other_files_and_makes_room(new_store: NewStore) -> None:
    with new_store() as store:
        write_trial(store, KEY, [(10.0, 0.9)])
        with pytest.raises(RunError, match="another run is writing"):
            remove_run(store.folder)
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "checkpoints").mkdir()
    remove_run(store.folder)
    assert sorted(path.name for path in store.folder.iterdir()) == ["lock", "notes.txt"]
    with new_store() as again:
        assert again.trial_state(KEY).iteration == 0


def test_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no run\.sqlite"):
        RunStore.open(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        RunStore.open(tmp_path / "nowhere")
    (tmp_path / "run.sqlite").write_text("not a database at all" * 100)
    with pytest.raises(ConfigError, match="cannot be read as a run's database"):
        RunStore.open(tmp_path)


def test_unknown_trial_is_a_key_error(new_store: NewStore) -> None:
    with new_store() as store, pytest.raises(KeyError):
        store.trial_state(TrialKey("nobody", 1))
