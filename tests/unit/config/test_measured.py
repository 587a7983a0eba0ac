"""Measured files as other tools write them: units, missing values, delimiters; what is read, dropped and said."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hsgd_emu.check import check_file
from hsgd_emu.config.measured import MeasuredError, read_measured
from hsgd_emu.config.schema import CsvSamples
from hsgd_emu.errors import Problem
from hsgd_emu.experiment import load_experiment


def read(tmp_path: Path, text: str, **given: str) -> tuple[tuple[float, ...], str]:
    path = tmp_path / "rtt.csv"
    path.write_bytes(text.encode("utf-8"))
    return read_measured(CsvSamples.model_validate({"csv": "rtt.csv", "column": "rtt"} | given), path)


@pytest.mark.parametrize(
    "text",
    [
        "rtt,host\n0.05,a\n0.1,b\n",
        "\ufeffrtt,host\r\n0.05,a\r\n0.1,b\r\n",
        "host;rtt\na;0.05\nb;0.1\n",
        "host\trtt\na\t0.05\nb\t0.1",
        '"rtt" , "host"\n"0.05", "a, the first"\n 0.1 ,b\n',
        "host;rtt\na, b;0.05\nc;0.1\n",
        "\nrtt\n0.05\n\n0.1\n\n",
        "rtt,host\n0.05,a,\n0.1,b,,\n",
        "rtt,host\n50 ms,a\n0.1 s,b\n",
        "rtt\r0.05\r1e-1\r",
    ],
)
def test_a_column_is_read_however_the_file_is_laid_out(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, text) == ((0.05, 0.1), "")


@pytest.mark.parametrize(
    ("unit", "cells", "seconds"),
    [
        ("ms", ["0.1", "40", "1e3", "2 s", "7 ns"], (0.0001, 0.04, 1.0, 2.0, 7e-9)),
        ("us", ["250"], (0.00025,)),
        ("µs", ["250"], (0.00025,)),
        ("min", ["1.5", "20 ms"], (90.0, 0.02)),
        ("s", ["0.05"], (0.05,)),
    ],
)
def test_cells_are_in_the_unit_or_have_their_own(
    unit: str, cells: list[str], seconds: tuple[float, ...], tmp_path: Path
) -> None:
    assert read(tmp_path, "\n".join(["rtt", *cells]), unit=unit)[0] == seconds


@pytest.mark.parametrize(
    "mark", ["*", "-", "-1", "-1.0", "-999", "", " ", "NA", "n/a", "#N/A", "NaN", "null", "None", "TIMEOUT", "lost"]
)
def test_what_was_not_measured_is_dropped_only_where_asked_for_and_counted(mark: str, tmp_path: Path) -> None:
    text = f"rtt,host\n40,a\n{mark},b\n41,c\n{mark},d\n"
    values, dropped = read(tmp_path, text, unit="ms", missing="drop")
    assert values == (0.04, 0.041)
    assert dropped.startswith("2 of 4 rows dropped as missing: 2 x ")
    with pytest.raises(MeasuredError) as error:
        read(tmp_path, text, unit="ms")
    assert [mistake.partition(": ")[0][-2:] for mistake in error.value.mistakes] == [":3", ":5"]
    assert all("`missing: drop`" in mistake for mistake in error.value.mistakes)


@pytest.mark.parametrize("cell", ["inf", "slow", "1_000", "40 MB", "1e13", "0,05", "0x10", "1:30"])
def test_what_is_no_time_and_not_missing_is_never_dropped(cell: str, tmp_path: Path) -> None:
    with pytest.raises(MeasuredError, match=r"rtt\.csv:3: found "):
        read(tmp_path, f'rtt;host\n40;a\n"{cell}";b\n', unit="ms", missing="drop")


def test_a_comma_that_divides_a_number_is_no_smaller_number(tmp_path: Path) -> None:
    with pytest.raises(MeasuredError, match=r"rtt\.csv:2: 2 cells for 1 column; write decimals with a point"):
        read(tmp_path, "rtt\n0,05\n0,06\n")


@pytest.mark.parametrize("column", ["rtt_ms", "RTT (ms)", "rtt_us", "latency [ns]", "ms", "RTT_MS"])
def test_a_column_named_in_another_unit_needs_a_word(column: str, tmp_path: Path) -> None:
    text = f"{column}\n40\n"
    with pytest.raises(MeasuredError, match=r"is named in .s; add unit: .s, or unit: s"):
        read(tmp_path, text, column=column)
    assert read(tmp_path, text, column=column, unit="s")[0] == (40,)


@pytest.mark.parametrize("column", ["rtt", "total_s", "min", "rtt_min", "items", "RTT (s)", "s"])
def test_other_columns_are_in_seconds(column: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"{column}\n0.05\n", column=column)[0] == (0.05,)


RUN = """\
name: r
topology: {levels: [{name: worker, count: 2, uplink: near}]}
profiles: {near: ./near.yaml}
compute: {step_s: {csv: steps.csv, column: step_s, unit: ms, missing: drop}}
model: softmax_regression
train: {iterations: 10}
cases: [{name: a, period: 5}]
"""


def test_what_was_dropped_is_noted_and_stays_with_the_values(tmp_path: Path) -> None:
    (tmp_path / "near.yaml").write_text("source: my pings\nrtt_s: {csv: rtt.csv, column: rtt, missing: drop}\n")
    (tmp_path / "rtt.csv").write_text("rtt\n0.1\n*\n*\ntimeout\n")
    (tmp_path / "steps.csv").write_text("step_s\n4\n-1\n")
    path = tmp_path / "run.yaml"
    path.write_text(RUN)
    notes: list[Problem] = []
    check_file(path, (), notes)
    assert [(note.where, note.field) for note in notes] == [
        (f"{tmp_path}/near.yaml:2", "rtt_s"),
        (f"{path}:4", "compute.step_s"),
        (f"{path}:4", "compute.step_s"),
    ]
    assert notes[0].message == f"{tmp_path}/rtt.csv: 3 of 4 rows dropped as missing: 2 x '*', 1 x 'timeout'"
    assert notes[1].message == f"{tmp_path}/steps.csv: 1 of 2 rows dropped as missing: 1 x below 0"
    assert notes[2].message == f"{tmp_path}/steps.csv: the column 'step_s' is read in ms, as `unit` says"
    resolved = yaml.safe_load(load_experiment(path).resolved())
    assert resolved["profiles"]["near"] == {
        "source": "my pings (3 of 4 rows dropped as missing: 2 x '*', 1 x 'timeout')",
        "rtt_s": {"samples": [0.1]},
    }
    assert resolved["compute"] == {
        "source": "steps.csv, column step_s (1 of 2 rows dropped as missing: 1 x below 0)",
        "step_s": {"samples": [0.004]},
    }
