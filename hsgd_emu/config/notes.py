"""What is valid in a profile and yet is often a slip: links that cost nothing, times that look like another unit's."""

from __future__ import annotations

from typing import Literal

from hsgd_emu.config.reader import Source
from hsgd_emu.config.schema import Bandwidth, ComputeProfile, CostValue, CsvSamples, Law, LinkProfile
from hsgd_emu.errors import Problems
from hsgd_emu.units import to_ns

_LONG_S = 10
_SHORT_S = 1e-6
_SLOW_BPS = 1000
_FAST_BPS = 1e15


def note_profile(profile: LinkProfile | ComputeProfile, source: Source, problems: Problems) -> None:
    """Add notes on a valid profile, whose CSV samples have been read in."""
    if isinstance(profile, ComputeProfile):
        note_cost("a step", profile.step_s, source.at("step_s"), problems)
        return
    note_cost("an RTT", profile.rtt_s, source.at("rtt_s"), problems)
    both_ways = [value for value in (profile.up_s, profile.down_s) if value is not None]
    if both_ways and all(map(_is_nothing, both_ways)):
        problems.note(source.problem((), "up_s and down_s are exactly 0 s; are values missing?"))
    for name, what in (("up_s", "an upload"), ("down_s", "a download"), ("latency_s", "a latency")):
        note_cost(what, getattr(profile, name), source.at(name), problems, may_be_nothing=True)
    rate = profile.bandwidth_bps
    rates = {"up": rate.up, "down": rate.down} if isinstance(rate, Bandwidth) else {} if rate is None else {"": rate}
    for way, bps in rates.items():
        path = tuple(filter(None, ("bandwidth_bps", way)))
        if bps < _SLOW_BPS:
            text = f"{bps:g} bit/s are below 1 kbit/s; given in Mbit/s? Then write {bps:g} Mbit/s"
            problems.note(source.problem(path, text))
        elif bps > _FAST_BPS:
            problems.note(source.problem(path, f"{bps:g} bit/s are above 1000 Tbit/s; a slip in the unit?"))


def note_cost(
    what: str, value: CostValue | None, source: Source, problems: Problems, may_be_nothing: bool = False
) -> None:
    """Add a note where a cost is nothing at all, or typically of a size that suggests another unit."""
    if value is None:
        return
    if _is_nothing(value):
        if not may_be_nothing:
            problems.note(source.problem((), f"{what} of exactly 0 s; is a value missing?"))
        return
    typical_s, is_number = _of(value, "typical_s"), isinstance(value, int | float)
    told = f"{what} of {typical_s:g} s{'' if is_number else ' (the median)'}"
    if typical_s > _LONG_S:
        right = f" Then write {typical_s:g} ms" if is_number else ""
        problems.note(source.problem((), f"{told} is above {_LONG_S} s; given in ms?{right}"))
    elif typical_s < _SHORT_S:
        problems.note(source.problem((), f"{told} is below 1 us; given in ms? A unit may be written, as in 0.4 ms"))


def _is_nothing(value: CostValue) -> bool:
    """Return whether every draw of a cost is 0 ns."""
    most_s = _of(value, "most_s")
    return most_s < _SHORT_S and to_ns(most_s) == 0


def _of(value: CostValue, what: Literal["most_s", "typical_s"]) -> float:
    """Return what is known of a cost's draws; of a number, it is the number."""
    assert not isinstance(value, CsvSamples), "CSV samples are read in when a profile is bound"
    return float(getattr(value, what) if isinstance(value, Law) else value)
