"""A network made ready for the learner: what it is made of, and in which ways it can take steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn
from torch.func import functional_call, vmap

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.learning.chain import find_chain, has_hooks
from hsgd_emu.learning.dropout import DropoutMasks, with_masked_dropout
from hsgd_emu.learning.engines import ByModule, Engine, Layered, Precision, Way
from hsgd_emu.learning.fold import Fold, find_fold
from hsgd_emu.learning.layering import evaluation_layers_of, layers_of
from hsgd_emu.learning.layers import Layer
from hsgd_emu.learning.models import has_convolutions, in_short, logits_of
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.stacks import Stacks, Tensors


@dataclass(frozen=True)
class TrialSetup:
    """What a learner needs of a trial besides its model and data.

    slots: by node index of the topology, its row: workers 0..n-1 (depth first), then the aggregating servers.
    """

    seed: int
    worker_names: Sequence[str]
    slots: Mapping[int, int]
    train: TrainSpec


class Network:
    """The initial model of a trial, its dropout layers given masks from outside."""

    def __init__(self, model: nn.Module, data: ResidentData, setup: TrialSetup, precision: Precision = "fp32") -> None:
        self.train, self.precision, self.sample = setup.train, precision, data.sample()
        self.device, self.num_workers = data.device, len(setup.worker_names)
        self.model = model.to(data.device, data.dtype).train()
        self.has_convolutions = has_convolutions(model)
        dropouts = with_masked_dropout(self.model, self.sample)
        self.masks = DropoutMasks(self.model, dropouts, setup.seed, setup.worker_names, self.sample)
        own = {f"{name}.mask" for name in dropouts}
        self.names = [
            name for name, _ in [*self.model.named_parameters(), *self.model.named_buffers()] if name not in own
        ]
        self.evaluation_layers: list[Layer] | None = None
        self.layers, self.fold = self._find_layers()
        self.why_not_batched = ""

    def _find_layers(self) -> tuple[list[Layer] | None, Fold | None]:
        """Return the hand-batched layers, or None where the network is no chain of known ones, and the fold."""
        if self.sample.dim() not in (2, 4):
            return None, None
        with torch.random.fork_rng(devices=[]):
            links = find_chain(self.model, self.sample)
            layers = layers_of(links, self.sample) if links else None
            folding = find_fold(links, self.sample) if links and layers else None
            if links and folding:
                links = [link for place, link in enumerate(links) if place != folding[0]]
                layers = layers_of(links, self.sample, folding[1])
        if links and layers and self.device.type == "cpu":
            self.evaluation_layers = evaluation_layers_of(layers, links, self.sample)
        self.model.train()
        return layers, folding[1] if folding else None

    @cached_property
    def can_batch(self) -> bool:
        """Whether vmap can batch the network; if not, `why_not_batched` says why."""
        if has_hooks(self.model, ("backward", "backward_pre")):
            self.why_not_batched = "the network has hooks on gradients, which are each worker's own"
            return False
        start = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        tensors = {name: start[name].detach().repeat(2, *(1,) * start[name].dim()) for name in self.names}
        x = self.sample.expand(2, *self.sample.shape)
        try:
            with torch.no_grad():
                tensors |= self.masks.draw(len(self.sample), [0, min(1, len(self.masks.seeds) - 1)], 0)
                vmap(self._probe, randomness="error")(tensors, x)
        except Exception as error:  # whatever a user's network does that vmap cannot batch
            self.why_not_batched = f"the network cannot be batched: {in_short(error)}"
            return False
        return True

    def _probe(self, tensors: Tensors, x: torch.Tensor) -> torch.Tensor:
        given = dict(tensors)
        logits = logits_of(functional_call(self.model, tensors, (x,)))
        if any(tensors[name] is not given[name] for name in given):  # functional_call puts new ones back
            raise TypeError("it puts new tensors in the place of its buffers")
        return logits

    def ways(self) -> list[Way]:
        """Return the ways it can take steps in, the one to prefer first."""
        if self.layers is not None:
            return ["layered"]
        return ["vmap", "one_by_one"] if self.can_batch else ["one_by_one"]

    def engine(self, way: Way) -> Engine:
        """Return what takes the steps."""
        if way == "layered":
            assert self.layers is not None
            return Layered(self.layers, self.precision, self.evaluation_layers)
        return ByModule(self.model, way == "vmap", self.precision)

    def num_bytes(self, way: Way) -> int:
        """Return the size of one node's model in the form that a way works on."""
        tensors = self.stacks(way, 1, 0).model(0).values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def stacks(self, way: Way, num_rows: int, num_workers: int) -> Stacks:
        """Return the initial model at every node."""
        trained = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        fixed = {name: p.detach() for name, p in self.model.named_parameters() if not p.requires_grad}
        buffers = {name: b for name, b in self.model.named_buffers() if name in self.names}
        if way == "layered":  # as convolutions of images with channels last want them
            for tensors in (trained, fixed):
                for name in [name for name, tensor in tensors.items() if tensor.dim() == 4]:
                    tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
        if way == "layered" and self.fold:
            for tensors in (trained, fixed):
                if self.fold.weight in tensors:
                    tensors[self.fold.weight] = self.fold.folded()
            if self.train.weight_decay and self.fold.weight in trained:
                trained[self.fold.kept] = self.fold.full.new_ones(1)
        return Stacks(trained, fixed, buffers, num_rows, num_workers if self.train.momentum else 0)

    def whole(self, way: Way, model: Tensors) -> Tensors:
        """Return a node's model as the network has it, in its own order: what was folded is unfolded."""
        found = dict(model)
        if way == "layered" and self.fold:
            kept = float(found.pop(self.fold.kept, torch.ones(())))
            found[self.fold.weight] = self.fold.restored(found[self.fold.weight], kept)
        return {name: found[name] for name in self.names}
