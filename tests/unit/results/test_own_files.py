"""Nothing of the user's is overwritten without --force, an input file never, and nothing is written through a link."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from hsgd_emu.atomic import remove_leftovers, replacing, write_atomically
from hsgd_emu.errors import ConfigError, HsgdError
from hsgd_emu.init import write_examples
from hsgd_emu.report import write_report
from hsgd_emu.results.folder import remove_run
from hsgd_emu.results.read import export
from hsgd_emu.results.trace import write_trace
from hsgd_emu.run import run
from hsgd_emu.study.retime import retime
from hsgd_emu.study.sweep.run_study import run_study

RUN = """\
# my comments
name: mine
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {rtt_s: 0.2}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: 20, learning_rate: 0.05, iterations: 20}
message_bytes: 1000
cases: [{name: a, period: 5}]
targets: {test_accuracy: [0.1]}
"""
STUDY = "name: what_if\nrun: mine.yaml\naxes: [{name: far, rtt_s: far, values: [0.1, 0.2]}]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("run.yaml", "mine.yaml"):
        (tmp_path / name).write_text(RUN)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


@pytest.fixture
def done(here: Path) -> Path:
    run("mine.yaml", "done", timing_only=True)
    return here / "done"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("beside", [[], ["lock"], ["environment.json"], ["run.sqlite"], ["report.html", "trace.json"]])
def test_a_folder_with_files_of_the_users_own_is_refused(here: Path, beside: list[str], force: bool) -> None:
    mine = here / "folder"
    mine.mkdir()
    for name in ("run.yaml", *beside):
        (mine / name).write_text(RUN)
    before = contents(mine)
    with pytest.raises(ConfigError, match=r"exists and holds no run|is no database of hsgd-emu|holds a run already"):
        run(mine / "run.yaml", mine, timing_only=True, force=force)
    assert contents(mine) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("beside", [[], ["lock"], ["environment.json"], ["study.sqlite"], ["study.sqlite-wal"]])
def test_for_a_study_likewise(here: Path, beside: list[str], force: bool) -> None:
    mine = here / "folder"
    mine.mkdir()
    for name, text in {"study.yaml": STUDY, "mine.yaml": RUN, **dict.fromkeys(beside, "mine")}.items():
        (mine / name).write_text(text)
    before = contents(mine)
    with pytest.raises(ConfigError):
        run_study(mine / "study.yaml", mine, force=force)
    assert contents(mine) == before


@pytest.mark.parametrize("force", [False, True])
def test_an_input_is_never_what_is_removed(here: Path, force: bool) -> None:
    run("mine.yaml", "out", timing_only=True)
    (here / "out" / "run.yaml").write_text(RUN)
    before = contents(here / "out")
    with pytest.raises(ConfigError, match=r"is read here|holds a run already"):
        run("out/run.yaml", "out", timing_only=True, force=force)
    (here / "out" / "environment.json").write_text(json.dumps({"levels": [{"name": "w", "count": 2, "uplink": "far"}]}))
    before = contents(here / "out")
    with pytest.raises(ConfigError, match=r"is read here|holds a run already"):
        run("mine.yaml", "out", sets=["topology=out/environment.json"], timing_only=True, force=force)
    assert contents(here / "out") == before


def test_what_a_killed_start_or_removal_leaves_is_taken_for_ours(here: Path) -> None:
    run("mine.yaml", "out", timing_only=True)
    for name in ("run.sqlite", "environment.json"):
        (here / "out" / name).unlink()
        run("mine.yaml", "out", timing_only=True)
        assert (here / "out" / "environment.json").exists()
        (here / "out" / "run.sqlite").unlink()
    (here / "empty").mkdir()
    (here / "empty" / "lock").touch()  # killed as it was made
    (here / "empty" / ".hsgd-emu-0123456789abcdef.new").write_text("half")
    run("mine.yaml", "empty", timing_only=True)
    assert not list((here / "empty").glob(".*"))


def test_a_run_and_a_study_do_not_mix(here: Path, done: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run, and this is a study"):
        run_study("study.yaml", done, force=True)
    (done / "run.yaml").unlink()
    os.replace(done / "run.sqlite", done / "study.sqlite")
    with pytest.raises(ConfigError, match="holds a study, and this is a run"):
        run("mine.yaml", done, timing_only=True, force=True)


@pytest.mark.parametrize("name", ["report.html", "trace.json", "curve.csv", "curve.parquet"])
def test_a_foreign_file_is_overwritten_with_force_only_and_ours_without(here: Path, done: Path, name: str) -> None:
    def write(force: bool = False) -> None:
        if name == "report.html":
            write_report(done, here / name, force)
        elif name == "trace.json":
            write_trace(done, here / name, force=force)
        else:
            export(done, name.partition(".")[2], here, force)

    (here / name).write_text("years of work")
    before = contents(here)
    with pytest.raises(ConfigError, match=f"{name}: is there already, and hsgd-emu did not write it; --force"):
        write()
    assert contents(here) == before
    write(force=True)
    ours = (here / name).read_bytes()
    write()
    assert (here / name).read_bytes() == ours


LINKED = [
    "report.html",
    "trace.json",
    "run.yaml",
    "environment.json",
    "lock",
    "run.sqlite",
    "checkpoints",
    "tensorboard",
]


@pytest.mark.parametrize("end", ["", ".new", "-journal", "-wal", "-shm"])
@pytest.mark.parametrize("name", LINKED)
def test_no_link_in_a_received_folder_leads_us_elsewhere(here: Path, done: Path, name: str, end: str) -> None:
    elsewhere = here / "elsewhere"
    (elsewhere / "case" / "seed-1").mkdir(parents=True)
    (elsewhere / "case" / "seed-1" / "events.out.tfevents.1.000000").write_text("years of work")
    (elsewhere / "file").write_text("years of work")
    before = contents(elsewhere)
    link = done / f"{name}{end}"
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere / ("" if name in ("checkpoints", "tensorboard") else "file"))

    for write in (
        lambda: write_report(done, force=True),
        lambda: write_trace(done, force=True),
        lambda: run("mine.yaml", done, timing_only=True, resume=True),
        lambda: run("mine.yaml", done, timing_only=True, force=True),
        lambda: remove_run(done),
    ):
        with contextlib.suppress(HsgdError, OSError):
            write()
        assert contents(elsewhere) == before


def test_a_link_in_the_place_of_a_new_file_is_replaced(here: Path, done: Path) -> None:
    (here / "file").write_text("years of work")
    for name in ("curve.csv", "topologies"):
        (here / name).symlink_to(here / "file")
    export(done, "csv", here, force=True)
    assert not (here / "curve.csv").is_symlink()
    with pytest.raises(ConfigError):
        write_examples(here)
    (here / "examples" / "runs").mkdir(parents=True)
    (here / "examples" / "runs" / "demo.yaml").symlink_to(here / "not_there_yet")
    with pytest.raises(ConfigError, match="would be overwritten"):
        write_examples(here / "examples")
    write_examples(here / "examples", force=True)
    assert not (here / "not_there_yet").exists()
    assert (here / "file").read_text() == "years of work"


def test_retime_asks_too(here: Path) -> None:
    run("mine.yaml", "learned", device="cpu", threads=1)
    mine = here / "folder"
    mine.mkdir()
    (mine / "run.yaml").write_text(RUN)
    for force in (False, True):
        with pytest.raises(ConfigError, match="exists and holds no run"):
            retime("learned", mine, force=force)
    assert contents(mine) == {"run.yaml": RUN.encode()}


# --- the one way to write -----------------------------------------------------------------------------


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("text where bytes belong")  # type: ignore[arg-type]
    assert contents(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(OSError, match="it"):
        write_atomically(path, "new")
    assert not path.is_file()


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_leftovers_of_the_dead_go_and_files_being_written_stay(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as file:
        file.write(b"new")
        (tmp_path / ".hsgd-emu-of_the_dead.new").write_text("half")
        (tmp_path / ".hsgd-emu-a_link.new").symlink_to(tmp_path / "file")
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.glob(".hsgd-emu-*"))) == 2
    assert (tmp_path / "file").read_text() == "new"
