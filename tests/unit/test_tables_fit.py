"""What is printed at 80 columns, wider, and into a pipe: readable, and nothing cut or padded."""

from collections import namedtuple

import pytest

from hsgd_emu.cli.app import print_lines, print_table
from hsgd_emu.results.wording import CaseSummary, TargetSummary, TextTable, tables
from hsgd_emu.study.sweep import wording
from hsgd_emu.study.sweep.store import TABLES

LEVELS = (0.5, 0.8, 0.85)
CASES = ("P=5", "P=10", "G=50 I=5", "G=50 I=10", "a longer name")


def target(level: float, times_s: list[float], published_s: float | None) -> TargetSummary:
    return TargetSummary(
        metric="test_accuracy",
        target=level,
        num_seeds=3,
        num_reached=len(times_s),
        median_time_s=sorted(times_s)[1] if len(times_s) > 1 else None,
        least_time_s=min(times_s, default=None),
        most_time_s=max(times_s, default=None),
        median_iterations=1_000,
        communication_share=0.92,
        published_time_s=published_s,
    )


def summary(case: str) -> CaseSummary:
    times_s = ([4.973, 5.1, 6.713], [1002.3, 12345.6], [33.82])
    found = (target(level, given, 1200.5) for level, given in zip(LEVELS, times_s, strict=True))
    return CaseSummary(case, case.startswith("P"), 3, 3, tuple(found), 0.8612, 0.5, 12345.6, 4000)


def printed(capsys, monkeypatch, columns: str | None, forms) -> list[str]:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    print_table(forms)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("columns", "num_tables"), [("80", 4), ("100", 4), ("200", 1), ("300", 1), (None, 4)])
def test_time_to_target_table_fits(capsys, monkeypatch, columns, num_tables):
    lines = printed(capsys, monkeypatch, columns, tables([summary(case) for case in CASES]))
    assert max(map(len, lines)) <= int(columns or 120)
    assert all(line == line.rstrip() for line in lines)
    assert sum(line.startswith("case ") for line in lines) == num_tables
    # One line for each case and table: no cell is broken.
    for case in CASES:
        assert sum(line.startswith(f"{case}  ") for line in lines) == num_tables
    text = "\n".join(lines)
    for cell in (
        "5.100 s",
        "4.973-6.713",
        "not reached",
        "1 of 3 seeds",
        "1,002-12,346, 2 of 3 seeds",
        "86.1%",
        "1,200 s",
    ):
        assert cell in text


def test_every_table_of_a_study_fits_80_columns(capsys, monkeypatch):
    medians = {(n, case): 12345.6 + n for n in range(60) for case in CASES}
    best = {n: (CASES[n % 5], 1.25) for n in range(60)}
    Scenario = namedtuple("Scenario", [column.name for column in TABLES["scenarios"]])
    scenarios = [
        Scenario(n, axis, text, None)
        for n in range(20)
        for axis, text in (("far", "0.2154"), ("near", "0.02"), ("step", "0.004"))
    ]
    by_case = wording._by_case("time to 80% test accuracy, 60 scenarios", medians, best)
    by_scenario = wording._by_scenario("time to 80% test accuracy", scenarios, medians, best)
    lines = printed(capsys, monkeypatch, "80", [[by_case, by_scenario]])
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(case) for line in lines) for case in CASES)
    assert "time to 80% test accuracy" in lines


def test_names_longer_than_the_terminal_are_folded_and_not_cut(capsys, monkeypatch):
    name = "x" * 100
    lines = printed(capsys, monkeypatch, "80", [[TextTable(("case", "time"), [(name, "1.0 s")])]])
    assert max(map(len, lines)) <= 80
    assert "".join(lines).count("x") == 100


def test_a_sentence_in_a_pipe_stays_one_line(capsys):
    print_lines(["word " * 60 + "[bold]end[/bold]"])
    assert capsys.readouterr().out == "word " * 60 + "[bold]end[/bold]\n"
