"""The axes of a study, their values and how these are put into a run, and the scenarios: a grid, a list or a sample."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hsgd_emu.config.assign import merge_value
from hsgd_emu.config.load import bind_value, raise_problems
from hsgd_emu.config.profiles import find_file, kind_of_profile, note_cost, profile_of, read_named
from hsgd_emu.config.reader import Document, Mark, Source, put_value
from hsgd_emu.config.schema import ComputeProfile, LinkProfile
from hsgd_emu.config.study_schema import KINDS, AxisSpec, Range, Spacing, StudySpec, dimension_of_axis
from hsgd_emu.config.wording import form, shown
from hsgd_emu.errors import ConfigError, Problem, Problems, listed, nearest
from hsgd_emu.experiment import Experiment, plain
from hsgd_emu.rng import stream
from hsgd_emu.study.changes import COMPUTE
from hsgd_emu.timing.transfers import scaled
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
    return document and plain(profile_of(kind_of_profile(document.data), document, problems))


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


MAX_SCENARIOS = 1_000_000
AS_IN_THE_RUN = "as in the run"


@dataclass(frozen=True, eq=False)
class Axis:
    """One thing that differs between scenarios; values: none where a range is drawn from."""

    name: str
    kind: str
    key: str
    """The profile's name, or the dotted key."""
    source: Source
    values: tuple[Value, ...]
    range: Range | None
    spacing: Spacing

    @property
    def keys(self) -> tuple[str, ...]:
        """Where in the run file the values go."""
        return tuple(self.key.split(".")) if self.kind == "set" else ("profiles", self.key)

    @property
    def is_timing(self) -> bool:
        """Whether the values change nothing but a profile: no case, no tree, nothing that is learned."""
        return self.kind != "set" or self.keys[0] == "compute" or (self.keys[0] == "profiles" and len(self.keys) > 1)

    @property
    def profile(self) -> str | None:
        """The profile that a timing axis changes; None: the run's `compute`."""
        return None if self.keys[0] == "compute" else self.keys[1]

    def value(self, data: Any) -> Value:
        """Return a value of this axis that no file gives."""
        return value_of(data, data, self.source)

    def own(self, run: Any, experiment: Experiment) -> Value:
        """Return the value that the run itself has, to be shown; run: its data."""
        found: Any = 1 if self.kind == "scale" else None
        if self.kind == "rtt_s":
            transfer = experiment.network.transfers.get(self.key)
            rtt = None if transfer is None else transfer.costs.get("rtt_s")
            found = rtt.value if rtt is not None and rtt.is_constant else None
        elif self.kind == "set":
            found = run
            for key in self.keys:
                found = found[int(key)] if isinstance(found, list) else (found or {}).get(key)
        return value_of(AS_IN_THE_RUN if found is None or isinstance(found, dict) else found, found, self.source)

    def written(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the axis as a study file has it; values: YAML-ready, or none where a range is drawn from."""
        given = self.range
        drawn = {"from": given.from_, "to": given.to, "spacing": given.spacing, "whole": given.whole} if given else None
        spread = {} if drawn is not None and not values else {"spacing": self.spacing}
        return {"name": self.name, self.kind: self.key, "values": list(values) or drawn} | spread


def read_axes(spec: StudySpec, source: Source, problems: Problems) -> tuple[Axis, ...]:
    """Return the axes of a study file, without those that have a mistake (added to the problems)."""
    if spec.sample is None and spec.scenarios is None:
        given = (one.values for one in spec.axes)
        num = math.prod((v.num or 1) if isinstance(v, Range) else len(v or (None,)) for v in given)
        if num > MAX_SCENARIOS:
            text = f"{num:,} scenarios; at most {MAX_SCENARIOS:,} are supported: take fewer values, or a `sample`"
            problems.append(source.problem(("axes",), text))
            return ()
    found: list[Axis] = []
    for number, one in enumerate(spec.axes):
        axis = _axis(one, spec, source.at("axes", number), problems)
        if axis is None:
            continue
        for other in found:
            if other.name == axis.name:
                problems.append(axis.source.problem(("name",), f"'{axis.name}' is the name of another axis too"))
            elif _overlap(axis, other):
                text = f"changes what the axis '{other.name}' changes too; a scenario could not have both values"
                problems.append(axis.source.problem((axis.kind,), text))
        found.append(axis)
    return tuple(found)


def _axis(spec: AxisSpec, study: StudySpec, source: Source, problems: Problems) -> Axis | None:
    kinds = [kind for kind in KINDS if getattr(spec, kind) is not None]
    if len(kinds) != 1:
        text = f"gives {listed(kinds) + ' at once' if kinds else 'nothing to change'}; give one of {listed(KINDS)}"
        problems.append(source.problem((), text))
        return None
    kind, key = kinds[0], str(getattr(spec, kinds[0]))
    if not all(key.split(".")):
        problems.append(source.problem((kind,), f"found {shown(key)}; expected {_KEYS[kind]}"))
        return None
    if spec.values is None and study.scenarios is None:
        problems.append(source.problem(("values",), f"is missing; expected {form(('values',))}"))
        return None
    before, given = len(problems), spec.values
    values: tuple[Value, ...] = ()
    if isinstance(given, Range):
        _check_range(given, study.sample is None and study.scenarios is None, source.at("values"), problems)
        if len(problems) == before and given.num is not None and study.sample is None:
            values = tuple(value_of(number, number, source.at("values")) for number in range_values(given))
    elif given is not None:
        read = [read_value(kind, key, v, source.at("values", i), problems) for i, v in enumerate(given)]
        values = tuple(value for value in read if value is not None)
        seen: set[str] = set()
        for value in values:
            if value.text in seen:
                problems.append(value.source.problem((), f"'{value.text}' stands there twice; remove one"))
            seen.add(value.text)
    for value in values if isinstance(given, Range) else ():
        check_number(kind, value.data, value.source, problems)
    if len(problems) > before:
        return None
    spacing = spec.spacing or (given.spacing if isinstance(given, Range) else _spacing(values))
    return Axis(spec.name, kind, key, source, values, given if isinstance(given, Range) else None, spacing)


_KEYS = {
    **dict.fromkeys(("rtt_s", "profile"), "a profile of the topology, as in far"),
    "scale": "a profile of the topology, or compute",
    "set": "a dotted key of the run file, as in compute.step_s",
}


def _overlap(one: Axis, other: Axis) -> bool:
    """Return whether two axes change the same value; factors go on top of whatever else changes."""
    if (one.kind == "scale") != (other.kind == "scale"):
        return False
    a, b = one.keys, other.keys
    return a[: len(b)] == b[: len(a)]


def _check_range(given: Range, needs_num: bool, source: Source, problems: list[Problem]) -> None:
    if needs_num and given.num is None:
        problems.append(source.problem(("num",), "is missing; expected how many values there are, as in 5"))
    if given.from_ >= given.to and given.num != 1:
        problems.append(source.problem(("to",), f"{given.to:g} is not above {given.from_:g}, where the range begins"))
    if given.spacing == "log" and given.from_ <= 0:
        problems.append(source.problem(("from",), f"found {given.from_:g}; a log range begins above 0"))


def _spacing(values: Sequence[Value]) -> Spacing:
    """Return how a list of numbers looks: log where its steps are more alike as factors than as differences."""
    numbers = [value.number for value in values if value.number is not None]
    if len(numbers) < len(values) or len(numbers) < 3 or min(numbers) <= 0:
        return "linear"
    with np.errstate(all="ignore"):  # of numbers so far apart that their squares overflow, nothing is known
        steps = np.abs(np.diff(np.sort(numbers)))
        factors = np.diff(np.log(np.sort(numbers)))
        return "log" if float(factors.std() / factors.mean()) < float(steps.std() / steps.mean()) else "linear"


def read_scenarios(spec: StudySpec, axes: Sequence[Axis], source: Source, problems: Problems) -> Sequence[Scenario]:
    """Return the scenarios of a study, in order; the last axis varies fastest."""
    if spec.scenarios is not None:
        return list(_listed(spec.scenarios, axes, source.at("scenarios"), problems))
    if spec.sample is not None:
        columns = [_drawn(axis, spec.sample.num, spec.sample.seed) for axis in axes]
        for axis, column in zip(axes, columns, strict=True):
            for value in column[:1]:
                check_number(axis.kind, value.data, axis.source.at("values"), problems)
        return list(zip(*columns, strict=True))
    return list(product(*(axis.values for axis in axes)))


def _listed(
    given: Sequence[dict[str, Any]], axes: Sequence[Axis], source: Source, problems: Problems
) -> Iterator[Scenario]:
    names = [axis.name for axis in axes]
    known: dict[tuple[str, str], Value | None] = {}
    for number, row in enumerate(given):
        for name in row:
            if name not in names:
                hint = nearest(name, names) or f"; axes are {listed(names)}"
                problems.append(source.problem((number, name), f"there is no axis '{name}'{hint}"))
        for axis in axes:
            if axis.name in row:
                key, here = (axis.name, repr(row[axis.name])), source.at(number, axis.name)
                if key not in known:
                    known[key] = read_value(axis.kind, axis.key, row[axis.name], here, problems)
        yield tuple(known[axis.name, repr(row[axis.name])] if axis.name in row else None for axis in axes)


def _drawn(axis: Axis, num: int, seed: int) -> list[Value]:
    """Return draws of an axis, of a stream of its own: adding an axis leaves the others' as they are."""
    rng = stream(seed, "study", axis.name)
    if axis.range is None:
        return [axis.values[index] for index in rng.integers(len(axis.values), size=num)]
    given = axis.range
    numbers = (rounded(between(given, float(share)), given) for share in rng.random(num))
    return [value_of(number, number, axis.source.at("values")) for number in numbers]


Edit = tuple[Axis, Value]


def edited(experiment: Experiment, name: str | None, edits: Sequence[Edit]) -> Any:
    """Return the profile `name` (None: the run's compute profile) with the values of axes put in, factors last."""
    draft = experiment.topology_draft
    named: dict[Any, Any] = {**draft.links, **draft.computes}
    problems = Problems()
    if name is not None and name not in named:
        raise ConfigError([value.source.problem((), f"the topology uses no profile '{name}'") for _, value in edits])
    keys = (COMPUTE,) if name is None else ("profiles", name)
    given = plain(experiment.compute if name is None else named[name]) or {}
    data: Any = {COMPUTE: given} if name is None else {"profiles": {name: given}}
    document = Document(data, Source(_marks(data, edits[0][1].source.mark.where), experiment.base))

    def bound() -> Any:
        value: Any = document.data
        for key in keys:
            value = value[key]
        profile = bind_value(
            LinkProfile if name in draft.links else ComputeProfile, value, document.source.at(*keys), problems
        )
        raise_problems(problems)
        return profile

    for axis, value in edits:
        if axis.kind != "scale":
            put(document, axis, value)
    profile = bound()
    for axis, value in edits:
        if axis.kind == "scale":
            put_value(document, keys, plain(scaled(profile, value.data)), value.source.mark)
            profile = bound()
    return profile


def put(document: Document, axis: Axis, value: Value) -> None:
    """Put a value that is no factor into a run's data."""
    if axis.kind == "set":
        merge_value(document, axis.keys, value.data, value.source.mark)
        return
    data = {"rtt_s": value.data} if axis.kind == "rtt_s" else value.data
    put_value(document, axis.keys, data, value.source.mark)


def _marks(data: Any, where: str) -> Mark:
    """Return marks for data of which all stands at one place."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
    return Mark(where, {key: _marks(value, where) for key, value in items})
