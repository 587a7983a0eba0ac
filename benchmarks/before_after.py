"""Whether a change of the code cost speed or memory: two source trees take turns at the same works, on one machine.

    python benchmarks/before_after.py main .                               # a git revision against a folder
    python benchmarks/before_after.py main . --works "clock 10" demo --pairs 9

Each turn is a process of its own: before, after, after, before, and so on. Measured is CPU time, which other programs
lengthen less than the wall's: of the trial alone (clock, demo, cifar10_small) or of a round (learner), without loading
and setting up, as the tree's own benchmarks and runs time it. Speed is before / after: of the medians, and of the
fastest turns, which tell more on a busy machine. Memory is the peak of the whole process, the median.

Works: the clock without learning (each about 300,000 events; the tree's benchmarks/clock.py), the demo and the small
CIFAR-10 run (where HSGD_EMU_DATA has the images), the batched learner alone (the tree's benchmarks/memory.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from same_bits import LEARN, PARTS, copy_tree

_DRIVER = """
import os, runpy, sys, time
time.perf_counter = time.process_time
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.abspath("benchmarks"))
run = runpy.run_path if sys.argv[0].endswith(".py") else runpy.run_module
run(sys.argv[0], run_name="__main__")
"""
"""Runs a tree's own program, which times itself with `perf_counter`: here that counts CPU time."""

_MIB = 2**20
_RUN = f"hsgd_emu.cli run runs/{{}} --set seeds=[1] {LEARN} --force --out out"
WORKS = {
    "clock 10": "benchmarks/clock.py --one --workers 10 --rounds 5000",
    "clock 1,000": "benchmarks/clock.py --one --workers 1000 --rounds 50",
    "clock 10,000": "benchmarks/clock.py --one --workers 10000 --rounds 5",
    "clock 1,000 random": "benchmarks/clock.py --one --workers 1000 --rounds 50 --random",
    "demo": _RUN.format("demo.yaml --set train.iterations=500"),
    "cifar10_small": _RUN.format("cifar10_small.yaml --set train.iterations=50"),
    "learner mlp 1,000": "benchmarks/memory.py --one --models mlp --workers 1000 --threads 1",
    "learner cifar_cnn 10": "benchmarks/memory.py --one --models cifar_cnn --workers 10 --threads 1",
}


@dataclass(frozen=True)
class Turn:
    """What one turn took: CPU time of what is measured, wall time and peak memory of the whole process."""

    cpu_s: float
    wall_s: float
    peak_bytes: int


def turn(tree: Path, work: str) -> Turn:
    """Return what a work took in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as printed:
        begun = time.perf_counter()
        command = [sys.executable, "-c", _DRIVER, *WORKS[work].split()]
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=printed)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode, wall_s = os.waitstatus_to_exitcode(status), time.perf_counter() - begun
        if process.returncode:
            raise SystemExit(f"{work}: exit status {process.returncode} in {tree}")
        printed.seek(0)
        cpu_s = timed_s(printed.read().splitlines(), tree / "out" / "run.sqlite")
    # Linux counts KiB, macOS bytes.
    return Turn(cpu_s, wall_s, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def timed_s(printed: Sequence[str], database: Path) -> float:
    """Return the seconds that a program has measured: a benchmark's one figure, or the sum of a run's trials."""
    if printed[-1].startswith("{"):
        figures = json.loads(printed[-1])
        return float(figures["round_wall_s"] if "round_wall_s" in figures else figures["wall_s"])
    with closing(sqlite3.connect(database)) as connection:
        return float(connection.execute("SELECT sum(wall_s) FROM trials").fetchone()[0])


def line(work: str, before: Sequence[Turn], after: Sequence[Turn]) -> str:
    """Return a row of the table."""
    cells = [work]
    for name, digits, unit in (("cpu_s", 3, 1), ("wall_s", 1, 1), ("peak_bytes", 0, _MIB)):
        sides = [[getattr(one, name) / unit for one in side] for side in (before, after)]
        middle = [median(side) for side in sides]
        cells += [f"{value:,.{digits}f}" for value in middle]
        if name == "cpu_s":
            cells += [f"{middle[0] / middle[1]:.3f}", f"{min(sides[0]) / min(sides[1]):.3f}"]
        if name == "peak_bytes":
            cells.append(f"{middle[1] / middle[0]:.3f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a folder or a git revision")
    parser.add_argument("after", help="another")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each tree")
    args = parser.parse_args()
    head = ["work", "CPU s before", "after", "speed", "of the fastest", "wall s before", "after", "peak MiB before"]
    print(f"| {' | '.join([*head, 'after', 'memory'])} |\n|---|{'--:|' * (len(head) + 1)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        trees = [Path(scratch) / name for name in ("before", "after_")]
        for tree, source in zip(trees, (args.before, args.after), strict=True):
            copy_tree(source, tree, [*PARTS, "benchmarks"])
        for work in args.works:
            turns: dict[Path, list[Turn]] = {tree: [] for tree in trees}
            for pair in range(args.pairs):
                for tree in trees if pair % 2 == 0 else reversed(trees):
                    turns[tree].append(turn(tree, work))
            print(line(work, *turns.values()), flush=True)


if __name__ == "__main__":
    main()
