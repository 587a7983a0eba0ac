"""A profile with the values of a study's axes put in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hsgd_emu.config.assign import merge_value
from hsgd_emu.config.load import bind_value, raise_problems
from hsgd_emu.config.reader import Document, Mark, Source, put_value
from hsgd_emu.config.schema import ComputeProfile, LinkProfile
from hsgd_emu.errors import ConfigError, Problems
from hsgd_emu.experiment import Experiment, plain
from hsgd_emu.study.changes import COMPUTE
from hsgd_emu.study.sweep.axes import Axis
from hsgd_emu.study.sweep.values import Value
from hsgd_emu.timing.transfers import scaled

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
