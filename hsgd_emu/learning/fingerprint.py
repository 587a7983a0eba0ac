"""What tells networks apart, whatever code, files or environment made them: their weights, and what they compute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.learning.examine import copied
from hsgd_emu.learning.outputs import logits_of
from hsgd_emu.learning.seeded import seeded_generators

_STEPS = 2
"""Of training: what a first layer of zeros hides shows after one."""
_LEARNING_RATE = 0.1
_NOTHING = 1e-9
"""A tensor so much smaller than the largest is rounding of zero, which differs with the processor."""


def fingerprint(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> str:
    """Return the hash of a network's state, to the bit, and of what it makes of a batch in evaluation and in training.

    What it computes counts to six digits, in double precision where it can, so that processors agree. The model is left
    as it is.
    """
    digest = hashlib.sha256()
    for name, value in {**dict(model.named_buffers()), **model.state_dict()}.items():
        digest.update(name.encode())
        digest.update(_content(value) if isinstance(value, torch.Tensor) else repr(value).encode())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    modes = [name for name, module in model.named_modules() if module.training]
    digest.update(repr((trained, modes, _behaviour(model, x, y))).encode())
    return digest.hexdigest()


def _content(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return f"{tensor.dtype} {tuple(tensor.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()


def _behaviour(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """Return what a network computes, in short; what it raises where it cannot."""
    kinds = []
    for dtype in (torch.float64, torch.float32):
        try:
            with _alone():
                return _figures(_computed(copied(model).to(dtype), x.to(dtype), y))
        except Exception as error:  # the user's own code
            kinds.append(type(error).__name__)
    return kinds


def _computed(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    """Return outputs, gradients and buffers of a few steps of training, and what is evaluated around them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        found = [logits_of(model.eval()(x))]
    model.train()
    for _ in range(_STEPS):
        logits = logits_of(model(x))
        gradients = torch.autograd.grad(F.cross_entropy(logits, y), parameters, allow_unused=True)
        given = [(p, gradient) for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
        found += [logits, *(gradient for _, gradient in given)]
        with torch.no_grad():
            for parameter, gradient in given:
                parameter.sub_(gradient, alpha=_LEARNING_RATE)
    with torch.no_grad():
        return [*found, *model.buffers(), logits_of(model.eval()(x))]


def _figures(tensors: list[torch.Tensor]) -> list[str]:
    """Return two numbers of each tensor: its norm, and how it leans to its end."""
    flat = [tensor.detach().double().reshape(-1) for tensor in tensors]
    norms = [float(values.norm()) for values in flat]
    largest = max(norms)
    found = []
    for values, norm in zip(flat, norms, strict=True):
        if norm <= _NOTHING * largest:
            found.append("0")
            continue
        rising = torch.linspace(1, 2, len(values), dtype=torch.float64)
        leaning = float(values @ rising) / (norm * len(values) ** 0.5)
        found.append(f"{norm:.6g} {round(leaning, 6) + 0.0:.6f}")
    return found


@contextmanager
def _alone() -> Iterator[None]:
    """Seed all generators, take one thread, and put everything back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded_generators(0):
            yield
    finally:
        torch.set_num_threads(threads)
