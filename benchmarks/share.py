"""The clock's share: where the host's seconds of a whole run go, case by case.

    python benchmarks/share.py                                        # the demo, one seed, 500 iterations
    python benchmarks/share.py runs/cifar10_small.yaml --set train.iterations=100 --set seeds=[1]

Runs the file as `hsgd-emu run` does, into a folder that is deleted afterwards, with timers around the learner's
methods and around what is stored. The engine is the rest of the emulation: the clock itself, and the event record.
Loading the data and making the learner happen before a trial's clock starts and are in no column.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from workloads import Settings, hardware

from hsgd_emu import trials as composition
from hsgd_emu.engine.emulate import emulate
from hsgd_emu.errors import HsgdError
from hsgd_emu.experiment import load_experiment
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.learning.world import World, choose_device
from hsgd_emu.results.store import RunStore
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.spawning import num_cores

DEMO = Path("runs/demo.yaml")
DEMO_SETS = ("train.iterations=500", "seeds=[1]")
LEARNER = ("steps", "combine", "evaluate", "state")
STORING = ("commit_round", "save")


@dataclass
class Trial:
    """One case and seed: host seconds of the emulation, and of each timed method in it."""

    case: str
    seed: int
    wall_s: float = 0.0
    inside_wall_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def sum_s(self, names: Sequence[str]) -> float:
        return sum(self.inside_wall_s[name] for name in names)


class Stopwatch:
    """Times calls by name, into the trial that runs; a timed call inside another one counts for the outer one."""

    def __init__(self) -> None:
        self.trials: list[Trial] = []
        self._is_running = False

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function with a timer around it."""

        def call(*args: Any, **named: Any) -> Any:
            if self._is_running or not self.trials:
                return function(*args, **named)
            self._is_running = True
            begun = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.trials[-1].inside_wall_s[name] += time.perf_counter() - begun
                self._is_running = False

        return call

    def emulation(self, emulate: Callable[..., str]) -> Callable[..., str]:
        """Return `emulate`, every call of which is a trial of its own."""

        def call(plan: Any, *args: Any, **named: Any) -> str:
            trial = Trial(plan.schedule.name, plan.seed)
            self.trials.append(trial)
            begun = time.perf_counter()
            try:
                return emulate(plan, *args, **named)
            finally:
                trial.wall_s = time.perf_counter() - begun

        return call

    def learner(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Return `World.learner`, with timers around the methods of what it returns."""

        def call(*args: Any, **named: Any) -> Any:
            learner = make(*args, **named)
            for name in LEARNER:
                setattr(learner, name, self.timed(getattr(learner, name), name))
            return learner

        return call


def measure(path: Path, sets: Sequence[str], options: Options) -> list[Trial]:
    """Return where the seconds of each trial of a run went.

    Raises:  ConfigError: bad input, as a run.
    """
    watch = Stopwatch()
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        for owner, name, instead in (
            (composition, "emulate", watch.emulation(emulate)),
            (World, "learner", watch.learner(World.learner)),
            (RunStore, "commit_round", watch.timed(RunStore.commit_round, "commit_round")),
            (Checkpoints, "save", watch.timed(Checkpoints.save, "save")),
        ):
            stack.enter_context(patch.object(owner, name, instead))
        run_experiment(load_experiment(path, sets), Path(folder) / "run", options)
    return watch.trials


def table(trials: Sequence[Trial]) -> str:
    """Return seconds and shares of each trial and of all together."""
    names = [f"{name} s" for name in (*LEARNER, *STORING)]
    head = ["case", "seed", "emulation s", "learner", "storing", "engine", "engine s", *names]
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    total = Trial("all", 0)
    for trial in trials:
        total.wall_s += trial.wall_s
        for name, inside_s in trial.inside_wall_s.items():
            total.inside_wall_s[name] += inside_s
        lines.append(_line(trial, str(trial.seed)))
    return "\n".join([*lines, _line(total, "")])


def _line(trial: Trial, seed: str) -> str:
    learner_s, storing_s = trial.sum_s(LEARNER), trial.sum_s(STORING)
    engine_s = trial.wall_s - learner_s - storing_s
    cells = [trial.case, seed, f"{trial.wall_s:.3f}"]
    cells += [f"{part_s / trial.wall_s:.1%}" for part_s in (learner_s, storing_s, engine_s)]
    cells += [f"{engine_s:.3f}", *(f"{trial.inside_wall_s[name]:.3f}" for name in (*LEARNER, *STORING))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", default=DEMO, help="the run file (default: the demo)")
    parser.add_argument("--set", dest="sets", action="append", metavar="KEY=VALUE", help="as of hsgd-emu run")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="default: as a run chooses")
    args = parser.parse_args()
    sets = args.sets if args.sets is not None else DEMO_SETS if args.run == DEMO else ()
    try:
        trials = measure(args.run, sets, Options(device=args.device, threads=args.threads))
    except HsgdError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    import torch

    print(f"{args.run} {' '.join(f'--set {one}' for one in sets)}\n\n{table(trials)}\n")
    print("\n".join(hardware(Settings(choose_device(args.device), torch.get_num_threads()), num_cores())))


if __name__ == "__main__":
    main()
