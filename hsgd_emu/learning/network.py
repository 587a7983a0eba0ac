"""A network made ready for the learner: what it is made of, and in which ways it can take steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.config.server_schema import Direction, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.skipped import Taken
from hsgd_emu.learning.chain import find_chain
from hsgd_emu.learning.compression import Compressor
from hsgd_emu.learning.dropout import DropoutMasks, with_masked_dropout
from hsgd_emu.learning.engines import ByModule, Engine, Layered, Precision, Step, Way
from hsgd_emu.learning.examine import (
    Findings,
    close,
    copied,
    evaluate_by_hand,
    evaluates_wholly,
    examine,
    has_hooks,
    has_hooks_on_parameters,
    is_plain,
    nudged,
    step_by_hand,
    tensors_of,
)
from hsgd_emu.learning.examine import Step as HandStep
from hsgd_emu.learning.fold import Fold, find_fold, is_exact_for
from hsgd_emu.learning.layering import evaluation_layers_of, layers_of
from hsgd_emu.learning.layers import Layer
from hsgd_emu.learning.losses import loss_of
from hsgd_emu.learning.models import has_convolutions, in_short
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.servers import Outer, server_rule
from hsgd_emu.learning.stacks import Stacks, Tensors
from hsgd_emu.learning.updates import rule_of
from hsgd_emu.rng import seed_of

_PLAIN = TrainSpec(iterations=1)
_NUM_TRIED = 4  # samples in the batches that a network is tried with
_SAME = 1e-7
"""How far apart two ways may be that are the same but for the order of summation, relative to the largest entry."""


@dataclass(frozen=True)
class TrialSetup:
    """What a learner needs of a trial besides its model and data.

    slots: by node index of the topology, its row: workers 0..n-1 (depth first), then the aggregating servers;
    taken: by row of a worker that skips steps, those it takes; evaluated_at: gives the first evaluated iteration at or
    after one; averaged_after: the iteration after which iterates are averaged, None where they are not.
    """

    seed: int
    worker_names: Sequence[str]
    slots: Mapping[int, int]
    train: TrainSpec
    taken: Mapping[int, Taken] = field(default_factory=dict)
    evaluated_at: Callable[[int], int] = lambda _: 0
    averaged_after: int | None = None
    servers: Mapping[int, ServerSpec] = field(default_factory=dict)
    """By node: what a server does with its average, where that is not just sent on."""
    senders: Mapping[tuple[int, Direction], Sender] = field(default_factory=dict)
    """By node and direction: who compresses what it sends."""
    evaluates_workers: bool = False
    """Whether the global model is evaluated on each worker's own data too."""
    has_hubs: bool = False
    """Whether servers mix with neighbours, and so drift apart."""
    base: Path = Path()
    """Where modules of own rules are sought first."""

    def outers(self) -> dict[int, Outer]:
        """Return by row what servers do with averages, each with a state of its own."""
        return {self.slots[node]: Outer(server_rule(spec, self.base), spec) for node, spec in self.servers.items()}

    def compressors(self) -> dict[tuple[int, Direction], Compressor]:
        """Return by row and direction what compresses, each with a memory of its own."""
        found = self.senders.items()
        return {(self.slots[node], way): Compressor(sender, way, self.seed) for (node, way), sender in found}

    @property
    def may_fold(self) -> bool:
        """Whether all that is done with parameters may be done with sums of them."""
        are_linear = all(spec.is_linear for spec in self.servers.values())
        return is_exact_for(self.train) and are_linear and not self.senders

    @property
    def evaluation_seed(self) -> int:
        """Of what a network draws in evaluation: the same at every evaluation."""
        return seed_of(self.seed, "evaluation")


class Network:
    """The initial model of a trial, its dropout layers given masks from outside."""

    def __init__(self, model: nn.Module, data: ResidentData, setup: TrialSetup, precision: Precision = "fp32") -> None:
        """Raises:  ConfigError: the network cannot take a step, or depends on what it did before."""
        self.averaged_after = setup.averaged_after
        self.train, self.precision, self.data, self.sample = setup.train, precision, data, data.sample()
        self.loss = loss_of(self.train)
        self.may_fold = setup.may_fold
        self.device, self.num_workers = data.device, len(setup.worker_names)
        self.model = model.to(data.device, data.dtype).train()
        self.has_convolutions = has_convolutions(model)
        dropouts = with_masked_dropout(self.model, self.sample)
        self.masks = DropoutMasks(self.model, dropouts, setup.seed, setup.worker_names, self.sample)
        own = {f"{name}.mask" for name in dropouts}
        self.names = [name for name in tensors_of(self.model) if name not in own]
        self.layers: list[Layer] | None = None
        self.evaluation_layers: list[Layer] | None = None
        self.fold: Fold | None = None
        self.findings = Findings()
        if is_plain(self.model):
            self._find_layers()
        if self.layers is None:
            self._examine()

    def _examine(self) -> None:
        """Look at what the network is by a few steps; where it may be a chain of layers, they must take the same."""
        ((x_WB, y_WB),) = self.data.batches(self.data.trial_draws(_NUM_TRIED))
        self.findings = examine(self.model, x_WB[0], y_WB[0])
        is_free = not (self.findings.draws or has_hooks_on_parameters(self.model))
        if is_free and not is_plain(self.model) and evaluates_wholly(self.model):
            self._find_layers()
            if self.layers is not None and self._differs("layered"):
                self.layers = self.evaluation_layers = self.fold = None

    def _find_layers(self) -> None:
        """Find the hand-batched layers, where the network is a chain of known ones, and the fold."""
        if self.sample.dim() not in (2, 4):
            return
        with torch.random.fork_rng(devices=[]):
            links = find_chain(self.model, self.sample)
            layers = layers_of(links, self.sample) if links else None
            folding = find_fold(links, self.sample) if links and layers and self.may_fold else None
            if links and folding:
                links = [link for place, link in enumerate(links) if place != folding[0]]
                self.model.train()
                layers = layers_of(links, self.sample, folding[1])
        self.model.train()
        if not links or not layers:
            return
        if self.device.type == "cpu":
            self.evaluation_layers = evaluation_layers_of(layers, links, self.sample)
        self.layers, self.fold = layers, folding[1] if folding else None
        used = {parameter for _, module in links for parameter in module.parameters(recurse=False)}
        unused = [n for n, p in self.model.named_parameters() if p.requires_grad and p not in used]
        self.findings = replace(self.findings, without_gradient=tuple(unused))

    @cached_property
    def can_batch(self) -> bool:
        """Whether vmap can batch the network; if not, `why_not_batched` says why."""
        return not self.why_not_batched

    @cached_property
    def why_not_batched(self) -> str:
        """Why vmap cannot batch the network; empty if it can."""
        if has_hooks(self.model, ("backward", "backward_pre")) or has_hooks_on_parameters(self.model):
            return "the network has hooks on gradients, which are each worker's own"
        if self.findings.draws:
            return "the network draws random numbers of its own, which are each worker's own"
        try:
            return self._try_vmap() if is_plain(self.model) else self._differs("vmap")
        except Exception as error:  # whatever a user's network does that vmap cannot batch
            return f"the network cannot be batched: {in_short(error)}"

    def _try_vmap(self) -> str:
        """Let vmap batch a step of a network whose every module is known to be batched rightly, if it is at all."""
        stacks = self.stacks("vmap", 2)
        part, masks = stacks.part([0, 1]), self.masks.draw(len(self.sample), [0, min(1, self.num_workers - 1)], 0)
        x_WB, y_WB = self.sample.expand(2, *self.sample.shape), self.sample.new_zeros(2, len(self.sample)).long()
        self.engine("vmap").step(part, rule_of(part, _PLAIN), Step(x_WB, y_WB, masks, 1.0, 0))
        return ""

    def _differs(self, way: Way) -> str:
        """Hold one step of two workers and an evaluation to the network's own; return what differs, if anything.

        In float64, where nothing but what differs in kind differs by more than rounding.
        """
        stacks = self.stacks(way, 2).in_double()
        for stack in stacks.trained.values():
            stack[1] = nudged(stack[1])
        before = [self._cloned(way, stacks.model(row)) for row in range(2)]
        draws, own = self.data.trial_draws(_NUM_TRIED), copied(self.model).double().train()
        engine: Engine
        if way == "layered":
            engine = Layered(self.layers or [], "fp32", self.evaluation_layers)
        else:
            engine = ByModule(copied(self.model).double().train(), batched=True)
        part = stacks.part([0, 1])
        ((x_WB, y_WB),) = self.data.batches(draws)
        ((x, y),) = self.data.batches(draws, engine.grouped)
        drawn = self.masks.draw(x_WB.shape[1], [0, min(1, self.num_workers - 1)], 0)
        masks = {name: mask.double() for name, mask in drawn.items()}
        engine.step(part, rule_of(part, _PLAIN), Step(x.double(), y, masks, 1.0, 0))
        test_x, its_x = (self.data.trial_test_x(_NUM_TRIED, blocks).double() for blocks in (False, engine.blocks))
        for row, start in enumerate(before):
            mask = {name: mask[row] for name, mask in masks.items()}
            expected = step_by_hand(own, start | mask, x_WB[row].double(), y_WB[row])
            after = self._cloned(way, stacks.model(row))
            name = self._first_that_differs(start, after, expected)
            if name:
                return f"a batched step is not the network's own: '{name}' differs"
            if not close(
                engine.logits(stacks.model(row), its_x), evaluate_by_hand(own, after | mask, test_x).logits, _SAME
            ):
                return "a batched evaluation is not the network's own"
        return ""

    def _cloned(self, way: Way, model: Tensors) -> Tensors:
        return {name: tensor.clone() for name, tensor in self.whole(way, model).items()}

    @staticmethod
    def _first_that_differs(start: Tensors, found: Tensors, expected: HandStep) -> str:
        """Return the name of the first parameter or buffer that is not as a step at rate 1 by hand leaves it."""
        gradients = {name: g for name, g in expected.gradients.items() if g is not None and g.numel()}
        scale = max((float(g.abs().max()) for g in gradients.values()), default=0.0)
        for name, tensor in found.items():
            right = expected.after[name] - gradients[name] if name in gradients else expected.after[name]
            if not close(tensor, right, _SAME, scale):
                return name
        return ""

    def ways(self) -> list[Way]:
        """Return the ways it can take steps in, the one to prefer first."""
        if self.layers is not None:
            return ["layered"]
        return ["vmap", "one_by_one"] if self.can_batch else ["one_by_one"]

    def engine(self, way: Way) -> Engine:
        """Return what takes the steps."""
        if way == "layered":
            assert self.layers is not None
            return Layered(self.layers, self.precision, self.evaluation_layers, self.loss)
        return ByModule(self.model, way == "vmap", self.precision, self.loss)

    def num_bytes(self, way: Way) -> int:
        """Return the size of one node's model in the form that a way works on."""
        tensors = self.stacks(way, 1).model(0).values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def stacks(self, way: Way, num_rows: int, num_workers: int = 0) -> Stacks:
        """Return the initial model at every node; num_workers: those that keep what is their own."""
        trained, fixed = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        buffers = {name: b for name, b in self.model.named_buffers() if name in self.names}
        state = self.model.state_dict(keep_vars=True)
        private = [name for name in buffers if name not in state]  # of no model's state (`persistent=False`)
        for name, parameter in self.model.named_parameters():
            moves = name in self.findings.moved
            is_trained = parameter.requires_grad or name in self.findings.unfrozen
            (trained if is_trained else buffers if moves else fixed)[name] = parameter.detach()
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
        return Stacks(trained, fixed, buffers, num_rows, num_workers, self.train, private, self.averaged_after)

    def whole(self, way: Way, model: Tensors) -> Tensors:
        """Return a node's model as the network has it, in its own order: what was folded is unfolded."""
        found = dict(model)
        if way == "layered" and self.fold:
            kept = float(found.pop(self.fold.kept, torch.ones(())))
            found[self.fold.weight] = self.fold.restored(found[self.fold.weight], kept)
        return {name: found[name] for name in self.names}
