"""The fast clock beside the SimPy engine: scenario-rounds per second, in one process on one core.

    python benchmarks/fast_clock.py                      # 10 and 1,000 workers; 1, 1,000 and 10,000 scenarios; the demo
    python benchmarks/fast_clock.py --workers 10 --scenarios 1 1000

A scenario-round is one global aggregation of one scenario: two levels, G = 10 and I = 5, as in `clock.py`. Costs are

    constant  every scenario with its own far RTT; all rounds but the first are alike, and the fast clock uses that
    grid      random costs; far takes 10 values, near 10, a step the others, so scenarios share most streams
    distinct  random costs; every scenario has a far law, a near law and a step law of its own

Before anything is timed, the first and the last scenario are checked against the engine, nanosecond by nanosecond. The
last table is the demo, 2,000 iterations: its five cases, and three whose rounds are not alike, every scenario with its
own far and near RTT and step time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from clock import hardware, plan_of

from hsgd_emu.config.schema import CostValue, Gamma, LinkProfile, Lognormal
from hsgd_emu.engine.fast import fast_times
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.times import Times, simulated_times
from hsgd_emu.experiment import load_experiment
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Transfer, transfer_of

KINDS = ("constant", "grid", "distinct")
_BYTES = 1_000_000
_DEMO = ((0.05, 1.0), (0.005, 0.1), (0.001, 0.02))
"""Seconds from and to: far, near, a step."""
_UNLIKE = (
    "cases=[{name: grown, period: {first: 1, add: 2}}, {name: doubled, period: {first: 1, times: 2, most: 64}}, "
    "{name: phases, phases: [{iterations: 500, period: 1}, {periods: [20, 5]}]}]"
)
"""Cases whose rounds are not all alike."""
_MOST_DISTINCT = 100_000
"""Scenarios x workers: making more streams than these, three for each, takes minutes."""
_DRAWS = 4e8
"""Random costs of a row: beyond, the row gets fewer rounds (at least two)."""


@dataclass(frozen=True)
class Row:
    """Wall seconds of one size; an engine's scenario-round costs the same whatever their number."""

    num_workers: int
    kind: str
    num_scenarios: int
    num_rounds: int
    wall_s: float
    engine_rounds_per_s: float

    @property
    def rounds_per_s(self) -> float:
        return self.num_scenarios * self.num_rounds / self.wall_s


def scenarios(plan: Plan, kind: str, num: int) -> list[Plan]:
    """Return the plan on `num` networks."""
    factors = np.linspace(0.5, 2, num)
    if kind == "constant":
        return [_changed(plan, far=_rtt(float(0.3 * f))) for f in factors]
    few = np.linspace(0.5, 2, 10)
    size = 10 if kind == "grid" else num
    chosen = few if kind == "grid" else factors
    far = [_rtt(Lognormal(distribution="lognormal", median=0.3 * f, sigma=0.3)) for f in chosen]
    near = [_rtt(Lognormal(distribution="lognormal", median=0.05 * f, sigma=0.3)) for f in chosen]
    steps = [
        Cost(Gamma(distribution="gamma", shape=4, scale=0.001 * float(f))) for f in np.linspace(0.5, 2, -(-num // 100))
    ]
    if kind == "distinct":
        steps = [Cost(Gamma(distribution="gamma", shape=4, scale=0.001 * float(f))) for f in factors]
        return [_changed(plan, far=far[i], near=near[i], step_s=steps[i]) for i in range(num)]
    cells = [(i % size, i // size % size, i // size**2) for i in range(num)]
    return [_changed(plan, far=far[i], near=near[j], step_s=steps[k]) for i, j, k in cells]


def _rtt(value: CostValue) -> Transfer:
    return transfer_of(LinkProfile(rtt_s=value))


def _changed(plan: Plan, step_s: Cost | None = None, **links: Transfer) -> Plan:
    costs: dict[str | None, Transfer | Cost] = {**links, **({} if step_s is None else {None: step_s})}
    return replace(plan, network=plan.network.rebound(costs))


def check(plans: Sequence[Plan], times: Times) -> None:
    """Hold the first and the last scenario against the engine."""
    for place in (0, -1):
        engine = simulated_times([plans[place]])
        for name in ("time_ns_SR", "aggregated_ns_SR", "compute_ns_SR", "aggregation_ns_SR"):
            if not np.array_equal(getattr(times, name)[place], getattr(engine, name)[0]):
                raise SystemExit(f"{name} of scenario {place} is not the engine's")


def measure(num_workers: int, kind: str, num_scenarios: int, num_rounds: int, engine_rounds: int) -> Row:
    """Return both clocks' speed; the plans are made before."""
    random = kind != "constant"
    if random:
        draws = num_scenarios if kind == "distinct" else min(num_scenarios, 100)
        num_rounds = max(2, min(num_rounds, int(_DRAWS / (draws * num_workers * 12))))
    plans = scenarios(plan_of(num_workers, num_rounds, random), kind, num_scenarios)
    few = [replace(plan, iterations=plan.schedule.end_of(2)) for plan in (plans[0], plans[-1])]
    check(few, fast_times(few))
    begun = time.perf_counter()
    fast_times(plans)
    wall_s = time.perf_counter() - begun
    one = plan_of(num_workers, engine_rounds, random)
    begun = time.perf_counter()
    simulated_times([one])
    return Row(num_workers, kind, num_scenarios, num_rounds, wall_s, engine_rounds / (time.perf_counter() - begun))


def demo(cases: str, num_scenarios: int, *sets: str) -> str:
    """Return what the demo takes on many networks, and what one scenario takes in the engine."""
    experiment = load_experiment("runs/demo.yaml", sets)
    rng = np.random.default_rng(1)
    far, near, step_s = (rng.uniform(low, high, num_scenarios) for low, high in _DEMO)
    fast_s, engine_s = 0.0, 0.0
    for schedule in experiment.schedules:
        plan = experiment.plan(schedule, experiment.routes(schedule, _BYTES), _BYTES, 1)
        links = [(_rtt(float(f)), _rtt(float(n))) for f, n in zip(far, near, strict=True)]
        plans = [_changed(plan, Cost(s), far=f, near=n) for (f, n), s in zip(links, step_s.tolist(), strict=True)]
        begun = time.perf_counter()
        times = fast_times(plans)
        fast_s += time.perf_counter() - begun
        check(plans, times)
        begun = time.perf_counter()
        simulated_times(plans[:1])
        engine_s += time.perf_counter() - begun
    ratio = engine_s * num_scenarios / fast_s
    return f"| {cases} | {num_scenarios:,} | {fast_s:.2f} | {engine_s:.2f} | {ratio:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--scenarios", type=int, nargs="+", default=[1, 1000, 10_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--rounds", type=int, default=200, help="global aggregations of each scenario")
    args = parser.parse_args()
    print(f"{hardware()}; one run each\n")
    print("| workers | costs | scenarios | rounds | wall s | fast, scenario-rounds/s | engine, rounds/s | ratio |")
    print("|--:|:--|--:|--:|--:|--:|--:|--:|")
    for num_workers in args.workers:
        for kind in args.kinds:
            for num in args.scenarios:
                if kind == "distinct" and num * num_workers > _MOST_DISTINCT:
                    continue
                row = measure(num_workers, kind, num, args.rounds, max(10, 4000 // num_workers))
                cells = [f"{num_workers:,}", kind, f"{num:,}", f"{row.num_rounds:,}", f"{row.wall_s:.2f}"]
                cells += [f"{row.rounds_per_s:,.0f}", f"{row.engine_rounds_per_s:,.0f}"]
                print(f"| {' | '.join(cells)} | {row.rounds_per_s / row.engine_rounds_per_s:,.0f} |", flush=True)
    print(
        "\n| demo: cases | scenarios | fast, wall s | engine, wall s of one scenario | ratio |\n|:--|--:|--:|--:|--:|"
    )
    print(demo("its five", max(args.scenarios)))
    print(demo("growing rounds, phases", max(args.scenarios), _UNLIKE))


if __name__ == "__main__":
    main()
