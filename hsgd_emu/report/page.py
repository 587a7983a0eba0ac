"""The page: the template filled with a run's content."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hsgd_emu.report.content import Content
from hsgd_emu.report.figures import figures
from hsgd_emu.report.sentences import parts_in_words, unfinished
from hsgd_emu.results import wording

if TYPE_CHECKING:
    from jinja2 import Environment

CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    # plotly's default offers to upload the data
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtons": [["zoom2d", "resetScale2d", "toImage"]],
}


def render(content: Content) -> str:
    """Return the report as one HTML document. Same content and library versions: same bytes."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    shown = figures(content)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            content=content,
            labels=[head[0].upper() + head[1:] for head in wording.target_heads(content.summaries)],
            name=str(content.run.get("name", "run")),
            facts=facts(content),
            answer=wording.answer(content.summaries),
            unfinished=unfinished(content),
            wording=wording,
            figures=shown,
            parts_text=parts_in_words(content.cases),
            longest_s=max((case.part.time_s for case in content.cases if case.part), default=0.0),
            longest_to_target_s=[_longest(content, column) for column in range(_num_targets(content))],
            fastest_cases=[_fastest(content, column) for column in range(_num_targets(content))],
            versions=flat(content.environment),
            plotly_js=Markup(get_plotlyjs()),
            config=Markup(script_json(json.dumps(CONFIG, sort_keys=True))),
            figure_json=Markup(
                "{" + ",".join(f"{json.dumps(figure.id)}:{script_json(figure.json)}" for figure in shown) + "}"
            ),
        )
    )


def templates() -> Environment:
    """Return the templates of the reports with their filters; what is put into them is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("hsgd_emu.report") / "templates"
    environment = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "seconds": _seconds,
        "whole_percent": wording.share_cell,
        "accuracy": wording.accuracy_cell,
    }
    return environment


def script_json(text: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def facts(content: Content) -> list[tuple[str, str]]:
    """Return what was run, in a few words each."""
    run = content.run
    data = run.get("data")
    train = run.get("train")
    train = train if isinstance(train, dict) else {}
    found = [
        ("topology", _named(run.get("topology"))),
        ("data", _named(data, "dataset")),
        ("partition", _named(data, "partition") if isinstance(data, dict) else ""),
        ("model", _named(run.get("model"))),
        ("iterations", f"{train['iterations']:,}" if isinstance(train.get("iterations"), int) else ""),
        ("cases", str(len(content.cases))),
        ("seeds", ", ".join(str(seed) for seed in dict.fromkeys(trial.seed for trial in content.trials))),
    ]
    return [(label, value) for label, value in found if value]


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


def _named(value: Any, key: str = "name") -> str:
    if isinstance(value, dict):
        value = value.get(key)
    return "" if value is None else str(value)


def _num_targets(content: Content) -> int:
    return len(content.summaries[0].targets) if content.cases else 0


def _longest(content: Content, column: int) -> float:
    times_s = [summary.targets[column].median_time_s for summary in content.summaries]
    return max((time_s for time_s in times_s if time_s is not None), default=0.0)


def _fastest(content: Content, column: int) -> str | None:
    """Return the case that reaches a target first; nothing to point out where only one case runs."""
    times = [(s.targets[column].median_time_s, i) for i, s in enumerate(content.summaries)]
    known = [(time_s, i) for time_s, i in times if time_s is not None]
    return content.summaries[min(known)[1]].case if known and len(times) > 1 else None


def _seconds(value: float) -> str:
    return f"{wording.number(value)} s"
