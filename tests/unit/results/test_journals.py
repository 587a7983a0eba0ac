"""Databases are born in WAL mode and leave no rollback journal; one that was forgotten is rolled back by everybody."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.folder import remove_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, select
from hsgd_emu.study.sweep.store import STUDY_DATABASE, StudyStore
from hsgd_emu.study.sweep.store import connect_to_read as connect_to_study

from .conftest import KEYS, NewStore, curve_row, write_trial

KEY = KEYS[0]


def make_hot(database: Path, sql: str) -> None:
    """Leave a database as a kill in the middle of a change in rollback mode does."""
    beside = database.with_name("beside")
    shutil.copy(database, beside)
    with closing(sqlite3.connect(beside, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA cache_size = 1")  # what is changed goes to the file before it is committed
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(sql)
        connection.execute("CREATE TABLE filler AS SELECT hex(randomblob(2000)) FROM trials, trials, trials")
        for end in ("", "-journal"):
            shutil.copy(f"{beside}{end}", f"{database}{end}")
        connection.execute("ROLLBACK")
    beside.unlink()
    assert Path(f"{database}-journal").stat().st_size > 512


def journals(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "sqlite-" in path.name or path.name.startswith("."))


@pytest.fixture
def finished(new_store: NewStore) -> Path:
    with new_store() as store:
        for key in KEYS:
            write_trial(store, key, [(10.0, 0.5), (20.0, 0.9)])
        store.finish()
    return store.folder


@pytest.fixture
def hot(finished: Path) -> Path:
    make_hot(finished / "run.sqlite", "DELETE FROM curve")
    return finished


def assert_whole(folder: Path) -> None:
    with closing(connect_to_read(folder)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert len(list(select(reader, "curve"))) == 2 * len(KEYS)
    assert journals(folder) == []


def test_a_reader_rolls_a_forgotten_journal_back(hot: Path) -> None:
    assert_whole(hot)


def test_a_writer_rolls_a_forgotten_journal_back(hot: Path) -> None:
    with RunStore.open(hot) as store:
        assert store.curve_rows(KEY)[1] == curve_row(2, 20.0, 0.9)
        store.finish()
    assert_whole(hot)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_where_a_journal_cannot_be_rolled_back_that_is_said(hot: Path) -> None:
    hot.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match=r"run\.sqlite: a killed process left it half written.*make that folder"):
            connect_to_read(hot)
    finally:
        hot.chmod(0o700)


def test_a_journal_that_names_another_file_is_not_played_back(hot: Path, tmp_path: Path) -> None:
    # SQLite would delete the file it names, where that names no journal back.
    victim = tmp_path / "thesis.txt"
    victim.write_text("years of work")
    name = str(victim).encode()
    with (hot / "run.sqlite-journal").open("ab") as journal:
        checksum = sum(byte if byte < 128 else byte - 256 for byte in name) % 2**32
        journal.write(b"\0\x04\0\0" + name + len(name).to_bytes(4, "big") + checksum.to_bytes(4, "big"))
        journal.write(bytes.fromhex("d9d505f920a163d7"))
    with pytest.raises(ConfigError, match="names another file"):
        connect_to_read(hot)
    with pytest.raises(ConfigError, match="names another file"):
        RunStore.open(hot)
    assert victim.read_text() == "years of work"


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
def test_what_lay_beside_a_removed_database_does_not_reach_the_next_one(hot: Path, end: str) -> None:
    (hot / f"run.sqlite{end}").write_bytes((hot / "run.sqlite-journal").read_bytes())
    remove_run(hot)
    assert journals(hot) == []
    with RunStore.create(hot, "name: x", {}, [KEY], []) as store:
        assert store.trials == (KEY,)
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("end", ["-journal", "-wal", "-shm"])
def test_a_new_run_removes_what_a_killed_removal_left(hot: Path, end: str) -> None:
    # The database goes first: killed then, its journal is all there is.
    (hot / "run.sqlite-journal").rename(hot / f"run.sqlite{end}")
    (hot / "run.sqlite").unlink()
    with RunStore.create(hot, "name: x", {}, [KEY], []) as store:
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.finish()
    assert journals(hot) == []


def modes(folder: Path) -> Iterator[tuple[int, int]]:
    for path in folder.glob("*.sqlite"):
        header = path.read_bytes()[:20]
        yield header[18], header[19]


def test_a_run_is_born_in_wal_mode_folded_and_opened_again(new_store: NewStore) -> None:
    with new_store() as store:
        assert list(modes(store.folder)) == [(2, 2)]
        assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        write_trial(store, KEY, [(10.0, 0.5)])
        store.finish()
        assert list(modes(store.folder)) == [(1, 1)]
        assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("memory",)
    with RunStore.open(store.folder) as again:
        assert list(modes(store.folder)) == [(2, 2)]
        again.restart_trial(KEY)
        again.finish()
    assert list(modes(store.folder)) == [(1, 1)]
    assert journals(store.folder) == []


def test_a_study_likewise(tmp_path: Path) -> None:
    rows = {"scenarios": [(n, "far", "1", 1.0) for n in range(40)]}
    with StudyStore.create(tmp_path, "name: x", {}, rows) as store:
        assert list(modes(tmp_path)) == [(2, 2)]
        store.write_part("one", {"trials": [(n, "case", 1, "key") for n in range(40)]})
        store.finish()
    assert list(modes(tmp_path)) == [(1, 1)]
    make_hot(tmp_path / STUDY_DATABASE, "DELETE FROM scenarios")
    with closing(connect_to_study(tmp_path)) as reader:
        assert reader.execute("SELECT count(*) FROM scenarios").fetchone() == (40,)
    make_hot(tmp_path / STUDY_DATABASE, "DELETE FROM scenarios")
    with StudyStore.open(tmp_path) as store:
        assert store.done() == {"one"}
        store.finish()
    make_hot(tmp_path / STUDY_DATABASE, "DELETE FROM scenarios")
    with StudyStore.create(tmp_path, "name: x", {}, rows) as store:
        assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.finish()
    assert journals(tmp_path) == []
