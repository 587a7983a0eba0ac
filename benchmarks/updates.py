"""How fast workers step by each rule and loss, beside plain SGD.

    python benchmarks/updates.py                       # the MLP and the small CIFAR network, about two minutes
    python benchmarks/updates.py --workloads mlp --workers 50 --seconds 5

Batch 20, 10 local steps per round, one group of workers below the global server, as in learning.py. The rules take
turns (A B C A B C ...) in one process; medians. A step is one worker on one batch.
"""

from __future__ import annotations

from typing import Any

from workloads import LOCAL_PERIOD, SEED, Driver, Settings, Workload, compared, medians_in_turns, slots_of

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


def print_table(workload: Workload, num_workers: int, settings: Settings, seconds: float) -> None:
    """Print worker steps per second by rule."""
    world, drivers = settings.world(workload.model, workload.data, num_workers), {}
    for rule, keys in RULES.items():
        learner = world.learner(SEED, slots_of(num_workers), world.train.model_copy(update=keys))
        drivers[rule] = Driver(learner, num_workers, LOCAL_PERIOD, settings.device)
    spans = medians_in_turns(drivers, seconds)
    print(f"\n| {workload.name}, {num_workers} workers | steps/s | of plain SGD's |\n|:--|--:|--:|")
    for rule, span in spans.items():
        print(f"| {rule} | {num_workers * LOCAL_PERIOD / span:,.0f} | {spans['sgd'] / span:.2f} |")


if __name__ == "__main__":
    compared(__doc__, print_table)
