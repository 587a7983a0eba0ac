"""The page of one run or several: the template filled with their content."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hsgd_emu.algorithm import run_words
from hsgd_emu.report.content import Content, Run
from hsgd_emu.report.sections import sections
from hsgd_emu.report.sentences import unfinished
from hsgd_emu.report.target_table import target_data, target_heads, target_rows
from hsgd_emu.results import wording
from hsgd_emu.results.origin import command_alone, making_commands

if TYPE_CHECKING:
    from jinja2 import Environment

CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    # plotly's default offers to upload the data
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtons": [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
}

MEDIAN_NOTE = (
    "Over seeds, everywhere on this page: a time, with its iterations and parts, is that of the seed in the middle "
    "(of an even number, the mean of the two); a seed that never gets there is later than all others, so more than "
    "half must. At the end: at the last evaluation of each seed; in the curves a seed that has ended goes on counting "
    "with it. A model that is not finite is worse than all others."
)


def render(content: Content) -> str:
    """Return the report as one HTML document. Same content and library versions: same bytes."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    shown = sections(content)
    figures = [figure for section in shown for figure in section.figures]
    targets = target_data(content)
    texts = [f"{json.dumps(figure.id)}:{script_json(figure.as_json())}" for figure in [*figures, targets]]
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            content=content,
            title=" and ".join(run.name for run in content.runs),
            answer=wording.first_answer(content.summaries),
            diverged=wording.diverged_in_words(wording.diverged_of(content.summaries)),
            unfinished=unfinished(content),
            several_seeds=any(case.summary.num_seeds > 1 for case in content.cases),
            median_note=MEDIAN_NOTE,
            heads=target_heads(content),
            rows=target_rows(content),
            targets=targets,
            sections=shown,
            figures=figures,
            origins=[origin(run) for run in content.runs],
            plotly_js=Markup(get_plotlyjs()),
            config=Markup(script_json(json.dumps(CONFIG, sort_keys=True))),
            figure_json=Markup("{" + ",".join(texts) + "}"),
        )
    )


def templates() -> Environment:
    """Return the templates of the reports; what is put into them is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("hsgd_emu.report") / "templates"
    loader = FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def script_json(text: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def origin(run: Run) -> dict[str, Any]:
    """Return what one run was, and what it takes to make it again.

    commands: in order; the last one made this run. Empty where it was not made by a command.
    alone: makes it from its own run file.
    """
    made, alone = making_commands(run.environment), command_alone("run", run.environment, run.run)
    return {"run": run, "facts": facts(run), "commands": made, "alone": alone, "versions": flat(run.environment)}


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what was run, in a few words each."""
    data, train = (given if isinstance(given := run.run.get(key), dict) else {} for key in ("data", "train"))
    numbers = [f"{words} {train[key]}" for key, words in _TRAIN.items() if key in train]
    numbers += [run_words(run.experiment)] if run.experiment else []
    found = [
        ("topology", _named(run.run.get("topology"))),
        ("data", " ".join(str(data[key]) for key in ("dataset", "partition") if key in data).replace("_", " ")),
        ("model", _named(run.run.get("model"))),
        ("training", ", ".join(numbers)),
        ("seeds", ", ".join(str(seed) for seed in dict.fromkeys(trial.seed for trial in run.trials))),
        ("device", str(run.environment.get("device", ""))),
        ("re-timed from", str(run.environment.get("parent", {}).get("name", ""))),
    ]
    return [(label, value) for label, value in found if value]


_TRAIN = {"iterations": "iterations", "batch_size": "batch"}


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested mappings as dotted keys with their values as text, sorted."""
    found: list[tuple[str, str]] = []
    for key in sorted(values):
        value = values[key]
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return found


def _named(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name")
    return "" if value is None else str(value)
