"""How long a round takes with each rule of the server and each compression, beside plain averaging.

    python benchmarks/servers.py                       # the MLP and the small CIFAR network, about two minutes
    python benchmarks/servers.py --workloads mlp --workers 50 --seconds 5

Batch 20, 10 local steps per round, one group of workers below the global server, as in learning.py. The rules take
turns (A B C A B C ...) in one process; medians of whole rounds, all workers compressing.
"""

from __future__ import annotations

from workloads import LOCAL_PERIOD, ROOT, SEED, Driver, Settings, Workload, compared, medians_in_turns, slots_of

from hsgd_emu.config.server_schema import CompressionSpec, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.operations import Version
from hsgd_emu.learning.network import TrialSetup
from hsgd_emu.learning.stacked import StackedLearner

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


def print_table(workload: Workload, num_workers: int, settings: Settings, seconds: float) -> None:
    """Print milliseconds per round by rule."""
    world, slots = settings.world(workload.model, workload.data, num_workers), slots_of(num_workers)
    drivers = {}
    for rule in (*SERVERS, *COMPRESSION):
        spec, coded = SERVERS.get(rule), COMPRESSION.get(rule)
        senders = {(node, "up"): Sender(str(node), coded) for node in slots if node != ROOT and coded}
        servers = {ROOT: spec} if spec else {}
        setup = TrialSetup(SEED, world.worker_names, slots, world.train, servers=servers, senders=senders)
        learner = StackedLearner(world.build(SEED), world.resident(SEED), setup, world.choose(SEED, "usual"))
        drivers[rule] = (Compressing if coded else Driver)(learner, num_workers, LOCAL_PERIOD, settings.device)
    spans = medians_in_turns(drivers, seconds)
    print(f"\n| {workload.name}, {num_workers} workers | ms per round | of plain averaging's |\n|:--|--:|--:|")
    for rule, span in spans.items():
        print(f"| {rule} | {1000 * span:,.1f} | {span / spans['average']:.2f} |")


if __name__ == "__main__":
    compared(__doc__, print_table)
