"""How long a round takes with each rule of the server and each compression, beside plain averaging.

    python benchmarks/servers.py                       # the MLP and the small CIFAR network, about two minutes
    python benchmarks/servers.py --workloads mlp --workers 50 --seconds 5

Batch 20, 10 local steps per round, one group of workers below the global server, as in learning.py. The rules take
turns (A B C A B C ...) in one process; medians of whole rounds, all workers compressing.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from workloads import LOCAL_PERIOD, ROOT, SEED, WORKLOADS, Driver, Settings, Workload, hardware, num_cores, slots_of

from hsgd_emu.config.server_schema import CompressionSpec, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.operations import Version
from hsgd_emu.learning.network import TrialSetup
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.world import choose_device

SERVERS = {
    "average": None,
    "momentum": ServerSpec(optimizer="momentum", momentum=0.9),
    "nesterov": ServerSpec(optimizer="nesterov", momentum=0.9),
    **{name: ServerSpec(optimizer=name, learning_rate=0.01) for name in ("adam", "yogi", "adagrad")},
}
COMPRESSION = {
    "top_k, 5%": CompressionSpec(method="top_k", fraction=0.05),
    "random_k, 5%": CompressionSpec(method="random_k", fraction=0.05),
    "quantize, 8 bits": CompressionSpec(method="quantize", bits=8),
    "quantize, nearest": CompressionSpec(method="quantize", bits=8, rounding="nearest"),
}


class Compressing(Driver):
    """A driver whose workers compress what they send."""

    def sent(self, worker: int, version: Version) -> Version:
        return self.operations.compress(worker, "up", version, self.model)


def measure(workload: Workload, num_workers: int, settings: Settings, seconds: float) -> dict[str, float]:
    """Return seconds per round by rule."""
    world, slots = settings.world(workload.model, workload.data, num_workers), slots_of(num_workers)
    drivers, spans = {}, dict[str, list[float]]()
    for rule in (*SERVERS, *COMPRESSION):
        spec, coded = SERVERS.get(rule), COMPRESSION.get(rule)
        senders = {(node, "up"): Sender(str(node), coded) for node in slots if node != ROOT and coded}
        servers = {ROOT: spec} if spec else {}
        setup = TrialSetup(SEED, world.worker_names, slots, world.train, servers=servers, senders=senders)
        learner = StackedLearner(world.build(SEED), world.resident(SEED), setup, world.choose(SEED, "usual"))
        driver = (Compressing if coded else Driver)(learner, num_workers, LOCAL_PERIOD, settings.device)
        driver.round(False)
        drivers[rule], spans[rule] = driver, []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds * len(drivers):
        for rule, driver in drivers.items():
            spans[rule] += driver.rounds_wall_s(0, 1, 0.1)
    return {rule: median(found) for rule, found in spans.items()}


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
        print(f"\n| {name}, {args.workers} workers | ms per round | of plain averaging's |\n|:--|--:|--:|")
        for rule, span in found.items():
            print(f"| {rule} | {1000 * span:,.1f} | {span / found['average']:.2f} |")
    print("\n" + "\n".join(hardware(settings, num_cores())))


if __name__ == "__main__":
    main()
