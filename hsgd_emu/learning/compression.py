"""What comes of a model that is compressed on its way: the real, lossy update.

A sender sends r + C(u), u = (its model - r) + e; r: the model that both ends know, e: what it did not send before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hsgd_emu.config.server_schema import CompressionSpec, Direction
from hsgd_emu.engine.compression import Sender, num_kept
from hsgd_emu.rng import stream

Tensors = dict[str, torch.Tensor]


class Compressor:
    """One sender's compression in one direction: what it has not sent yet, and how often it has sent."""

    def __init__(self, sender: Sender, direction: Direction, seed: int) -> None:
        self.spec = sender.spec
        self._seed = seed
        self._names = (sender.name,) if direction == "up" else (sender.name, "down")
        self.memory: Tensors = {}
        self.count = 0

    def send(self, model: Tensors, base: Tensors, num_fixed: int = 0) -> Tensors:
        """Return r + C(u) by name; model, base: all parameters that are trained, in the network's order.

        num_fixed: parameters that are not trained, which count in a fraction.
        """
        self.count += 1
        rng = stream(self._seed, "compression", *self._names, self.count)
        change = {name: tensor - base[name] for name, tensor in model.items()}
        for name, memory in self.memory.items():
            change[name] += memory
        sent = compressed(self.spec, change, rng, num_fixed)
        if self.spec.error_feedback:
            self.memory = {name: tensor - sent[name] for name, tensor in change.items()}
        return {name: base[name] + tensor for name, tensor in sent.items()}

    def state(self) -> dict[str, Any]:
        """Return what a trial needs to go on, on the CPU."""
        return {"count": self.count, "memory": {name: tensor.cpu().clone() for name, tensor in self.memory.items()}}

    def restore(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a stored state."""
        self.count = state["count"]
        self.memory = {name: tensor.to(device) for name, tensor in state["memory"].items()}


def compressed(spec: CompressionSpec, change: Tensors, rng: np.random.Generator, num_fixed: int = 0) -> Tensors:
    """Return C(u) of a change, by name."""
    if spec.method == "quantize":
        assert spec.bits is not None
        steps = 2 ** (spec.bits - 1) - 1
        return {name: _quantized(u, steps, rng if spec.rounding != "nearest" else None) for name, u in change.items()}
    assert spec.fraction is not None
    flat = torch.cat([u.reshape(-1) for u in change.values()])
    num = len(flat) + num_fixed
    kept = num_kept(spec.fraction, num)
    if spec.method == "top_k":
        flat = torch.where(_largest(flat.abs(), kept), flat, 0)
    else:
        drawn = rng.choice(num, kept, replace=False)
        places = torch.from_numpy(drawn[drawn < len(flat)]).to(flat.device)
        chosen = torch.zeros_like(flat)
        chosen[places] = flat[places] * (1.0 if spec.error_feedback else num / kept)
        flat = chosen
    parts = torch.split(flat, [u.numel() for u in change.values()])
    return {name: part.view(u.shape) for (name, u), part in zip(change.items(), parts, strict=True)}


def _largest(sizes: torch.Tensor, num: int) -> torch.Tensor:
    """Return where the `num` largest are, of equal ones those with the lower index."""
    if num >= len(sizes):
        return torch.ones_like(sizes, dtype=torch.bool)
    least = sizes.topk(num, sorted=False).values.min()
    larger, equal = ~(sizes <= least), sizes == least  # NaN is sent: that a model has diverged must show
    return larger | (equal & (equal.cumsum(0) <= num - larger.sum()))


def _quantized(u: torch.Tensor, steps: int, rng: np.random.Generator | None) -> torch.Tensor:
    """Return a tensor in `steps` equal steps on each side of 0; rng: rounds so that the mean is right, else nearest."""
    scale = u.abs().max() if u.numel() else u.new_zeros(())
    in_steps = u / torch.where(scale > 0, scale, 1) * steps
    if rng is None:
        rounded = in_steps.round()
    else:
        rounded = (in_steps.double() + torch.from_numpy(rng.random(tuple(u.shape))).to(u.device)).floor().to(u.dtype)
    return rounded * (scale / steps)
