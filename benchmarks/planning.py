"""Planning beside exhaustive search: the same winner, how much is learned, how long does it take?

    python benchmarks/planning.py                        # the demo on three networks, to 80%; some ten minutes
    python benchmarks/planning.py --target 0.85 --jobs 2
    python benchmarks/planning.py --random 30            # small tasks at random; also with --confidence 0.95

Exhaustive: every schedule that `hsgd-emu plan` chooses from is learned to its end with every seed and re-timed (a
study). On the demo, planning starts with nothing learned, for each network anew. On the random tasks one exhaustive
study serves both races: what it learned counts as if they learned it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from clock import hardware

from hsgd_emu.config.writer import to_yaml
from hsgd_emu.experiment import load_experiment, plain
from hsgd_emu.study.planning.candidates import with_candidates
from hsgd_emu.study.planning.plan import REPLICATIONS, plan_schedule
from hsgd_emu.study.planning.result import PlanResult
from hsgd_emu.study.sweep.run_study import run_study
from hsgd_emu.study.sweep.store import read_study

RUN = Path("runs/demo.yaml")
CONFIDENCE = 0.95
NETWORKS = {
    "the demo's own": [],
    "far 1 s, near 5 ms, steps 2 ms": [
        "profiles.far={rtt_s: 1}",
        "profiles.near={rtt_s: 0.005}",
        "compute.step_s=0.002",
    ],
    "far 50 ms, near 30 ms, steps 10 ms": [
        *("profiles.far={rtt_s: 0.05}", "profiles.near={rtt_s: 0.03}", "compute.step_s=0.01"),
    ],
}


def exhaustive(run: Path, sets: list[str], folder: Path, target: float, jobs: int | None) -> dict[str, float]:
    """Return the median seconds to the target of every schedule on a network; what is learned is kept in `folder`.

    NaN: not reached.
    """
    experiment = with_candidates(load_experiment(run, sets))
    study = {
        "name": "exhaustive",
        "run": str(run.absolute()),
        "set": {"timeline": "none"},
        "axes": [{"name": "scale", "scale": "compute", "values": [1]}],
        "cases": [plain(case) for case in experiment.cases],
        "targets": {"test_accuracy": [target]},
        "replications": 1 if experiment.network.is_constant else REPLICATIONS,
    }
    file = folder / "study.yaml"
    file.write_text(to_yaml(study), encoding="utf-8")
    out = run_study(file, folder / "out", sets, force=True, jobs=jobs, library=folder / "trials")
    summary = read_study(out).summary
    return dict(zip(summary["case"], summary["median_s"], strict=True))


def best_of(times_s: dict[str, float]) -> tuple[str, float]:
    """Return the fastest schedule and its time; none and infinite where none reached the target."""
    reached = {case: time_s for case, time_s in times_s.items() if math.isfinite(time_s)}
    case = min(reached, key=lambda one: reached[one]) if reached else "none"
    return case, reached.get(case, math.inf)


def winner(found: PlanResult) -> str:
    """Return the best schedule's name."""
    return found.best.case.name if found.best is not None else "none"


def on_the_demo(target: float, jobs: int | None) -> None:
    """Print a table of the demo on three networks."""
    print("| network | schedules | best of all | planned | planned takes | learned | wall s, all | wall s, planned |")
    print("|:--|--:|:--|:--|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, sets in NETWORKS.items():
            begun = time.perf_counter()
            times_s = exhaustive(RUN, sets, folder, target, jobs)
            between = time.perf_counter()
            library = folder / f"planned-{len(list(folder.iterdir()))}"
            found = plan_schedule(RUN, ("test_accuracy", target), sets, jobs=jobs, library=library)
            ended = time.perf_counter()
            best, best_s = best_of(times_s)
            cells = [name, str(len(times_s)), f"{best} {best_s:.2f} s", winner(found)]
            cells += [f"{times_s.get(winner(found), math.nan):.2f} s", f"{100 * found.training.used:.1f}%"]
            cells += [f"{between - begun:.0f}", f"{ended - between:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def random_task(number: int) -> tuple[dict[str, Any], float]:
    """Return a small run on the digits and a target, drawn at random but always alike."""
    rng = np.random.default_rng([14, number])
    far_s = float(10 ** rng.uniform(-1.5, 0))
    near_s, step_s = far_s * float(10 ** rng.uniform(-2, -0.3)), float(10 ** rng.uniform(-3, -1.7))

    def link(median_s: float) -> dict[str, Any]:
        return {"rtt_s": {"distribution": "lognormal", "median": median_s, "sigma": float(rng.uniform(0.1, 0.6))}}

    sizes = [int(rng.integers(2, 5)), int(rng.integers(2, 4))]
    partition = [{"partition": "by_label"}, {"partition": "dirichlet", "alpha": float(rng.uniform(0.1, 1))}]
    data = partition[int(rng.integers(2))] | {"grouping": str(rng.choice(["contiguous", "random"]))}
    run = {
        "name": f"task{number}",
        "topology": {
            "levels": [
                {"name": "site", "count": sizes[0], "uplink": "far"},
                {"name": "worker", "count": sizes[1], "uplink": "near"},
            ]
        },
        "profiles": {"far": link(far_s), "near": link(near_s)},
        "compute": {"step_s": step_s},
        "data": data,
        "model": str(rng.choice(["softmax_regression", "mlp"])),
        "train": {"batch_size": 20, "learning_rate": float(10 ** rng.uniform(-1.5, -0.5)), "iterations": 120},
        "cases": [{"name": "P=5", "period": 5}],
        "seeds": list(range(1, int(rng.integers(2, 5)) + 1)),
    }
    return run, round(float(rng.uniform(0.5, 0.9)), 2)


def random_rows(num: int, jobs: int | None) -> Iterator[tuple[float, float, float, float]]:
    """Print a row for each task; yield of both races how many times the best time they take, and the learned share."""
    print("| task | schedules | seeds | target | best of all | race | learned | --confidence 0.95 | learned |")
    print("|--:|--:|--:|--:|:--|:--|--:|:--|--:|")
    for number in range(num):
        run, level = random_task(number)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            file = folder / "run.yaml"
            file.write_text(to_yaml(run), encoding="utf-8")
            times_s = exhaustive(file, [], folder, level, jobs)
            shared = {"library": folder / "trials", "jobs": jobs}
            found = [
                plan_schedule(file, ("test_accuracy", level), confidence=confidence, **shared)
                for confidence in (None, CONFIDENCE)
            ]
        best, best_s = best_of(times_s)
        behind, cells = [], [str(number), str(len(times_s)), str(len(run["seeds"])), f"{100 * level:g}%"]
        cells.append(f"{best} {best_s:.2f} s" if best_s < math.inf else "none")
        for one in found:
            taken_s = times_s.get(winner(one), math.inf)
            behind.append(1.0 if taken_s == best_s else taken_s / best_s)
            cells += [f"{winner(one)} {taken_s:.2f} s" if taken_s < math.inf else "none"]
            cells += [f"{100 * one.training.used:.1f}%"]
        print(f"| {' | '.join(cells)} |", flush=True)
        yield behind[0], found[0].training.used, behind[1], found[1].training.used


def at_random(num: int, jobs: int | None) -> None:
    """Print the rows and what they come to."""
    rows = np.array(list(random_rows(num, jobs)))
    for name, behind, used in (("race", rows[:, 0], rows[:, 1]), (f"{CONFIDENCE:g}", rows[:, 2], rows[:, 3])):
        other = behind[behind > 1]
        worst = f", at worst {other.max():.2f} times as long" if other.size else ""
        print(f"\n{name}: another winner in {other.size} of {num}{worst}; learned {100 * used.mean():.1f}% in the mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--random", type=int, metavar="TASKS")
    parser.add_argument("--jobs", type=int)
    args = parser.parse_args()
    if args.random:
        print(f"{hardware()}; digits\n")
        at_random(args.random, args.jobs)
    else:
        print(f"{hardware()}; {RUN} to {args.target:g} test accuracy\n")
        on_the_demo(args.target, args.jobs)


if __name__ == "__main__":
    main()
