"""Frames and exported files carry exactly what was written."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.read import export, read_csv, read_run
from hsgd_emu.results.tables import TABLES, connect_to_read

from .conftest import KEYS, NewStore, commit, curve_row, write_trial


@pytest.fixture
def folder(new_store: NewStore) -> Path:
    """Two finished trials, one running, written interleaved and against run order."""
    with new_store() as store:
        write_trial(store, KEYS[3], [(0.1 + 0.2, 0.5), (1 / 3, 0.9)])
        commit(store, KEYS[1], curve_row(1, 7.0, 0.3, loss=None))
        write_trial(store, KEYS[0], [(5.0, 0.2)])
    return store.folder


def test_frames_are_in_run_order_with_the_columns_types(folder: Path) -> None:
    results = read_run(folder)
    curve = results.curve
    assert list(zip(curve["case"], curve["seed"], strict=True)) == [
        ("P=5", 1),
        ("P=5", 2),
        ("G=50 I=5", 1),
        ("G=50 I=5", 1),
    ]
    assert curve["case"].dtype == "str"
    assert curve["iteration"].dtype == "int64"
    assert curve["train_loss"].isna().tolist() == [False, True, False, False]
    assert results.targets["time_s"].isna().tolist() == [True, False]
    assert results.targets["iteration"].dtype == "float64"
    assert results.trials["status"].tolist() == [
        "finished",
        "running",
        "waiting",
        "finished",
        "waiting",
        "waiting",
    ]
    assert results.waits.columns.tolist() == ["case", "seed", "round", "node", "wait_s"]
    assert results.barriers["waited_for"].unique().tolist() == ["NA"]
    assert results.curve is curve


def test_frames_of_a_new_run_are_empty_but_typed(new_store: NewStore) -> None:
    with new_store() as store:
        results = read_run(store.folder)
        for table, columns in TABLES.items():
            frame = getattr(results, table)
            assert frame.columns.tolist() == [column.name for column in columns]
        assert str(results.timeline["start_s"].dtype) == "float64"
        assert results.summary()["num_seeds"].tolist() == [0, 0]


def test_run_and_environment_are_read_back(folder: Path) -> None:
    assert read_run(folder).run["name"] == "small"
    assert read_run(folder).environment == {"a": 1, "python": "3.11"}


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_export_round_trips_every_table(folder: Path, tmp_path: Path, format: str) -> None:
    paths = export(folder, format, tmp_path / "out")
    assert [path.name for path in paths] == [f"{table}.{format}" for table in TABLES]
    for path in paths:
        read = read_csv(path) if format == "csv" else pd.read_parquet(path)
        # A nullable integer is float64 in the frames but keeps its own type in Parquet.
        pd.testing.assert_frame_equal(
            read, getattr(read_run(folder), path.stem), check_exact=True, check_dtype=format == "csv"
        )


def test_csv_has_all_digits_and_whole_numbers_for_a_reader_without_us(folder: Path, tmp_path: Path) -> None:
    export(folder, "csv", tmp_path)
    lines = (tmp_path / "targets.csv").read_text().splitlines()
    assert lines == [
        "case,seed,metric,target,time_s,iteration,round",
        "P=5,1,test_accuracy,0.8,,,",
        "G=50 I=5,1,test_accuracy,0.8,0.3333333333333333,100,2",
    ]
    assert "0.30000000000000004" in (tmp_path / "curve.csv").read_text()
    nodes = pd.read_csv(tmp_path / "timeline.csv", keep_default_na=False)["node"]
    assert nodes.unique().tolist() == ["NA"]


def test_export_refuses_other_formats_and_places(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'parket' is not csv or parquet; did you mean 'parquet'\?"):
        export(folder, "parket", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        export(folder, "csv", tmp_path / "file")
    with pytest.raises(ConfigError, match=r"has no run\.sqlite"):
        export(tmp_path, "csv", tmp_path / "out")
    with pytest.raises(ConfigError):
        read_run(tmp_path)


def test_reading_does_not_change_the_run(folder: Path) -> None:
    before = (folder / "run.sqlite").read_bytes()
    read_run(folder).summary()
    assert (folder / "run.sqlite").read_bytes() == before
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connect_to_read(folder).execute("DELETE FROM curve")


def test_summary_frame_has_one_row_per_case_and_target(folder: Path) -> None:
    frame = read_run(folder).summary()
    assert frame["case"].tolist() == ["P=5", "G=50 I=5"]
    assert frame["num_reached"].tolist() == [0, 1]
    assert frame.loc[1, "time_s"] == 1 / 3
    assert frame.loc[1, "communication_share"] == 0.75
    assert pd.isna(frame.loc[0, "time_s"])
