"""Summaries in words: tables as text, the cells of the time-to-target table, and the sentence that answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hsgd_emu.errors import listed
from hsgd_emu.metrics import METRICS, Target, hardness

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table as text; the first `num_left` columns are aligned left, the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_left: int = 1
    title: str | None = None

    def __rich__(self) -> Table:
        """Return it as rich, and so the command line, prints it."""
        from rich.table import Table
        from rich.text import Text

        found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title_justify="left")
        found.title = None if self.title is None else Text(self.title, style="bold")
        for place, head in enumerate(self.header):
            found.add_column(Text(head), justify="left" if place < self.num_left else "right", overflow="fold")
        for row in self.rows:
            found.add_row(*map(Text, row))
        return found


DIVERGED = "diverged"
"""What a figure of a model that is not finite is said to be."""


@dataclass(frozen=True)
class TargetSummary:
    """When the seeds of one case reached one target.

    num_seeds: the finished ones; median_time_s: None unless more than half of them reached it; least_time_s
    and most_time_s: over those that did; median_iterations, communication_share (of the time until then, 0 to 1): of
    the seed in the middle, by its time (`results.summary.middle`); published_time_s: what others measured.
    """

    metric: str
    target: float
    num_seeds: int
    num_reached: int
    median_time_s: float | None
    least_time_s: float | None
    most_time_s: float | None
    median_iterations: float | None
    communication_share: float | None
    published_time_s: float | None = None

    @property
    def key(self) -> Target:
        return self.metric, self.target


@dataclass(frozen=True)
class CaseSummary:
    """One case: its targets, and medians over the finished seeds of its last row of `curve`.

    final_accuracy, final_test_loss: None where half of them or more have diverged.
    """

    case: str
    local_sgd: bool
    """Only the global server averages (the case has a `period`)."""
    num_seeds: int
    num_finished: int
    targets: tuple[TargetSummary, ...]
    final_accuracy: float | None
    final_test_loss: float | None
    final_time_s: float | None
    final_iteration: float | None
    diverged: tuple[tuple[int, int], ...] = ()
    """The seeds that have diverged, finished or not, with the first evaluated iteration at which they had."""
    own_settings: bool = False
    """It is told from other cases by more than its schedule: local SGD or H-SGD says too little of it."""


def number(value: float, digits: int = 4) -> str:
    """Return a number with `digits` significant digits, whole thousands kept: 0.01234, 160.3, 12,346."""
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def percent(share: float) -> str:
    """Return a share (0 to 1) in percent, with as few digits as it needs: 80%, 99.5%."""
    return f"{round(100 * share, 2):g}%"


def in_one_line(text: str) -> str:
    """Return a user's text, which may have several lines, as one."""
    return " ".join(text.split())


def target_label(metric: str, target: float) -> str:
    """Return a target in words: `80% test accuracy`, `test loss 0.5`."""
    return named(metric, level_text(metric, target))


def level_text(metric: str, level: float) -> str:
    """Return a level of a metric: `80%`, `0.5`."""
    return percent(level) if METRICS[metric].is_share else f"{level:g}"


def value_text(metric: str, value: float) -> str:
    """Return a measured value of a metric: `80.3%`, `0.512`."""
    return accuracy_cell(value) if METRICS[metric].is_share else number(value, 3)


def named(metric: str, text: str) -> str:
    """Return a value with its metric's name."""
    words = METRICS[metric].words
    return f"{text} {words}" if METRICS[metric].is_share else f"{words} {text}"


def time_cell(target: TargetSummary) -> str:
    """Return median and spread: `160.3 s (155.1-166.0)`, `not reached (1 of 3 seeds)`."""
    if target.num_seeds == 0:
        return "not finished"
    missed = target.num_reached < target.num_seeds
    seeds = f"{target.num_reached} of {target.num_seeds} seed{'s' if target.num_seeds > 1 else ''}"
    if target.median_time_s is None or target.least_time_s is None or target.most_time_s is None:
        return f"not reached ({seeds})"
    notes = []
    if target.num_reached > 1 and target.least_time_s < target.most_time_s:
        notes.append(f"{number(target.least_time_s)}-{number(target.most_time_s)}")
    if missed:
        notes.append(seeds)
    return f"{number(target.median_time_s)} s" + (f" ({', '.join(notes)})" if notes else "")


def iterations_cell(target: TargetSummary) -> str:
    """Return the median number of iterations, or a dash."""
    return "-" if target.median_iterations is None else f"{target.median_iterations:,.0f}"


def published_cell(target: TargetSummary) -> str:
    """Return the published time, or a dash."""
    return "-" if target.published_time_s is None else f"{number(target.published_time_s)} s"


def share_cell(share: float | None) -> str:
    """Return a share in whole percent, or a dash."""
    return "-" if share is None else f"{100 * share:.0f}%"


def accuracy_cell(accuracy: float | None) -> str:
    """Return an accuracy with one decimal, or a dash."""
    return "-" if accuracy is None else f"{100 * accuracy:.1f}%"


def was_trained(summaries: Sequence[CaseSummary]) -> bool:
    """Tell whether any finished trial has metrics, or has diverged; a timing-only run has none."""
    return any(s.final_accuracy is not None or s.final_test_loss is not None or s.diverged for s in summaries)


def final_accuracy_cell(summary: CaseSummary) -> str:
    """Return the accuracy at the end, or that there is none, for the model is not finite."""
    if summary.final_accuracy is None and summary.num_finished and summary.diverged:
        return DIVERGED
    return accuracy_cell(summary.final_accuracy)


def target_heads(summaries: Sequence[CaseSummary]) -> list[str]:
    """Return the head of each target's column; none where nothing was trained, so nothing can be reached."""
    finished = any(summary.num_finished for summary in summaries)
    if not summaries or (finished and not was_trained(summaries)):
        return []
    return [f"time to {target_label(*target.key)}" for target in summaries[0].targets]


def has_published(summaries: Sequence[CaseSummary]) -> list[bool]:
    """Tell for each target's column whether any case has a published time for it."""
    num_targets = len(target_heads(summaries))
    return [any(s.targets[place].published_time_s is not None for s in summaries) for place in range(num_targets)]


def header(summaries: Sequence[CaseSummary], details: bool = True) -> list[str]:
    """Return the column heads that belong to `render_rows`."""
    heads = ["case"]
    for head, published in zip(target_heads(summaries), has_published(summaries), strict=True):
        heads.append(head)
        heads += ["published"] if published else []
        heads += ["iterations", "communication"] if details else []
    return [*heads, "final accuracy", "final time"]


def render_rows(summaries: Sequence[CaseSummary], details: bool = True) -> list[list[str]]:
    """Return the table's cells as text, one row per case.

    details: with iterations and the communication share per target; without them it fits 80 columns.
    """
    rows = []
    published = has_published(summaries)
    for summary in summaries:
        cells = [summary.case]
        # Nothing trained: no column for any target.
        for target, is_published in zip(summary.targets, published, strict=False):
            cells.append(time_cell(target))
            cells += [published_cell(target)] if is_published else []
            if details:
                cells += [iterations_cell(target), share_cell(target.communication_share)]
        time_s = summary.final_time_s
        cells.append(final_accuracy_cell(summary))
        cells.append("-" if time_s is None else f"{number(time_s)} s")
        rows.append(cells)
    return rows


def tables(summaries: Sequence[CaseSummary]) -> list[list[TextTable]]:
    """Return the time-to-target table in several forms, each one or more tables, the widest first.

    The last has a table for each target and fits 80 columns.
    """
    wide = [TextTable(header(summaries, details), render_rows(summaries, details)) for details in (True, False)]
    return [[wide[0]], [wide[1]], list(_table_by_target(summaries))]


def _table_by_target(summaries: Sequence[CaseSummary]) -> Iterator[TextTable]:
    heads, published = target_heads(summaries), has_published(summaries)
    for place, (head, is_published) in enumerate(zip(heads, published, strict=True)):
        rows = []
        for summary in summaries:
            target = summary.targets[place]
            time, _, spread = time_cell(target).rstrip(")").partition(" (")
            beside = [published_cell(target)] if is_published else []
            rows.append([summary.case, time, spread, *beside, iterations_cell(target)])
        columns = ["case", "median", "least-most", *["published"] * is_published, "iterations"]
        yield TextTable(columns, rows, title=head)
    rows = [[row[0], *row[-2:]] for row in render_rows(summaries, details=False)]
    yield TextTable(["case", "final accuracy", "final time"], rows, title="at the end")


# --- the answer -------------------------------------------------------------------------------------

_Entry = tuple[CaseSummary, TargetSummary]


def answer(summaries: Sequence[CaseSummary]) -> str:
    """Return the answer in words: `first_answer`, and which trials diverged."""
    return " ".join(filter(None, [first_answer(summaries), diverged_in_words(diverged_of(summaries))]))


def diverged_of(summaries: Sequence[CaseSummary]) -> list[tuple[str, int, int]]:
    """Return the trials that diverged: case, seed and iteration."""
    return [(one.case, seed, at) for one in summaries for seed, at in one.diverged]


def diverged_in_words(found: Sequence[tuple[str, int, int]]) -> str:
    """Say which trials (case, seed, iteration) diverged, and what that means; nothing where none did."""
    if not found:
        return ""
    num, whose = ("1 trial", "its") if len(found) == 1 else (f"{len(found)} trials", "their")
    which = listed([f"{case} seed {seed} at iteration {at:,}" for case, seed, at in found], 6)
    return f"{num} diverged ({which}): from there on {whose} model or loss is NaN or infinite, which reaches no target."


def first_answer(summaries: Sequence[CaseSummary]) -> str:
    """Return one sentence: which case reaches the hardest target first, and by how much.

    The hardest target is the highest accuracy (else the lowest test loss, else the lowest train loss) that
    some case reaches in the median over its seeds.
    """
    if not any(summary.num_finished for summary in summaries):
        return "No trial has finished yet."
    targets = [target for summary in summaries for target in summary.targets]
    if not was_trained(summaries):
        return _answer_in_time(summaries)
    if not targets:
        return "No target was set. " + _answer_in_accuracy(summaries)
    targets.sort(key=lambda target: hardness(target.key))
    for target in targets:
        entries = _entries(summaries, target)
        if entries:
            return _answer_in_target(summaries, entries, target)
    label = target_label(*targets[-1].key)
    return f"No case reached {label} with more than half of its seeds. {_answer_in_accuracy(summaries)}"


def _entries(summaries: Sequence[CaseSummary], wanted: TargetSummary) -> list[_Entry]:
    """Return the cases that reach a target, the fastest first; ties stay in run order."""
    found = [
        (summary, target)
        for summary in summaries
        for target in summary.targets
        if target.key == wanted.key and target.median_time_s is not None
    ]
    return sorted(found, key=lambda entry: entry[1].median_time_s or 0.0)


def _answer_in_target(summaries: Sequence[CaseSummary], entries: list[_Entry], wanted: TargetSummary) -> str:
    best, reached = entries[0]
    best_s = reached.median_time_s or 0.0
    sentence = f"To {target_label(*wanted.key)}, {best.case} takes {_seconds(best_s)}"
    # The rival is the best case of the other kind: local SGD against H-SGD; else just the runner-up.
    are_kinds = not any(summary.own_settings for summary in summaries)
    others = [entry for entry in entries[1:] if are_kinds and entry[0].local_sgd != best.local_sgd]
    rival = next(iter(others or entries[1:]), None)
    if rival:
        rival_s = rival[1].median_time_s or 0.0
        best_of_other = "the best local SGD" if rival[0].local_sgd else "the best H-SGD"
        kind = best_of_other if others else "the next case"
        sentence += f", {_times_less(best_s, rival_s)} {kind} ({rival[0].case}, {_seconds(rival_s)})"
    else:
        sentence += "; no other case reached it"
    return f"{sentence}; {_seeds(reached.num_seeds)}."


def _times_less(best_s: float, rival_s: float) -> str:
    ratio = rival_s / best_s if best_s > 0 else float("inf")
    if ratio < 1.05:
        return "about as long as"
    return f"{number(ratio, 2)} times less than"


def _answer_in_time(summaries: Sequence[CaseSummary]) -> str:
    timed = [s for s in summaries if s.final_time_s is not None]
    if not timed:
        return "Nothing was trained and nothing was timed."
    best = min(timed, key=lambda s: s.final_time_s or 0.0)
    most = max(timed, key=lambda s: s.final_time_s or 0.0)
    sentence = (
        f"Timing only, nothing was trained: {best.case} takes {_seconds(best.final_time_s or 0.0)} for "
        f"{best.final_iteration or 0:,.0f} iterations"
    )
    if most is not best:
        sentence += f", {most.case} takes {_seconds(most.final_time_s or 0.0)}"
    return f"{sentence}; {_seeds(best.num_finished)}."


def _answer_in_accuracy(summaries: Sequence[CaseSummary]) -> str:
    known = [s for s in summaries if s.final_accuracy is not None]
    if not known:
        diverged = any(s.diverged for s in summaries)
        return "No case ends with a finite model." if diverged else "No accuracy was measured."
    best = max(known, key=lambda s: s.final_accuracy or 0.0)
    return (
        f"The highest final accuracy is {accuracy_cell(best.final_accuracy)}, by {best.case} after "
        f"{_seconds(best.final_time_s or 0.0)}; {_seeds(best.num_finished)}."
    )


def _seconds(value: float) -> str:
    return f"{number(value, 3)} s"


def _seeds(num_seeds: int) -> str:
    return "one seed" if num_seeds == 1 else f"median of {num_seeds} seeds"
