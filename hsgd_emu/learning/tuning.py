"""Which way and how many workers at a time: the usual choice by rule, a better one by a short trial."""

from __future__ import annotations

from dataclasses import dataclass

from hsgd_emu.learning.engines import Way
from hsgd_emu.learning.network import Network

_CHUNK_BYTES = 2**28
_LARGE_BYTES = 16 * 2**20
"""On a CPU, larger models than this learn one worker after the other: batching them loses (docs/performance.md)."""


@dataclass(frozen=True)
class Choice:
    """A way to take steps, and the most workers in one batch."""

    way: Way
    chunk: int


def usual_choice(network: Network, num_workers: int) -> Choice:
    """Return what usually is fastest, from the network and the device alone."""
    way = network.ways()[0]
    num_bytes = network.num_bytes(way)
    on_cpu = network.device.type == "cpu"
    if way == "one_by_one" or (on_cpu and num_bytes > _LARGE_BYTES):
        return Choice("layered" if way == "layered" else "one_by_one", 1)
    fitting = max(1, min(num_workers, _CHUNK_BYTES // max(1, num_bytes)))
    if not on_cpu or not network.has_convolutions:
        return Choice(way, fitting)
    return Choice(way, min(fitting, 5 if way == "layered" else 20))
