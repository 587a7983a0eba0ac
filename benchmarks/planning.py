"""Planning beside exhaustive search: is the schedule as good, how much is learned, how long does it take?

    python benchmarks/planning.py                        # the demo on three networks, to 80%; some ten minutes
    python benchmarks/planning.py --target 0.85 --jobs 2

Exhaustive: every schedule that `hsgd-emu plan` chooses from is learned to its end with every seed, once for all
networks, and re-timed (a study). Planning starts with nothing learned, for each network anew.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from clock import hardware

from hsgd_emu.config.writer import to_yaml
from hsgd_emu.experiment import load_experiment, plain
from hsgd_emu.study.planning.candidates import with_candidates
from hsgd_emu.study.planning.plan import plan_schedule
from hsgd_emu.study.sweep.run_study import run_study
from hsgd_emu.study.sweep.store import read_study

RUN = Path("runs/demo.yaml")
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


def exhaustive(sets: list[str], folder: Path, target: float, jobs: int | None) -> dict[str, float]:
    """Return the median seconds to the target of every schedule on a network; what is learned is kept in `folder`."""
    experiment = with_candidates(load_experiment(RUN, sets))
    study = {
        "name": "exhaustive",
        "run": str(RUN.absolute()),
        "set": {"timeline": "none"},
        "axes": [{"name": "scale", "scale": "compute", "values": [1]}],
        "cases": [plain(case) for case in experiment.cases],
        "targets": {"test_accuracy": [target]},
    }
    file = folder / "study.yaml"
    file.write_text(to_yaml(study), encoding="utf-8")
    out = run_study(file, folder / "out", sets, force=True, jobs=jobs, library=folder / "trials")
    summary = read_study(out).summary
    return dict(zip(summary["case"], summary["median_s"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=float, default=0.8)
    parser.add_argument("--jobs", type=int)
    args = parser.parse_args()
    print(f"{hardware()}; {RUN} to {args.target:g} test accuracy\n")
    print("| network | schedules | best of all | planned | planned takes | learned | wall s, all | wall s, planned |")
    print("|:--|--:|:--|:--|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, sets in NETWORKS.items():
            begun = time.perf_counter()
            times_s = exhaustive(sets, folder, args.target, args.jobs)
            between = time.perf_counter()
            library = folder / f"planned-{len(list(folder.iterdir()))}"
            found = plan_schedule(RUN, ("test_accuracy", args.target), sets, jobs=args.jobs, library=library)
            ended = time.perf_counter()
            best = min(times_s, key=lambda case: times_s[case] if times_s[case] > 0 else float("inf"))
            planned = found.best.case.name if found.best is not None else "none"
            cells = [name, str(len(times_s)), f"{best} {times_s[best]:.2f} s", planned]
            cells += [f"{times_s.get(planned, float('nan')):.2f} s", f"{100 * found.training.used:.1f}%"]
            cells += [f"{between - begun:.0f}", f"{ended - between:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
