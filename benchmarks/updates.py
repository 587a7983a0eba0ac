"""How fast workers step by each rule and loss, beside plain SGD.

    python benchmarks/updates.py                       # the MLP and the small CIFAR network, about two minutes
    python benchmarks/updates.py --workloads mlp --workers 50 --seconds 5

Batch 20, 10 local steps per round, one group of workers below the global server, as in learning.py. The rules take
turns (A B C A B C ...) in one process; medians. A step is one worker on one batch.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from workloads import LOCAL_PERIOD, SEED, WORKLOADS, Driver, Settings, Workload, hardware, num_cores, slots_of

from hsgd_emu.learning.world import choose_device

RULES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "momentum, averaged": {"momentum": 0.9, "state": "average"},
    "adam": {"optimizer": "adam", "learning_rate": 1e-3},
    "adam, averaged": {"optimizer": "adam", "learning_rate": 1e-3, "state": "average"},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.1},
    "sgd, proximal": {"proximal": 0.1},
    "sgd, clipped": {"clip_norm": 1.0},
    "sgd, squared loss": {"loss": "squared"},
}


def measure(workload: Workload, num_workers: int, settings: Settings, seconds: float) -> dict[str, float]:
    """Return worker steps per second by rule."""
    world = settings.world(workload.model, workload.data, num_workers)
    drivers, spans = {}, dict[str, list[float]]()
    for rule, keys in RULES.items():
        learner = world.learner(SEED, slots_of(num_workers), world.train.model_copy(update=keys))
        drivers[rule], spans[rule] = Driver(learner, num_workers, LOCAL_PERIOD, settings.device), []
        drivers[rule].round(False)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds * len(RULES):
        for rule, driver in drivers.items():
            spans[rule] += driver.rounds_wall_s(0, 1, 0.1)
    return {rule: num_workers * LOCAL_PERIOD / median(found) for rule, found in spans.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["mlp", "cifar_cnn"])
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="timed work per rule")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    settings = Settings(choose_device(args.device), args.threads)
    settings.apply()
    for name in args.workloads:
        found = measure(WORKLOADS[name], args.workers, settings, args.seconds)
        print(f"\n| {name}, {args.workers} workers | steps/s | of plain SGD's |\n|:--|--:|--:|")
        for rule, speed in found.items():
            print(f"| {rule} | {speed:,.0f} | {speed / found['sgd']:.2f} |")
    print("\n" + "\n".join(hardware(settings, num_cores())))


if __name__ == "__main__":
    main()
