"""The results of a study in words: tables for a terminal, and where the best case changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from hsgd_emu.results.wording import TextTable, number, percent, target_label
from hsgd_emu.study.sweep.crossover import sentences
from hsgd_emu.study.sweep.store import connect_to_read, crossovers_of, read_study, select

MOST_ROWS = 30
"""A study of more scenarios is told case by case."""
MOST_SENTENCES = 8
_NEVER = "not reached"


def result_tables(folder: Path) -> list[TextTable]:
    """Return one table for each target: a row for each scenario, or for each case where there are very many."""
    with contextlib.closing(connect_to_read(folder)) as connection:
        rows = {table: list(select(connection, table)) for table in ("scenarios", "summary", "best")}
    levels = list(dict.fromkeys((row.metric, row.target) for row in rows["summary"]))
    tables = []
    for level in levels:
        summary, firsts = (
            [row for row in rows[table] if (row.metric, row.target) == level] for table in ("summary", "best")
        )
        medians = {(row.scenario, row.case): row.median_s for row in summary}
        best = {row.scenario: (row.case, row.margin) for row in firsts}
        title = f"time to {target_label(*level)}"
        num = len({scenario for scenario, _ in medians})
        if num <= MOST_ROWS:
            tables.append(_by_scenario(title, rows["scenarios"], medians, best))
        else:
            tables.append(_by_case(f"{title}, {num:,} scenarios", medians, best))
    return tables


def _by_scenario(title: str, scenarios: Sequence[Any], medians: dict[Any, Any], best: dict[int, Any]) -> TextTable:
    axes = list(dict.fromkeys(row.axis for row in scenarios))
    values: dict[int, list[str]] = {}
    for row in scenarios:
        values.setdefault(row.scenario, []).append(row.value)
    rows = []
    for scenario, texts in values.items():
        case, margin = best.get(scenario, (None, None))
        time_s = _NEVER if case is None else f"{number(medians[scenario, case])} s"
        rows.append((*texts, case or "-", time_s, "-" if margin is None else f"{margin:.2f} x"))
    return TextTable((*axes, "best case", "time", "next takes"), rows, len(axes) + 1, title)


def _by_case(title: str, medians: dict[Any, Any], best: dict[int, Any]) -> TextTable:
    num = len({scenario for scenario, _ in medians})
    rows = []
    for case in dict.fromkeys(case for _, case in medians):
        wins = sum(found[0] == case for found in best.values())
        times = [time_s for (_, other), time_s in medians.items() if other == case and time_s is not None]
        spread = f"{number(min(times))}-{number(max(times))} s" if times else _NEVER
        rows.append((case, f"{wins:,} ({percent(round(wins / num, 3))})", _typical(times, num), spread))
    return TextTable(("case", "best in", "median", "least-most"), rows, title=title)


def _typical(times: Sequence[float], num: int) -> str:
    return f"{number(median(times))} s" if 2 * len(times) > num else "-"


def answers(folder: Path) -> list[str]:
    """Return where the best case changes, in sentences, those that hold most widely first; and what diverged."""
    results = read_study(folder)
    told = sentences(crossovers_of(results.crossovers), dict(_numeric_axes(results.study["axes"])))
    more = len(told) - MOST_SENTENCES
    told = told[:MOST_SENTENCES] + ([f"And {more} more, in the report."] if more > 0 else [])
    return [*told, *filter(None, [results.diverged_in_words()])]


def _numeric_axes(axes: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the name and the unit of each axis of numbers."""
    for axis in axes:
        values = axis["values"]
        if isinstance(values, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            yield axis["name"], "s" if "rtt_s" in axis or str(axis.get("set")).endswith("_s") else ""
