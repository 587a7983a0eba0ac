"""Which senders compress what, and how many bytes a compressed model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hsgd_emu.config.server_schema import CompressionSpec, Direction
from hsgd_emu.topology.tree import Topology

_VALUE = _INDEX = _SCALE = 4  # bytes


class Sender(NamedTuple):
    """Who compresses, by its name, and how."""

    name: str
    spec: CompressionSpec


def senders(given: Mapping[str, CompressionSpec], topology: Topology) -> dict[tuple[int, Direction], Sender]:
    """Return by node and direction who compresses what it sends there."""
    return {
        (topology.index[name], direction): Sender(name, spec)
        for name, spec in given.items()
        for direction in spec.directions
    }


def num_kept(fraction: float, num_parameters: int) -> int:
    """Return how many parameters a fraction of them is: at least one, halves to the even number."""
    return max(1, round(fraction * num_parameters))


def compressed_bytes(spec: CompressionSpec, tensors: Sequence[int]) -> int:
    """Return the bytes of a compressed model without its buffers; tensors: the numbers in each parameter.

    top_k: value and index of each that is sent; random_k: the value, for the seed gives the index; quantize: `bits` of
    each, in whole bytes by tensor, and each tensor's scale.
    """
    if spec.method == "quantize":
        assert spec.bits is not None
        return sum(-(-num * spec.bits // 8) + _SCALE for num in tensors)
    assert spec.fraction is not None
    kept = num_kept(spec.fraction, sum(tensors))
    return kept * (_VALUE + _INDEX) if spec.method == "top_k" else kept * _VALUE
