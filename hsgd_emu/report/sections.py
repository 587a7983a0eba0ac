"""Which figures stand on the page of a run, in which order."""

from __future__ import annotations

from collections.abc import Iterable

from hsgd_emu.report import gantt
from hsgd_emu.report.blame import blame
from hsgd_emu.report.content import Content
from hsgd_emu.report.curves import curves
from hsgd_emu.report.figure import Figure, Section
from hsgd_emu.report.links import each_link, links
from hsgd_emu.report.published import published
from hsgd_emu.report.sandwich import sandwich
from hsgd_emu.report.time_spent import time_spent
from hsgd_emu.report.tree import network
from hsgd_emu.report.waiting import waiting
from hsgd_emu.report.workers import workers


def sections(content: Content) -> list[Section]:
    """Return the sections that have something to show."""
    timeline = gantt.timeline(content)
    not_read = [f"The network of {run.name} cannot be shown: {run.not_read}." for run in content.runs if run.not_read]
    beside, published_times = published(content)
    found = [
        _section("published", "Beside published times", beside, [published_times]),
        _section("curves", "Curves", _reading(content), [curves(content), workers(content)], case_key=True),
        _section("time", "Where the time went", [_CRITICAL], [time_spent(content), waiting(content), blame(content)]),
        _section("network", "The network", not_read, [network(content), links(content), each_link(content)]),
        _section("timeline", "Timeline", [] if timeline else [gantt.NO_TIMELINE], [timeline]),
        # Divergences and bounds will stand beside it.
        _section("theory", "Between two local SGDs: the sandwich", [_SANDWICH], [sandwich(content)]),
    ]
    # Of these it is told why there is nothing to show.
    told = ("published", "network", "timeline")
    return [section for section in found if section.figures or (section.id in told and section.texts)]


_CRITICAL = (
    "Compute, communication and aggregation are the parts of the critical path, the chain of events that determined "
    "the time of each global aggregation; they add up to the emulated time. Waiting is what nodes off that path do."
)
_SANDWICH = (
    "Theory (Wang et al. 2022) bounds H-SGD with periods G and I, per iteration, between local SGD with P = I and "
    "local SGD with P = G. Here is what was measured."
)


def _section(
    id: str, title: str, texts: Iterable[str], figures: Iterable[Figure | None], case_key: bool = False
) -> Section:
    return Section(id, title, tuple(texts), tuple(figure for figure in figures if figure), case_key)


def _reading(content: Content) -> list[str]:
    dashed = {case.dashed for case in content.cases}
    several = any(len(case.seeds) > 1 for case in content.cases)
    lines = "Solid lines are {}, dashed lines {}. ".format(*content.kinds) if True in dashed else ""
    seeds = "Lines are medians over seeds, bands reach from the least to the most. " if several else ""
    rings = "Rings mark when a target is reached, in the median over seeds." if content.was_trained else ""
    return [f"{lines}{seeds}{rings}".strip()]
