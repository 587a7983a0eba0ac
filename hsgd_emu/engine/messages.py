"""How many bytes each node's messages have: what a case sends beside the model, or instead of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Pair, Pairs

UNKNOWN_BYTES = 1_000_000
"""Stands for the message size where it is not known and only the form of things is looked at."""


class ModelShape(NamedTuple):
    """What a model is made of: numbers in each parameter, in the module's order, and the bytes of all buffers."""

    tensors: tuple[int, ...]
    buffer_bytes: int

    @property
    def num_bytes(self) -> int:
        """Of the whole model, 4 for each number of a parameter."""
        return 4 * sum(self.tensors) + self.buffer_bytes

    @property
    def text(self) -> str:
        """It in one line, for `of_text`."""
        return f"{' '.join(map(str, self.tensors))}, buffers {self.buffer_bytes}"

    @classmethod
    def of_text(cls, text: str) -> ModelShape:
        """Raises:  ValueError: the text says no shape."""
        tensors, _, buffers = text.partition(", buffers ")
        return cls(tuple(map(int, tensors.split())), int(buffers))


class Both(NamedTuple):
    """What a node sends to the server that aggregates it, and what it is sent back."""

    up: Message
    down: Message


@dataclass(frozen=True)
class Sends:
    """What a case's messages carry.

    copies: of the model's size in each message (2 with its momentum, 3 with Adam's moments); coded: by sender and
    direction, the bytes of a compressed model of a shape, without its buffers; shape: asked where something is coded.
    """

    copies: int = 1
    coded: Mapping[tuple[int, Direction], Callable[[tuple[int, ...]], int]] = field(default_factory=dict)
    shape: Callable[[], ModelShape] | None = None

    @property
    def most(self) -> int:
        """How many times the model's size no message exceeds: an index takes as many bytes as the number it is of."""
        return max(self.copies, 2) if self.coded else self.copies

    def messages(self, pairs: Pairs, message_bytes: int) -> dict[Pair, Both]:
        """Return by (node, server that aggregates it) what they exchange.

        message_bytes: of the model, as it is or as a run file says; what is coded is the same share of it as of the
        model.
        """
        whole = Message(self.copies * message_bytes)
        alike = Both(whole, whole)
        if not self.coded:
            return dict.fromkeys(pairs, alike)
        return {
            (node, server): Both(self._sent(node, "up", message_bytes), self._sent(server, "down", message_bytes))
            for node, server in pairs
        }

    def _sent(self, sender: int, direction: Direction, message_bytes: int) -> Message:
        coded = self.coded.get((sender, direction))
        if coded is None or self.shape is None:
            return Message(self.copies * message_bytes)
        shape = self.shape()
        return Message(-(-message_bytes * (coded(shape.tensors) + shape.buffer_bytes) // shape.num_bytes))
