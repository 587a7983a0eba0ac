"""The data that stand in a study's page once: its script makes tables, CSV files and the words of scenarios of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hsgd_emu.report.study.content import Floats, StudyContent, Target
from hsgd_emu.report.study.figure import compact, short

MOST_EXACT = 100_000
"""Times of a page, over all tables; where there are more, they are rounded, or they would make most of the page."""
DIGITS, INTERVAL_DIGITS = 6, 4
"""Significant ones of rounded times, and of their intervals."""


def is_exact(content: StudyContent, num_scenarios: int) -> bool:
    """Tell whether the page has times as the database has them."""
    return num_scenarios * len(content.cases) * len(content.targets) <= MOST_EXACT


def study_data(content: StudyContent, scenarios: Sequence[int], quantiles: bool) -> str:
    """Return the JSON of the scenarios that are drawn, whose rows the figures refer to.

    quantiles: with those of 10% and 90%, which only a chart shows.
    """
    found: dict[str, Any] = {
        "axes": [
            {"name": axis.name, "unit": axis.unit, "texts": axis.texts, "numbers": axis.numbers}
            for axis in content.axes
        ],
        "cases": [{"name": case.name, "local": case.dashed} for case in content.cases],
        "bothKinds": content.both_kinds,
        "places": content.places_SA[list(scenarios)].T.tolist(),
        "scenarios": None if len(scenarios) == content.num_scenarios else list(scenarios),
        "targets": [_target(target, content, scenarios, quantiles) for target in content.targets],
        "exact": is_exact(content, len(scenarios)),
    }
    return compact(found)


def _target(target: Target, content: StudyContent, scenarios: Sequence[int], quantiles: bool) -> dict[str, Any]:
    rows = list(scenarios)
    exact = is_exact(content, len(rows))
    names = ("median", "low", "high", *(("q10", "q90") if quantiles else ()))
    tables: dict[str, list[list[float | None]] | None] = {}
    for name in names:
        table_SC: Floats = getattr(target, f"{name}_SC")[rows]
        same = name != "median" and bool((table_SC == target.median_SC[rows]).all())
        # Without chance, intervals and quantiles are the median: null, and the script takes that.
        digits = None if exact else DIGITS if name == "median" else INTERVAL_DIGITS
        tables[name] = None if same else [short(values, digits) for values in table_SC.T.tolist()]
    return {
        "label": target.label,
        "metric": target.metric,
        "level": target.level,
        **tables,
        "probability": short(target.probability_S[rows].tolist(), None if exact else INTERVAL_DIGITS),
    }
