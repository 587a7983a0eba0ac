"""A run as it is drawn in the terminal: a row per trial, what is reached, and the whole run below."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hsgd_emu.metrics import Metrics, Target
from hsgd_emu.results.folder import read_environment
from hsgd_emu.results.rows import TrialStatus
from hsgd_emu.results.summary import summarise, summarise_target
from hsgd_emu.results.wording import DIVERGED, TargetSummary, accuracy_cell, answer, number, target_label
from hsgd_emu.terminal import Terminal
from hsgd_emu.watch.board import RunNow, TrialNow

_LEVELS = "▁▂▃▄▅▆▇█"
_MOST_TARGETS = 6
_STYLES = {"finished": "green", "running": "cyan", "stopped": "yellow", "waiting": "dim"}


class _Form(NamedTuple):
    """How much of a trial is shown: its case's name to so many characters, and bars of so many."""

    columns: tuple[str, ...]
    case: int
    bar: int
    spark: int


_ALL = (
    *("case", "seed", "status", "progress", "iteration", "emulated"),
    *("accuracy", "test loss", "accuracy so far", "left"),
)
_FORMS = (
    _Form(_ALL, 28, 12, 16),
    _Form(("case", "seed", "progress", "iteration", "emulated", "accuracy", "accuracy so far", "left"), 24, 8, 15),
    _Form(("case", "seed", "progress", "emulated", "accuracy", "so far", "left"), 16, 5, 8),
    _Form(("case", "seed", "progress", "accuracy", "left"), 16, 0, 0),
)
_ALIGNED_LEFT = ("case", "status", "accuracy so far", "so far")


def sparkline(values: Sequence[float | None], width: int, low: float, high: float) -> str:
    """Return at most `width` bars between `low` and `high`, each the mean of its share of the values.

    A bar without values is a space; where low is not below high, every bar is in the middle.
    """
    num = min(width, len(values))
    parts = [values[len(values) * n // num : len(values) * (n + 1) // num] for n in range(num)]
    return "".join(_level([v for v in part if v is not None and math.isfinite(v)], low, high) for part in parts)


def _level(values: Sequence[float], low: float, high: float) -> str:
    if not values:
        return " "
    share = (sum(values) / len(values) - low) / (high - low) if low < high else 0.5
    return _LEVELS[min(len(_LEVELS) - 1, max(0, int(share * len(_LEVELS))))]


def bar(share: float, width: int) -> str:
    """Return a bar of `width` characters, full only when the share is 1."""
    done = int(share * width)
    return "━" * done + "╌" * (width - done)


def duration(wall_s: float | None) -> str:
    """Return seconds as `0:42` or `1:02:03`; a dash where they are not known."""
    if wall_s is None:
        return "-"
    minutes, seconds = divmod(round(wall_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def draw_run(run: RunNow, width: int, height: int | None) -> RenderableType:
    """Return the picture of a run in a terminal of this size; height None: all trials, with their whole names."""
    reached = [_target_line(run, *target) for target in run.targets]
    reached = reached if height is None else reached[:_MOST_TARGETS]
    # The lines that are not trials: the table's head, two blanks, the trials left out, the whole run, the cursor.
    rows = chosen_trials(run, None if height is None else max(1, height - len(reached) - 6))
    parts: list[RenderableType] = [_fitting_table(run, rows, width, whole_names=height is None)]
    if len(rows) < len(run.trials):
        parts.append(Text(_left_out(run, rows), style="dim"))
    parts += [Text(""), *reached, *([Text("")] if reached else []), _whole(run)]
    return Group(*parts)


def chosen_trials(run: RunNow, most: int | None) -> list[TrialNow]:
    """Return the trials to show, in run order where all fit; else the running ones, then finished, then waiting."""
    if most is None or len(run.trials) <= most:
        return list(run.trials)
    order = ("running", "finished", "waiting")
    return sorted(run.trials, key=lambda trial: order.index(trial.status))[:most]


def _left_out(run: RunNow, rows: Sequence[TrialNow]) -> str:
    statuses: tuple[TrialStatus, ...] = ("running", "finished", "waiting")
    more = {s: run.count(s) - sum(row.status == s for row in rows) for s in statuses}
    return "not shown: " + ", ".join(f"{num:,} {_status(s, run)}" for s, num in more.items() if num)


def _status(status: str, run: RunNow) -> str:
    return "stopped" if status == "running" and not run.written else status


def _fitting_table(run: RunNow, rows: Sequence[TrialNow], width: int, whole_names: bool) -> Table:
    """Return the fullest form of the table that fits, else the shortest."""
    # Measured where there is room for all: in a narrow console a table has the console's width.
    console = Terminal(width=10_000)
    tables = (_table(run, rows, form, whole_names) for form in _FORMS)
    fitting = (t for t in tables if Measurement.get(console, console.options, t).maximum <= width)
    return next(fitting, None) or _table(run, rows, _FORMS[-1], whole_names)


def _table(run: RunNow, rows: Sequence[TrialNow], form: _Form, whole_names: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in form.columns:
        table.add_column(Text(head), justify="left" if head in _ALIGNED_LEFT else "right", no_wrap=True)
    for trial in rows:
        cells = _cells(run, trial, form, whole_names)
        style = _STYLES[_status(trial.status, run)]
        coloured = ("status", "progress", "so far", "accuracy so far")
        table.add_row(*(Text(cells[head], style=style if head in coloured else "") for head in form.columns))
    return table


def _cells(run: RunNow, trial: TrialNow, form: _Form, whole_names: bool) -> dict[str, str]:
    """Return every cell of a trial's row by its column's head."""
    last, case, share = trial.curve.last, trial.key.case, run.share_of(trial)
    now = last.metrics if last else Metrics()
    # One scale for all trials, so that their lines can be compared.
    spark = sparkline(trial.curve.accuracies, form.spark, *run.accuracies)
    return {
        "case": case if whole_names or len(case) <= form.case else f"{case[: form.case - 1]}…",
        "seed": str(trial.key.seed),
        "status": _status(trial.status, run),
        "progress": f"{bar(share, form.bar)} {math.floor(100 * share):3}%",
        "iteration": f"{trial.iteration:,}",
        "emulated": f"{number(last.time_s)} s" if last else "-",
        "accuracy": DIVERGED if not now.is_finite else accuracy_cell(now.test_accuracy),
        "test loss": "-" if now.test_loss is None else number(now.test_loss, 3),
        "accuracy so far": spark,
        "so far": spark,
        "left": duration(trial.left_wall_s) if trial.status == "running" else "",
    }


def _target_line(run: RunNow, metric: str, target: float) -> Text:
    """Return who has reached a target when, the fastest first."""
    found = []
    for case in dict.fromkeys(trial.key.case for trial in run.trials):
        summary = _reached(run, case, (metric, target))
        seeds = f"{summary.num_reached} of {summary.num_seeds} seeds"
        if summary.median_time_s is not None:
            note = f" ({seeds})" if summary.num_reached < summary.num_seeds else ""
            found.append((summary.median_time_s, f"{case} {number(summary.median_time_s)} s{note}"))
        elif summary.num_reached:
            found.append((math.inf, f"{case} only {seeds}"))
    line = Text(f"{target_label(metric, target)}: ", no_wrap=True, overflow="ellipsis")
    if not found:
        return line.append("not reached" if run.finished else "not reached yet", style="dim")
    return line.append(", ".join(text for _, text in sorted(found, key=lambda entry: entry[0])))


def _reached(run: RunNow, case: str, target: Target) -> TargetSummary:
    """Return when a case reached a target, over those of its seeds that did so far or ended without."""
    rows = []
    for trial in run.trials:
        row = trial.curve.reached.get(target)
        if trial.key.case == case and (row or trial.status == "finished"):
            rows.append(row)
    return summarise_target(target, rows)


def _whole(run: RunNow) -> Text:
    """Return the last line: the whole run's name, bar, counts and time left."""
    done = run.count("finished")
    line = Text(f"{run.name}  ", style="bold", no_wrap=True, overflow="ellipsis")
    line.append(f"{bar(run.share, 20)} {math.floor(100 * run.share)}%", style="green" if run.finished else "cyan")
    line.append(f"  {done} of {len(run.trials)} trials finished", style="not bold")
    return line if run.over else line.append(f"  {duration(run.left_wall_s)} left", style="not bold")


def last_words(folder: Path, run: RunNow) -> list[str]:
    """Return what is to be said when no more will come: the answer, or that the run was left and how to go on."""
    if run.finished:
        return ["", answer(summarise(folder))]
    if run.written:
        return []
    environment, where = read_environment(folder), f"--out {shlex.quote(str(folder))}"
    num = len(run.trials) - run.count("finished")
    text = f"Nobody writes this run any more, and {num} of its {len(run.trials)} trials are not finished"
    # A re-timed run takes seconds, and is made anew.
    if "parent" in environment:
        return ["", f"{text}: `hsgd-emu retime RUN_DIR --force {where}` makes it anew."]
    timing_only = "--timing-only " if environment.get("timing_only") else ""
    return ["", f"{text}: `hsgd-emu run FILE --resume {timing_only}{where}` goes on with it."]
