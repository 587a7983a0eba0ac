"""How well the global model serves the workers: its accuracy on each one's own data, worst, best and spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hsgd_emu.report.content import Case, Content
from hsgd_emu.report.curves import line_look, whose_line
from hsgd_emu.report.figure import AXIS, Column, Figure, Picture, Ref, Switch
from hsgd_emu.report.sentences import listed
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.wording import value_text

AXES = {"time_s": "emulated time", "iteration": "iterations"}
SHOWN = {"worst": "the worst worker", "best": "the best worker", "spread": "best minus worst"}
_NOTE = (
    "Accuracy of the global model on each worker's own training data (evaluation: {workers: true}): that of the worker "
    "with the least, of the one with the most, and their difference; medians over seeds. Who is worst may change."
)


class _Over(NamedTuple):
    """Accuracies over the workers of one trial at one evaluation; None where the model is not finite."""

    worst: float | None
    mean: float | None
    best: float | None
    worker: str
    """Whose the worst is."""


class _Served(NamedTuple):
    """One evaluation of a case, medians over seeds. worker: who is worst in most seeds."""

    iteration: int
    time_s: float
    worst: float | None
    mean: float | None
    best: float | None
    spread: float | None
    worker: str


@dataclass(frozen=True)
class _Case:
    case: Case
    rows: tuple[_Served, ...]
    start: int
    """The row of the figure's table at which its own begin."""

    def ref(self, column: str) -> Ref:
        return Ref(column, self.start, self.start + len(self.rows))


def workers(content: Content) -> Figure | None:
    """Return worst, best and spread over workers of every case; None where no run has figures of workers."""
    found: list[_Case] = []
    for case in content.cases:
        rows = tuple(_served(case))
        if rows:
            found.append(_Case(case, rows, sum(len(one.rows) for one in found)))
    if not found:
        return None
    text = " ".join(map(_sentence, _told(found)))
    return Figure(
        id="workers",
        title="How well each worker is served",
        pictures=tuple(Picture((shown, axis), text, *_picture(found, shown, axis)) for shown in SHOWN for axis in AXES),
        columns=tuple(_columns(found)),
        switches=(Switch("Show", tuple(SHOWN.items())), Switch("Against", tuple(AXES.items()))),
        note=_note(content, found),
        log_x=True,
    )


def _note(content: Content, found: Sequence[_Case]) -> str:
    have = {one.case.index for one in found}
    without = [case.name for case in content.cases if case.index not in have]
    return f"{_NOTE} Not asked for in {listed(without)}." if without else _NOTE


# --- the data ---------------------------------------------------------------------------------------


def _served(case: Case) -> Iterator[_Served]:
    """Yield the evaluations that are drawn; a seed that has ended counts with its last one, as in the curves."""
    by_seed = _over_workers(case)
    if not by_seed:
        return
    for point in case.drawn:
        at = [one for of_seed in by_seed.values() if (one := _until(of_seed, point.iteration)) is not None]
        if not at:
            continue
        spreads = [None if one.best is None or one.worst is None else one.best - one.worst for one in at]
        yield _Served(
            iteration=point.iteration,
            time_s=point.time_s.median,
            worst=median_reached([one.worst for one in at], larger_is_better=True),
            mean=median_reached([one.mean for one in at], larger_is_better=True),
            best=median_reached([one.best for one in at], larger_is_better=True),
            spread=median_reached(spreads),
            worker=Counter(one.worker for one in at).most_common(1)[0][0],
        )


def _over_workers(case: Case) -> dict[int, dict[int, _Over]]:
    """Return by seed and iteration what is over all workers."""
    # Of a group with min(), SQLite takes the other columns from the row that has the least.
    rows = case.run.connection.execute(
        "SELECT w.seed, w.iteration, w.worst, o.mean, o.best, w.worker FROM (SELECT seed, iteration, worker, "
        'min(accuracy) AS worst FROM workers WHERE "case" = ?1 GROUP BY seed, iteration) w JOIN (SELECT seed, '
        'iteration, avg(accuracy) AS mean, max(accuracy) AS best FROM workers WHERE "case" = ?1 '
        "GROUP BY seed, iteration) o ON o.seed = w.seed AND o.iteration = w.iteration ORDER BY 1, 2",
        (case.own_name,),
    )
    found: dict[int, dict[int, _Over]] = {}
    for seed, iteration, *cells in rows:
        found.setdefault(seed, {})[iteration] = _Over(*cells)
    return found


def _until(of_seed: dict[int, _Over], iteration: int) -> _Over | None:
    """Return a seed's figures at an iteration, or its last ones where it has ended before; None: not yet there."""
    if iteration in of_seed:
        return of_seed[iteration]
    last = max(of_seed)
    return of_seed[last] if last < iteration else None


def _columns(found: Sequence[_Case]) -> Iterator[Column]:
    rows = [row for one in found for row in one.rows]
    yield Column("case", "case", "text", [one.case.name for one in found for _ in one.rows])
    yield Column("iteration", "iteration", "count", [row.iteration for row in rows])
    yield Column("time_s", "emulated time", "seconds", [row.time_s for row in rows])
    yield Column("worst", "worst worker", "share", [row.worst for row in rows])
    yield Column("mean", "mean of the workers", "share", [row.mean for row in rows])
    yield Column("best", "best worker", "share", [row.best for row in rows])
    yield Column("spread", "best minus worst", "share", [row.spread for row in rows])
    yield Column("worst_worker", "who is worst", "text", [row.worker for row in rows])


# --- the picture ------------------------------------------------------------------------------------


def _picture(found: Sequence[_Case], shown: str, axis: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    hover = f"%{{fullData.name}}<br>{SHOWN[shown]} %{{y:.1%}}<br>{AXES[axis]} %{{x:,.5~r}}<extra></extra>"
    traces = []
    for one in found:
        num = sum(getattr(row, shown) is not None for row in one.rows)
        place = {"x": one.ref(axis), "y": one.ref(shown), "hovertemplate": hover}
        traces.append({**whose_line(one.case, num), **line_look(one.case), **place})
    unit = " (s)" if axis == "time_s" else ""
    x = {**AXIS, "title": {"text": f"{AXES[axis]}{unit}"}, "rangemode": "tozero", "tickformat": ",~r"}
    y = {**AXIS, "title": {"text": f"accuracy, {SHOWN[shown]}"}, "tickformat": ".0%", "range": [-0.02, 1.02]}
    return traces, {"xaxis": x, "yaxis": y}


# --- the sentences ----------------------------------------------------------------------------------


def _told(found: Sequence[_Case]) -> list[_Case]:
    """Return the cases whose worst worker is served best and worst in the end."""
    order = sorted(found, key=lambda one: -(one.rows[-1].worst or 0.0))
    return [order[0], order[-1]] if len(order) > 1 else order


def _sentence(one: _Case) -> str:
    """Say who is served worst in the end, and by how much."""
    end = one.rows[-1]
    if end.worst is None or end.mean is None or end.spread is None:
        return f"At the end of {one.case.name} the model is not finite."
    worst, mean = (value_text("test_accuracy", value) for value in (end.worst, end.mean))
    text = (
        f"At the end of {one.case.name} {end.worker} is served worst: {worst}, where the mean of the workers is {mean}"
    )
    return f"{text}; the best has {100 * end.spread:.1f} points more."
