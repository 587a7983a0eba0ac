"""Published times: read from the file that a run names, and held against the run's own cases and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hsgd_emu.config.profiles import read_named
from hsgd_emu.config.reader import Source
from hsgd_emu.config.run_schema import PublishedSpec, PublishedTime
from hsgd_emu.config.validate import check
from hsgd_emu.errors import Problem, listed, nearest

Level = tuple[str, float]
"""(metric, target)."""
Mistakes = list[tuple[str, str]]
"""(field, message)."""
MistakeAt = Callable[[int], str | None]
"""Tells why an iteration is not that of a global aggregation."""


def load_published(
    given: str | PublishedSpec, source: Source, problems: list[Problem]
) -> tuple[PublishedSpec | None, Source]:
    """Return the published times that a run file names or holds (None after adding problems), and where they stand."""
    if not isinstance(given, str):
        return given, source
    # A path, never a name: a name would be looked for in a folder of such files.
    document = read_named("published", given if "/" in given else f"./{given}", source, problems)
    if document is None:
        return None, source
    return check(PublishedSpec, document.data, document.source, problems), document.source


def checked_published(
    spec: PublishedSpec,
    source: Source,
    cases: Mapping[str, MistakeAt | None],
    levels: Sequence[Level] | None,
    problems: list[Problem],
) -> PublishedSpec:
    """Return the published times with the target written out that those without one mean.

    Args:    cases: None where the case itself is wrong.  levels: the run's targets, None where they are wrong.
             problems: what does not fit the run is added.
    """
    times: list[PublishedTime] = []
    for number, row in enumerate(spec.times):
        found = row_mistakes(row, cases, levels)
        if not found and levels is not None and row.iterations is None:
            if row.metric is None:
                row = row.model_copy(update=dict(zip(("metric", "target"), levels[0], strict=True)))
            if (row.metric, row.target) not in levels:
                right = f"its targets are {_texts(levels)}" if levels else "it has none"
                found = [("target", f"{row.metric} {row.target:g} is no target of the run; {right}")]
        same = [_subject(before) for before in times]
        if not found and _subject(row) in same:
            found = [("", f"gives the time of the same case again, after times.{same.index(_subject(row))}")]
        problems += [source.problem(("times", number, *filter(None, [field])), text) for field, text in found]
        times.append(row)
    return spec.model_copy(update={"times": tuple(times)})


def _subject(row: PublishedTime) -> tuple[object, ...]:
    return row.case, row.metric, row.target, row.iterations


def _texts(levels: Sequence[Level]) -> str:
    return listed(f"{metric} {level:g}" for metric, level in levels)


def row_mistakes(row: PublishedTime, cases: Mapping[str, MistakeAt | None], levels: Sequence[Level] | None) -> Mistakes:
    """Return what is wrong with a measured time of a run with these cases and targets; see `checked_published`."""
    found: Mistakes = []
    if row.case not in cases:
        hint = nearest(row.case, cases) or f"; it has {listed(cases)}"
        found.append(("case", f"the run has no case '{row.case}'{hint}"))
    mistake_at = cases.get(row.case)
    if row.iterations is not None:
        if row.metric is not None or row.target is not None:
            found.append(("iterations", "stands beside a metric or target; give iterations, or metric and target"))
        elif mistake_at is not None and (mistake := mistake_at(row.iterations)) is not None:
            found.append(("iterations", mistake))
    elif (row.metric is None) != (row.target is None):
        missing = "metric" if row.metric is None else "target"
        found.append((missing, f"is missing; it goes with {'target' if row.metric is None else 'metric'}"))
    elif row.metric is None and levels is not None and len(levels) != 1:
        text = f"is missing: which target was reached? The run has {len(levels) or 'none'}"
        text += f" ({_texts(levels)})" if levels else ""
        found.append(("target", f"{text}; give metric and target, or iterations"))
    return found
