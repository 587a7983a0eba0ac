"""Texts with a unit wherever a time, a size or a rate stands, in every kind of file; what is written out is numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hsgd_emu.check import check_file
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.study.fitting.fit import parse_fixed
from hsgd_emu.study.sweep.study_file import load_study

RUN = """\
name: r
topology:
  levels: [{name: site, count: 2, uplink: far, aggregation_s: 1.5 ms}, {name: worker, count: 2, uplink: near}]
profiles:
  near: {latency_s: 4500 us, bandwidth_bps: {up: 10 Mbit/s, down: 1 MB/s}, model: raw}
  far: {rtt_s: {distribution: normal, mean: 300 ms, std: 20 ms}}
compute: {step_s: {samples: [4 ms, 0.005, 6000 µs]}}
model: softmax_regression
message_bytes: 60 KiB
train: {iterations: 20}
cases: [{name: a, period: 10}]
targets: {test_accuracy: [0.5]}
published: {source: x, times: [{case: a, time_s: 1.5 min}], known: {compute: 4 ms}}
"""
NUMBERS = [
    ("1.5 ms", "0.0015"), ("4500 us", "0.0045"), ("10 Mbit/s", "1e7"), ("1 MB/s", "8e6"), ("300 ms", "0.3"),
    ("20 ms", "0.02"), ("6000 µs", "0.006"), ("60 KiB", "61440"), ("1.5 min", "90"), ("4 ms", "0.004"),
]  # fmt: skip


def put(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_with_units_is_the_run_with_numbers(tmp_path: Path) -> None:
    plain = RUN
    for text, number in NUMBERS:
        plain = plain.replace(text, number)
    assert "ms" not in plain
    with_units = load_experiment(put(tmp_path / "run.yaml", RUN))
    assert with_units.resolved() == load_experiment(put(tmp_path / "plain.yaml", plain)).resolved()
    resolved = yaml.safe_load(with_units.resolved())
    assert resolved["message_bytes"] == 61440
    assert resolved["compute"] == {"step_s": {"samples": [0.004, 0.005, 0.006]}}
    assert resolved["profiles"]["near"]["bandwidth_bps"] == {"up": 1e7, "down": 8e6}
    assert resolved["published"]["times"][0]["time_s"] == 90


def test_set_takes_units(tmp_path: Path) -> None:
    sets = ["profiles.far.rtt_s=250 ms", "message_bytes=1 MB", "compute={step_s: 2ms}"]
    experiment = load_experiment(put(tmp_path / "run.yaml", RUN), sets)
    assert experiment.message_bytes == 1_000_000
    assert experiment.topology_draft.links["far"].rtt_s == 0.25
    assert experiment.compute.step_s == 0.002


def study(tmp_path: Path, axes: str) -> Path:
    put(tmp_path / "run.yaml", RUN.replace("distribution: normal, mean: 300 ms, std: 20 ms", "samples: [0.3]"))
    return put(tmp_path / "study.yaml", f"name: s\nrun: ./run.yaml\naxes:\n  - {axes}\n")


@pytest.mark.parametrize(
    ("axis", "numbers"),
    [
        ("{name: x, rtt_s: far, values: [40 ms, 0.1, 1 s]}", [0.04, 0.1, 1]),
        ("{name: x, rtt_s: far, values: {from: 20 ms, to: 2 s, num: 3, spacing: log}}", [0.02, 0.2, 2]),
        ("{name: x, set: compute.step_s, values: [1 ms, 2 ms]}", [0.001, 0.002]),
        ("{name: x, set: profiles.near.bandwidth_bps.up, values: [1 Mbit/s, 1 MB/s]}", [1e6, 8e6]),
        ("{name: x, set: message_bytes, values: [60 KiB, 1 MB]}", [61440, 1e6]),
        ("{name: x, set: topology.levels.0.aggregation_s, values: {from: 0 s, to: 1 min, num: 2}}", [0, 60]),
        ("{name: x, scale: far, values: [1, 2]}", [1, 2]),
    ],
)
def test_axes_of_a_study_take_units_and_are_numbers(axis: str, numbers: list[float], tmp_path: Path) -> None:
    found = load_study(study(tmp_path, axis)).axes[0]
    assert [value.number for value in found.values] == numbers
    assert [value.data for value in found.values] == numbers


def test_listed_scenarios_take_units(tmp_path: Path) -> None:
    path = study(tmp_path, "{name: x, rtt_s: far}\nscenarios: [{x: 40 ms}, {x: 1 min}]")
    assert [row[0].number for row in load_study(path).scenarios if row[0]] == [0.04, 60]


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ("{name: x, rtt_s: far, values: [40 ms, 40 MB]}", "axes.0.values.1: found '40 MB'; that is a size"),
        ("{name: x, rtt_s: far, values: {from: 1 MB, to: 2 s, num: 2}}", "axes.0.values.from: found '1 MB'; expected"),
        ("{name: x, scale: far, values: [2 ms]}", "axes.0.values.0: found '2 ms'; expected a factor above 0"),
        ("{name: x, set: message_bytes, values: [3 Mb]}", "axes.0.values.0: found '3 Mb'; 'Mb' may mean bits or bytes"),
        ("{name: x, rtt_s: far, values: [-3 ms]}", "axes.0.values.0: found -0.003; expected a number of seconds"),
        ("{name: x, rtt_s: far, values: [40 ms, 0.04]}", "'0.04' stands there twice"),
    ],
)
def test_wrong_units_on_an_axis_are_told_with_their_place(axis: str, said: str, tmp_path: Path) -> None:
    path = study(tmp_path, axis)
    with pytest.raises(ConfigError) as error:
        check_file(path)
    assert [said in str(problem) for problem in error.value.problems] == [True]
    assert error.value.problems[0].where == f"{path}:4"


def test_what_is_fixed_in_a_fit_takes_units() -> None:
    assert parse_fixed(["compute=4 ms", "far = 1.5 min"]) == {"compute": 0.004, "far": 90}
    with pytest.raises(ConfigError, match=r"--fix far=3 MB: found '3 MB'; that is a size; expected a time"):
        parse_fixed(["far=3 MB"])
