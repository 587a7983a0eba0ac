"""The networks of a study's scenarios, ready for the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hsgd_emu.config.load import raise_problems
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.experiment import Experiment
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.study.sweep.scenarios import Base, Scenarios
from hsgd_emu.study.sweep.values import Scenario
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Route

Tree = tuple[tuple[int, int], ...]
"""(node, server that aggregates it) of all nodes."""
Routes = Mapping[int, Route]
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
        routes, seed = self.routes[tuple(schedule.parent.items())], self.experiment.seeds[0]
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
            tree = tuple(schedule.parent.items())
            if tree not in routes:
                key = (base.number, tree, *expected_ns)
                if key not in self._routes:
                    self._routes[key] = self._interned(base, experiment.routes(schedule, num_bytes))
                routes[tree] = self._routes[key]
        return Setting(experiment, routes, num_bytes)

    def _experiment(self, values: Scenario) -> tuple[Experiment, list[int]]:
        """Return a scenario as an experiment, and what an exchange over each profile of its links is expected to cost.

        Raises:  ConfigError: as `setting`.
        """
        base = self.scenarios.base(values)
        experiment = replace(base.experiment, network=self.scenarios.network(values))
        message = Message(self._message_bytes(base))
        try:
            return experiment, [one.expected_ns(message) for one in experiment.network.transfers.values()]
        except ValueError as error:
            raise ConfigError([self.scenarios.study.source.problem(("axes",), str(error))]) from None

    def _interned(self, base: Base, routes: Routes) -> Routes:
        """Return the same object for equal routes: the clock groups plans by it."""
        return self._routes.setdefault((base.number, tuple(routes.items())), routes)

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
