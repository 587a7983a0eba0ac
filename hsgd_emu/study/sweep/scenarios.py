"""Scenarios as experiments and networks: what learns differently is built in full, the rest is put together from parts.

Equal to building each scenario's run file by itself (tests/unit/study/test_scenarios.py), at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from hsgd_emu.config.load import draft_run, raise_problems
from hsgd_emu.config.reader import Document, Mark, Source
from hsgd_emu.config.schema import Ref
from hsgd_emu.engine.gates import gate_of
from hsgd_emu.engine.network import Network
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.experiment import Experiment, build_experiment
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.study.changes import COMPUTE, put_topology
from hsgd_emu.study.retime import check_same_operations
from hsgd_emu.study.sweep.axes import Axis, Edit, Scenario, edited, put
from hsgd_emu.study.sweep.study_file import Study
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Message, Transfer, bound
from hsgd_emu.topology.routes import Pair, Routes

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Base:
    """What scenarios share that differ in profiles only: the run with the values of all other axes."""

    number: int
    experiment: Experiment


class Scenarios:
    """The scenarios of a study, put together when asked for; whatever several of them share is made once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._bases: dict[tuple[Any, ...], Base | ConfigError] = {}
        self._costs: dict[tuple[Any, ...], Transfer | Cost | ConfigError] = {}
        self._networks: dict[tuple[Any, ...], Network] = {}

    def text(self, values: Scenario) -> str:
        """Return a scenario in words: `far = 0.3, near = 0.02`."""
        pairs = zip(self.study.axes, values, strict=True)
        return ", ".join(f"{axis.name} = {value.text}" for axis, value in pairs if value is not None)

    # --- what is learned ----------------------------------------------------------------------------

    def base(self, values: Scenario) -> Base:
        """Return the base of a scenario. Raises ConfigError where its run would not be valid."""
        return _once(self._bases, self.fixed(values), lambda: self._built(values, len(self._bases)))

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

    def network(self, values: Scenario) -> Network:
        """Return the network of a scenario.

        Raises:  ConfigError: its run would not be valid.
        """
        base = self.base(values)
        draft = base.experiment.topology_draft
        edits = _edits(self.study.axes, values, {*draft.links, *draft.computes})
        costs: dict[Ref | None, Transfer | Cost] = {
            name: self._cost(base, name, of_profile) for name, of_profile in edits.items()
        }
        steps = tuple((name, cost) for name, cost in costs.items() if isinstance(cost, Cost))
        # Scenarios of equal steps share them, for there is one for every worker.
        if (base.number, steps) not in self._networks:
            self._networks[base.number, steps] = base.experiment.network.rebound(dict(steps))
        links = {name: cost for name, cost in costs.items() if not isinstance(cost, Cost)}
        return self._networks[base.number, steps].rebound(links)

    def _cost(self, base: Base, name: str | None, edits: tuple[Edit, ...]) -> Transfer | Cost:
        """Return what a profile costs with what the axes change in it."""
        return _once(self._costs, (base.number, name, edits), lambda: bound(edited(base.experiment, name, edits)))

    def forget(self) -> None:
        """Drop the costs bound so far."""
        self._costs.clear()
        self._networks.clear()

    @property
    def num_kept(self) -> int:
        """How many costs are kept."""
        return len(self._costs)


def _once(kept: dict[tuple[Any, ...], T | ConfigError], key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """Return what is made when it is first asked for, and kept; what went wrong then is raised each time."""
    if key not in kept:
        try:
            kept[key] = make()
        except ConfigError as error:
            kept[key] = error
    found = kept[key]
    if isinstance(found, ConfigError):
        raise found
    return found


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


Tree = tuple[Pair, ...]
"""(node, server that aggregates it) of all nodes."""
_MOST_PROBLEMS = 50
_MOST_KEPT = 50_000


@dataclass(frozen=True)
class Setting:
    """One scenario, ready to be timed. routes: by who is aggregated where."""

    experiment: Experiment
    routes: Mapping[Tree, Routes]
    message_bytes: int

    @property
    def is_random(self) -> bool:
        """Whether any cost is drawn."""
        return not self.experiment.network.is_constant

    def plan(self, schedule: Schedule) -> Plan:
        """Return the plan of the first seed's trial, as a run has it."""
        routes, seed = self.routes[schedule.pairs], self.experiment.seeds[0]
        return self.experiment.plan(schedule, routes, self.message_bytes, seed)


class Settings:
    """The settings of scenarios, made when asked for; whatever several of them share is made once."""

    def __init__(self, scenarios: Scenarios, size_of: Callable[[Experiment], int] = timing_message_bytes) -> None:
        """size_of: tells how large a message is where the run file does not."""
        self.scenarios, self.size_of = scenarios, size_of
        self._routes: dict[tuple[Any, ...], Routes] = {}
        self._bytes: dict[int, int] = {}
        self._model_bytes: dict[str, int] = {}

    def check(self) -> None:
        """Try every base and every profile of the study.

        Raises:  ConfigError: what is wrong with some scenario, each mistake once.
        """
        found: dict[Problem, str] = {}
        routed: set[int] = set()  # bases; whether their nodes reach each other does not depend on what links cost
        for values in self.scenarios.study.scenarios:
            try:
                number = self.scenarios.base(values).number
                if number in routed:
                    self._experiment(values)
                else:
                    self.setting(values)
                    routed.add(number)
            except ConfigError as error:
                for problem in error.problems:
                    found.setdefault(problem, self.scenarios.text(values))
            self.forget()
            if len(found) >= _MOST_PROBLEMS:
                break
        run = self.scenarios.study.source.at("run").mark.where
        told = [
            replace(problem, where=problem.where or run, message=f"{problem.message} (in the scenario {text})")
            for problem, text in found.items()
        ]
        raise_problems(told, self.scenarios.study.source)

    def setting(self, values: Scenario) -> Setting:
        """Return a scenario as a network and its routes.

        Raises:  ConfigError: its run would not be valid, or a link takes longer for a message than any run may.
        """
        base = self.scenarios.base(values)
        experiment, expected_ns = self._experiment(values)
        num_bytes, routes = self._message_bytes(base), dict[Tree, Routes]()
        for schedule in experiment.schedules:
            tree = schedule.pairs
            if tree not in routes:
                key = (base.number, tree, *expected_ns)
                if key not in self._routes:
                    found = experiment.routes(schedule, num_bytes)
                    # The same object for equal routes: the clock groups plans by it.
                    self._routes[key] = self._routes.setdefault((base.number, tuple(found.items())), found)
                routes[tree] = self._routes[key]
        return Setting(experiment, routes, num_bytes)

    def _experiment(self, values: Scenario) -> tuple[Experiment, list[int]]:
        """Return a scenario as an experiment, and what an exchange over each profile of its links is expected to cost.

        Raises:  ConfigError: as `setting`.
        """
        base = self.scenarios.base(values)
        experiment = replace(base.experiment, network=self.scenarios.network(values))
        num_bytes = self._message_bytes(base)
        message = Message(num_bytes)
        if any(gate_of(case)[1] for case in experiment.cases):
            folder = self.scenarios.study.source.base
            check_same_operations(folder, base.experiment, experiment, num_bytes, num_bytes)
        try:
            return experiment, [one.expected_ns(message) for one in experiment.network.transfers.values()]
        except ValueError as error:
            raise ConfigError([self.scenarios.study.source.problem(("axes",), str(error))]) from None

    def _message_bytes(self, base: Base) -> int:
        """Return the size of a message: as the run file says, or the model's."""
        if base.experiment.message_bytes is not None:
            return base.experiment.message_bytes
        if base.number not in self._bytes:
            key = f"{base.experiment.model!r} {base.experiment.data!r}"
            if key not in self._model_bytes:
                self._model_bytes[key] = self.size_of(base.experiment)
            self._bytes[base.number] = self._model_bytes[key]
        return self._bytes[base.number]

    def forget(self) -> None:
        """Drop what was made for scenarios that are done, where there are so many that it would fill the memory."""
        if self.scenarios.num_kept + len(self._routes) > _MOST_KEPT:
            self.scenarios.forget()
            self._routes.clear()
