"""Dropout whose masks are a function of (seed, worker, iteration), however workers are batched together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from hsgd_emu.learning.examine import copied, is_plain
from hsgd_emu.learning.iterations import Iterations, each
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.rng import seed_of

_LAST_SEED = 2**63 - 1


class MaskedDropout(nn.Module):
    """Multiplies by a mask that is given from outside (a buffer, so that it can be batched over workers)."""

    mask: torch.Tensor

    def __init__(self, p: float, feature_dims: int) -> None:
        """feature_dims: how many trailing dimensions share one draw (0; 1, 2, 3 for Dropout1d, 2d, 3d)."""
        super().__init__()
        self.p, self.feature_dims = p, feature_dims
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask if self.training else x


_KINDS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


def with_masked_dropout(model: nn.Module, sample: torch.Tensor) -> list[str]:
    """Replace every dropout layer in place and return the names of those with p > 0, in the module's order.

    sample: a batch (B, ...) to run a few times. If some layer is not used exactly once in a forward pass, or does not
    follow train() and eval(), one mask per layer would be wrong: then nothing is replaced (and the learner seeds the
    global generators per worker and step instead). The network's mode afterwards is training.
    """
    layers: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) in _KINDS:
            layers.setdefault(module, []).append(name)
    if not layers or not _follow(model, layers) or not _are_used_once(model, layers, sample):
        return []
    instead = {layer: _instead(layer) for layer in layers}
    _replace(model, layers, instead)
    masked = [layer for layer in instead.values() if isinstance(layer, MaskedDropout)]
    if _follow(model, masked) and all(len(shapes) == 1 for shapes in _inputs(model, masked, sample)):
        return [names[0] for layer, names in layers.items() if _probability(layer)]
    # The network does not reach its layers by their names.
    _replace(model, layers, {layer: layer for layer in layers})
    return []


def _instead(layer: nn.Module) -> nn.Module:
    p = _probability(layer)
    return MaskedDropout(p, _KINDS[type(layer)]) if p else nn.Identity()


def _replace(
    model: nn.Module, layers: Mapping[nn.Module, Sequence[str]], instead: Mapping[nn.Module, nn.Module]
) -> None:
    for layer, names in layers.items():
        for name in names:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, instead[layer])


def _follow(model: nn.Module, layers: Iterable[nn.Module]) -> bool:
    """Return whether train() and eval() reach the layers; the mode afterwards is training."""
    layers = list(layers)
    model.eval()
    evaluate = not any(layer.training for layer in layers)
    model.train()
    return evaluate and all(layer.training for layer in layers)


def _are_used_once(model: nn.Module, layers: Mapping[nn.Module, Sequence[str]], sample: torch.Tensor) -> bool:
    """Return whether each layer is used exactly once in a forward pass, in evaluation and in training."""
    in_evaluation = _inputs(model, list(layers), sample)
    if any(len(shapes) != 1 for shapes in in_evaluation):
        return False
    if is_plain(model):
        return True
    trial = copied(model)
    same = [trial.get_submodule(names[0]) for names in layers.values()]
    with seeded_generators(0):
        return _inputs(trial, same, sample, training=True) == in_evaluation


def _probability(layer: nn.Module) -> float:
    assert isinstance(layer, tuple(_KINDS))
    p = layer.p
    assert isinstance(p, int | float)
    return p


def _inputs(
    model: nn.Module, layers: Sequence[nn.Module], x: torch.Tensor, training: bool = False
) -> list[list[tuple[int, ...]]]:
    """Return for each layer the shapes of its inputs while the model sees a batch once."""
    seen: list[list[tuple[int, ...]]] = [[] for _ in layers]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, shapes=shapes: shapes.append(tuple(inputs[0].shape)))
        for layer, shapes in zip(layers, seen, strict=True)
    ]
    was_training = model.training
    try:
        with torch.no_grad():
            model.train(training)(x.clone())
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return seen


class DropoutMasks:
    """Draws the masks of all dropout layers of some workers for one step."""

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        seed: int,
        workers: Sequence[str],
        sample: torch.Tensor,
    ) -> None:
        """names: of the MaskedDropout layers; workers: names, for the streams (seed, "dropout", worker); sample: a
        batch (B, ...), to find out the shapes of masks."""
        self.model, self.names, self.sample = model, list(names), sample
        layers = (model.get_submodule(name) for name in names)
        self.layers = [layer for layer in layers if isinstance(layer, MaskedDropout)]
        self.seeds = [seed_of(seed, "dropout", worker) for worker in workers]
        self._shapes: dict[int, list[tuple[int, ...]]] = {}

    def seed(self, worker: int, iteration: int) -> int:
        """Return the seed of all randomness inside the network at one step of a worker."""
        return (self.seeds[worker] + iteration) % _LAST_SEED

    def shapes(self, batch_size: int) -> list[tuple[int, ...]]:
        """Return the shape of each layer's mask for a batch."""
        if batch_size not in self._shapes:
            x = self.sample[:1].expand(batch_size, *self.sample.shape[1:])
            inputs = _inputs(self.model, self.layers, x)
            self._shapes[batch_size] = [_mask_shape(layer, s[0]) for layer, s in zip(self.layers, inputs, strict=True)]
        return self._shapes[batch_size]

    def num_bytes(self, batch_size: int) -> int:
        """Return the size of one worker's masks of one step."""
        numbers = sum(int(torch.Size(shape).numel()) for shape in self.shapes(batch_size)) if self.names else 0
        return numbers * self.sample.element_size()

    def draw(self, batch_size: int, workers: Sequence[int], iterations: Iterations) -> dict[str, torch.Tensor]:
        """Return by buffer name the masks (W, *shape) of one step."""
        if not self.names:
            return {}
        shapes = self.shapes(batch_size)
        sizes = [int(torch.Size(shape).numel()) for shape in shapes]
        drawn = torch.empty(len(workers), sum(sizes), device=self.sample.device)
        generator = torch.Generator(self.sample.device)
        for row, worker, iteration in zip(drawn, workers, each(iterations, workers), strict=True):
            generator.manual_seed(self.seed(worker, iteration))
            torch.rand(row.shape, generator=generator, out=row)
        masks = {}
        parts = torch.split(drawn, sizes, dim=1)
        for name, layer, part, shape in zip(self.names, self.layers, parts, shapes, strict=True):
            keep = (part >= layer.p).to(self.sample.dtype)
            if layer.p < 1:
                keep.div_(1 - layer.p)
            masks[f"{name}.mask"] = keep.view(len(workers), *shape)
        return masks


def _mask_shape(layer: MaskedDropout, shape: tuple[int, ...]) -> tuple[int, ...]:
    shared = layer.feature_dims
    return shape[: len(shape) - shared] + (1,) * shared
