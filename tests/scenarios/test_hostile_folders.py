"""A received run folder is hostile input: whatever is in it, exit 2 and one sentence that names the file, soon."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.results.tables import FORMAT
from hsgd_emu.run import run
from hsgd_emu.study.sweep.run_study import run_study

RUN = """\
name: mine
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {far: {rtt_s: 0.2}, near: {rtt_s: 0.01}}
compute: {step_s: 0.004}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {batch_size: 20, learning_rate: 0.05, iterations: 20}
cases: [{name: a, period: 5}, {name: b, periods: [10, 5]}]
targets: {test_accuracy: [0.1]}
published: {source: a paper, times: [{case: a, time_s: 1.0}, {case: b, time_s: 2.0}]}
"""
COMMANDS: dict[str, list[str]] = {
    "report": ["report", "DIR", "--force"],
    "export": ["export", "DIR", "--out", "exported"],
    "parquet": ["export", "DIR", "--format", "parquet", "--out", "exported"],
    "tensorboard": ["export", "DIR", "--format", "tensorboard", "--out", "exported"],
    "retime": ["retime", "DIR", "--out", "slower", "--scale", "far=2"],
    "watch": ["watch", "DIR"],
    "trace": ["trace", "DIR", "--force"],
    "sensitivity": ["sensitivity", "DIR"],
    "fit": ["fit", "DIR"],
    "resume": ["run", "mine.yaml", "--out", "DIR", "--resume", "--threads", "1"],
    "force": ["run", "mine.yaml", "--out", "DIR", "--force", "--threads", "1", "--set", "train.iterations=10"],
    "show": ["show", "DIR/run.yaml"],
    "check": ["check", "DIR/run.yaml"],
    "study": ["study", "study.yaml", "--out", "DIR", "--library", "trials"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile")
    (place / "mine.yaml").write_text(RUN)
    (place / "study.yaml").write_text("name: s\nrun: mine.yaml\naxes: [{name: far, rtt_s: far, values: [0.1, 0.2]}]\n")
    run(place / "mine.yaml", place / "received", device="cpu", threads=1)
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(command: str) -> tuple[int, str]:
    arguments = [argument.replace("DIR", "received") for argument in COMMANDS[command]]
    begin = time.monotonic()
    done = CliRunner().invoke(app, arguments)
    assert time.monotonic() - begin < 20, command
    return done.exit_code, done.output


def sql(*statements: str, schema: tuple[str, str] | None = None) -> Callable[[Path], object]:
    """Return what changes run.sqlite; schema: a table, and the SQL that it then claims to be made with."""

    def harm(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "run.sqlite", isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)
            if schema:
                connection.execute("PRAGMA writable_schema = ON")
                connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (schema[1], schema[0]))

    return harm


def loosened(table: str, change: str) -> Callable[[Path], object]:
    """Return what makes values that the table's declaration rules out."""
    loose = f"CREATE TABLE {table} AS SELECT * FROM old_{table}"
    statements = (f"ALTER TABLE {table} RENAME TO old_{table}", loose, f"DROP TABLE old_{table}", change)
    return sql(*statements, schema=(table, FORMAT.sql[table]))


def written(name: str, content: str | bytes) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return harm


def environment(**values: object) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        path = folder / "environment.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return harm


def pipe(name: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return harm


def run_file(old: str, new: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        text = (folder / "run.yaml").read_text()
        assert old in text
        (folder / "run.yaml").write_text(text.replace(old, new))

    return harm


RUN_COMMANDS = list(COMMANDS)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
SEED = 'SELECT "case", seed'
HARMS: dict[str, Callable[[Path], object]] = {
    "random bytes": written("run.sqlite", bytes(range(256)) * 64),
    "random bytes after the header": lambda f: (f / "run.sqlite").write_bytes(
        (f / "run.sqlite").read_bytes()[:100] + bytes(range(256)) * 400
    ),
    "truncated": lambda f: os.truncate(f / "run.sqlite", 5000),
    "empty database": written("run.sqlite", b""),
    "pages of zeros": lambda f: (f / "run.sqlite").write_bytes((f / "run.sqlite").read_bytes()[:8192] + bytes(40960)),
    "no curve": sql("DROP TABLE curve"),
    "no trials": sql("DROP TABLE trials"),
    "a column less": sql("ALTER TABLE curve DROP COLUMN test_loss"),
    "a column more": sql("ALTER TABLE trials ADD COLUMN more TEXT"),
    "an endless view": sql("DROP TABLE curve", f"CREATE VIEW curve AS {ENDLESS} SELECT * FROM n"),
    "an endless view of trials": sql("DROP TABLE trials", f"CREATE VIEW trials AS {ENDLESS} SELECT i AS seed FROM n"),
    "a trigger": sql("CREATE TRIGGER t AFTER UPDATE ON trials BEGIN DELETE FROM curve; END"),
    "a table of their own": sql("CREATE TABLE mine (a)"),
    "text for a number": loosened("curve", "UPDATE curve SET time_s = 'soon'"),
    "a blob for a text": loosened("trials", "UPDATE trials SET status = x'00ff'"),
    "a null where none may be": loosened("curve", "UPDATE curve SET iteration = NULL"),
    "a text that is no UTF-8": loosened("curve", "UPDATE curve SET \"case\" = CAST(x'ff41' AS TEXT)"),
    "huge text": loosened("trials", "UPDATE trials SET status = hex(zeroblob(3000000))"),
    "a negative time": sql("UPDATE curve SET time_s = -1"),
    "an endless time": sql("UPDATE curve SET time_s = 9e999"),
    "a huge iteration": sql("UPDATE curve SET iteration = 9223372036854775807"),
    "a negative round": sql("UPDATE trials SET round = -5"),
    "trials missing": sql("DELETE FROM trials WHERE \"case\"='a'"),
    "trials renamed": sql("UPDATE trials SET \"case\"='z' WHERE \"case\"='a'"),
    "trials empty": sql("DELETE FROM trials"),
    "curve empty": sql("DELETE FROM curve"),
    "curve renamed": sql("UPDATE curve SET \"case\"='z' WHERE \"case\"='a'"),
    "a curve without end": sql(
        "INSERT INTO curve SELECT curve.* FROM curve, (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        "WHERE i < 20000) SELECT i FROM n)"
    ),
    "timeline unknown nodes": sql("UPDATE timeline SET node='z', kind='zz', start_s=-1e300, end_s=1e300"),
    "barriers unknown": sql("UPDATE barriers SET server='z', waited_for='q', iteration=-5, slack_s=9e999"),
    "waits unknown": sql("UPDATE waits SET node='z', round=-5, wait_s=9e999"),
    "targets odd": sql("UPDATE targets SET metric='z'"),
    "levels odd": sql("UPDATE target_levels SET metric='z'"),
    "levels odd2": sql("UPDATE target_levels SET target=9e999"),
    "status odd": sql("UPDATE trials SET status='zz'"),
    "iteration beyond": sql("UPDATE curve SET iteration=iteration+1000000000"),
    "iteration twice": sql("UPDATE curve SET iteration=5"),
    "trial iteration beyond": sql("UPDATE trials SET iteration=1000000000000, status='running'"),
    "round beyond": sql("UPDATE trials SET round=1000000000000, status='running'"),
    "accuracy odd": sql("UPDATE curve SET test_accuracy=1e300, train_loss=-9e999"),
    "seed negative": sql("UPDATE trials SET seed=-9223372036854775808"),
    "timeline typed": loosened("timeline", "UPDATE timeline SET start_s='x', bytes='many'"),
    "weights hash": sql("UPDATE trials SET weights_hash=NULL"),
    "esc names": sql("UPDATE trials SET engine=char(27)||'[31m'"),
    "run.yaml random": written("run.yaml", bytes(range(256))),
    "run.yaml empty": written("run.yaml", ""),
    "run.yaml a list": written("run.yaml", "- 1\n- 2\n"),
    "run.yaml nested": written("run.yaml", "name: " + "[" * 5000 + "]" * 5000),
    "run.yaml aliases": written(
        "run.yaml",
        "a: &a [1,1,1,1,1,1,1,1,1]\n"
        + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(9)),
    ),
    "run.yaml a tag": written("run.yaml", "name: !!python/object/apply:os.system ['touch owned']"),
    "run.yaml without a name": run_file("name: mine", "other: mine"),
    "run.yaml without training": run_file("train:", "description:"),
    "run.yaml other kinds": run_file("iterations: 20", "iterations: {a: 1}"),
    "run.yaml huge": run_file("iterations: 20", "iterations: 1000000000000000000000"),
    "run.yaml a pipe": pipe("run.yaml"),
    "run.yaml missing": lambda f: (f / "run.yaml").unlink(),
    "environment random": written("environment.json", bytes(range(256))),
    "environment empty": written("environment.json", ""),
    "environment nested": written("environment.json", "[" * 100_000),
    "environment nested mappings": written("environment.json", '{"a":' * 900 + "1" + "}" * 900),
    "environment a list": written("environment.json", "[1, 2]"),
    "environment NaN": written("environment.json", '{"message_bytes": NaN}'),
    "environment a pipe": pipe("environment.json"),
    "environment missing": lambda f: (f / "environment.json").unlink(),
    "message_bytes a text": environment(message_bytes="many"),
    "message_bytes huge": environment(message_bytes=10**30),
    "message_bytes negative": environment(message_bytes=-1),
    "parent a text": environment(parent="me"),
    "command a list": environment(command=["rm", "-rf"]),
    "run.sqlite a pipe": pipe("run.sqlite"),
    "run.sqlite-wal a pipe": lambda f: os.mkfifo(f / "run.sqlite-wal"),
    "run.sqlite-wal random": written("run.sqlite-wal", bytes(range(256)) * 64),
    "run.sqlite-journal random": written("run.sqlite-journal", bytes(range(256)) * 64),
}


def meets(finished: Path, place: Path, harm: str, commands: Sequence[str]) -> None:
    wrong = {}
    for command in commands:
        shutil.rmtree(place / "received", ignore_errors=True)
        shutil.copytree(finished / "received", place / "received")
        HARMS[harm](place / "received")
        code, output = invoke(command)
        # 0: a command that reads nothing of what was harmed, or replaces it.
        if code not in (0, 2) or (code == 2 and "received" not in output):
            wrong[command] = (code, output)
    assert not wrong
    assert not (place / "owned").exists()


@pytest.mark.parametrize("harm", HARMS)
def test_one_sentence_and_exit_2(finished: Path, place: Path, harm: str) -> None:
    meets(finished, place, harm, [RUN_COMMANDS[list(HARMS).index(harm) % len(RUN_COMMANDS)]])


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_every_command_meets_every_harm(finished: Path, place: Path, harm: str) -> None:
    meets(finished, place, harm, RUN_COMMANDS)


@pytest.mark.parametrize("harm", ["random bytes", "an endless view", "a trigger", "text for a number", "huge text"])
def test_a_report_of_such_a_folder_is_refused(place: Path, harm: str) -> None:
    HARMS[harm](place / "received")
    code, output = invoke("report")
    assert code == 2
    assert len(output.splitlines()) == 1
    assert "received/run.sqlite: " in output


def on_study(*statements: str) -> Callable[[Path], object]:
    def harm(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "study.sqlite", isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return harm


STUDY_HARMS: dict[str, Callable[[Path], object]] = {
    "random bytes": written("study.sqlite", bytes(range(256)) * 64),
    "an endless view": on_study("DROP TABLE times", f"CREATE VIEW times AS {ENDLESS} SELECT * FROM n"),
    "a trigger": on_study("CREATE TRIGGER t AFTER INSERT ON times BEGIN DELETE FROM best; END"),
    "other scenarios": on_study("UPDATE scenarios SET scenario = scenario + 1000"),
    "other axes": on_study("UPDATE scenarios SET axis = 'zz'"),
    "an endless number": on_study("UPDATE scenarios SET number = 9e999"),
    "nested JSON": on_study(f"INSERT INTO crossovers VALUES ('test_accuracy', 0.1, 'zz', '{'[' * 5000}', 'a', 'b', 1)"),
    "study.yaml a list": written("study.yaml", "- 1"),
    "study.yaml nested": written("study.yaml", "a: " + "[" * 5000),
    "study.yaml without axes": written("study.yaml", "name: x"),
    "study.yaml other kinds": written("study.yaml", "name: [1]\naxes: 5\nrun: {cases: 7, targets: 8}"),
    "study.yaml a pipe": pipe("study.yaml"),
    "environment nested": written("environment.json", "[" * 10_000),
}
COMMANDS |= {
    "report of a study": ["report", "DIR", "--force"],
    "export of a study": ["export", "DIR", "--out", "exported"],
    "watch of a study": ["watch", "DIR"],
}


@pytest.mark.parametrize("harm", STUDY_HARMS)
def test_a_study_likewise(place: Path, harm: str, study: Path) -> None:
    for command in ("report of a study", "export of a study", "watch of a study"):
        shutil.rmtree(place / "received")
        shutil.copytree(study, place / "received")
        STUDY_HARMS[harm](place / "received")
        code, output = invoke(command)
        assert code == 2 or (code == 0 and command != "report of a study"), output
        assert code == 0 or "received" in output


@pytest.fixture(scope="module")
def study(finished: Path) -> Path:
    out = finished / "studied"
    run_study(finished / "study.yaml", out, library=finished / "trials", device="cpu", jobs=1)
    return out
