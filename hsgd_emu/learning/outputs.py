"""Which of a network's outputs holds the logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from hsgd_emu.errors import listed

Key = int | str


class OutputError(Exception):
    """An output that the logits cannot be taken from; the message says what would be right."""


def _entries(output: Any) -> Mapping[Any, Any]:
    """Return everything in a network's output by index or name."""
    if isinstance(output, Mapping):
        return output
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return dict(zip(output._fields, output, strict=True))
    if isinstance(output, tuple | list):
        return dict(enumerate(output))
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return vars(output) if hasattr(output, "__dict__") else {}


def parts_of(output: Any) -> dict[Key, torch.Tensor]:
    """Return the tensors of a network's output by index or name."""
    return {key: part for key, part in _entries(output).items() if isinstance(part, torch.Tensor)}


def described(parts: Mapping[Key, torch.Tensor]) -> str:
    """Return what there is to choose from, as `features (3, 64), logits (3, 10)`."""
    return listed(f"{key} {tuple(part.shape)}" for key, part in parts.items())


def logits_of(output: Any, chosen: Key | None = None) -> torch.Tensor:
    """Return the logits of a network's output; chosen: which one, by its name or its place.

    Raises:  OutputError: there are several and none is chosen, or not the chosen one.
    """
    if isinstance(output, torch.Tensor):
        return output
    parts = parts_of(output)
    if not parts:
        raise OutputError(f"its output is a {type(output).__name__}; a tensor is needed")
    if chosen is None and len(parts) == 1:
        return next(iter(parts.values()))
    if chosen is None:
        example = f"model: {{name: ..., output: {_likely(parts)}}}"
        raise OutputError(f"its outputs are {described(parts)}; say which one holds the logits, as in {example}")
    part = _entries(output).get(chosen, _at(output, chosen))
    if not isinstance(part, torch.Tensor):
        raise OutputError(f"its outputs are {described(parts)}; there is no output {chosen!r}")
    return part


def _at(output: Any, place: Key) -> Any:
    entries = list(_entries(output).values())
    return entries[place] if isinstance(place, int) and -len(entries) <= place < len(entries) else None


def is_first(output: Any, chosen: Key | None) -> bool:
    """Return whether the chosen output is the first one, which a network that returns one alone has as well."""
    return next(iter(parts_of(output).values()), None) is logits_of(output, chosen)


def _likely(parts: Mapping[Key, torch.Tensor]) -> Key:
    """Return an example for the message: the last output that has one row a sample, if there is one."""
    rows = [key for key, part in parts.items() if part.dim() == 2]
    return rows[-1] if rows else next(iter(parts))


@dataclass(frozen=True)
class Choose:
    """A forward hook: what the network returns is its logits alone."""

    output: Key | None

    def __call__(self, model: nn.Module, inputs: Any, output: Any) -> torch.Tensor:
        return logits_of(output, self.output)
