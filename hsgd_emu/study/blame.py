"""Whom the aggregations of a finished run waited for."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import replace

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.tables import connect_to_read, select
from hsgd_emu.study.costs import AnyCost, PlaceCost, ProfileCost
from hsgd_emu.study.finished import FinishedRun, Reached

_MOST_BLAMED = 5

Barriers = Counter[tuple[str, str, str]]
"""How many aggregations waited: by server, the child it waited for, and that child's costliest link."""


def barriers_of(run: FinishedRun, case: str, reached: Reached) -> Barriers:
    """Return the waits of a case's seeds until each reached the target: as recorded, or timed again."""
    found: Barriers = Counter()
    for seed, iteration in reached.items():
        if iteration is None:
            continue
        if run.experiment.timeline == "full":
            with contextlib.closing(connect_to_read(run.folder)) as connection:
                where = 't."case" = ? AND t.seed = ? AND t.iteration <= ?'
                for row in select(connection, "barriers", where, (case, seed, iteration)):
                    found[row.server, row.waited_for, row.link] += 1
        else:
            _emulate_barriers(run, TrialKey(case, seed), iteration, found)
    return found


def _emulate_barriers(run: FinishedRun, key: TrialKey, iterations: int, found: Barriers) -> None:
    experiment, nodes = run.experiment, run.experiment.topology.nodes
    schedule = next(one for one in experiment.schedules if one.name == key.case)
    routes = experiment.routes(schedule, run.message_bytes)
    plan = experiment.plan(schedule, routes, run.message_bytes, key.seed)

    def take(record: RoundRecord) -> None:
        for barrier in record.barriers:
            found[nodes[barrier.server].name, nodes[barrier.waited_for].name, barrier.link] += 1

    emulate(replace(plan, iterations=iterations), Operations(), take, keep="full")


def most_blamed(experiment: Experiment, barriers: Barriers) -> list[PlaceCost]:
    """Return the single links and workers that were waited for most; not those that are alone in their profile."""
    topology = experiment.topology
    of_links = Counter(link.profile for link in topology.links)
    of_workers = Counter(topology.nodes[worker].compute for worker in topology.workers)
    links: Counter[str] = Counter()
    workers: Counter[str] = Counter()
    shared = {link.name for link in topology.links if of_links[link.profile] > 1}
    for (_, child, link), num in barriers.items():
        node = topology.nodes[topology.index[child]]
        if link in shared:
            links[link] += num
        if node.is_worker and of_workers[node.compute] > 1:
            workers[child] += num
    return [
        *(PlaceCost("link", name) for name, _ in links.most_common(_MOST_BLAMED)),
        *(PlaceCost("worker", name) for name, _ in workers.most_common(_MOST_BLAMED)),
    ]


def blame(experiment: Experiment, cost: AnyCost, barriers: Barriers) -> float | None:
    if cost.kind == "aggregation":
        return None
    if isinstance(cost, ProfileCost):
        topology = experiment.topology
        names = {link.name for link in topology.links if cost.kind == "link profile" and link.profile == cost.ref}
        if cost.kind == "compute profile":
            nodes = map(topology.nodes.__getitem__, topology.workers)
            names = {node.name for node in nodes if node.compute == cost.ref}
    else:
        names = {cost.name}
    field = 2 if cost.kind in ("link profile", "link") else 1
    blamed = {key: num for key, num in barriers.items() if key[field] in names}
    servers = {key[0] for key in blamed}
    total = sum(num for key, num in barriers.items() if key[0] in servers)
    return sum(blamed.values()) / total if total else 0.0
