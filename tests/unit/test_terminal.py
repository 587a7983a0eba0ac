"""Text of files reaches a terminal as text, and a spreadsheet as text."""

from __future__ import annotations

import csv
import io
import sqlite3
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.results.read import export, read_csv, read_run
from hsgd_emu.run import run
from hsgd_emu.terminal import Terminal, plain

COMMANDS = [
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "a\x08b",
    "a\rb",
    "\u202eright",
    "\u2067x\u2069",
    "a\u2028b",
    "\x7f",
]
RUN = """\
name: mine
description: "{hostile}"
topology: {{name: t, description: "{hostile}", levels: [{{name: worker, count: 2, uplink: far}}]}}
profiles: {{far: {{rtt_s: 0.2, description: "{hostile}", source: "{hostile}"}}}}
compute: {{step_s: 0.004, source: "{hostile}"}}
data: {{dataset: digits, partition: by_label}}
model: softmax_regression
train: {{batch_size: 20, learning_rate: 0.05, iterations: 10}}
message_bytes: 1000
cases: [{{name: a, period: 5}}]
published: {{source: "{hostile}", times: [{{case: a, time_s: 1.0, iterations: 5}}]}}
"""


@pytest.mark.parametrize("text", COMMANDS)
def test_what_commands_a_terminal_is_left_out(text: str) -> None:
    assert plain(text).isprintable()
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, color_system=None, width=80)
    table = Table("head")
    table.add_row(Text(f"cell {text}"))
    console.print(Text(f"line {text}"), table, f"plain {text}")
    assert all(char.isprintable() or char == "\n" for char in out.getvalue())


def test_what_is_only_unusual_stays_and_so_do_our_own_colours() -> None:
    for text in ("naïve 学习 👩‍💻 \u200d", "line\nand\ttab"):
        assert plain(text) == text
    out = io.StringIO()
    Terminal(file=out, force_terminal=True, color_system="standard").print(Text("red", style="red"))
    assert "\x1b[31mred" in out.getvalue()


@pytest.mark.parametrize("command", ["show", "check", "run"])
def test_no_command_prints_what_a_file_would_have_the_terminal_do(command: str, tmp_path: Path) -> None:
    # In YAML's own escapes: the file itself is plain text.
    path = tmp_path / "run.yaml"
    path.write_text(RUN.format(hostile=r"\e[31mred\x9b1m\u202e\x08"))
    out = ["--out", str(tmp_path / "out"), "--timing-only"] if command == "run" else []
    done = CliRunner().invoke(app, [command, str(path), *out])
    assert done.exit_code == 0, done.output
    assert command != "show" or "red" in done.output
    assert all(char.isprintable() or char == "\n" for char in done.output)


FORMULAS = ["=1+1", "+1", "-5", "@SUM(A1)", "'=1", "''-x", "plain", "'quoted", "P=5", "NA"]


def test_no_text_in_a_csv_file_is_a_formula_and_read_csv_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    cases = ", ".join(f'{{name: "{name}", period: 5}}' for name in FORMULAS)
    path.write_text(RUN.format(hostile="-1 as text").replace("{name: a, period: 5}", cases).partition("published")[0])
    run(path, tmp_path / "out", timing_only=True)
    with sqlite3.connect(tmp_path / "out" / "run.sqlite") as connection:
        connection.execute("UPDATE curve SET train_loss = -1.5")
    export(tmp_path / "out", "csv", tmp_path)
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = list(dict.fromkeys(row["case"] for row in rows))
    assert shown == ["'=1+1", "'+1", "'-5", "'@SUM(A1)", "''=1", "'''-x", "plain", "'quoted", "P=5", "NA"]
    assert {row["train_loss"] for row in rows} == {"-1.5"}  # a number is one
    assert list(dict.fromkeys(read_csv(tmp_path / "curve.csv")["case"])) == FORMULAS
    export(tmp_path / "out", "parquet", tmp_path)
    import pandas as pd

    assert list(dict.fromkeys(pd.read_parquet(tmp_path / "curve.parquet")["case"])) == FORMULAS
    assert list(dict.fromkeys(read_run(tmp_path / "out").curve["case"])) == FORMULAS
