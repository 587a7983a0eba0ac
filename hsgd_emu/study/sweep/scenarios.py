"""Scenarios as experiments and networks: what learns differently is built in full, the rest is put together from parts.

Equal to building each scenario's run file by itself (tests/unit/study/test_scenarios.py), at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import Document, Mark, Source
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, build_experiment
from hsgd_emu.study.changes import COMPUTE, put_topology
from hsgd_emu.study.sweep.axes import Axis
from hsgd_emu.study.sweep.edits import Edit, edited, put
from hsgd_emu.study.sweep.study_file import Study
from hsgd_emu.study.sweep.values import Scenario
from hsgd_emu.timing.costs import is_constant


@dataclass(frozen=True, eq=False)
class Base:
    """What scenarios share that differ in profiles only: the run with the values of all other axes."""

    number: int
    experiment: Experiment

    @cached_property
    def has_random_aggregation(self) -> bool:
        return not all(is_constant(node.aggregation_s) for node in self.experiment.topology.nodes)


class Scenarios:
    """The scenarios of a study, put together when asked for; whatever several of them share is made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._bases: dict[tuple[Any, ...], Base | ConfigError] = {}
        self._profiles: dict[tuple[Any, ...], Any] = {}

    def text(self, values: Scenario) -> str:
        """Return a scenario in words: `far = 0.3, near = 0.02`."""
        pairs = zip(self.study.axes, values, strict=True)
        return ", ".join(f"{axis.name} = {value.text}" for axis, value in pairs if value is not None)

    # --- what is learned ----------------------------------------------------------------------------

    def base(self, values: Scenario) -> Base:
        """Return the base of a scenario. Raises ConfigError where its run would not be valid."""
        key = self.fixed(values)
        if key not in self._bases:
            try:
                self._bases[key] = self._built(values, len(self._bases))
            except ConfigError as error:
                self._bases[key] = error
        found = self._bases[key]
        if isinstance(found, ConfigError):
            raise found
        return found

    def bases(self) -> list[Experiment]:
        """Return the experiments of all bases, in the order of the scenarios; base `number` is at that place."""
        for values in self.study.scenarios:
            self.base(values)
        return [base.experiment for base in self._bases.values() if isinstance(base, Base)]

    def fixed(self, values: Scenario) -> tuple[Any, ...]:
        """Return the values of the axes that are not timing, and which of the others have one."""
        pairs = zip(self.study.axes, values, strict=True)
        return tuple(value is None if axis.is_timing else value for axis, value in pairs)

    def _built(self, values: Scenario, number: int) -> Base:
        given = self.study.document
        mark = Mark(given.source.mark.where, dict(given.source.mark.inside))
        document = Document(dict(given.data), Source(mark, given.source.base))
        edits = [(a, v) for a, v in zip(self.study.axes, values, strict=True) if v is not None]
        for axis, value in sorted(edits, key=lambda edit: edit[0].keys != ("topology",)):
            if axis.keys == ("topology",):
                put_topology(document, value.data, value.source)
            elif not axis.is_timing:
                put(document, axis, value)
        try:
            return Base(number, build_experiment(draft_run(document)))
        except ConfigError:
            # Another topology may use a profile that only an axis binds.
            for axis, value in edits:
                if axis.is_timing and axis.kind != "scale":
                    put(document, axis, value)
            return Base(number, build_experiment(draft_run(document)))

    # --- what it costs ------------------------------------------------------------------------------

    def experiment(self, values: Scenario) -> Experiment:
        """Return a scenario as the experiment of a run.

        Raises:  ConfigError: its run would not be valid.
        """
        base = self.base(values)
        found, draft = base.experiment, base.experiment.topology_draft
        links, computes = dict(draft.links), dict(draft.computes)
        for name, edits in _edits(self.study.axes, values, {*links, *computes}).items():
            profile = self._profile(base, name, edits)
            if name is None:
                found = replace(found, compute=profile)
            elif name in links:
                links[name] = profile
            else:
                computes[name] = profile
        return replace(found, topology_draft=replace(draft, links=links, computes=computes))

    def _profile(self, base: Base, name: str | None, edits: tuple[Edit, ...]) -> Any:
        key = (base.number, name, edits)
        if key not in self._profiles:
            try:
                self._profiles[key] = edited(base.experiment, name, edits)
            except ConfigError as error:
                self._profiles[key] = error
        if isinstance(self._profiles[key], ConfigError):
            raise self._profiles[key]
        return self._profiles[key]

    def forget(self) -> None:
        """Drop the profiles made so far."""
        self._profiles.clear()

    @property
    def num_kept(self) -> int:
        """How many profiles are kept."""
        return len(self._profiles)


def _edits(axes: Sequence[Axis], values: Scenario, names: Collection[object]) -> dict[str | None, tuple[Edit, ...]]:
    """Return by profile (None: the run's `compute`) what the timing axes change in it.

    names: the profiles of the topology; without one of this name, `compute` is the run's also for a factor.
    """
    found: dict[str | None, tuple[Edit, ...]] = {}
    for axis, value in zip(axes, values, strict=True):
        if axis.is_timing and value is not None:
            name = None if axis.profile == COMPUTE and COMPUTE not in names else axis.profile
            found[name] = (*found.get(name, ()), (axis, value))
    return found
