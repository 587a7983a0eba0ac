"""The values of a study's axes: as files give them, as they go into a run, as they are shown."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.config.notes import note_cost
from hsgd_emu.config.profiles import find_file, profile_of, read_named
from hsgd_emu.config.reader import Source
from hsgd_emu.config.schema import ComputeProfile, LinkProfile
from hsgd_emu.config.study_schema import Range, dimension_of_axis
from hsgd_emu.config.wording import shown
from hsgd_emu.errors import Problem, Problems
from hsgd_emu.experiment import plain
from hsgd_emu.units import LONGEST_S, quantity


@dataclass(frozen=True, eq=False)
class Value:
    """One value of an axis: as it goes into the run file, as it is shown, and as a number where it is one."""

    data: Any
    text: str
    number: float | None
    source: Source


Scenario = tuple[Value | None, ...]
"""By axis; None: as the run file has it."""


def read_value(kind: str, key: str, given: Any, source: Source, problems: Problems) -> Value | None:
    """Return a value as the file gives it, names of files looked up from there; None after adding problems."""
    before = len(problems)
    dimension = dimension_of_axis(kind, key)
    if dimension and isinstance(given, str):
        try:
            number = quantity(given, dimension)
        except ValueError as error:
            problems.append(source.problem((), str(error)))
            return None
        given = given if number is None else number
    check_number(kind, given, source, problems)
    if kind == "rtt_s" and len(problems) == before:
        note_cost("an RTT", given, source, problems, may_be_nothing=True)
    name, data = given, given
    if isinstance(given, str) and (kind == "profile" or (kind == "set" and key == "topology")):
        name = Path(given).stem if given.endswith((".yaml", ".yml")) else given
        data = _profile(given, source, problems) if kind == "profile" else _topology(given, source, problems)
    return value_of(name, data, source) if len(problems) == before else None


def check_number(kind: str, given: Any, source: Source, problems: list[Problem]) -> None:
    """Report an RTT or a factor that is none."""
    if kind not in ("rtt_s", "scale"):
        return
    number = given if isinstance(given, int | float) and not isinstance(given, bool) else math.nan
    if kind == "rtt_s" and not 0 <= number <= LONGEST_S:
        problems.append(source.problem((), f"found {shown(given)}; expected a number of seconds, at least 0"))
    if kind == "scale" and not 0 < number < math.inf:
        problems.append(source.problem((), f"found {shown(given)}; expected a factor above 0, such as 0.5 or 2"))


def _profile(name: str, source: Source, problems: Problems) -> Any:
    """Return the profile of a file as data, CSV samples read in."""
    document = read_named("latency_profiles", name, source, problems)
    if document is None:
        return None
    if isinstance(document.data, dict) and "step_s" in document.data:
        return plain(profile_of(ComputeProfile, document, problems))
    return plain(profile_of(LinkProfile, document, problems))


def _topology(name: str, source: Source, problems: list[Problem]) -> str | None:
    """Return the path of a topology, which holds from anywhere."""
    try:
        return str(find_file("topologies", name, source.base, source.folder).absolute())
    except FileNotFoundError as error:
        problems.append(source.problem((), str(error)))
        return None


def value_of(given: Any, data: Any, source: Source) -> Value:
    """Return a value; given: as it is shown."""
    is_number = isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)
    return Value(data, shown_value(given), float(given) if is_number else None, source)


def shown_value(given: Any) -> str:
    """Return a value in short: a mapping by its name, if it has one."""
    if isinstance(given, float):
        return f"{given:g}" if float(f"{given:g}") == given else repr(given)
    if isinstance(given, dict) and isinstance(given.get("name"), str):
        return str(given["name"])
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)


def range_values(given: Range) -> list[float]:
    """Return the numbers of a range, each once."""
    num = given.num or 1
    inner = [rounded(between(given, k / (num - 1)), given) for k in range(1, num - 1)]
    ends = [given.from_, given.to][: min(num, 2)]
    numbers = [ends[0], *inner, *ends[1:]]
    return list(dict.fromkeys(round(number) if given.whole else number for number in numbers))


def between(given: Range, share: float) -> float:
    """Return the number at a share (0 to 1) of the way through a range."""
    if given.spacing == "log":
        return float(given.from_ * (given.to / given.from_) ** share)
    return given.from_ + (given.to - given.from_) * share


def rounded(number: float, given: Range) -> float:
    """Return a number of a range to six digits, or to a whole number."""
    return round(number) if given.whole else min(max(float(f"{number:.6g}"), given.from_), given.to)
