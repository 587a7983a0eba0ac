"""All nodes' models: a tensor with a leading axis over nodes for every parameter and buffer; how a server combines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hsgd_emu.config.run_schema import TrainSpec, is_adam
from hsgd_emu.engine.operations import NOBODY, Held
from hsgd_emu.learning.compression import Compressor
from hsgd_emu.learning.servers import Outer

Tensors = dict[str, torch.Tensor]
CONTROL, OWN_CONTROL = "control", "own control"
"""SCAFFOLD's c, which travels with a model, and c_j."""
SUM = "sum"
"""Of iterates, where they are averaged (Polyak-Ruppert)."""
MOMENTUM, FIRST_MOMENT, SECOND_MOMENT = "momentum", "first moment", "second moment"
STEPS = "number of steps"


@dataclass(frozen=True)
class Part:
    """The models of some workers, to take steps on: views of the stacks, or copies that `Stacks.put` puts back.

    All tensors are (W, *shape) by name; kept: what a worker keeps from step to step, by `of`.
    """

    trained: Tensors
    fixed: Tensors
    buffers: Tensors
    kept: Tensors
    is_view: bool
    anchors: Tensors = field(default_factory=dict)
    """What each worker received last, where its steps are pulled there."""
    corrections: Tensors = field(default_factory=dict)
    """SCAFFOLD's c - c_j."""

    def hold(self, times: Sequence[int]) -> None:
        """Add each worker's model so many times to its sum of iterates."""
        if not any(times):
            return
        once = times[0] if len(set(times)) == 1 else None
        for name, model in (self.trained | self.buffers).items():
            total = self.kept.get(of(SUM, name))
            if total is not None and once is not None:
                total.add_(model, alpha=once)
            elif total is not None:
                total += model * total.new_tensor(times).view(-1, *(1,) * (model.dim() - 1))


def kinds_of(train: TrainSpec) -> tuple[str, ...]:
    """Return what a worker keeps of each parameter from step to step."""
    if is_adam(train):
        return FIRST_MOMENT, SECOND_MOMENT
    return (MOMENTUM,) if train.momentum else ()


def of(kind: str, name: str) -> str:
    """Return the name of what is kept of a parameter."""
    return f"{kind} of {name}"


class Stacks:
    """What is trained, and buffers, as (S, *shape); what is fixed once for all nodes.

    S: the nodes' rows, workers first. Tensors keep the memory layout of the initial model's.
    """

    def __init__(
        self,
        trained: Tensors,
        fixed: Tensors,
        buffers: Tensors,
        num_rows: int,
        num_workers: int,
        train: TrainSpec,
        private: Collection[str] = (),
        averaged_after: int | None = None,
    ) -> None:
        """trained, fixed, buffers: the initial model by name; num_workers: those that keep what is
        their own from step to step; private:
        buffers that are no part of a model's state: each node keeps its own; averaged_after: the iteration after which
        iterates are averaged."""
        self.fixed, self.private = fixed, frozenset(private)
        self.trained = {name: _repeated(start, num_rows) for name, start in trained.items()}
        self.buffers = {name: _repeated(start, num_rows) for name, start in buffers.items()}
        is_sent = train.state == "average"
        self.kept = self._kept(train, num_rows if is_sent and num_workers else num_workers)
        self.extra = dict(self.kept) if is_sent else {}
        """What goes with a model and is averaged with it, and is no part of it; by names that no tensor of it has."""
        self._reset = list(self.kept.values()) if train.state == "reset" else []
        self.averaged_after = averaged_after
        self._sums = {of(SUM, name): name for name in self._averaged()} if averaged_after is not None else {}
        sums = {name: torch.zeros_like(self.moving[its], dtype=torch.float64) for name, its in self._sums.items()}
        self.kept, self.extra = self.kept | sums, self.extra | sums
        self._corrected = list(self.trained) if train.correction and num_workers else []
        self.kept |= {of(OWN_CONTROL, n): torch.zeros_like(self.trained[n][:num_workers]) for n in self._corrected}
        self.extra |= {of(CONTROL, n): torch.zeros_like(self.trained[n]) for n in self._corrected}
        pulled = self.trained if train.proximal or train.correction else {}
        self.anchors = {name: stack[:num_workers].clone() for name, stack in pulled.items()}
        self.outers: Mapping[int, Outer] = {}
        """By row: what a server does with its average, where that is not just sent on."""
        # A mask may hold -inf from the start; that is no divergence.
        self._can_diverge = [n for n, start in (trained | buffers).items() if bool(torch.isfinite(start).all())]

    def _averaged(self) -> list[str]:
        """Return what has a mean over iterations."""
        return [name for name, stack in self.moving.items() if stack.is_floating_point() and name not in self.private]

    def _kept(self, train: TrainSpec, num_rows: int) -> Tensors:
        """Return what nodes keep from step to step as it is at first."""
        if not num_rows:
            return {}
        kinds = kinds_of(train)
        kept = {of(kind, n): torch.zeros_like(one[:num_rows]) for kind in kinds for n, one in self.trained.items()}
        if is_adam(train):
            device = next((one.device for one in self.trained.values()), None)
            kept[STEPS] = torch.zeros(num_rows, dtype=torch.int64, device=device)
        return kept

    def in_double(self) -> Stacks:
        """Return the models in float64 (counters as they are)."""
        for tensors in (self.trained, self.fixed, self.buffers):
            tensors.update({name: tensor.double() for name, tensor in tensors.items() if tensor.is_floating_point()})
        return self

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return next(iter(self.moving.values())).device

    @property
    def moving(self) -> Tensors:
        """What differs between nodes."""
        return self.trained | self.buffers

    @property
    def sent(self) -> Tensors:
        """What is sent and averaged."""
        return {name: stack for name, stack in self.moving.items() if name not in self.private} | self.extra

    def combine(
        self,
        row: int,
        begun: int | Tensors | None,
        sources: Sequence[int | Tensors],
        weights: torch.Tensor,
        held: Held = NOBODY,
    ) -> None:
        """Set a server's row to the weighted mean of models in rows or elsewhere; counters to the largest.

        begun: the model that the server sent down last, from which its own rule goes; None where hubs mix; held: by
        those who sit out, whose iterates it has been.
        """
        iterates = self._iterates(begun, held) if held.share and begun is not None else {}
        outer = None if begun is None else self.outers.get(row)
        before = {} if begun is None or outer is None else self.trained_of(begun)
        rows = [source for source in sources if isinstance(source, int)]
        chosen = rows_of(rows) if len(rows) == len(sources) else None
        for name, stack in self.sent.items():
            flat = _flat(stack)
            below = flat[chosen] if chosen is not None else _flat(_gathered(stack, name, sources))
            flat[row] = weights.to(stack.dtype) @ below if stack.is_floating_point() else below.amax(0)
        if outer is not None:
            for name, after in outer.step(before, self.trained_of(row)).items():
                self.trained[name][row] = after
        for name, total in iterates.items():
            self.extra[name][row].mul_(1 - held.share).add_(total, alpha=held.share)

    def trained_of(self, source: int | Tensors) -> Tensors:
        """Return a copy of what is trained of a model in a row or elsewhere."""
        return {name: _of(stack, name, source).clone() for name, stack in self.trained.items()}

    def compressed(self, source: int | Tensors, base: int | Tensors, compressor: Compressor) -> Tensors:
        """Return what is received of a model that is sent compressed: what is not trained is sent as it is."""
        sent = {name: _of(stack, name, source).clone() for name, stack in self.sent.items()}
        model, known = ({name: _of(stack, name, one) for name, stack in self.trained.items()} for one in (source, base))
        num_fixed = sum(tensor.numel() for tensor in self.fixed.values())
        return sent | compressor.send(model, known, num_fixed)

    def _iterates(self, begun: int | Tensors, held: Held) -> Tensors:
        """Return the sums of iterates of a worker that holds the model it has received during a phase."""
        num = max(0, held.end - max(held.begin, self.averaged_after or 0))
        return {
            name: _of(self.extra[name], name, begun) + num * _of(self.moving[its], its, begun)
            for name, its in self._sums.items()
        }

    def averaged(self, source: int | Tensors, num_iterations: int) -> Tensors:
        """Return a model's mean over so many iterations: parameters and buffers that are no counters."""
        found = self.model(source)
        sums = {its: _of(self.extra[name], name, source) for name, its in self._sums.items()}
        return found | {name: (total / num_iterations).to(found[name].dtype) for name, total in sums.items()}

    def copy(self, source: int | Tensors, rows: Sequence[int]) -> None:
        """Copy what is sent of a model, in a row or elsewhere, to other rows."""
        chosen = rows_of(rows)
        for name, stack in self.sent.items():
            stack[chosen] = _of(stack, name, source).clone()  # of the same memory, mostly
            if name in self.anchors:
                self.anchors[name][chosen] = stack[chosen]
        for stack in self._reset:
            stack[chosen] = 0

    def on_device(self, stored: Tensors) -> Tensors:
        """Return a stored model as what is sent is here: on the device, laid out alike."""
        found = {}
        for name, stack in self.sent.items():
            found[name] = torch.empty_like(stack[0]).copy_(stored[name])
        return found

    def sent_of(self, row: int) -> Tensors:
        """Return a copy of what is sent of a row's model."""
        return {name: stack[row].clone() for name, stack in self.sent.items()}

    def model(self, source: int | Tensors) -> Tensors:
        """Return the parameters and buffers of a model in a row or elsewhere."""
        if not isinstance(source, int):
            return self.model(-1) | {name: tensor for name, tensor in source.items() if name not in self.extra}
        trained, buffers = ({n: stack[source] for n, stack in part.items()} for part in (self.trained, self.buffers))
        return trained | self.fixed | buffers

    def is_finite(self, model: Tensors) -> bool:
        """Tell whether no weight or buffer of a model is NaN or infinite that was finite at the start."""
        finite = [torch.isfinite(model[name]).all() for name in self._can_diverge]
        return bool(torch.stack(finite).all()) if finite else True

    def part(self, workers: Sequence[int]) -> Part:
        """Return the models of workers."""
        rows = rows_of(workers)
        fixed = {name: tensor.expand(len(workers), *tensor.shape) for name, tensor in self.fixed.items()}
        trained, buffers, kept, anchors = (
            {name: stack[rows] for name, stack in stacks.items()}
            for stacks in (self.trained, self.buffers, self.kept, self.anchors)
        )
        corrections = {n: self.extra[of(CONTROL, n)][rows] - kept[of(OWN_CONTROL, n)] for n in self._corrected}
        return Part(trained, fixed, buffers, kept, isinstance(rows, slice), anchors, corrections)

    def end_phase(self, workers: Sequence[int], rate_sums: Sequence[float]) -> None:
        """Let workers send new control variates (SCAFFOLD, option II): c_j <- c_j - c + (x - y) / the sum of the rates.

        x: the model received; y: what has become of it by the steps of the phase.
        """
        rows = rows_of(workers)
        for name in self._corrected:
            weight, own, sent = self.trained[name], self.kept[of(OWN_CONTROL, name)], self.extra[of(CONTROL, name)]
            rates = weight.new_tensor(rate_sums).view(-1, *(1,) * (weight.dim() - 1))
            own[rows] += (self.anchors[name][rows] - weight[rows]) / rates - sent[rows]
            sent[rows] = own[rows]

    def backup(self, workers: Sequence[int]) -> Part:
        """Return copies of the models of workers, for `put` to put back."""
        part = self.part(workers)
        copies = ({n: t.clone() for n, t in tensors.items()} for tensors in (part.trained, part.buffers, part.kept))
        trained, buffers, kept = copies
        return Part(trained, part.fixed, buffers, kept, is_view=False)

    def put(self, workers: Sequence[int], part: Part) -> None:
        """Put copies back."""
        if part.is_view:
            return
        rows = rows_of(workers)
        for stacks, values in (
            (self.trained, part.trained),
            (self.buffers, part.buffers),
            (self.kept, part.kept),
        ):
            for name, value in values.items():
                stacks[name][rows] = value

    def state(self) -> dict[str, Any]:
        """Return of every node what is its own, on the CPU."""
        own = {name: _without_repeats(self.buffers[name]).cpu().clone() for name in sorted(self.private)}
        kept = {name: stack.cpu().clone() for name, stack in self.kept.items() if name not in self.extra}
        found: dict[str, Any] = {"kept": kept, **({"own": own} if own else {})}
        if self.outers:
            found["servers"] = {
                row: {n: t.cpu().clone() for n, t in outer.state.items()} for row, outer in self.outers.items()
            }
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give every node back what is its own."""
        for name in self.private:
            self.buffers[name].copy_(state["own"][name].expand_as(self.buffers[name]))
        for name, stored in state["kept"].items():
            self.kept[name].copy_(stored)
        for row, outer in self.outers.items():
            outer.state = {name: stored.to(self.device) for name, stored in state["servers"][row].items()}


def _repeated(start: torch.Tensor, num_rows: int) -> torch.Tensor:
    start = start.detach()
    if start.dim() != 4 or start.is_contiguous():
        return start.contiguous().repeat(num_rows, *(1,) * start.dim())
    return start.permute(0, 2, 3, 1).repeat(num_rows, 1, 1, 1, 1).permute(0, 1, 4, 2, 3)


def _flat(stack: torch.Tensor) -> torch.Tensor:
    """Return a stack as (S, numel), in the order of its memory: contiguous, or channels last."""
    num = stack[0].numel()  # which may be 0
    return (stack if stack.is_contiguous() else stack.permute(0, 1, 3, 4, 2)).view(len(stack), num)


def _without_repeats(stack: torch.Tensor) -> torch.Tensor:
    """Return a stack of equal rows as its first alone."""
    return stack[:1] if torch.equal(stack, stack[:1].expand_as(stack)) else stack


def rows_of(rows: Sequence[int]) -> slice | list[int]:
    """Return what selects rows of a stack, in this order: as a view where they are neighbours, else as a copy."""
    first, num = rows[0], len(rows)
    are_neighbours = rows[-1] - first + 1 == num and list(rows) == list(range(first, first + num))
    return slice(first, first + num) if are_neighbours else list(rows)


def _of(stack: torch.Tensor, name: str, source: int | Tensors) -> torch.Tensor:
    return stack[source] if isinstance(source, int) else source[name]


def _gathered(stack: torch.Tensor, name: str, sources: Sequence[int | Tensors]) -> torch.Tensor:
    """Return models that are in rows and elsewhere as a stack of their own."""
    found = _repeated(stack[0], len(sources))
    for row, source in zip(found, sources, strict=True):
        row.copy_(_of(stack, name, source))
    return found
