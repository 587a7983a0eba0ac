"""How fast the learning is: the conventional loop, the readable twin and the batched learner, side by side.

    python benchmarks/learning.py                                     # all workloads, about ten minutes
    python benchmarks/learning.py --workloads mlp cifar_cnn --workers 10 --seconds 5
    python benchmarks/learning.py --device cuda --workloads vgg11 --precision tf32
    python benchmarks/learning.py --profile cifar_cnn --workers 50    # where the batched learner's time goes
    python benchmarks/learning.py --check --workloads lenet28         # does every variant learn?

Batch 20, 10 local steps per round, one group of workers below the global server. A step is one worker on one batch;
drawing and augmenting the data, the update and the averaging are included. The variants take turns (A B C A B C ...)
in one process with the same number of threads; medians. A turn is one round, or as many as take 0.3 s. Synthetic data
of the right shape unless --real; the digits are the real ones.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from conventional import Conventional, Samples, samples_of
from rows import VARIANTS, Row, tables
from workloads import (
    LOCAL_PERIOD,
    SEED,
    WORKLOADS,
    Driver,
    Settings,
    Workload,
    engine_of,
    hardware,
    num_cores,
    slots_of,
)

from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.world import World, choose_device
from hsgd_emu.metrics import Metrics

MIN_TURNS, TURN_S = 3, 0.3
CHECK_ROUNDS = 6
Round = Callable[[bool], Metrics | None]


class Bench:
    """The variants of one workload and size, made ready to take turns."""

    def __init__(
        self, world: World, samples: tuple[Samples, Samples], variants: Sequence[str], num_workers: int, num_steps: int
    ) -> None:
        device, slots = world.device, slots_of(num_workers)
        self.engine, self.rounds = "", dict[str, Round]()
        if "conventional" in variants:
            loop = Conventional(world.build(SEED), samples, world.shards(SEED), num_steps, device)
            self.rounds["conventional"] = loop.round
        if "readable" in variants:
            twin = Driver(world.readable_learner(SEED, slots), num_workers, num_steps, device)
            self.rounds["readable"] = _without_gradients(twin)
        if "batched" in variants:
            learner = world.learner(SEED, slots)
            self.rounds["batched"] = Driver(learner, num_workers, num_steps, device).round
            self.rounds["batched"](False)  # the engine may be chosen at the first steps
            self.engine = engine_of(learner)

    def take_turns(self, evaluated: bool, seconds: float) -> dict[str, list[float]]:
        """Return seconds per round of each variant's turns; at least three turns, then until `seconds` are over."""
        num_rounds = {name: _num_rounds(round_, evaluated) for name, round_ in self.rounds.items()}
        turns: dict[str, list[float]] = {name: [] for name in self.rounds}
        spent = last = 0.0
        while len(turns[next(iter(turns))]) < MIN_TURNS or spent + last <= seconds:
            last = 0.0
            for name, round_ in self.rounds.items():
                turn_s = _timed(round_, evaluated, num_rounds[name])
                turns[name].append(turn_s / num_rounds[name])
                last += turn_s
            spent += last
        return turns


def _without_gradients(twin: Driver) -> Round:
    """Return the readable twin's round, after which the workers' gradients are freed: 5 GB with VGG-11."""

    def round_(evaluated: bool) -> Metrics | None:
        metrics = twin.round(evaluated)
        for model in getattr(twin.learner, "models", {}).values():
            model.zero_grad(set_to_none=True)
        return metrics

    return round_


def _num_rounds(round_: Round, evaluated: bool) -> int:
    """Warm up, and return how many rounds make a turn."""
    round_s = _timed(round_, evaluated, 1)
    if round_s < 10 * TURN_S:
        round_s = _timed(round_, evaluated, 1)  # the first one may have been slower than those to come
    return max(1, round(TURN_S / round_s))


def _timed(round_: Round, evaluated: bool, num_rounds: int) -> float:
    gc.collect()
    begun = time.perf_counter()
    for _ in range(num_rounds):
        round_(evaluated)
    return time.perf_counter() - begun


def num_steps_of(workload: Workload, args: argparse.Namespace) -> int:
    """Return the local steps per round: two for VGG-11 on a CPU, where one takes a third of a second."""
    if workload.name != "vgg11":
        return LOCAL_PERIOD
    return int(args.vgg_steps or (2 if args.device == "cpu" else LOCAL_PERIOD))


def benches(args: argparse.Namespace, settings: Settings) -> Iterator[tuple[Workload, int, Bench]]:
    """Yield (workload, number of workers, bench) of everything asked for, one at a time."""
    for name in args.workloads:
        workload, samples = WORKLOADS[name], None
        num_steps = num_steps_of(workload, args)
        data = workload.real if args.real else workload.data
        for num_workers in args.workers or workload.sizes:
            world = settings.world(workload.model, data, num_workers)
            samples = samples or samples_of(world.dataset, data.augment, args.digit_images)
            yield workload, num_workers, Bench(world, samples, args.variants, num_workers, num_steps)


def measure(args: argparse.Namespace, settings: Settings) -> Iterator[Row]:
    """Yield the rows of the table as they are measured, training alone first."""
    for workload, num_workers, bench in benches(args, settings):
        num_steps = num_steps_of(workload, args)
        for evaluated in args.evaluation:
            # 10,000 images through VGG-11 take the conventional loop a minute on a CPU, and there is no target.
            if evaluated and workload.name == "vgg11" and args.device == "cpu":
                continue
            turns = bench.take_turns(evaluated, args.seconds)
            yield Row(workload.name, num_workers, num_steps, evaluated, bench.engine, turns)


def check(args: argparse.Namespace, settings: Settings) -> None:
    """Assert that every variant learns: its test loss is lower after some more rounds than after the first."""
    for workload, num_workers, bench in benches(args, settings):
        for variant, round_ in bench.rounds.items():
            first = _test_loss(round_)
            for _ in range(CHECK_ROUNDS - 2):
                round_(False)
            last = _test_loss(round_)
            text = f"{workload.name}, {num_workers} workers, {variant}: test loss {first:.4f} -> {last:.4f}"
            print(text, flush=True)
            assert last < first, f"{variant} does not learn"


def _test_loss(round_: Round) -> float:
    metrics = round_(True)
    assert metrics is not None
    assert metrics.test_loss is not None
    return metrics.test_loss


def profiled(work: Callable[[], object], device: str) -> Any:
    """Return what torch.profiler found in some work, by the name of the operation or kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with profiler(activities=activities) as found:
        work()
    return found.key_averages()


def profile(args: argparse.Namespace, settings: Settings) -> None:
    """Print where one round of the batched learner spends its time, training alone."""
    args.workloads, args.variants = [args.profile], ["batched"]
    key = "self_device_time_total" if args.device == "cuda" else "self_cpu_time_total"
    workload, num_workers, bench = next(benches(args, settings))
    bench.rounds["batched"](False)
    found = profiled(lambda: bench.rounds["batched"](False), args.device)
    print(f"{workload.name}, {num_workers} workers, engine {bench.engine or 'unknown'}, one round")
    print(found.table(sort_by=key, row_limit=15))


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, those left out filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--workers", type=int, nargs="+", help="instead of each workload's own numbers of workers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--evaluation", choices=("both", "without", "with"), default="both")
    parser.add_argument("--seconds", type=float, default=20.0, help="timed work per row, three turns at least")
    parser.add_argument("--vgg-steps", type=int, help="local steps per round of vgg11 (2 on a CPU, else 10)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--precision", help="handed to the product: fp32, tf32 or bf16")
    text = "let the conventional loop see the digits as 8x8 images through PIL too, not as tensors"
    parser.add_argument("--digit-images", action="store_true", help=text)
    parser.add_argument("--real", action="store_true", help="images from $HSGD_EMU_DATA instead of synthetic ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every turn")
    parser.add_argument("--profile", choices=WORKLOADS, help="print torch.profiler's table instead")
    parser.add_argument("--check", action="store_true", help="assert that every variant learns instead")
    args = parser.parse_args(argv)
    args.evaluation = {"both": (False, True), "without": (False,), "with": (True,)}[args.evaluation]
    return args


def run(args: argparse.Namespace) -> None:
    """Do what the arguments ask for."""
    settings = Settings(choose_device(args.device), args.threads, args.precision)
    settings.apply()
    torch.manual_seed(SEED)  # of the conventional loop; the learners have streams of their own
    lines = hardware(settings, num_cores())
    if args.check or args.profile:
        (check if args.check else profile)(args, settings)
        print("\n".join(lines))
        return
    rows: list[Row] = []
    for row in measure(args, settings):
        rows.append(row)
        seconds = ", ".join(f"{name} {row.median_s(name):.3g} s" for name in row.round_wall_s)
        what = " with evaluation" if row.evaluated else ""
        print(f"{row.workload}, {row.num_workers} workers{what}: a round {seconds}", file=sys.stderr, flush=True)
    print(tables(rows, args.device))
    print("\n".join(lines))
    if args.json:
        figures: dict[str, Any] = {"hardware": lines, "device": args.device, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    try:
        run(parsed())
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
