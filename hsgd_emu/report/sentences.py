"""What the curves and the whole run say, in sentences computed from the data: for those who cannot see the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from hsgd_emu.metrics import METRICS, hardness
from hsgd_emu.report.content import Case, Content, Point, Run
from hsgd_emu.report.traffic import bytes_in_words
from hsgd_emu.results.rows import CurveRow, row_reaching
from hsgd_emu.results.summary import mean, middle
from hsgd_emu.results.wording import TargetSummary, named, number, target_label, value_text

Axis = Literal["time_s", "communication_s", "iteration", "round", "uploaded_bytes", "bytes"]
"""What a curve is drawn against; also the name of the column that has it."""


def unfinished(content: Content) -> str:
    """Return how far the runs are, or nothing where all trials are finished."""
    behind = [(run, said) for run in content.runs if (said := _progress(run))]
    if not behind:
        return ""
    if len(content.runs) == 1:
        start = f"This run is not finished: {behind[0][1]}."
    else:
        start = f"Not finished: {listed([f'{run.name} ({said})' for run, said in behind])}."
    return f"{start} The table counts finished trials only; the figures show what there is so far."


def _progress(run: Run) -> str:
    statuses = [trial.status for trial in run.trials]
    done, running = statuses.count("finished"), statuses.count("running")
    return "" if done == len(statuses) else f"{done} of {len(statuses)} trials are done, {running} under way"


# --- the curves -------------------------------------------------------------------------------------


def curves_in_words(content: Content, metric: str, axis: Axis) -> str:
    """Say what the curves of one metric against one axis show.

    Against iterations: where each case ends, for there the network does not count. Against what the network costs:
    what the hardest target that any case reaches takes; where each case ends if no target is reached.
    """
    target = _hardest_reached(content, metric)
    if target is None or axis == "iteration":
        return _ends(content, metric, axis)
    if axis == "time_s":
        return _first_there(content, target)
    return _what_it_takes(content, target, axis)


def time_in_words(content: Content, axis: Axis) -> str:
    """Say how long each case takes, where there is no metric; axis: what the time is drawn against."""
    parts = []
    for case in sorted((case for case in content.cases if case.end), key=lambda case: end_at(case, "time_s") or 0.0):
        done = f"{end_at(case, 'iteration'):,.0f} iterations"
        if axis == "bytes" and case.traffic:
            done += f", in which it sends {bytes_in_words(end_at(case, 'bytes') or 0.0)}"
        parts.append(f"{case.name} takes {_seconds(end_at(case, 'time_s') or 0.0)} for {done}")
    return f"{'All diverged at once' if content.was_trained else 'Timing only, nothing was trained'}: {listed(parts)}."


def place_of(point: Point, axis: Axis) -> float | None:
    """Return where a point stands along an axis, None where it is not known."""
    if axis == "iteration":
        return point.iteration
    if axis == "round":
        return point.round
    if axis == "uploaded_bytes":
        return point.uploaded_bytes
    if axis == "bytes":
        return point.num_bytes
    return point.time_s.median if axis == "time_s" else point.communication_s.median


def reached_at(case: Case, target: TargetSummary, axis: Axis) -> float | None:
    """Return where along an axis the finished seeds reach a target, the median as in the table; None: not reached."""
    if axis == "time_s":
        return target.median_time_s
    if axis == "iteration":
        return target.median_iterations
    finished = [t.seed for t in case.run.trials if t.case == case.own_name and t.status == "finished"]
    rows = [row_reaching(case.seeds.get(seed, []), target.key) for seed in finished]
    return _along(case, middle(rows), axis)


def end_at(case: Case, axis: Axis) -> float | None:
    """Return where along an axis a case ends, as in the table; None where that is not known."""
    return _along(case, case.end, axis)


def _along(case: Case, rows: Sequence[CurveRow], axis: Axis) -> float | None:
    """Return where along an axis the seed in the middle is."""
    if axis != "bytes":
        return mean(rows, axis)
    iteration = mean(rows, "iteration")
    return None if case.traffic is None or iteration is None else case.traffic.bytes_until(iteration)


def _hardest_reached(content: Content, metric: str) -> TargetSummary | None:
    """Return the hardest target of a metric that any case reaches in the median, as the first to reach it does."""
    every = [target for summary in content.summaries for target in summary.targets if target.metric == metric]
    found = [target for target in every if target.median_time_s is not None]
    return min(found, key=lambda t: (hardness(t.key), t.median_time_s), default=None)


def _entries(content: Content, wanted: TargetSummary) -> Iterator[tuple[Case, TargetSummary]]:
    for case in content.cases:
        for target in case.summary.targets:
            if target.key == wanted.key:
                yield case, target


def _first_there(content: Content, wanted: TargetSummary) -> str:
    """Say which case reaches a target first in emulated time, and where the others stand by then."""
    when_s = wanted.median_time_s or 0.0
    best = next(case for case, target in _entries(content, wanted) if target.median_time_s == when_s)
    start = f"{best.name} is first at {target_label(*wanted.key)}, after {_seconds(when_s)}"
    others = []
    for case in content.cases:
        by_then = [point for point in case.points if point.time_s.median <= when_s]
        at = by_then[-1].metrics[wanted.metric] if by_then else None
        if case is not best and at is not None:
            others.append(f"{case.name} is at {value_text(wanted.metric, at.median)}")
        elif case is not best and by_then and case.summary.diverged:
            others.append(f"{case.name} has diverged")
    return f"{start}; by then {listed(others)}." if others else f"{start}."


def _what_it_takes(content: Content, wanted: TargetSummary, axis: Axis) -> str:
    """Say what each case spends along an axis until a target, the least first, and which cases do not reach it."""
    spent: list[tuple[float, int, str]] = []
    missed = []
    for case, target in _entries(content, wanted):
        at = reached_at(case, target, axis)
        if at is not None:
            spent.append((at, case.index, case.name))
        elif target.num_seeds:
            missed.append(f"{case.name} {_misses(target)}")
    (least, _, first), *others = sorted(spent)
    parts = [f"{first} {_DOES.get(axis, 'sends {}').format(_amount(axis, least))}"]
    parts += [f"{name} {_amount(axis, at)}" for at, _, name in others]
    text = f"To {target_label(*wanted.key)}, {listed(parts)}"
    return f"{text}; {listed(missed)}." if missed else f"{text}."


def _misses(target: TargetSummary) -> str:
    if target.num_reached == 0:
        return "does not reach it"
    return f"reaches it with {target.num_reached} of {target.num_seeds} seeds only"


def _ends(content: Content, metric: str, axis: Axis) -> str:
    """Say where each case is at its last evaluation, the best first."""
    last = [(case, case.points[-1].metrics[metric]) for case in content.cases if case.points]
    ends = [(case, at.median) for case, at in last if at is not None]
    ends.sort(key=lambda end: -METRICS[metric].sign * end[1])
    parts = []
    for place, (case, value) in enumerate(ends):
        along = end_at(case, axis)
        spent = "" if axis == "iteration" or along is None else f" after {_amount(axis, along)}{_OF_WHAT[axis]}"
        text = value_text(metric, value)
        level = f"is at {named(metric, text)}" if place == 0 else f"at {text}"
        parts.append(f"{case.name} {level}{spent}")
    steps = {end_at(case, "iteration") or 0 for case, _ in ends}
    start = f"After {min(steps):,.0f} iterations" if len(steps) == 1 else "At their last evaluations"
    lost = [case.name for case, at in last if case.summary.diverged and at is None]
    said = [f"{start}, {listed(parts)}"] if parts else []
    said += [f"{listed(lost)} {'has' if len(lost) == 1 else 'have'} diverged"] if lost else []
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


_DOES: dict[Axis, str] = {
    "communication_s": "spends {} communicating",
    "round": "takes {}",
    "uploaded_bytes": "uploads {}",
}
_OF_WHAT: dict[Axis, str] = {
    "time_s": "",
    "communication_s": " of communication",
    "iteration": "",
    "round": "",
    "uploaded_bytes": " uploaded",
    "bytes": " sent",
}


# --- words ------------------------------------------------------------------------------------------


def _amount(axis: Axis, value: float) -> str:
    if axis == "round":
        return f"{value:,.0f} round{'s' * (round(value) != 1)}"
    return bytes_in_words(value) if axis in ("bytes", "uploaded_bytes") else _seconds(value)


def _seconds(value: float) -> str:
    return f"{number(value, 3)} s"


def share(value: float, digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{100 * value:.{digits}f}%"


def listed(parts: Sequence[str], most: int = 6) -> str:
    """Return the parts as `a, b and c`; beyond `most` of them only how many more there are."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)
