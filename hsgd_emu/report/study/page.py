"""The page of a study: the template filled with its content."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hsgd_emu.report.page import CONFIG, flat, script_json, templates
from hsgd_emu.report.study import sentences
from hsgd_emu.report.study.charts import MOST_DOTS, charts, cloud_axes, clouds
from hsgd_emu.report.study.content import Case, Floats, StudyContent, Target
from hsgd_emu.report.study.figure import Drawn, compact, joined, short
from hsgd_emu.report.study.grid import Grid, make_grid
from hsgd_emu.report.study.maps import maps, marks_close, scale_of
from hsgd_emu.report.study.sentences import splits
from hsgd_emu.report.study.spread import Choice, choices, spread_data, spread_height_px, spreads
from hsgd_emu.report.study.tornado import (
    HIGH_COLOUR,
    LOW_COLOUR,
    subjects,
    tornado_height_px,
    tornado_kind,
    tornado_start,
    tornados,
)
from hsgd_emu.report.study.words import gain_cell, margin_cell, seconds
from hsgd_emu.results.origin import command_alone, making_commands
from hsgd_emu.results.wording import number, percent

MOST_ROWS = 200
FEWEST_DOTS = 8
"""A cloud of fewer scenarios says less than the table."""


@dataclass(frozen=True)
class Row:
    """One scenario in the table."""

    values: tuple[str, ...]
    case: Case | None
    time: str
    next: str
    probability: str
    gain: str


def render(content: StudyContent) -> str:
    """Return the report as one HTML document. Same content and library versions: same bytes."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    grid = make_grid(content.axes, content.places_SA, len(content.targets)) if content.targets else None
    kind = kind_of(content, grid)
    drawn = [*figures(content, grid, kind), *tornados(content), *spreads(content)]
    shown = shown_scenarios(content, grid, kind)
    return (
        templates()
        .get_template("study.html.j2")
        .render(
            content=content,
            name=str(content.study.get("name", "study")),
            description=str(content.study.get("description") or ""),
            facts=facts(content),
            unfinished=sentences.unfinished(content),
            start=sentences.hardest(content),
            sentences=sentences,
            kind=kind,
            panels=_panels(content, grid) if grid else [],
            picks=picks(content, grid) if grid else [],
            marks_close=bool(kind == "map" and grid and marks_close(grid)),
            thinned=bool(grid and grid.thinned),
            scale=gain_scale(content),
            drawn_over=[content.axes[i].name for i in grid.over] if grid else [],
            drawn_over_numbers=bool(grid and content.axes[grid.x].numbers),
            cloud_names=[axis.title for axis in content.axes if len(axis.texts) > 1],
            cloud_sides=cloud_sides(content) if kind == "cloud" else [],
            columns=[axis.name for axis in content.axes if len(axis.texts) > 1],
            rows=[rows(content, target) for target in content.targets],
            most_rows=MOST_ROWS,
            most_dots=MOST_DOTS,
            commands=making_commands(content.environment),
            alone=command_alone("study", content.environment, content.study),
            trials=content.trials[:MOST_ROWS],
            versions=flat(content.environment),
            plotly_js=Markup(get_plotlyjs()),
            config=Markup(script_json(json.dumps(CONFIG, sort_keys=True))),
            rounded_to=None if is_exact(content, len(shown)) else (DIGITS, INTERVAL_DIGITS),
            tornado={
                "kind": tornado_kind(content),
                "height_px": tornado_height_px(content),
                "start": tornado_start(content),
                "subjects": [subject.label for subject in subjects(content)],
                "colours": (LOW_COLOUR, HIGH_COLOUR),
            },
            choices=choices(content, grid) if content.times else [],
            spread_height_px=spread_height_px(content),
            has_figures=bool(drawn),
            figures_json=Markup(script_json(compact(joined(drawn)))),
            data_json=Markup(script_json(study_data(content, shown, quantiles=kind == "chart"))),
            spread_json=Markup(script_json(compact(spread_data(content)))),
            cloud_axes_json=Markup(script_json(cloud_axes(content) if kind == "cloud" else "[]")),
        )
    )


def kind_of(content: StudyContent, grid: Grid | None) -> str:
    """Return what is drawn: a map, a chart, a cloud, or nothing where there is too little."""
    if grid:
        return "chart" if grid.y is None else "map"
    varying = [axis for axis in content.axes if len(axis.texts) > 1]
    return "cloud" if content.targets and len(varying) > 1 and content.num_scenarios >= FEWEST_DOTS else ""


def facts(content: StudyContent) -> list[tuple[str, str]]:
    """Return what was studied, in a few words each."""
    study = content.study
    axes = [(axis.name, f"{axis.extent} ({axis.changes})") for axis in content.axes]
    counts = [
        ("run", str(study["run"].get("name", ""))),
        ("scenarios", f"{content.num_scenarios:,}"),
        ("cases", str(len(content.cases))),
        ("seeds", ", ".join(map(str, content.seeds))),
        ("replications of the network", str(study.get("replications") or 1)),
    ]
    return [(label, value) for label, value in [*axes, *counts] if value]


def figures(content: StudyContent, grid: Grid | None, kind: str) -> Iterable[Drawn]:
    """Return the maps, the charts or the clouds, whichever `kind` says."""
    if kind == "map" and grid:
        return maps(content, grid)
    if kind == "chart" and grid:
        return charts(content, grid)
    return clouds(content) if kind == "cloud" else ()


def shown_scenarios(content: StudyContent, grid: Grid | None, kind: str) -> Sequence[int]:
    """Return the scenarios that are drawn one by one, in order."""
    if grid:
        return sorted(s for one in grid.combinations() for row in grid.cells(one) for s in row)
    return range(min(content.num_scenarios, MOST_DOTS)) if kind else ()


def _panels(content: StudyContent, grid: Grid) -> list[dict[str, str]]:
    """Return the figures side by side: id, key (the combination, `*` where the reader picks), title."""
    found = []
    for number_, places in enumerate(grid.panel_combinations()):
        at = [(content.axes[i], place) for i, place in zip(grid.others, places, strict=True) if i in grid.panels]
        title = ", ".join(axis.at(place) for axis, place in at if place is not None)
        key = ",".join("*" if place is None else str(place) for place in places)
        found.append({"id": str(number_), "key": key, "title": title})
    return found


def picks(content: StudyContent, grid: Grid) -> list[Choice]:
    """Return the axes of maps whose values do not all stand side by side: of these the reader picks one."""
    axes = [(i, content.axes[i], grid.shown[i]) for i in grid.picks]
    return [Choice(a.name, i, tuple((p, a.texts[p]) for p in shown), shown[len(shown) // 2]) for i, a, shown in axes]


def cloud_sides(content: StudyContent) -> list[int]:
    """Return the two axes of a cloud to begin with: those that tell most, by their place among the varying ones."""
    varying = [i for i, axis in enumerate(content.axes) if len(axis.texts) > 1]
    telling = [split.axis for split in splits(content, content.targets[sentences.hardest(content)])]
    return [varying.index(i) for i in dict.fromkeys([*telling, *varying])][:2]


def gain_scale(content: StudyContent) -> dict[str, Any]:
    """Return the key of the second map: its colours, and words at places in percent."""
    if not content.targets:
        return {}
    scale = scale_of(content)
    root = f"{number(scale.limit**0.5, 2)}×"
    most = f"{scale.limit:g}×"
    words = [most, root, "equal", root, most] if scale.two_sided else ["equal", root, most]
    return {"colours": scale.colours, "words": words, "two_sided": scale.two_sided}


def rows(content: StudyContent, target: Target) -> list[Row]:
    """Return the table of scenarios, of many only the first."""
    found = []
    for scenario in range(min(content.num_scenarios, MOST_ROWS)):
        best, second = int(target.best_S[scenario]), int(target.second_S[scenario])
        at = zip(content.axes, content.places_SA[scenario], strict=True)
        values = tuple(axis.texts[place] for axis, place in at if len(axis.texts) > 1)
        probability = float(target.probability_S[scenario])
        case = content.cases[best] if best >= 0 else None
        time = seconds(target.median_SC[scenario, best]) if best >= 0 else "not reached"
        after = f"{content.cases[second].name}, {margin_cell(target.margin_S[scenario])}" if second >= 0 else "-"
        sure = "-" if probability != probability else percent(round(probability, 2))
        found.append(Row(values, case, time, after, sure, gain_cell(target.gain_S[scenario])))
    return found


# --- the data that stand in the page once -----------------------------------------------------------

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
        "axes": [{"name": a.name, "unit": a.unit, "texts": a.texts, "numbers": a.numbers} for a in content.axes],
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
    probability = short(target.probability_S[rows].tolist(), None if exact else INTERVAL_DIGITS)
    whose = {"label": target.label, "metric": target.metric, "level": target.level}
    return {**whose, **tables, "probability": probability}
