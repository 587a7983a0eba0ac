"""All nodes' models: one tensor with a leading axis over nodes for every parameter and buffer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

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
        num_momenta: int,
        private: Collection[str] = (),
    ) -> None:
        """trained, fixed, buffers: the initial model by name; num_momenta: workers, or 0 without momentum; private:
        buffers that are no part of a model's state: each node keeps its own."""
        self.fixed, self.private = fixed, frozenset(private)
        self.trained = {name: _repeated(start, num_rows) for name, start in trained.items()}
        self.buffers = {name: _repeated(start, num_rows) for name, start in buffers.items()}
        self.momenta = {name: torch.zeros_like(stack[:num_momenta]) for name, stack in self.trained.items()}
        self.has_momenta = num_momenta > 0
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

    def average(self, server: int, children: Sequence[int], weights: torch.Tensor) -> None:
        """Set a server's model to the weighted mean of its children's; counters to the largest."""
        for stack in self.sent.values():
            flat = _flat(stack)
            below = _select(flat, children)[0]
            flat[server] = weights.to(stack.dtype) @ below if stack.is_floating_point() else below.amax(0)

    def hand_down(self, server: int, children: Sequence[int]) -> None:
        """Copy a server's model to nodes in ascending order."""
        for stack in self.sent.values():
            _put(stack, children, stack[server].clone())

    def model(self, row: int) -> Tensors:
        """Return a node's parameters and buffers."""
        return (
            {name: stack[row] for name, stack in self.trained.items()}
            | self.fixed
            | {name: stack[row] for name, stack in self.buffers.items()}
        )

    def is_finite(self, row: int) -> bool:
        """Tell whether no weight or buffer of a node's model is NaN or infinite that was finite at the start."""
        moving = self.moving
        finite = [torch.isfinite(moving[name][row]).all() for name in self._can_diverge]
        return bool(torch.stack(finite).all()) if finite else True

    def part(self, workers: Sequence[int]) -> Part:
        """Return the models of workers in ascending order."""
        is_view = workers[-1] - workers[0] + 1 == len(workers)
        fixed = {name: tensor.expand(len(workers), *tensor.shape) for name, tensor in self.fixed.items()}
        trained, buffers = _parts(self.trained, workers), _parts(self.buffers, workers)
        return Part(trained, fixed, buffers, _parts(self.momenta, workers) if self.has_momenta else {}, is_view)

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
        for stacks, values in (
            (self.trained, part.trained),
            (self.buffers, part.buffers),
            (self.momenta, part.momenta),
        ):
            for name, value in values.items():
                _put(stacks[name], workers, value)

    def state(self, row: int) -> dict[str, Tensors]:
        """Return one node's model, and of every node what is its own, on the CPU."""
        model = {name: stack[row].detach().cpu().clone() for name, stack in self.sent.items()}
        own = {name: _without_repeats(self.buffers[name]).cpu().clone() for name in sorted(self.private)}
        momenta = {name: stack.cpu().clone() for name, stack in self.momenta.items()}
        return {"model": model, "momenta": momenta, **({"own": own} if own else {})}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set every node to a stored model."""
        for name, stack in self.sent.items():
            stack.copy_(state["model"][name].expand_as(stack))
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


def _parts(stacks: Tensors, workers: Sequence[int]) -> Tensors:
    return {name: _select(stack, workers)[0] for name, stack in stacks.items()}


def _select(stack: torch.Tensor, rows: Sequence[int]) -> tuple[torch.Tensor, bool]:
    """Return ascending `rows` of a stack, and whether they are a view (neighbours) or a copy."""
    first, last = rows[0], rows[-1]
    if last - first + 1 == len(rows):
        return stack[first : last + 1], True
    return stack[list(rows)], False


def _put(stack: torch.Tensor, rows: Sequence[int], values: torch.Tensor) -> None:
    view, is_view = _select(stack, rows)
    if is_view:
        view.copy_(values)
    else:
        stack[list(rows)] = values
