"""All nodes' models: one tensor with a leading axis over nodes for every parameter and buffer; and how a worker steps
and a server combines there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hsgd_emu.config.run_schema import TrainSpec

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Part:
    """The models of some workers, to take steps on: views of the stacks, or copies that `Stacks.put` puts back.

    All tensors are (W, *shape) by name; momenta: of the trained ones, empty without momentum.
    """

    trained: Tensors
    fixed: Tensors
    buffers: Tensors
    momenta: Tensors
    is_view: bool
    anchors: Tensors = field(default_factory=dict)
    """What each worker received last, where its steps are pulled there."""


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
    ) -> None:
        """trained, fixed, buffers: the initial model by name; num_workers: those that keep what is
        their own from step to step; private:
        buffers that are no part of a model's state: each node keeps its own."""
        self.fixed, self.private = fixed, frozenset(private)
        self.trained = {name: _repeated(start, num_rows) for name, start in trained.items()}
        self.buffers = {name: _repeated(start, num_rows) for name, start in buffers.items()}
        num_momenta = num_workers if train.momentum else 0
        self.momenta = {n: torch.zeros_like(one[:num_workers]) for n, one in self.trained.items() if num_momenta}
        pulled = self.trained if train.proximal else {}
        self.anchors = {name: stack[:num_workers].clone() for name, stack in pulled.items()}
        # A mask may hold -inf from the start; that is no divergence.
        self._can_diverge = [n for n, start in (trained | buffers).items() if bool(torch.isfinite(start).all())]

    def in_double(self) -> Stacks:
        """Return them in float64 (counters as they are)."""
        for tensors in (self.trained, self.fixed, self.buffers, self.momenta):
            tensors.update({name: tensor.double() for name, tensor in tensors.items() if tensor.is_floating_point()})
        return self

    @property
    def moving(self) -> Tensors:
        """What differs between nodes."""
        return self.trained | self.buffers

    @property
    def sent(self) -> Tensors:
        """What is sent and averaged."""
        return {name: stack for name, stack in self.moving.items() if name not in self.private}

    def combine(self, row: int, begun: int | Tensors, sources: Sequence[int | Tensors], weights: torch.Tensor) -> None:
        """Set a server's row to the weighted mean of models in rows or elsewhere; counters to the largest.

        begun: the model that the server sent down last.
        """
        rows = [source for source in sources if isinstance(source, int)]
        chosen = rows_of(rows) if len(rows) == len(sources) else None
        for name, stack in self.sent.items():
            flat = _flat(stack)
            below = flat[chosen] if chosen is not None else _flat(_gathered(stack, name, sources))
            flat[row] = weights.to(stack.dtype) @ below if stack.is_floating_point() else below.amax(0)

    def copy(self, source: int | Tensors, rows: Sequence[int]) -> None:
        """Copy what is sent of a model, in a row or elsewhere, to other rows."""
        chosen = rows_of(rows)
        for name, stack in self.sent.items():
            stack[chosen] = _of(stack, name, source).clone()  # of the same memory, mostly
            if name in self.anchors:
                self.anchors[name][chosen] = stack[chosen]

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
            return self.model(-1) | source
        trained, buffers = ({n: stack[source] for n, stack in part.items()} for part in (self.trained, self.buffers))
        return trained | self.fixed | buffers

    def is_finite(self, source: int | Tensors) -> bool:
        """Tell whether no weight or buffer of a model is NaN or infinite that was finite at the start."""
        model = self.model(source)
        finite = [torch.isfinite(model[name]).all() for name in self._can_diverge]
        return bool(torch.stack(finite).all()) if finite else True

    def part(self, workers: Sequence[int]) -> Part:
        """Return the models of workers."""
        rows = rows_of(workers)
        fixed = {name: tensor.expand(len(workers), *tensor.shape) for name, tensor in self.fixed.items()}
        trained, buffers, momenta = (
            {name: stack[rows] for name, stack in stacks.items()}
            for stacks in (self.trained, self.buffers, self.momenta)
        )
        anchors = {name: stack[rows] for name, stack in self.anchors.items()}
        return Part(trained, fixed, buffers, momenta, isinstance(rows, slice), anchors)

    def backup(self, workers: Sequence[int]) -> Part:
        """Return copies of the models of workers, for `put` to put back."""
        part = self.part(workers)
        copies = ({n: t.clone() for n, t in tensors.items()} for tensors in (part.trained, part.buffers, part.momenta))
        trained, buffers, momenta = copies
        return Part(trained, part.fixed, buffers, momenta, is_view=False)

    def put(self, workers: Sequence[int], part: Part) -> None:
        """Put copies back."""
        if part.is_view:
            return
        rows = rows_of(workers)
        for stacks, values in (
            (self.trained, part.trained),
            (self.buffers, part.buffers),
            (self.momenta, part.momenta),
        ):
            for name, value in values.items():
                stacks[name][rows] = value

    def state(self) -> dict[str, Tensors]:
        """Return of every node what is its own, on the CPU."""
        own = {name: _without_repeats(self.buffers[name]).cpu().clone() for name in sorted(self.private)}
        momenta = {name: stack.cpu().clone() for name, stack in self.momenta.items()}
        return {"momenta": momenta, **({"own": own} if own else {})}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give every node back what is its own."""
        for name in self.private:
            self.buffers[name].copy_(state["own"][name].expand_as(self.buffers[name]))
        for name, stack in self.momenta.items():
            stack.copy_(state["momenta"][name])


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


# --- a step -----------------------------------------------------------------------------------------


class Sgd:
    """Updates parameters (W, *shape) as soon as their gradients are known.

    Gradients arrive multiplied by `loss_scale`: the learning rate where there is no momentum, so that an update is a
    subtraction, which can be fused into the product that yields the gradient.
    """

    def __init__(self, part: Part, train: TrainSpec) -> None:
        self.weights, self.momenta = part.trained, part.momenta
        self.momentum, self.anchors, self.proximal = train.momentum, part.anchors, train.proximal or 0.0
        self.weight_decay = train.weight_decay + self.proximal
        self.rate: float | torch.Tensor = 0.0

    def begin_step(self, rate: float | torch.Tensor) -> float | torch.Tensor:
        """Set the learning rate of the next updates and return the scale of the loss."""
        self.rate = rate
        return 1.0 if self.momentum else rate

    def apply(self, name: str, gradient: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x gradient (W, *shape)."""
        weight = self.weights[name]
        if self.momentum:
            self.momenta[name].mul_(self.momentum).add_(gradient, alpha=scale)
            self._follow_momentum(name)
        else:
            self._decay(name)
            weight.sub_(gradient, alpha=scale)

    def apply_product(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
        """Update with scale x left (W, m, b) @ right (W, b, n), which is never stored."""
        weight = self.weights[name]
        if self.momentum:
            _add_product(self.momenta[name], left, right, self.momentum, scale)
            self._follow_momentum(name)
        elif self.weight_decay and not self.proximal and isinstance(self.rate, float):
            _add_product(weight, left, right, 1 - self.rate * self.weight_decay, -scale)
        else:
            self._decay(name)
            _add_product(weight, left, right, 1.0, -scale)

    def _decay(self, name: str) -> None:
        if self.weight_decay:
            self.weights[name].mul_(1 - self.rate * self.weight_decay)
        if self.proximal:
            self.weights[name].add_(self.anchors[name] * (self.rate * self.proximal))

    def _follow_momentum(self, name: str) -> None:
        weight, momentum = self.weights[name], self.momenta[name]
        if self.weight_decay:
            momentum.add_(weight, alpha=self.weight_decay)
        if self.proximal:
            momentum.sub_(self.anchors[name], alpha=self.proximal)
        if isinstance(self.rate, float):
            weight.sub_(momentum, alpha=self.rate)
        else:
            weight.addcmul_(momentum, self.rate, value=-1)


def _add_product(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor, beta: float, alpha: float) -> None:
    if left.dtype != into.dtype:  # products in lower precision, weights as they are
        into.mul_(beta).add_(torch.bmm(left, right), alpha=alpha)
    elif len(into) == 1:
        into[0].addmm_(left[0], right[0], beta=beta, alpha=alpha)
    else:
        into.baddbmm_(left, right, beta=beta, alpha=alpha)
