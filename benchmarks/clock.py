"""How fast the clock is: events and rounds per second, memory, and how cost grows with workers and rounds.

    python benchmarks/clock.py                                # 10, 1,000 and 10,000 workers x 1,000 rounds
    python benchmarks/clock.py --workers 10 1000 --rounds 1000
    python benchmarks/clock.py --workers 10000 --rounds 100 --profile

Two levels, one site per hundred workers (at least two), G = 10 and I = 5; constant costs unless --random. No model is
trained (the silent learner), no timeline is kept, but every event is hashed. An event is one delay on the clock: a
step sequence, an upload, a download or an aggregation. Each size runs in a process of its own, so that its peak
memory is its own.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import pstats
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import read_text
from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.experiment import build_experiment
from hsgd_emu.spawning import num_cores

GLOBAL_PERIOD, LOCAL_PERIOD = 10, 5
_CONSTANT = {"step": "0.004", "near": "0.05", "far": "0.3"}
_RANDOM = {
    "step": "{distribution: gamma, shape: 4, scale: 0.001}",
    "near": "{distribution: lognormal, median: 0.05, sigma: 0.3}",
    "far": "{distribution: lognormal, median: 0.3, sigma: 0.3}",
}
_MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """One size: emulated workers and rounds, and what they cost on the host."""

    num_workers: int
    num_rounds: int
    num_events: int
    setup_wall_s: float
    wall_s: float
    peak_bytes: int


def plan_of(num_workers: int, num_rounds: int, random: bool) -> Plan:
    """Return a two-level trial of at least this many workers."""
    num_sites = max(2, num_workers // 100)
    cost = _RANDOM if random else _CONSTANT
    text = f"""
name: clock
topology:
  levels:
    - {{name: site, count: {num_sites}, uplink: far}}
    - {{name: worker, count: {-(-num_workers // num_sites)}, uplink: near}}
profiles: {{near: {{rtt_s: {cost["near"]}}}, far: {{rtt_s: {cost["far"]}}}}}
compute: {{step_s: {cost["step"]}}}
model: softmax_regression
train: {{iterations: {GLOBAL_PERIOD * num_rounds}}}
cases: [{{name: clock, periods: [{GLOBAL_PERIOD}, {LOCAL_PERIOD}]}}]
"""
    experiment = build_experiment(draft_run(read_text(text, "clock.yaml", Path())))
    schedule = experiment.schedules[0]
    return experiment.plan(schedule, experiment.routes(schedule, 1_000_000), 1_000_000, seed=1)


def measure(num_workers: int, num_rounds: int, random: bool, profile: bool) -> Measured:
    """Return what one trial costs in this process."""
    begun = time.perf_counter()
    plan = plan_of(num_workers, num_rounds, random)
    ready = time.perf_counter()
    times_ns: list[int] = []

    def count(record: RoundRecord) -> None:
        times_ns.append(record.time_ns)

    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    emulate(plan, Operations(), count)
    if profile:
        profiler.disable()
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    wall_s = time.perf_counter() - ready
    assert len(times_ns) == num_rounds
    return Measured(len(plan.workers), num_rounds, num_events(plan), ready - begun, wall_s, _peak_bytes())


def num_events(plan: Plan) -> int:
    """Return the delays of a trial: three per worker and phase, two per local server and round."""
    (stage,) = plan.schedule.stages
    phases = sum(
        len([c for c in below if c not in stage.children]) * stage.num_phases(server, plan.iterations)
        for server, below in stage.children.items()
    )
    return 3 * phases + 2 * (len(stage.children) - 1) * plan.num_rounds


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def measure_apart(num_workers: int, num_rounds: int, random: bool, profile: bool) -> Measured:
    """Return the same, measured in a process of its own."""
    flags = [*(["--random"] if random else []), *(["--profile"] if profile else [])]
    size = ["--workers", str(num_workers), "--rounds", str(num_rounds)]
    command = [sys.executable, __file__, "--one", *size, *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: list[Measured]) -> str:
    """Return the measurements as a table, with what each event cost against the first row's."""
    lines = [
        "| workers | rounds | events | wall s | events/s | rounds/s | us/event | x first | set-up s | peak MiB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    first = rows[0].wall_s / rows[0].num_events
    for r in rows:
        each = r.wall_s / r.num_events
        cells = [f"{r.num_workers:,}", f"{r.num_rounds:,}", f"{r.num_events:,}", f"{r.wall_s:.2f}"]
        cells += [f"{1 / each:,.0f}", f"{r.num_rounds / r.wall_s:,.1f}", f"{each * 1e6:.2f}", f"{each / first:.2f}"]
        cells += [f"{r.setup_wall_s:.2f}", f"{r.peak_bytes / _MIB:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def hardware() -> str:
    """Return the processor, the cores this process may use, and the versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    parts = [names[0] if names else platform.processor(), f"{num_cores()} cores (one used)", platform.system()]
    parts += [f"Python {platform.python_version()}"]
    return ", ".join([*parts, *(f"{name} {version(name)}" for name in ("simpy", "numpy", "networkx"))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--rounds", type=int, default=1000, help="global aggregations of each trial")
    parser.add_argument("--random", action="store_true", help="lognormal links and gamma steps instead of constants")
    parser.add_argument("--profile", action="store_true", help="print where the time goes (slower)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(asdict(measure(args.workers[0], args.rounds, args.random, args.profile))))
        return
    rows = []
    for num_workers in args.workers:
        rows.append(measure_apart(num_workers, args.rounds, args.random, args.profile))
        print(f"{num_workers:,} workers: {rows[-1].wall_s:.1f} s", flush=True)
    print(f"\n{hardware()}; {'random' if args.random else 'constant'} costs, one run each\n")
    print(table(rows))


if __name__ == "__main__":
    main()
