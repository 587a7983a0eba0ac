"""What a step, an aggregation or a message costs: draws of one law, and what is expected of them.

The forms that a file may give are declared in config/schema.py, with what is known of them without drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import CostValue, Gamma, Law, Lognormal, Normal, Samples, Uniform
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.units import LONGEST_S, MOST_NS, NS_PER_S, to_ns

Seconds = NDArray[np.float64]
Nanoseconds = NDArray[np.int64]
BLOCK = 256
"""Draws are made in blocks of this size, so that draw k of a stream does not depend on how many are taken."""


class TooLongError(Exception):
    """Times may be longer than 64 bits of nanoseconds hold."""


def _not_negative(law: Normal, rng: np.random.Generator, num: int) -> Seconds:
    kept = np.empty(0)
    while len(kept) < num:
        more = rng.normal(law.mean, law.std, num)
        kept = np.concatenate([kept, more[more >= 0]])
    return kept[:num]


_DRAWING: dict[type[Law], Callable[[Any, np.random.Generator, int], Seconds]] = {
    Samples: lambda law, rng, num: np.asarray(law.samples)[rng.integers(len(law.samples), size=num)],
    Lognormal: lambda law, rng, num: rng.lognormal(math.log(law.median), law.sigma, num),
    Normal: _not_negative,
    Gamma: lambda law, rng, num: rng.gamma(law.shape, law.scale, num),
    Uniform: lambda law, rng, num: rng.uniform(law.low, law.high, num),
}
"""How `num` seconds of a law are drawn from a generator."""


@dataclass(frozen=True, eq=False)
class Cost:
    """A cost as a file gives it, bound once: equal to itself alone, so that telling costs apart reads no samples."""

    value: CostValue | Law

    @property
    def is_constant(self) -> bool:
        """Whether every draw is the same."""
        return isinstance(self.value, int | float)

    @cached_property
    def expected_s(self) -> float:
        """The expectation in seconds (of the truncated law for `normal` and `uniform`)."""
        return self.value.mean_s if isinstance(self.value, Law) else float(self._constant_s)

    @property
    def _constant_s(self) -> float:
        assert isinstance(self.value, int | float), "CSV samples are read in when a profile is bound"
        return self.value

    @property
    def kind(self) -> str:
        """What it is drawn from, for people; nothing for a constant."""
        return self.value.kind if isinstance(self.value, Law) else ""

    def at_expectation(self) -> Cost:
        """Return what is expected of it, as a constant."""
        return Cost(self.expected_s)

    def scaled(self, factor: float) -> Cost:
        """Return the cost whose draws are those of this one times `factor`."""
        return Cost(self.value.scaled(factor) if isinstance(self.value, Law) else self._constant_s * factor)

    def draw_s(self, rng: np.random.Generator, num: int) -> Seconds:
        """Return `num` draws in seconds."""
        if isinstance(self.value, Law):
            return _DRAWING[type(self.value)](self.value, rng, num)
        return np.full(num, self._constant_s, np.float64)

    def draw_ns(self, rng: np.random.Generator, num: int) -> Nanoseconds:
        """Return `num` draws as integer nanoseconds, rounded half to even.

        Raises:  ConfigError: one is longer than `LONGEST_S`: the distribution's tail is too heavy.
        """
        seconds = self.draw_s(rng, num)
        if not bool(np.all(seconds <= LONGEST_S)):
            text = f"a cost of {seconds.max():g} s was drawn; at most {LONGEST_S:g} s"
            raise ConfigError.of("", "profiles", f"{text}: give the distribution a lighter tail")
        return np.rint(seconds * NS_PER_S).astype(np.int64)

    def draw_blocks_ns(self, rng: np.random.Generator, num_blocks: int) -> Nanoseconds:
        """Return the next blocks of a stream's draws in one array: the same as one after the other."""
        if isinstance(self.value, Normal):  # what is rejected is drawn again within its block
            return np.concatenate([self.draw_ns(rng, BLOCK) for _ in range(num_blocks)])
        return self.draw_ns(rng, num_blocks * BLOCK)

    def stream(self, seed: int, purpose: str, *names: str) -> Stream:
        """Return the draws of the stream (seed, purpose, names); constants draw nothing."""
        if self.is_constant:
            return ConstantStream(to_ns(self._constant_s))
        return RandomStream(self, stream(seed, purpose, *names))


class Stream(Protocol):
    """Draw k of one stream of costs, k = 0, 1, 2, ..."""

    def take(self, num: int) -> int:
        """Return the sum of the next `num` draws, nanoseconds."""

    def sums(self, num: int, each: int) -> Nanoseconds:
        """Return what `take(each)` gives the next `num` times: (num,), or (1,) where it is always the same.

        Raises:  TooLongError: it may be more than 64 bits hold.
        """


class ConstantStream:
    """The same cost each time."""

    def __init__(self, ns: int) -> None:
        self.ns = ns

    def take(self, num: int) -> int:
        return self.ns * num

    def sums(self, num: int, each: int) -> Nanoseconds:
        if self.ns * each > MOST_NS:
            raise TooLongError
        return np.array([self.ns * each], np.int64)


class RandomStream:
    """Costs drawn from a generator, in order."""

    def __init__(self, cost: Cost, rng: np.random.Generator) -> None:
        self.cost, self.rng = cost, rng
        self.block: Nanoseconds = np.empty(0, np.int64)
        self.next = 0

    def take(self, num: int) -> int:
        total = 0
        while num > 0:
            if self.next == len(self.block):
                self.block, self.next = self.cost.draw_ns(self.rng, BLOCK), 0
            part = self.block[self.next : self.next + num]
            total += int(part.sum()) if int(part.max()) <= MOST_NS // BLOCK else sum(part.tolist())
            self.next += len(part)
            num -= len(part)
        return total

    def sums(self, num: int, each: int) -> Nanoseconds:
        left = self.block[self.next :]
        num_blocks = -(-max(0, num * each - len(left)) // BLOCK)
        if num_blocks:
            left = np.concatenate([left, self.cost.draw_blocks_ns(self.rng, num_blocks)])
        self.block, self.next = left[num * each :], 0
        if int(left.max()) > MOST_NS // each:
            raise TooLongError
        return np.asarray(left[: num * each].reshape(num, each).sum(axis=1))
