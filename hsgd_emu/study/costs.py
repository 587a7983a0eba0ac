"""The costs of a network that can be changed by themselves, and the experiment in which one of them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Literal, NamedTuple

from hsgd_emu.config.schema import ComputeProfile, LinkProfile, Ref
from hsgd_emu.experiment import Experiment
from hsgd_emu.study.changes import COMPUTE
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Transfer


class ChangedCost(NamedTuple):
    """A cost that is changed by itself: of a profile, whose figures several links or workers share, or of one place: a
    single link or worker, or a class of servers (its aggregations)."""

    kind: Literal["link profile", "compute profile", "link", "worker", "aggregation"]
    name: str
    ref: Ref | None = None
    """Of a profile: as the topology has it, None: the run file's own `compute`."""

    @property
    def is_profile(self) -> bool:
        return self.kind.endswith("profile")


def profile_costs(experiment: Experiment) -> list[ChangedCost]:
    """Return the profiles of links, then those of workers, in topology order; names are unique."""
    topology, draft = experiment.topology, experiment.topology_draft
    nodes = topology.nodes
    found: dict[object, ChangedCost] = {}
    taken: set[str] = set()
    for link in topology.links:
        if link.profile not in found:
            where = f"{nodes[link.lower].class_name}--{nodes[link.upper].class_name}"
            name = free_name(_name(link.profile, draft.links) or where, taken)
            found[link.profile] = ChangedCost("link profile", name, link.profile)
    for worker in map(nodes.__getitem__, topology.workers):
        if ("worker", worker.compute) not in found:
            ref, where = worker.compute, f"compute of {worker.class_name}"
            name = free_name(COMPUTE if ref is None else _name(ref, draft.computes) or where, taken)
            found["worker", ref] = ChangedCost("compute profile", name, ref)
    return list(found.values())


def _name(ref: Ref, profiles: Mapping[Ref, LinkProfile | ComputeProfile | None]) -> str | None:
    profile = profiles[ref]
    return ref if isinstance(ref, str) else profile.name if profile is not None else None


def free_name(name: str, taken: set[str]) -> str:
    """Return the name, numbered where it is taken already, and take it."""
    free = next(n for n in (name if k == 1 else f"{name} ({k})" for k in count(1)) if n not in taken)
    taken.add(free)
    return free


def bound_cost(experiment: Experiment, cost: ChangedCost) -> Transfer | Cost:
    """Return what the links or steps of a profile cost."""
    network = experiment.network
    if cost.kind == "link profile" and cost.ref is not None:
        return network.transfers[cost.ref]
    nodes = network.topology.nodes
    return next(step for worker, step in network.steps.items() if nodes[worker].compute == cost.ref)


def rebound(experiment: Experiment, costs: Mapping[ChangedCost, Transfer | Cost]) -> Experiment:
    """Return the experiment on a network where profiles cost something else."""
    return replace(experiment, network=experiment.network.rebound({cost.ref: one for cost, one in costs.items()}))


def aggregation_costs(experiment: Experiment) -> list[ChangedCost]:
    """Return the classes of servers whose aggregations take time, in topology order."""
    nodes = [experiment.topology.nodes[server] for server in experiment.topology.servers]
    return [ChangedCost("aggregation", name) for name in dict.fromkeys(n.class_name for n in nodes if n.aggregation_s)]


def with_factor(experiment: Experiment, cost: ChangedCost, factor: float) -> Experiment:
    """Return the experiment in which every time of one cost is multiplied by `factor`, with the same draws."""
    if cost.is_profile:
        return rebound(experiment, {cost: bound_cost(experiment, cost).scaled(factor)})
    network = experiment.network
    topology = network.topology
    if cost.kind == "worker":
        worker = topology.index[cost.name]
        changed = replace(network, steps={**network.steps, worker: network.steps[worker].scaled(factor)})
    elif cost.kind == "aggregation":
        servers = set(topology.classes[cost.name])
        costs = {s: one.scaled(factor) if s in servers else one for s, one in network.aggregations.items()}
        changed = replace(network, aggregations=costs)
    else:
        ref = max((one for one in network.transfers if isinstance(one, int)), default=0) + 1
        links = tuple(replace(link, profile=ref) if link.name == cost.name else link for link in topology.links)
        transfer = next(network.transfers[link.profile] for link in topology.links if link.name == cost.name)
        transfers = {**network.transfers, ref: transfer.scaled(factor)}
        changed = replace(network, topology=replace(topology, links=links), transfers=transfers)
    return replace(experiment, network=changed)
