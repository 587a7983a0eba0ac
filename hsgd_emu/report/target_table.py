"""The time-to-target table: its cells as the page shows them, and its numbers as they are downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsgd_emu.metrics import Target
from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.figure import Column, ColumnKind, Figure
from hsgd_emu.report.sentences import listed
from hsgd_emu.results import wording
from hsgd_emu.results.summary import published_source
from hsgd_emu.results.wording import CaseSummary, TargetSummary


@dataclass(frozen=True)
class Cell:
    """One case and target. bar: its share of the longest time, in percent, None where it does not reach the target."""

    text: str
    detail: str = ""
    bar: float | None = None
    is_fastest: bool = False
    published: str = ""
    """What others measured, in words."""


@dataclass(frozen=True)
class Row:
    """One case; its last cell is where it ends."""

    case: Case
    cells: tuple[Cell, ...]
    end: Cell


def target_heads(content: Content) -> list[str]:
    """Return the heads of the columns of targets; none where nothing can be reached."""
    return [f"Time to {wording.target_label(*level)}" for level in _levels(content)]


def target_rows(content: Content) -> list[Row]:
    """Return one row per case."""
    columns = [_column(content.summaries, level) for level in _levels(content)]
    by_case = zip(*columns, strict=True) if columns else [()] * len(content.cases)
    return [Row(case, cells, _end(case.summary)) for case, cells in zip(content.cases, by_case, strict=True)]


def target_data(content: Content) -> Figure:
    """Return the table's numbers, to be downloaded: a row per case and target."""
    targets = [(case, target) for case in content.cases for target in case.summary.targets]

    def column(name: str, label: str, kind: ColumnKind, field: str) -> Column:
        return Column(name, label, kind, [getattr(target, field) for _, target in targets])

    columns = [
        Column("case", "Case", "text", [case.name for case, _ in targets]),
        Column("algorithm", "Algorithm", "text", [str(case.algorithm or "") for case, _ in targets]),
        column("metric", "Metric", "text", "metric"),
        column("target", "Target", "number", "target"),
        column("time_s", "Time to target, median", "seconds", "median_time_s"),
        column("least_time_s", "Least", "seconds", "least_time_s"),
        column("most_time_s", "Most", "seconds", "most_time_s"),
        column("iterations", "Iterations, median", "count", "median_iterations"),
        column("communication_share", "Communication", "share", "communication_share"),
        column("num_seeds", "Finished seeds", "count", "num_seeds"),
        column("num_reached", "Seeds that reach it", "count", "num_reached"),
    ]
    if any(target.published_time_s is not None for _, target in targets):
        columns.append(column("published_time_s", "Published", "seconds", "published_time_s"))
    return Figure("targets", "Time to target", (), tuple(columns), note=_sources(content))


def _sources(content: Content) -> str:
    """Return where the published times in the table come from; nothing where there are none."""
    shown = {case.run.name for case in content.cases if any(t.published_time_s for t in case.summary.targets)}
    found = [source for run in content.runs if run.name in shown and (source := published_source(run.run))]
    return f"Published: {listed(list(dict.fromkeys(found)))}." if found else ""


def _levels(content: Content) -> list[Target]:
    """Return the targets of all runs, in their order; none where nothing was trained."""
    summaries = content.summaries
    if any(summary.num_finished for summary in summaries) and not wording.was_trained(summaries):
        return []
    return list(dict.fromkeys(t.key for summary in summaries for t in summary.targets))


def _column(summaries: Sequence[CaseSummary], level: Target) -> list[Cell]:
    targets = [next((t for t in s.targets if t.key == level), None) for s in summaries]
    known = [t.median_time_s for t in targets if t and t.median_time_s is not None]
    # Nothing to point out where only one case runs.
    first = min(known) if known and len(summaries) > 1 else None
    fastest = next((i for i, t in enumerate(targets) if t and first is not None and t.median_time_s == first), -1)
    return [_cell(target, max(known, default=0.0), i == fastest) for i, target in enumerate(targets)]


def _cell(target: TargetSummary | None, longest_s: float, is_fastest: bool) -> Cell:
    if target is None:
        return Cell("not a target of this run")
    text = wording.time_cell(target)
    beside = f"published {wording.published_cell(target)}" if target.published_time_s is not None else ""
    if target.median_time_s is None:
        return Cell(text, published=beside)
    share = wording.share_cell(target.communication_share)
    detail = f"{wording.iterations_cell(target)} iterations, {share} communication"
    bar = 100 * target.median_time_s / longest_s if longest_s > 0 else 0.0
    return Cell(text, detail, bar, is_fastest, beside)


def _end(summary: CaseSummary) -> Cell:
    if summary.final_time_s is None or summary.final_iteration is None:
        return Cell("not finished")
    end = f"{wording.number(summary.final_time_s)} s, {summary.final_iteration:,.0f} iterations"
    if summary.final_accuracy is not None or (summary.diverged and summary.final_test_loss is None):
        return Cell(wording.final_accuracy_cell(summary), end)
    if summary.final_test_loss is not None:
        return Cell(f"test loss {wording.number(summary.final_test_loss, 3)}", end)
    return Cell(end)
