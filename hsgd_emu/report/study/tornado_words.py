"""What the tornado shows, in sentences computed from its data."""

from __future__ import annotations

from hsgd_emu.report.sentences import listed
from hsgd_emu.report.study.content import StudyContent, Target
from hsgd_emu.report.study.tornado import Bar, Lines, Subject, bars, ranks, time_at
from hsgd_emu.report.study.words import seconds

NEVER = "never"


def value_at(content: StudyContent, axis: int, scenario: int) -> str:
    """Return the value of an axis in a scenario, in words."""
    return content.axes[axis].texts[int(content.places_SA[scenario, axis])]


def bars_in_words(content: StudyContent, target: Target, subject: Subject, lines: Lines) -> str:
    """Say where the bars start and what moves the time most."""
    start = time_at(target, subject, lines.reference)
    found = bars(content, target, subject, lines)
    if all(end.case < 0 for bar in found for end in (start, bar.low, bar.high)):
        return f"In none of these scenarios does {subject.label} reach {target.label}."
    when = NEVER if start.case < 0 else seconds(start.time_s)
    parts = [_change(content, bar) for bar in found if bar.width_s > 0]
    still = [content.axes[bar.axis].name for bar in found if bar.width_s == 0]
    most = f"what changes it most is {parts[0]}" if parts else "nothing changes it"
    rest = f"; then {listed(parts[1:])}" if parts[1:] else ""
    none = f"; {listed(still)} change{'s' if len(still) == 1 else ''} nothing" if still and parts else ""
    return f"Time of {subject.label} to {target.label} at {content.at(lines.reference)}: {when}; {most}{rest}{none}."


def _change(content: StudyContent, bar: Bar) -> str:
    ends = [
        f"{NEVER if end.case < 0 else seconds(end.time_s)} at {value_at(content, bar.axis, end.scenario)}"
        for end in (bar.low, bar.high)
    ]
    return f"{content.axes[bar.axis].name} ({ends[0]}, {ends[1]})"


def signed(value: float | None) -> str:
    """Return a correlation with its sign: `+0.93`."""
    return "none" if value is None else f"{value:+.2f}".replace("-", "−")


def ranks_in_words(content: StudyContent, target: Target, subject: Subject) -> str:
    """Say which axis goes with the time most."""
    found = [(content.axes[rank.axis].name, rank.correlation) for rank in ranks(content, target, subject)]
    known = [(name, value) for name, value in found if value is not None]
    where = f"Over {content.num_scenarios:,} scenarios"
    if not known:
        return f"{where}, the time of {subject.label} to {target.label} is always the same, or there is none."
    (name, value), rest = known[0], [f"{name} ({signed(value)})" for name, value in known[1:]]
    more = f"; then come {listed(rest)}" if len(rest) > 1 else f"; then comes {rest[0]}" if rest else ""
    text = f"{where}, the time of {subject.label} to {target.label}"
    return f"{text} {'rises' if value > 0 else 'falls'} most with {name} (rank correlation {signed(value)}){more}."
