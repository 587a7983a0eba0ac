"""The sandwich: per iteration, H-SGD with periods G and I is expected between local SGD with P = I and with P = G.

Remark 4 (two levels) and Remark 6 (more) of Wang et al. 2022, equations (16), (17), (23) and (24); G = global_period,
I = local_period. They order upper bounds on convergence; what the measured curves do is counted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from hsgd_emu.config.run_schema import WHOLE_SECTIONS
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.metrics import METRICS
from hsgd_emu.report.content import Case, Content, thin
from hsgd_emu.report.curves import FORMS, KINDS, SHOWN, line_look, whose_line, y_axis
from hsgd_emu.report.figure import AXIS, Column, Figure, Picture, Ref, Switch
from hsgd_emu.report.sentences import listed
from hsgd_emu.results.wording import number, percent

Order = Literal["yes", "better than P=I", "worse than P=G", "P=G better than P=I"]
"""Whether the expected order holds at an evaluation (equal values do not break it), or what breaks it."""

NOTE = (
    "Filled: between the two local SGDs; drawn where all three have evaluated. Remarks 4 and 6 of the paper order "
    "upper bounds, for random groups and a small learning rate, and not every measured value."
)


class Evaluation(NamedTuple):
    """One iteration that all three have evaluated."""

    iteration: int
    hsgd: float
    local: float
    """Local SGD with P = I."""
    global_: float
    """Local SGD with P = G."""


@dataclass(frozen=True, eq=False)
class Sandwich:
    """A case of H-SGD with the two local SGDs around it, on test accuracy or, without one, on test loss."""

    hsgd: Case
    local: Case
    global_: Case
    metric: str
    evaluations: tuple[Evaluation, ...]

    @cached_property
    def drawn(self) -> tuple[Evaluation, ...]:
        """The evaluations to draw, evenly spaced."""
        by_iteration = {one.iteration: one for one in self.evaluations}
        points = thin([point for point in self.hsgd.points if point.iteration in by_iteration], set())
        return tuple(by_iteration[point.iteration] for point in points)

    def order(self, at: Evaluation) -> Order:
        """Tell whether the expected order holds at one evaluation."""
        sign = METRICS[self.metric].sign
        hsgd, local, global_ = (sign * value for value in at[1:])
        if global_ > local:
            return "P=G better than P=I"
        if hsgd > local:
            return "better than P=I"
        return "worse than P=G" if hsgd < global_ else "yes"


def sandwich(content: Content) -> Figure | None:
    """Return the figure of the sandwiches, one picture per case of H-SGD, or None where no run has one."""
    found = list(sandwiches(content))
    if not found:
        return None
    options = tuple((str(one.hsgd.index), one.hsgd.name) for one in found)
    pictures, start = [], 0
    for one, (key, _) in zip(found, options, strict=True):
        pictures.append(_picture(one, start, (key,) if len(found) > 1 else ()))
        start += len(one.drawn)
    return Figure(
        id="sandwich",
        title="The sandwich: H-SGD between two local SGDs",
        pictures=tuple(pictures),
        columns=tuple(_columns(found)),
        switches=(Switch("H-SGD", options),) if len(found) > 1 else (),
        note=f"{NOTE}{_left_out(content)}",
        log_x=True,
    )


def _left_out(content: Content) -> str:
    """Say which cases of several levels have no two local SGDs to be held against, for another reason than that these
    are no cases of the run."""
    several = [case for case in content.cases if not case.dashed and case.traffic]
    unlike = [case.name for case in several if not _schedule(case).rounds_are_alike]
    hubs = [case.name for case in several if _schedule(case).graph is not None]
    others = [case.name for case in several if _around(content, case, alike=False) and not _around(content, case)]
    found = (
        (unlike, "their rounds are not all alike"),
        (hubs, "their hubs mix with neighbours"),
        (others, "they differ from the local SGDs in more than the schedule"),
    )
    texts = [f"{listed(names)} ({why})" for names, why in found if names]
    return f" Without {'; '.join(texts)}." if texts else ""


# --- who lies between whom --------------------------------------------------------------------------


def sandwiches(content: Content) -> Iterator[Sandwich]:
    """Yield each case of H-SGD that has both its local SGDs in the same run, with iterations that all evaluated."""
    for case in content.cases:
        around = _around(content, case)
        if around is None:
            continue
        local, global_ = around
        for metric in ("test_accuracy", "test_loss"):
            evaluations = tuple(_evaluations(case, local, global_, metric))
            if evaluations:
                yield Sandwich(case, local, global_, metric, evaluations)
                break


def _around(content: Content, case: Case, alike: bool = True) -> tuple[Case, Case] | None:
    """Return local SGD with a case's lowest and with its global period; alike: differing in the schedule alone."""
    periods = periods_of(case)
    if len(periods) < 2 or periods[0] <= periods[-1]:
        return None
    local, global_ = (_local_sgd(content, case, period, alike) for period in (periods[-1], periods[0]))
    return None if local is None or global_ is None else (local, global_)


def periods_of(case: Case) -> tuple[int, ...]:
    """Return a case's periods from the root down, those of levels that aggregate; none where they are not uniform, or
    hubs mix."""
    spec = _spec(case)
    if case.traffic and not (_schedule(case).rounds_are_alike and _schedule(case).graph is None):
        return ()
    if spec.get("period") is not None:
        return (int(spec["period"]),)
    periods = spec.get("periods", ())
    given = _periods_by_level(case) if isinstance(periods, Mapping) else periods
    return tuple(period for period in given if period != "none")


def _periods_by_level(case: Case) -> tuple[int | Literal["none"], ...]:
    """Return the periods of a case that names its servers: one per level, nothing where a level has several."""
    experiment = case.run.experiment
    if experiment is None:
        return ()
    (stage,) = next(one for one in experiment.schedules if one.name == case.own_name).stages  # rounds are alike
    levels: dict[int, set[int | Literal["none"]]] = {}
    for server in experiment.topology.servers:
        levels.setdefault(experiment.topology.nodes[server].level, set()).add(stage.period.get(server, "none"))
    if any(len(periods) > 1 for periods in levels.values()):
        return ()
    return tuple(levels[level].pop() for level in sorted(levels))


def _local_sgd(content: Content, hsgd: Case, period: int, alike: bool) -> Case | None:
    """Return the case of the same run that is local SGD with this period, on as many of the workers."""
    for case in content.cases:
        same_run = case.run is hsgd.run and _participation(case) == _participation(hsgd)
        if same_run and case.dashed and periods_of(case) == (period,) and (not alike or _own(case) == _own(hsgd)):
            return case
    return None


def _participation(case: Case) -> float:
    everyone = case.run.run.get("train") or {}
    return float(_spec(case).get("participation") or everyone.get("participation") or 1.0)


def _own(case: Case) -> list[Any]:
    """Return what holds for a case beside its schedule; where the run cannot be read, what it has of its own."""
    if case.run.experiment is None:
        return [_spec(case).get(key) for key in ("train", *WHOLE_SECTIONS)]
    alone = case.run.experiment.alone(case.own_name)
    train = alone.train.model_copy(update={"participation": 1.0})
    return [train, *(getattr(alone, key) for key in WHOLE_SECTIONS)]


def _schedule(case: Case) -> Schedule:
    assert case.traffic is not None
    return case.traffic.schedule


def _spec(case: Case) -> Mapping[str, Any]:
    return next((spec for spec in case.run.run.get("cases", ()) if spec.get("name") == case.own_name), {})


def _evaluations(hsgd: Case, local: Case, global_: Case, metric: str) -> Iterator[Evaluation]:
    at = [
        {
            point.iteration: value.median
            for point in case.points
            if not point.num_ended and (value := point.metrics[metric]) is not None
        }
        for case in (hsgd, local, global_)
    ]
    for iteration in at[0]:
        if iteration in at[1] and iteration in at[2]:
            yield Evaluation(iteration, *(values[iteration] for values in at))


# --- the picture ------------------------------------------------------------------------------------

_NAMES = ("hsgd", "local_sgd_p_i", "local_sgd_p_g")


def _columns(found: Sequence[Sandwich]) -> Iterator[Column]:
    rows = [(one, at) for one in found for at in one.drawn]
    yield Column("case", "H-SGD", "text", [one.hsgd.name for one, _ in rows])
    yield Column("case_p_i", "local SGD, P = I", "text", [one.local.name for one, _ in rows])
    yield Column("case_p_g", "local SGD, P = G", "text", [one.global_.name for one, _ in rows])
    yield Column("iteration", "iteration", "count", [at.iteration for _, at in rows])
    labels = ("H-SGD", "P = I", "P = G")
    for metric in ("test_accuracy", "test_loss"):
        if any(one.metric == metric for one in found):
            for place, (name, label) in enumerate(zip(_NAMES, labels, strict=True), start=1):
                values = [at[place] if one.metric == metric else None for one, at in rows]
                yield Column(f"{metric}_{name}", f"{SHOWN[metric]}, {label}", KINDS[metric], values)
    yield Column("order_holds", "order holds", "text", [one.order(at) for one, at in rows])


def _picture(one: Sandwich, start: int, key: tuple[str, ...]) -> Picture:
    end = start + len(one.drawn)
    hsgd, local, global_ = (Ref(f"{one.metric}_{name}", start, end) for name in _NAMES)
    edge = {"type": "scatter", "mode": "lines", "meta": one.hsgd.index, "hoverinfo": "skip"}
    edge |= {"x": Ref("iteration", start, end), "line": {"width": 0, "color": one.hsgd.colour}}
    traces: list[dict[str, Any]] = [
        {**edge, "y": global_},
        {**edge, "y": local, "fill": "tonexty", "fillcolor": f"{one.hsgd.colour}26"},
    ]
    for case, y in ((one.global_, global_), (one.local, local), (one.hsgd, hsgd)):
        traces.append({**_line(case, one), "x": edge["x"], "y": y})
    layout = {
        "xaxis": {**AXIS, "title": {"text": "iterations"}, "rangemode": "tozero", "tickformat": ",~r"},
        "yaxis": y_axis(one.metric, [value for at in one.drawn for value in at[1:]]),
    }
    return Picture(key, in_words(one), traces, layout)


def _line(case: Case, one: Sandwich) -> dict[str, Any]:
    hover = f"%{{fullData.name}}<br>{SHOWN[one.metric]} %{{y:{FORMS[one.metric]}}}"
    said = {"hovertemplate": f"{hover}<br>iteration %{{x:,}}<extra></extra>"}
    return {**whose_line(case, len(one.drawn)), **line_look(case), **said}


# --- the sentence -----------------------------------------------------------------------------------


def in_words(one: Sandwich) -> str:
    """Say at how many of all common evaluations the order holds, and by how much it is broken at the others."""
    found: dict[Order, list[Evaluation]] = {}
    for at in one.evaluations:
        found.setdefault(one.order(at), []).append(at)
    above, below = ("above", "below") if METRICS[one.metric].sign > 0 else ("below", "above")
    hsgd, local, global_ = one.hsgd.name, one.local.name, one.global_.name
    holds = found.get("yes", [])
    lies = _lies(hsgd, len(holds), len(one.evaluations))
    parts = [f"{lies} between {global_} ({below}) and {local} ({above}){_ties(holds)}"]
    broken: tuple[tuple[Order, str, int, int], ...] = (
        ("better than P=I", f"it is {above} {local}", 1, 2),
        ("worse than P=G", f"it is {below} {global_}", 1, 3),
        ("P=G better than P=I", f"these two are in the opposite order, {global_} {above} {local}", 2, 3),
    )
    for order, words, this, that in broken:
        apart = [abs(at[this] - at[that]) for at in found.get(order, [])]
        if apart:
            parts.append(f"at {len(apart):,} {words}, by {_at_most(max(apart), METRICS[one.metric].is_share)}")
    num_seeds = max(len(case.seeds) for case in (one.hsgd, one.local, one.global_))
    seeds = "one seed" if num_seeds == 1 else f"median of {num_seeds} seeds"
    return f"{'; '.join(parts)} ({SHOWN[one.metric]}, {seeds})."


def _lies(hsgd: str, num: int, num_all: int) -> str:
    if num_all == 1:
        return f"At the one common evaluation {hsgd} {'lies' if num else 'does not lie'}"
    if num == 0:
        return f"At none of {num_all:,} common evaluations {hsgd} lies"
    if num == num_all:
        return f"At all {num_all:,} common evaluations {hsgd} lies"
    return f"At {num:,} of {num_all:,} common evaluations ({percent(num / num_all)}) {hsgd} lies"


def _ties(holds: Sequence[Evaluation]) -> str:
    num = sum(at.hsgd in (at.local, at.global_) for at in holds)
    if not num:
        return ""
    where = "" if len(holds) == 1 else " at each" if num == len(holds) else f" at {num:,} of them"
    return f", equal to one of the two{where}"


def _at_most(gap: float, is_share: bool) -> str:
    if not is_share:
        return f"at most {number(gap, 2)}"
    return "less than 0.1 points" if gap < 0.00095 else f"at most {100 * gap:.1f} points"
