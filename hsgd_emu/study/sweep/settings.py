"""The networks of a study's scenarios, ready for the clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hsgd_emu.config.load import raise_problems
from hsgd_emu.config.schema import CostValue, LinkProfile
from hsgd_emu.engine.plan import Network, Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.experiment import Experiment
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.study.sweep.scenarios import Base, Scenarios
from hsgd_emu.study.sweep.values import Scenario
from hsgd_emu.timing.costs import TransferModel, is_constant
from hsgd_emu.topology.routes import Hop

Tree = tuple[tuple[int, int], ...]
"""(node, server that aggregates it) of all nodes."""
Routes = Mapping[int, tuple[Hop, ...]]
_MOST_PROBLEMS = 50
_MOST_KEPT = 50_000


@dataclass(frozen=True)
class Setting:
    """One scenario, ready to be timed; is_random: its costs are drawn. routes: by who is aggregated where."""

    experiment: Experiment
    network: Network
    routes: Mapping[Tree, Routes]
    message_bytes: int
    is_random: bool

    def plan(self, schedule: Schedule) -> Plan:
        """Return the plan of the first seed's trial, as a run has it."""
        routes, seed = self.routes[tuple(schedule.parent.items())], self.experiment.seeds[0]
        return self.experiment.plan(schedule, self.network, routes, self.message_bytes, seed)


class _Link(NamedTuple):
    transfer: TransferModel
    expected_ns: int
    is_random: bool


class Settings:
    """The settings of scenarios, made when asked for; whatever several of them share is made once."""

    def __init__(self, scenarios: Scenarios, size_of: Callable[[Experiment], int] = timing_message_bytes) -> None:
        """size_of: tells how large a message is where the run file does not."""
        self.scenarios, self.size_of = scenarios, size_of
        self._links: dict[tuple[int, int], _Link] = {}
        self._steps: dict[tuple[Any, ...], tuple[Mapping[int, CostValue], bool, Any]] = {}
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
                    self._links_of(values)
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
        base, num_bytes = self.scenarios.base(values), self._message_bytes(self.scenarios.base(values))
        experiment, links = self._links_of(values)
        steps_s, has_random_steps = self._step_costs(base, experiment)
        transfers: dict[object, TransferModel] = {ref: link.transfer for ref, link in links.items()}
        net = Network(experiment.topology, transfers, steps_s)
        routes: dict[Tree, Routes] = {}
        for schedule in experiment.schedules:
            tree = tuple(schedule.parent.items())
            if tree not in routes:
                key = (base.number, tree, *(link.expected_ns for link in links.values()))
                if key not in self._routes:
                    self._routes[key] = self._interned(base, experiment.routes(schedule, net))
                routes[tree] = self._routes[key]
        is_random = has_random_steps or any(link.is_random for link in links.values()) or base.has_random_aggregation
        return Setting(experiment, net, routes, num_bytes, is_random)

    def _links_of(self, values: Scenario) -> tuple[Experiment, dict[object, _Link]]:
        """Return a scenario's experiment and its links, by profile reference.

        Raises:  ConfigError: as `setting`.
        """
        experiment, num_bytes = self.scenarios.experiment(values), self._message_bytes(self.scenarios.base(values))
        profiles = experiment.topology_draft.links
        try:
            return experiment, {ref: self._link(profile, num_bytes) for ref, profile in profiles.items() if profile}
        except ValueError as error:
            raise ConfigError([self.scenarios.study.source.problem(("axes",), str(error))]) from None

    def _link(self, profile: LinkProfile, num_bytes: int) -> _Link:
        # What is kept holds the profile, so that its identity is not taken by another one.
        key = (id(profile), num_bytes)
        if key not in self._links:
            transfer = TransferModel(profile, num_bytes)
            costs = (profile.rtt_s, profile.up_s, profile.down_s, profile.latency_s)
            self._links[key] = _Link(transfer, transfer.expected_ns(), not all(map(is_constant, costs)))
        return self._links[key]

    def _step_costs(self, base: Base, experiment: Experiment) -> tuple[Mapping[int, CostValue], bool]:
        """Return what a step costs by worker, and whether that is random."""
        profiles = [*experiment.topology_draft.computes.values(), experiment.compute]
        key = (base.number, *map(id, profiles))
        if key not in self._steps:
            step_s = experiment.network(self._message_bytes(base)).step_s
            self._steps[key] = step_s, not all(is_constant(value) for value in step_s.values()), profiles
        return self._steps[key][:2]

    def _interned(self, base: Base, routes: Routes) -> Routes:
        """Return the same object for equal routes: the clock groups plans by it."""
        hops = tuple((node, hop.link.name, hop.forward) for node, route in routes.items() for hop in route)
        return self._routes.setdefault((base.number, hops), routes)

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
        caches: tuple[dict[Any, Any], ...] = (self._links, self._steps, self._routes)
        if self.scenarios.num_kept + sum(map(len, caches)) > _MOST_KEPT:
            self.scenarios.forget()
            for cache in caches:
                cache.clear()
