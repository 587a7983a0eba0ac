"""Notes: what is valid and yet is often a slip, said by `check`, `show` and `run`, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsgd_emu.check import check_file
from hsgd_emu.errors import Problem

ROOT = Path(__file__).parents[3]


def notes_of(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    notes: list[Problem] = []
    check_file(path, (), notes)
    assert all(note.where.startswith(f"{path}:") for note in notes)
    return [f"{note.where.rpartition(':')[2]}: {note.field}: {note.message}" for note in notes]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtt_s: 10", None),
        ("rtt_s: 1e-6", None),
        ("rtt_s: 40", "1: rtt_s: an RTT of 40 s is above 10 s; given in ms? Then write 40 ms"),
        ("description: x\nrtt_s: 4e-7", "2: rtt_s: an RTT of 4e-07 s is below 1 us; given in ms?"),
        ("rtt_s: 0", "1: rtt_s: an RTT of exactly 0 s; is a value missing?"),
        ("rtt_s: 4e-10", "1: rtt_s: an RTT of exactly 0 s"),
        ("rtt_s: {samples: [0, 0.0]}", "1: rtt_s: an RTT of exactly 0 s"),
        ("rtt_s: {samples: [0, 0.1]}", None),
        ("rtt_s: {samples: [0.1, 0.1, 900]}", None),
        ("rtt_s: {samples: [20, 35, 0.1]}", "1: rtt_s: an RTT of 20 s (the median) is above 10 s; given in ms?"),
        ("rtt_s: {distribution: uniform, low: 0, high: 0}", "1: rtt_s: an RTT of exactly 0 s"),
        ("rtt_s: {distribution: lognormal, median: 25, sigma: 0.1}", "1: rtt_s: an RTT of 25 s (the median)"),
        ("rtt_s: {distribution: lognormal, median: 0.025, sigma: 3}", None),
        ("rtt_s: {distribution: gamma, shape: 4, scale: 5}", "1: rtt_s: an RTT of 20 s (the median)"),
        ("rtt_s: {distribution: normal, mean: 30, std: 1}", "1: rtt_s: an RTT of 30 s (the median)"),
        ("up_s: 0\ndown_s: 0", "1: : up_s and down_s are exactly 0 s"),
        ("up_s: 0\ndown_s: 0.1", None),
        ("up_s: 0.1\ndown_s: 50", "2: down_s: a download of 50 s is above 10 s"),
        ("latency_s: 0\nbandwidth_bps: 1e6\nmodel: raw", None),
        ("latency_s: 30\nbandwidth_bps: 1e6\nmodel: raw", "1: latency_s: a latency of 30 s is above 10 s"),
        ("latency_s: 0\nbandwidth_bps: 100\nmodel: raw", "2: bandwidth_bps: 100 bit/s are below 1 kbit/s; given in"),
        (
            "latency_s: 0\nbandwidth_bps:\n  up: 1e6\n  down: 8\nmodel: raw",
            "4: bandwidth_bps.down: 8 bit/s are below 1 kbit/s",
        ),
        ("latency_s: 0\nbandwidth_bps: 1e18\nmodel: raw", "2: bandwidth_bps: 1e+18 bit/s are above 1000 Tbit/s"),
        ("step_s: 0.004", None),
        ("step_s: 40", "1: step_s: a step of 40 s is above 10 s; given in ms? Then write 40 ms"),
        ("step_s: 0", "1: step_s: a step of exactly 0 s"),
    ],
)
def test_what_is_often_a_slip_in_a_profile_is_noted_with_its_line(text: str, said: str | None, tmp_path: Path) -> None:
    found = notes_of(tmp_path / "p.yaml", text)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


def test_a_note_stands_at_the_line_that_gives_the_value_and_once(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text("description: slow\nrtt_s: 300\n")
    text = """\
name: t
levels:
  - {name: site, count: 2, uplink: ./far.yaml, aggregation_s: 60}
  - {name: worker, count: 2, uplink: ./far.yaml}
links:
  - {between: [worker, root], profile: {rtt_s: 0}}
"""
    (tmp_path / "t.yaml").write_text(text)
    notes: list[Problem] = []
    assert check_file(tmp_path / "t.yaml", (), notes) == "a topology of 4 workers, 3 servers, 2 levels"
    assert [(note.where, note.field) for note in notes] == [
        (f"{tmp_path}/far.yaml:2", "rtt_s"),
        (f"{tmp_path}/t.yaml:6", "links.0.profile.rtt_s"),
        (f"{tmp_path}/t.yaml:3", "levels.0.aggregation_s"),
    ]


def test_a_study_notes_its_run_and_the_values_of_its_axes(tmp_path: Path) -> None:
    (tmp_path / "wifi.yaml").write_text("rtt_s: 25\n")
    text = """\
name: s
run:
  name: r
  topology: {levels: [{name: worker, count: 2, uplink: near}]}
  profiles: {near: {rtt_s: 0}}
  compute: {step_s: 0.001}
  model: softmax_regression
  train: {iterations: 4}
  cases: [{name: a, period: 2}]
  targets: {test_accuracy: [0.5]}
axes:
  - {name: near, rtt_s: near, values: [0, 0.1, 80]}
"""
    found = notes_of(tmp_path / "s.yaml", text)
    assert [note.partition(";")[0] for note in found] == [
        "5: profiles.near.rtt_s: an RTT of exactly 0 s",
        "12: axes.0.values.2: an RTT of 80 s is above 10 s",
    ]
    # A profile that an axis names is noted at its own line.
    text = text.replace("{rtt_s: 0}", "{rtt_s: 0.1}").replace(
        "rtt_s: near, values: [0, 0.1, 80]", "profile: near, values: [./wifi.yaml]"
    )
    (tmp_path / "s.yaml").write_text(text)
    notes: list[Problem] = []
    check_file(tmp_path / "s.yaml", (), notes)
    assert [note.where for note in notes] == [f"{tmp_path}/wifi.yaml:1"]


def test_shipped_files_have_nothing_to_note() -> None:
    for folder in ("topologies", "latency_profiles", "runs", "runs/paper", "runs/studies"):
        for path in sorted((ROOT / folder).glob("*.yaml")):
            if folder == "runs/studies" and "cifar10" in path.name:
                continue  # Its data are not here.
            notes: list[Problem] = []
            check_file(path, (), notes)
            assert notes == [], path
