"""What is it worth to make one cost smaller? Exact re-timing with each cut alone, and whom aggregations waited for."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.engine.times import seconds
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment
from hsgd_emu.metrics import Target
from hsgd_emu.results.summary import median_reached
from hsgd_emu.results.tables import connect_to_read, select
from hsgd_emu.results.wording import TextTable, number, percent, share_cell, target_label
from hsgd_emu.study.costs import ChangedCost, aggregation_costs, profile_costs, with_factor
from hsgd_emu.study.finished import (
    FinishedRun,
    Reached,
    finished_run,
    global_times_ns,
    reached_target,
)
from hsgd_emu.units import plain_number

_MOST_BLAMED = 5

Barriers = Counter[tuple[str, str, str]]
"""How many aggregations waited: by server, the child it waited for, and that child's costliest link."""


def barriers_of(run: FinishedRun, case: str, reached: Reached) -> Barriers:
    """Return the waits of a case's seeds until each reached the target: as recorded, or timed again."""
    found: Barriers = Counter()
    experiment, nodes = run.experiment, run.experiment.topology.nodes
    schedule = next(one for one in experiment.schedules if one.name == case)
    routes = experiment.routes(schedule, run.message_bytes)

    def take(record: RoundRecord) -> None:
        for barrier in record.barriers:
            found[nodes[barrier.server].name, nodes[barrier.waited_for].name, barrier.link] += 1

    for seed, iteration in reached.items():
        if iteration is None:
            continue
        if experiment.timeline == "full":
            with contextlib.closing(connect_to_read(run.folder)) as connection:
                where = 't."case" = ? AND t.seed = ? AND t.iteration <= ?'
                for row in select(connection, "barriers", where, (case, seed, iteration)):
                    found[row.server, row.waited_for, row.link] += 1
        else:
            plan = experiment.plan(schedule, routes, run.message_bytes, seed)
            emulate(replace(plan, iterations=iteration), Operations(), take, keep="full")
    return found


def most_blamed(experiment: Experiment, barriers: Barriers) -> list[ChangedCost]:
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
        *(ChangedCost("link", name) for name, _ in links.most_common(_MOST_BLAMED)),
        *(ChangedCost("worker", name) for name, _ in workers.most_common(_MOST_BLAMED)),
    ]


def blame(experiment: Experiment, cost: ChangedCost, barriers: Barriers) -> float | None:
    if cost.kind == "aggregation":
        return None
    if cost.is_profile:
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


_NEAR = 0.01
"""The derivative is taken between a cost and one this much smaller: times are straight lines between kinks, and at a
kink (two places that are waited for alike) it is the side of the cuts that counts."""


@dataclass(frozen=True)
class Effect:
    """What cutting one cost does.

    Args:    time_s: by case, the time to the target with the cost cut.  saved_s: by case.  elasticity: by case,
             d ln time / d ln cost as things are, which is the share of the time that waits on this cost.
             blame: in the best case, the share of aggregations that waited for it, among those of servers that ever
             did; None for aggregations.  best: the best case then.  gain_s: how much sooner the best case of then is
             than the best case of now.
    None for a case that does not reach the target.
    """

    kind: str
    name: str
    time_s: dict[str, float | None]
    saved_s: dict[str, float | None]
    elasticity: dict[str, float | None]
    blame: float | None
    best: str
    gain_s: float


@dataclass(frozen=True)
class Sensitivity:
    """Times to a target now (medians over seeds, by case), and the effects of cuts by `improve`, largest gain first."""

    target: Target
    improve: float
    num_seeds: int
    time_s: dict[str, float | None]
    best: str
    effects: tuple[Effect, ...]

    def lines(self) -> list[str]:
        """Return what was found, in sentences; `table` has the figures."""
        now_s, cut = self.time_s[self.best] or 0.0, percent(self.improve)
        label = target_label(*self.target)
        seeds = "one seed" if self.num_seeds == 1 else f"median of {self.num_seeds} seeds"
        lines = [f"To {label}, {self.best} is the best case: {number(now_s)} s ({seeds})."]
        most = next((effect for effect in self.effects if effect.gain_s > 0), None)
        if most is None:
            return [*lines, f"No single cost, {cut} smaller, makes it sooner: others are waited for as long."]
        share = percent(round(most.gain_s / now_s, 4))
        lines.append(f"{cut} less of {_named(most)} saves most: {number(most.gain_s, 3)} s, {share} of that time.")
        changes = [effect for effect in self.effects if effect.best != self.best]
        for effect in changes:
            then_s = effect.time_s[effect.best] or 0.0
            lines.append(
                f"With {cut} less of {_named(effect)}, {effect.best} becomes the best case: {number(then_s)} s."
            )
        return lines if changes else [*lines, f"{self.best} stays the best case whichever of them is cut."]

    def table(self, details: bool = True) -> TextTable:
        """Return one row per cost; details: with what the other cases save."""
        others = [case for case, time_s in self.time_s.items() if case != self.best and time_s is not None and details]
        heads = [f"{percent(self.improve)} less of", "", f"{self.best} saves", "of its time", "d ln time / d ln cost"]
        rows = []
        for effect in self.effects:
            cells = [f"{number(effect.saved_s[self.best] or 0.0, 3)} s", self._share(effect, self.best)]
            cells += [_cell(effect.elasticity[self.best]), share_cell(effect.blame)]
            cells += [self._share(effect, case) for case in others]
            rows.append([effect.name, effect.kind, *cells])
        return TextTable([*heads, "waited for", *(f"{case} saves" for case in others)], rows, num_left=2)

    def _share(self, effect: Effect, case: str) -> str:
        saved_s, time_s = effect.saved_s[case], self.time_s[case]
        return f"{100 * saved_s / time_s:.2f}%" if saved_s is not None and time_s else "-"


def sensitivity(folder: Path | str, improve: float = 0.1, target: Target | None = None) -> Sensitivity:
    """Return by how much the time to a target shrinks when each cost of a finished run is cut by itself.

    Every time of the cost is cut by the share `improve`, draw by draw, and the run re-timed exactly as `retime` does:
    routes are found anew, what is learned stays. Costs: link profiles, compute profiles, aggregations by class of
    servers, and the single links and workers that the best case's aggregations waited for most often.

    Args:    target: default: the hardest of the run file that some case reached.
    Raises:  ConfigError: the run did not finish or learn, or no case reached the target.
    """
    if not 0 < improve < 1:
        raise ConfigError.of("--improve", "", f"found {improve:g}; expected a share between 0 and 1, such as 10%")
    run = finished_run(folder)
    target = reached_target(run, target)
    reached = {case.name: run.reached(case.name, target) for case in run.experiment.cases}
    now = {case: values[0] for case, values in times_to_target_s(run, [run.experiment], reached).items()}
    best = _best(now)
    barriers = barriers_of(run, best, reached[best])
    profiles, aggregations = profile_costs(run.experiment), aggregation_costs(run.experiment)
    costs = [*profiles, *aggregations, *most_blamed(run.experiment, barriers)]
    factors = (1 - improve, 1 - _NEAR)
    cut = times_to_target_s(run, [with_factor(run.experiment, c, f) for c in costs for f in factors], reached)
    effects = []
    for place, cost in enumerate(costs):
        then = {case: times_s[2 * place : 2 * place + 2] for case, times_s in cut.items()}
        effects.append(_effect(cost, now, then, blame(run.experiment, cost, barriers)))
    effects.sort(key=lambda effect: -effect.gain_s)
    return Sensitivity(target, improve, len(run.experiment.seeds), now, best, tuple(effects))


def times_to_target_s(
    run: FinishedRun, experiments: Sequence[Experiment], reached: Mapping[str, Reached]
) -> dict[str, list[float | None]]:
    """Return by case the median time at which the seeds reached the target, one per experiment; None: never."""
    found: dict[str, list[float | None]] = {}
    for schedule in run.experiment.schedules:
        at = reached[schedule.name]
        seeds = [seed for seed, iteration in at.items() if iteration is not None]
        never = [None] * (len(at) - len(seeds))
        if 2 * len(seeds) < len(at):
            found[schedule.name] = [None] * len(experiments)
            continue
        columns = [schedule.num_rounds(at[seed] or 0) - 1 for seed in seeds]
        last = schedule.end_of(max(columns) + 1)
        time_ns = global_times_ns(run, experiments, schedule, seeds, last)[:, range(len(seeds)), columns]
        found[schedule.name] = [median_reached([*row, *never]) for row in seconds(time_ns).tolist()]
    return found


def _best(time_s: Mapping[str, float | None]) -> str:
    """Return the case of least time, the first of several."""
    return min(time_s, key=lambda case: math.inf if time_s[case] is None else time_s[case] or 0.0)


def _effect(
    cost: ChangedCost, now: Mapping[str, float | None], cut: Mapping[str, list[float | None]], waited: float | None
) -> Effect:
    """Return the effect of a cost from the times with it cut by what was asked for, and by `_NEAR`."""
    then = {case: values[0] for case, values in cut.items()}
    best, saved = _best(then), {case: _difference(now[case], then[case]) for case in now}
    elasticity = {case: _elasticity(values[1], now[case]) for case, values in cut.items()}
    gain_s = _difference(now[_best(now)], then[best]) or 0.0
    return Effect(cost.kind, cost.name, then, saved, elasticity, waited, best, gain_s)


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _elasticity(below_s: float | None, now_s: float | None) -> float | None:
    return (now_s - below_s) / (_NEAR * now_s) if below_s is not None and now_s else None


# --- words -------------------------------------------------------------------------------------------


def share_of(text: str, option: str) -> float:
    """Return the share that `10%` or `0.1`, given to an option, names.

    Raises:  ConfigError: it is not between 0 and 1.
    """
    bare = text.strip().removesuffix("%")
    share = plain_number(bare) / (100 if bare != text.strip() else 1)
    if not 0 < share < 1:
        raise ConfigError.of(f"{option} {text}", "", f"found '{text}'; expected a share such as 10% or 0.1")
    return share


def _named(effect: Effect) -> str:
    return f"{effect.name} ({effect.kind})" if effect.kind != "aggregation" else f"the aggregations of {effect.name}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
