"""What each figure shows, in a sentence computed from its data: for those who cannot see it."""

from __future__ import annotations

from collections.abc import Sequence

from hsgd_emu.report.content import Case, Content, Point
from hsgd_emu.results.wording import CaseSummary, TargetSummary, number, target_label


def unfinished(content: Content) -> str:
    """Return how far the run is, or nothing where all trials are finished."""
    statuses = [trial.status for trial in content.trials]
    done, running = statuses.count("finished"), statuses.count("running")
    if done == len(statuses):
        return ""
    return (
        f"This run is not finished: {done} of {len(statuses)} trials are done, {running} under way. "
        "The table counts finished trials only; the figures show what there is so far."
    )


def accuracy_in_time(content: Content) -> str:
    """Say where the other cases stand when the first reaches the hardest target that is reached."""
    first = _first_to_reach(content.summaries)
    if first is None:
        return _finals(content)
    best, target = first
    when_s = target.median_time_s or 0.0
    others = [
        (case.name, at.test_accuracy)
        for case in content.cases
        if case.name != best.case and (at := _at_time(case.median, when_s)) and at.test_accuracy is not None
    ]
    start = f"{best.case} is first at {target_label(target.metric, target.target)}, after {number(when_s)} s"
    if not others:
        return f"{start}."
    return f"{start}; by then {listed([f'{name} is at {share(value)}' for name, value in others])}."


def accuracy_in_iterations(content: Content) -> str:
    """Say which accuracy each case ends with: per iteration the network does not count."""
    return _finals(content)


def loss_in_words(content: Content) -> str:
    """Say which test loss each case ends with."""
    ends = [
        (point.test_loss, case.name)
        for case in content.cases
        if (point := _last(case.median)) and point.test_loss is not None
    ]
    return f"The last test losses are {listed([f'{number(loss, 3)} ({name})' for loss, name in sorted(ends)])}."


def time_in_words(content: Content) -> str:
    """Say how long each case took for its iterations."""
    ends = [(point.time_s, point.iteration, case.name) for case in content.cases if (point := _last(case.median))]
    parts = [f"{name} takes {number(time_s)} s for {steps:,} iterations" for time_s, steps, name in sorted(ends)]
    return f"{listed(parts)}."


def parts_in_words(cases: Sequence[Case]) -> str:
    """Say between which cases the share of communication lies."""
    shares = [
        (case.part.communication_s / case.part.time_s, case.name)
        for case in cases
        if case.part and case.part.time_s > 0
    ]
    if not shares:
        return ""
    (least, least_name), (most, most_name) = min(shares), max(shares)
    if least_name == most_name:
        return f"Communication is {share(least, 0)} of the time."
    return f"Communication is {share(most, 0)} of the time of {most_name} and {share(least, 0)} of {least_name}."


def share(value: float, digits: int = 1) -> str:
    """Return a share in percent."""
    return f"{100 * value:.{digits}f}%"


def listed(parts: Sequence[str], most: int = 6) -> str:
    """Return the parts as `a, b and c`; beyond `most` of them only how many more there are."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else "".join(shown)


def _finals(content: Content) -> str:
    ends = [
        (point.test_accuracy, point.iteration, case.name)
        for case in content.cases
        if (point := _last(case.median)) and point.test_accuracy is not None
    ]
    best_first = sorted(ends, key=lambda end: -end[0])
    steps = sorted({iteration for _, iteration, _ in ends})
    after = f"After {steps[0]:,} iterations" if len(steps) == 1 else "At their last evaluation"
    values = [f"{name} {'is at ' if i == 0 else ''}{share(value)}" for i, (value, _, name) in enumerate(best_first)]
    return f"{after}, {listed(values)}."


def _first_to_reach(summaries: Sequence[CaseSummary]) -> tuple[CaseSummary, TargetSummary] | None:
    """Return the fastest case at the highest accuracy target that any case reaches."""
    reached = [
        (target.target, -target.median_time_s, -index)
        for index, summary in enumerate(summaries)
        for target in summary.targets
        if target.metric == "test_accuracy" and target.median_time_s is not None
    ]
    if not reached:
        return None
    level, _, index = max(reached)
    best = summaries[-index]
    return best, next(t for t in best.targets if t.metric == "test_accuracy" and t.target == level)


def _at_time(points: Sequence[Point], time_s: float) -> Point | None:
    """Return the last point at or before an emulated time."""
    return next((point for point in reversed(points) if point.time_s <= time_s), None)


def _last(points: Sequence[Point]) -> Point | None:
    return points[-1] if points else None
