"""The costs of a network that can be changed by themselves, and the experiment in which one of them is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hsgd_emu.config.schema import ComputeProfile, LinkProfile
from hsgd_emu.experiment import Experiment, compute_of
from hsgd_emu.study.changes import COMPUTE, scaled, scaled_cost


@dataclass(frozen=True)
class ProfileCost:
    """A profile, whose figures several links or workers share. ref: as the topology has it, None: the run file's
    own `compute`."""

    kind: Literal["link profile", "compute profile"]
    name: str
    ref: str | LinkProfile | ComputeProfile | None


def profile_costs(experiment: Experiment) -> list[ProfileCost]:
    """Return the profiles of links, then those of workers, in topology order; names are unique."""
    topology = experiment.topology
    nodes = topology.nodes
    found: dict[object, ProfileCost] = {}
    taken: set[str] = set()
    for link in topology.links:
        if link.profile not in found:
            where = f"{nodes[link.lower].class_name}--{nodes[link.upper].class_name}"
            name = _free(link.profile if isinstance(link.profile, str) else link.profile.name or where, taken)
            found[link.profile] = ProfileCost("link profile", name, link.profile)
    for worker in map(nodes.__getitem__, topology.workers):
        if ("worker", worker.compute) not in found:
            ref, where = worker.compute, f"compute of {worker.class_name}"
            name = _free(COMPUTE if ref is None else ref if isinstance(ref, str) else ref.name or where, taken)
            found["worker", ref] = ProfileCost("compute profile", name, ref)
    return list(found.values())


def _free(name: str, taken: set[str]) -> str:
    """Return the name, numbered where another profile has it already."""
    numbered = (name if number == 1 else f"{name} ({number})" for number in range(1, len(taken) + 2))
    free = next(one for one in numbered if one not in taken)
    taken.add(free)
    return free


def profile_of(experiment: Experiment, cost: ProfileCost) -> LinkProfile | ComputeProfile:
    """Return the profile that a cost stands for, as the experiment has it bound."""
    draft = experiment.topology_draft
    bound: dict[object, LinkProfile | ComputeProfile | None] = dict(draft.links.items())
    bound |= dict(draft.computes.items())
    profile = experiment.compute if cost.ref is None else bound[cost.ref]
    assert profile is not None
    return profile


def rebound(experiment: Experiment, profiles: Mapping[ProfileCost, LinkProfile | ComputeProfile]) -> Experiment:
    """Return the experiment with other profiles bound."""
    draft = experiment.topology_draft
    links, computes, compute = dict(draft.links), dict(draft.computes), experiment.compute
    for cost, profile in profiles.items():
        if isinstance(profile, LinkProfile):
            assert isinstance(cost.ref, str | LinkProfile)
            links[cost.ref] = profile
        elif cost.ref is None:
            compute = profile
        else:
            assert isinstance(cost.ref, str | ComputeProfile)
            computes[cost.ref] = profile
    return replace(experiment, topology_draft=replace(draft, links=links, computes=computes), compute=compute)


@dataclass(frozen=True)
class PlaceCost:
    """The cost of one place: a single link or worker, or a class of servers (its aggregations)."""

    kind: Literal["link", "worker", "aggregation"]
    name: str


Cost = ProfileCost | PlaceCost


def aggregation_costs(experiment: Experiment) -> list[PlaceCost]:
    """Return the classes of servers whose aggregations take time, in topology order."""
    nodes = [experiment.topology.nodes[server] for server in experiment.topology.servers]
    return [PlaceCost("aggregation", name) for name in dict.fromkeys(n.class_name for n in nodes if n.aggregation_s)]


def with_factor(experiment: Experiment, cost: Cost, factor: float) -> Experiment:
    """Return the experiment in which every time of one cost is multiplied by `factor`, with the same draws."""
    if isinstance(cost, ProfileCost):
        whole = profile_of(experiment, cost)
        if isinstance(whole, LinkProfile):
            return rebound(experiment, {cost: scaled(whole, factor)})
        return rebound(experiment, {cost: scaled(whole, factor)})
    topology, draft = experiment.topology, experiment.topology_draft
    nodes, links, bound, computes = list(topology.nodes), list(topology.links), dict(draft.links), dict(draft.computes)
    if cost.kind == "link":
        place = next(place for place, link in enumerate(links) if link.name == cost.name)
        old = bound[links[place].profile]
        assert old is not None
        profile = scaled(old, factor)
        links[place], bound[profile] = replace(links[place], profile=profile), profile
    elif cost.kind == "worker":
        worker = topology.index[cost.name]
        compute = compute_of(topology, draft, experiment.compute, worker)
        assert compute is not None
        slower = scaled(compute, factor)
        nodes[worker], computes[slower] = replace(nodes[worker], compute=slower), slower
    else:
        for server in topology.classes[cost.name]:
            value = nodes[server].aggregation_s
            if value is not None:
                nodes[server] = replace(nodes[server], aggregation_s=scaled_cost(value, factor))
    return replace(
        experiment,
        topology=replace(topology, nodes=tuple(nodes), links=tuple(links)),
        topology_draft=replace(draft, links=bound, computes=computes),
    )
