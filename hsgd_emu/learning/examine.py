"""What a network does beside computing logits, found out by a few steps on copies of it.

A network may be batched over workers, or lent from worker to worker, only if a step is a function of its parameters,
buffers, samples and random numbers.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.outputs import logits_of
from hsgd_emu.learning.seeded import drawn_so_far, seeded_generators

Tensors = dict[str, torch.Tensor]
WHOLE = 2000
"""Test samples in a batch where the answer to one depends on the others."""
_TRIED_STEPS = 4  # a parameter that gets no gradient in this many steps is named
_DEEPEST = 4  # how deep containers and objects that modules hold are compared
_OF_EVERY_MODULE = set(vars(nn.Module())) - {"training"}


@dataclass(frozen=True)
class Step:
    """One step by hand: the loss, gradients by name (None: the loss does not depend on it), parameters and buffers
    after the forward pass, and whether random numbers were drawn."""

    loss: float
    gradients: dict[str, torch.Tensor | None]
    after: Tensors
    drew: bool


@dataclass(frozen=True)
class Evaluation:
    """One evaluation by hand: logits, whether random numbers were drawn, and the names of what was changed."""

    logits: torch.Tensor
    drew: bool
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What a person and the engines must know of a network.

    draws: random numbers in training; mixes: in evaluation what it says of a sample depends on the others of the batch;
    without_gradient: trained parameters; unfrozen: parameters that are trained only once a forward pass has been made;
    moved: parameters that are not trained, and that a forward pass changes; changed: what one in evaluation changes.
    """

    draws: bool = False
    draws_in_evaluation: bool = False
    mixes: bool = False
    without_gradient: tuple[str, ...] = ()
    unfrozen: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return what must not be overlooked, a line each."""
        found = []
        if self.without_gradient:
            names = listed(self.without_gradient, 6)
            found.append(f"parameters on which the loss does not depend, and which so stay as they are: {names}")
        if self.draws_in_evaluation:
            text = "the network draws random numbers in evaluation too (dropout without training=self.training?)"
            found.append(f"{text}: every evaluation draws the same ones")
        if self.mixes:
            text = "what the network says of a sample in evaluation depends on the other samples of its batch"
            found.append(f"{text}: up to {WHOLE:,} test samples are one batch")
        if self.changed:
            text = f"the network changes {listed(self.changed, 6)} in evaluation too"
            found.append(f"{text}: it is evaluated on a copy, so training does not see that")
        return found


def tensors_of(model: nn.Module) -> Tensors:
    """Return a network's parameters and buffers by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def has_hooks(model: nn.Module, kinds: Sequence[str] = ("forward", "forward_pre", "backward", "backward_pre")) -> bool:
    """Return whether some part of a network has hooks of some kinds."""
    return any(getattr(module, f"_{kind}_hooks") for module in model.modules() for kind in kinds)


def has_hooks_on_parameters(model: nn.Module) -> bool:
    """Return whether gradients of some parameters pass through hooks (such as clipping)."""
    kinds = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(parameter, kind, None) for parameter in model.parameters() for kind in kinds)


def is_plain(model: nn.Module) -> bool:
    """Return whether a network is made of PyTorch's, torchvision's and our own modules alone, unchanged."""
    known = all(
        type(module).__module__.partition(".")[0] in ("torch", "torchvision", "hsgd_emu")
        and not {"forward", "train", "eval"} & set(vars(module))
        for module in model.modules()
    )
    return known and not has_hooks(model) and not has_hooks_on_parameters(model)


def evaluates_wholly(model: nn.Module) -> bool:
    """Return whether eval() reaches every part of a network; its mode afterwards is training."""
    reached = not any(module.training for module in model.eval().modules())
    model.train()
    return reached


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network; what it has computed and keeps (as old weight_norm does) comes without its history.

    What cannot be copied at all, such as a lock, both have.
    Raises:  ConfigError: it cannot be copied nevertheless.
    """
    held = [value for module in model.modules() for key, value in vars(module).items() if key not in _OF_EVERY_MODULE]
    tensors = [value for value in [*held, *model.buffers()] if isinstance(value, torch.Tensor)]
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, dict(memo))
    except Exception:
        memo |= {id(value): value for value in held if not _can_be_copied(value)}
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:
        text = f"the network holds something that cannot be copied ({type(error).__name__}: {error})"
        raise ConfigError.of("", "model", text) from error


def _can_be_copied(value: Any) -> bool:
    try:
        copy.deepcopy(value)
    except Exception:
        return False
    return True


def step_by_hand(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor, seed: int = 0
) -> Step:
    """Set parameters and buffers of a network in training mode, and return what one step finds."""
    _set(model, tensors)
    model.zero_grad()
    with seeded_generators(seed):
        before = drawn_so_far()
        loss = F.cross_entropy(logits_of(model(x.clone())), y)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        drew = drawn_so_far() != before
    after = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    return Step(float(loss.detach()), {name: dense(p.grad) for name, p in model.named_parameters()}, after, drew)


def dense(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """Return a gradient as a plain tensor (embeddings can have sparse ones)."""
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


@torch.no_grad()
def _set(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors_of(model).items():
        if tensor.shape == tensors[name].shape:
            tensor.copy_(tensors[name])
        else:  # a dropout mask, as large as the batch
            tensor.data = tensors[name].clone()


@torch.no_grad()
def evaluate_by_hand(model: nn.Module, tensors: Mapping[str, torch.Tensor], x: torch.Tensor) -> Evaluation:
    """Set parameters and buffers, and return what an evaluation finds; the mode afterwards is training."""
    _set(model, tensors)
    model.eval()
    with seeded_generators(0):
        before = drawn_so_far()
        logits = logits_of(model(x.clone()))
        drew = drawn_so_far() != before
    model.train()
    changed = (name for name, tensor in tensors_of(model).items() if not close(tensor, tensors[name]))
    return Evaluation(logits, drew, tuple(changed))


def examine(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Findings:
    """Return what a few steps on samples x (B, ...) with labels y (B,) show; the network itself stays as it is.

    Raises:  ConfigError: it cannot take a step, is not finite, or depends on what it did before.
    """
    if is_plain(model):
        with suppress(Exception):  # where a network needs values, it is examined like others
            return _examine_plain(model, x)
    start = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    fresh, used = copied(model).train(), copied(model).train()
    try:
        step_by_hand(fresh, start, x, y)
        if any(parameter.grad is not None for parameter in model.parameters()):
            # Something in a copy (a lambda, say) still means the network itself.
            fresh = used = model
        else:
            fresh = copied(model).train()
        return _findings(fresh, used, start, x, y)
    except ConfigError:
        raise
    except Exception as error:
        text = f"the network cannot take a step on {len(x)} samples of shape {tuple(x.shape[1:])}"
        raise ConfigError.of("", "model", f"{text}: {type(error).__name__}: {error}") from error
    finally:
        _set(model, start)
        model.zero_grad()


def _examine_plain(model: nn.Module, x: torch.Tensor) -> Findings:
    """Return what is to be known of a network of which `is_plain` is true: nothing is computed but shapes."""
    shapes: dict[int, torch.Tensor] = {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    for parameter in model.parameters():
        shapes[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    shape_only = copy.deepcopy(model, dict(shapes)).train()
    torch.autograd.backward(logits_of(shape_only(x.to("meta"))).sum())
    unused = [name for name, p in shape_only.named_parameters() if p.requires_grad and p.grad is None]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return Findings(mixes=any(norm.running_mean is None for norm in norms), without_gradient=tuple(unused))


def _findings(fresh: nn.Module, used: nn.Module, start: Tensors, x: torch.Tensor, y: torch.Tensor) -> Findings:
    trained = {name for name, parameter in fresh.named_parameters() if parameter.requires_grad}
    step = step_by_hand(fresh, start, x, y)
    evaluation = evaluate_by_hand(fresh, start, x)
    if np.isnan(step.loss) or evaluation.logits.isnan().any():
        raise ConfigError.of("", "model", "the network's output for some samples is NaN before it has learned anything")
    _check_past(fresh, used, start, (step, evaluation), x, y)
    unused = {name for name in trained if step.gradients[name] is None}
    for number in range(1, _TRIED_STEPS if unused else 0):  # others may be used with other samples or random numbers
        again = step_by_hand(fresh, start, x.roll(number, 0)[: 1 + len(x) // 2], y[: 1 + len(x) // 2], number)
        unused &= {name for name, gradient in again.gradients.items() if gradient is None}
    return Findings(
        step.drew,
        evaluation.drew,
        not evaluation.drew and _mixes(fresh, start, x, evaluation.logits),
        tuple(name for name in start if name in unused),
        tuple(name for name, gradient in step.gradients.items() if gradient is not None and name not in trained),
        tuple(
            name for name in step.gradients if name not in trained and not torch.equal(step.after[name], start[name])
        ),
        evaluation.changed,
    )


def _mixes(model: nn.Module, start: Tensors, x: torch.Tensor, logits: torch.Tensor) -> bool:
    try:
        alone = torch.cat([evaluate_by_hand(model, start, one[None]).logits for one in x])
    except Exception:  # a batch of one sample is refused: there is more to a batch than its samples
        return True
    return not close(alone, logits)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float | None = None, scale: float = 0.0) -> bool:
    """Return whether two tensors are equal up to the order of summation; scale: of what they are small beside."""
    if one.shape != other.shape or not (one.is_floating_point() and other.is_floating_point()):
        return torch.equal(one, other)
    tolerance = tolerance or (1e-9 if other.dtype == torch.float64 else 1e-4)
    finite = other[other.isfinite()].abs()
    largest = max(scale, float(finite.max())) if finite.numel() else scale
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * largest, equal_nan=True)


# --- what it did before -----------------------------------------------------------------------------------


def _check_past(
    fresh: nn.Module,
    used: nn.Module,
    start: Tensors,
    expected: tuple[Step, Evaluation],
    x: torch.Tensor,
    y: torch.Tensor,
) -> None:
    """Hold a network that has seen other samples with other weights to a fresh one.

    Raises:  ConfigError: they differ.
    """
    others = start | {name: nudged(start[name]) for name, _ in used.named_parameters()}
    for tensors, samples in ((others, x[:1].expand(x.shape)), (start, x)):
        try:
            step_by_hand(used, tensors, samples, y)
            evaluate_by_hand(used, tensors, samples)
            step_by_hand(used, tensors, samples, y)
            break
        except Exception:  # weights or samples that it was not made for
            continue
    step = step_by_hand(used, start, x, y)
    evaluation = evaluate_by_hand(used, start, x)
    names = _kept(fresh, used)
    if names:
        text = f"the network keeps {listed(names, 4)} from one forward pass to the next, which is neither parameter"
        raise ConfigError.of("", "model", f"{text} nor buffer: workers would share it; use register_buffer")
    if not (_is_same_step(step, expected[0]) and close(evaluation.logits, expected[1].logits)):
        text = "what the network computes depends on what it did before, beside its parameters and buffers"
        raise ConfigError.of("", "model", f"{text}: workers would share it; keep it in buffers (register_buffer)")


def nudged(parameter: torch.Tensor) -> torch.Tensor:
    """Return a parameter moved a little, always in the same way."""
    if not parameter.is_floating_point():
        return parameter.detach().clone()
    generator = torch.Generator().manual_seed(parameter.numel())
    return parameter.detach() + 0.05 * torch.randn(parameter.shape, generator=generator).to(parameter)


def _is_same_step(one: Step, other: Step) -> bool:
    pairs = [(g, other.gradients.get(name)) for name, g in one.gradients.items()]
    if one.after.keys() != other.after.keys() or any((a is None) != (b is None) for a, b in pairs):
        return False
    scale = max((float(g.abs().max()) for g in one.gradients.values() if g is not None and g.numel()), default=0.0)
    gradients = all(close(a, b, scale=scale) for a, b in pairs if a is not None and b is not None)
    return gradients and all(close(tensor, other.after[name]) for name, tensor in one.after.items())


def _kept(one: nn.Module, other: nn.Module) -> list[str]:
    """Return what two copies of a network hold beside parameters and buffers, and not alike."""
    found = []
    others = dict(other.named_modules())
    for name, module in one.named_modules():
        mine, its = ({k: v for k, v in vars(m).items() if k not in _OF_EVERY_MODULE} for m in (module, others[name]))
        for key in dict.fromkeys([*mine, *its]):
            if (key in mine) != (key in its) or not _alike(mine[key], its[key], _DEEPEST):
                found.append(f"'{name}.{key}'" if name else f"'{key}'")
    return found


def _alike(one: Any, other: Any, depth: int) -> bool:
    """Return whether two values are equal, as far as that can be seen."""
    if type(one) is not type(other):
        return False
    if depth == 0 or isinstance(one, nn.Module):
        return True
    if isinstance(one, torch.Tensor):
        return close(one.detach(), other.detach())
    if isinstance(one, np.ndarray):
        return bool(one.shape == other.shape and repr(one.tolist()) == repr(other.tolist()))
    if isinstance(one, bool | int | float | complex | str | bytes | Set) or one is None:
        return bool(one == other or one != one)
    states = _STATES.get(type(one))
    if states is not None:
        return repr(states(one)) == repr(states(other))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_alike(value, other[key], depth - 1) for key, value in one.items())
    if isinstance(one, Sequence | deque):
        return len(one) == len(other) and all(_alike(a, b, depth - 1) for a, b in zip(one, other, strict=True))
    return not hasattr(one, "__dict__") or _alike(vars(one), vars(other), depth - 1)


_STATES: dict[type, Any] = {
    np.random.Generator: lambda generator: generator.bit_generator.state,
    np.random.RandomState: lambda generator: (generator.get_state()[1].tolist(), generator.get_state()[2:]),
    random.Random: lambda generator: generator.getstate(),
    torch.Generator: lambda generator: generator.get_state().tolist(),
}
