"""What a study says, in sentences computed from its tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsgd_emu.metrics import hardness
from hsgd_emu.report.sentences import listed, share
from hsgd_emu.report.study.content import CLOSE, Integers, StudyContent, Target
from hsgd_emu.results.wording import number
from hsgd_emu.study.sweep.crossover import Crossover, sentences

_MOST_SENTENCES = 8
_UNSURE = 0.9
_FEWEST_TO_SPLIT = 20


def unfinished(content: StudyContent) -> str:
    """Return how far the study is, or nothing where it is finished."""
    if content.targets:
        return ""
    if content.num_done == content.num_scenarios:
        return "This study has no targets, so there is nothing to compare; give some: targets: {test_accuracy: [0.8]}."
    return (
        f"This study is not finished: {content.num_done:,} of {content.num_scenarios:,} scenarios are timed. "
        "Start it again by the same command; it goes on where it stopped."
    )


def hardest(content: StudyContent) -> int:
    """Return the target to begin with: the hardest that some case reaches in half of the scenarios, else in any."""
    shares = [float(np.mean(target.best_S >= 0)) for target in content.targets]
    for least in (0.5, 1e-12):
        reached = [i for i, part in enumerate(shares) if part >= least]
        if reached:
            return min(reached, key=lambda i: hardness((content.targets[i].metric, content.targets[i].level)))
    return 0


def wins(content: StudyContent, target: Target) -> list[int]:
    """Return in how many scenarios each case is the best."""
    return [int(np.count_nonzero(target.best_S == case.index)) for case in content.cases]


def answer(content: StudyContent, target: Target) -> str:
    """Return the study's answer for one target, in a sentence or two."""
    counts = wins(content, target)
    reached = sum(counts)
    if not reached:
        return f"No case reaches {target.label} in any scenario."
    missed = content.num_scenarios - reached
    end = f" In {missed:,} of {content.num_scenarios:,} scenarios no case reaches it." if missed else ""
    return f"To {target.label}, {_fastest(content, counts, reached)}.{end}"


def _fastest(content: StudyContent, counts: list[int], reached: int) -> str:
    """Say which kind of schedule is the fastest how often, and which case."""
    most = max(counts)
    firsts = [case.name for case in content.cases if counts[case.index] == most]
    where = _of(reached, content.num_scenarios)
    if most == reached:
        return f"{firsts[0]} is the fastest in {where}"
    often = f"{listed(firsts)} win{'s' if len(firsts) == 1 else ''} most often"
    local = sum(counts[case.index] for case in content.cases if case.dashed)
    if not content.both_kinds:
        return f"{often}, in {most:,} of {reached:,} scenarios{' each' if len(firsts) > 1 else ''}"
    kinds = [("H-SGD", reached - local), ("local SGD", local)]
    (name, num), (other, rest) = sorted(kinds, key=lambda kind: -kind[1])
    often = f"; {often} ({most:,})" if len(firsts) == 1 else ""
    if not rest:
        return f"{name} is the fastest in {where}{often}"
    return f"{name} is the fastest in {num:,} of {reached:,} scenarios, {other} in {rest:,}{often}"


def _of(num: int, whole: int) -> str:
    if whole == 1:
        return "the one scenario"
    return f"all {num:,} scenarios" if num == whole else f"{num:,} scenarios"


def findings(content: StudyContent, target: Target) -> list[str]:
    """Return what else there is to say of a target: the main crossover, gains, where the choice hardly matters."""
    kinds = {case.name: case.dashed for case in content.cases}
    between_kinds = [one for one in target.crossovers if kinds[one.below] != kinds[one.above]]
    first = _say(content, target, between_kinds or target.crossovers)[:1] or _splits(content, target)
    return [*first, *_gains(content, target), *_doubts(content, target), *_never(content, target)]


def crossovers_in_words(content: StudyContent, target: Target) -> list[str]:
    """Return a sentence per border between two cases, the longest border first."""
    found = _say(content, target, target.crossovers)
    more = len(found) - _MOST_SENTENCES
    return found[:_MOST_SENTENCES] + ([f"{more} more are in the table crossovers."] if more > 0 else [])


def _say(content: StudyContent, target: Target, crossovers: Sequence[Crossover]) -> list[str]:
    units = {axis.name: axis.unit for axis in content.axes if axis.numbers is not None}
    texts = sentences(crossovers, units) if crossovers else []
    return [text.removeprefix(f"To {target.label}, ") for text in texts]


def _gains(content: StudyContent, target: Target) -> list[str]:
    if content.own_settings:
        return []
    gains = [float(gain) for gain in target.gain_S]
    found = []
    for sign, name, other in ((1, "H-SGD", "local SGD"), (-1, "local SGD", "H-SGD")):
        won = [(gain**sign, -i) for i, gain in enumerate(gains) if 0 < gain < math.inf and gain**sign > 1]
        only = sum(1 for gain in gains if gain == (math.inf if sign > 0 else 0))
        if won:
            most, scenario = max(won)
            median = number(float(np.median([gain for gain, _ in won])), 2)
            always = len(won) == len(gains)
            text = f"{'The' if always else f'Where {name} is faster, the'} best {other} takes {median} times as long"
            text += f" as the best {name}" if always else ""
            text += f" (median; at most {number(most, 2)} times, at {content.at(-scenario)})" if len(won) > 1 else ""
            found.append(f"{text}.")
        if only:
            found.append(f"In {_scenarios(only)} only {name} reaches the target.")
    return found


def _doubts(content: StudyContent, target: Target) -> list[str]:
    close = int(np.count_nonzero(target.margin_S < CLOSE))
    unsure = int(np.count_nonzero((target.probability_S < _UNSURE) & ~(target.margin_S < CLOSE)))
    found = []
    if close:
        part = share(close / content.num_scenarios, 0)
        found.append(f"In {_scenarios(close)} ({part}) the first two are within 5%: there the choice hardly matters.")
    if unsure:
        more = "more scenario" if unsure == 1 else "more scenarios"
        text = f"In {unsure:,} {more if close else _scenarios(unsure).split()[-1]} the fastest case is less sure"
        found.append(f"{text}: it comes first in fewer than 90% of the matched trials.")
    return found


def _splits(content: StudyContent, target: Target) -> list[str]:
    found = splits(content, target) if content.num_scenarios >= _FEWEST_TO_SPLIT else []
    if not found:
        return []
    split, axis = found[0], content.axes[found[0].axis]
    (low, low_num, low_all), (high, high_num, high_all) = split.low, split.high
    below = f"up to {axis.say(split.value)}, {content.cases[low].name} is the fastest in {low_num:,} of {low_all:,}"
    above = f"above it, {content.cases[high].name} in {high_num:,} of {high_all:,}"
    return [f"What matters most is {axis.name}: {below} scenarios; {above}."]


def _scenarios(num: int) -> str:
    return f"{num:,} scenario{'' if num == 1 else 's'}"


def _never(content: StudyContent, target: Target) -> list[str]:
    never = [case.name for case in content.cases if not np.isfinite(target.median_SC[:, case.index]).any()]
    if not never or len(never) == len(content.cases):
        return []
    reach = "reaches" if len(never) == 1 else "reach"
    return [f"{listed(never)} never {reach} {target.label} (in half of the seeds or more)."]


@dataclass(frozen=True)
class Split:
    """Scenarios cut in two by one numeric axis. low, high: (the case fastest most often, how often, of how many)."""

    axis: int
    value: float
    right: int
    """Scenarios whose fastest case is that of their side."""
    low: tuple[int, int, int]
    high: tuple[int, int, int]


def splits(content: StudyContent, target: Target) -> list[Split]:
    """Return the best cut of each numeric axis that tells more than the most frequent case, the best axis first."""
    reached = np.flatnonzero(target.best_S >= 0)
    best = target.best_S[reached]
    found = []
    for i, axis in enumerate(content.axes):
        if axis.numbers is not None and len(axis.numbers) > 1 and len(reached):
            split = _cut(i, np.array(axis.numbers)[content.places_SA[reached, i]], best, len(content.cases))
            if split and split.right > np.bincount(best).max():
                found.append(split)
    return sorted(found, key=lambda split: -split.right)


def _cut(
    axis: int, numbers_S: np.ndarray[tuple[int], np.dtype[np.float64]], best_S: Integers, num: int
) -> Split | None:
    order = np.argsort(numbers_S, kind="stable")
    numbers_S, best_S = numbers_S[order], best_S[order]
    low_SC = np.cumsum(best_S[:, None] == np.arange(num), axis=0)
    high_SC = low_SC[-1] - low_SC
    right_S = low_SC.max(axis=1) + high_SC.max(axis=1)
    ends = np.flatnonzero(numbers_S[:-1] < numbers_S[1:])
    if not len(ends):
        return None
    last = int(ends[right_S[ends].argmax()])
    low, high = int(low_SC[last].argmax()), int(high_SC[last].argmax())
    return Split(
        axis=axis,
        value=float(numbers_S[last] + numbers_S[last + 1]) / 2,
        right=int(right_S[last]),
        low=(low, int(low_SC[last, low]), last + 1),
        high=(high, int(high_SC[last, high]), len(best_S) - last - 1),
    )
