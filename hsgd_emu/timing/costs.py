"""What a step, a transfer or an aggregation costs: profiles as sources of draws and expectations.

Not modelled: bandwidth shared between transfers, slow start, loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.config.schema import Bandwidth, CostValue, Gamma, LinkProfile, Lognormal, Normal, Samples, Uniform
from hsgd_emu.errors import ConfigError
from hsgd_emu.rng import stream
from hsgd_emu.units import LONGEST_S, MOST_NS, NS_PER_S, to_ns

Nanoseconds = NDArray[np.int64]
BLOCK = 256
"""Draws are made in blocks of this size, so that draw k of a stream does not depend on how many are taken."""


class TooLongError(Exception):
    """Times may be longer than 64 bits of nanoseconds hold."""


def constant_s(value: CostValue) -> float:
    """Return the seconds of a constant cost."""
    assert isinstance(value, int | float)
    return float(value)


def mean_s(value: CostValue) -> float:
    """Return the expectation of a cost in seconds (of the truncated law for `normal` and `uniform`)."""
    if isinstance(value, Samples):
        return math.fsum(value.samples) / len(value.samples)
    if isinstance(value, Lognormal):
        return value.median * math.exp(value.sigma**2 / 2)
    if isinstance(value, Normal):
        # E[X | X >= 0] = mean + std * pdf(a) / (1 - cdf(a)), a = -mean / std.
        a = -value.mean / value.std
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        return value.mean + value.std * density / (0.5 * math.erfc(a / math.sqrt(2)))
    if isinstance(value, Gamma):
        return value.shape * value.scale
    if isinstance(value, Uniform):
        return (value.low + value.high) / 2
    return constant_s(value)


def draw_s(value: CostValue, rng: np.random.Generator, num: int) -> NDArray[np.float64]:
    """Return `num` draws of a cost in seconds."""
    if isinstance(value, Samples):
        return np.asarray(value.samples)[rng.integers(len(value.samples), size=num)]
    if isinstance(value, Lognormal):
        return rng.lognormal(math.log(value.median), value.sigma, num)
    if isinstance(value, Normal):
        kept = np.empty(0)
        while len(kept) < num:
            more = rng.normal(value.mean, value.std, num)
            kept = np.concatenate([kept, more[more >= 0]])
        return kept[:num]
    if isinstance(value, Gamma):
        return rng.gamma(value.shape, value.scale, num)
    if isinstance(value, Uniform):
        return rng.uniform(value.low, value.high, num)
    return np.full(num, constant_s(value))


def draw_ns(value: CostValue, rng: np.random.Generator, num: int) -> Nanoseconds:
    """Return `num` draws as integer nanoseconds, rounded half to even.

    Raises:  ConfigError: one is longer than `LONGEST_S`: the distribution's tail is too heavy.
    """
    seconds = draw_s(value, rng, num)
    if not bool(np.all(seconds <= LONGEST_S)):
        text = f"a cost of {seconds.max():g} s was drawn; at most {LONGEST_S:g} s: give the distribution a lighter tail"
        raise ConfigError.of("", "profiles", text)
    return np.rint(seconds * NS_PER_S).astype(np.int64)


def draw_blocks_ns(value: CostValue, rng: np.random.Generator, num_blocks: int) -> Nanoseconds:
    """Return the next blocks of a stream's draws in one array: the same as one after the other."""
    if isinstance(value, Normal):
        # What is rejected is drawn again within its block.
        return np.concatenate([draw_ns(value, rng, BLOCK) for _ in range(num_blocks)])
    return draw_ns(value, rng, num_blocks * BLOCK)


def is_constant(value: CostValue | None) -> bool:
    """Return whether every draw of the cost is the same."""
    return value is None or not isinstance(value, Samples | Lognormal | Normal | Gamma | Uniform)


class Costs(Protocol):
    """Draw k of one stream of costs, k = 0, 1, 2, ..."""

    def take(self, num: int) -> int:
        """Return the sum of the next `num` draws, nanoseconds."""

    def sums(self, num: int, each: int) -> Nanoseconds:
        """Return what `take(each)` gives the next `num` times: (num,), or (1,) where it is always the same.

        Raises:  TooLongError: it may be more than 64 bits hold.
        """


class ConstantCost:
    """The same cost each time."""

    def __init__(self, value: CostValue) -> None:
        self.ns = to_ns(constant_s(value))

    def take(self, num: int) -> int:
        return self.ns * num

    def sums(self, num: int, each: int) -> Nanoseconds:
        if self.ns * each > MOST_NS:
            raise TooLongError
        return np.array([self.ns * each], np.int64)


class RandomCost:
    """Costs drawn from the stream (seed, purpose, names), in order."""

    def __init__(self, value: CostValue, seed: int, purpose: str, *names: str) -> None:
        self.value = value
        self.rng = stream(seed, purpose, *names)
        self.block: Nanoseconds = np.empty(0, np.int64)
        self.next = 0

    def take(self, num: int) -> int:
        total = 0
        while num > 0:
            if self.next == len(self.block):
                self.block, self.next = draw_ns(self.value, self.rng, BLOCK), 0
            part = self.block[self.next : self.next + num]
            total += int(part.sum()) if int(part.max()) <= MOST_NS // BLOCK else sum(part.tolist())
            self.next += len(part)
            num -= len(part)
        return total

    def sums(self, num: int, each: int) -> Nanoseconds:
        left = self.block[self.next :]
        num_blocks = -(-max(0, num * each - len(left)) // BLOCK)
        if num_blocks:
            left = np.concatenate([left, draw_blocks_ns(self.value, self.rng, num_blocks)])
        self.block, self.next = left[num * each :], 0
        if int(left.max()) > MOST_NS // each:
            raise TooLongError
        return np.asarray(left[: num * each].reshape(num, each).sum(axis=1))


def cost_stream(value: CostValue, seed: int, purpose: str, *names: str) -> Costs:
    """Return the stream of a cost; constants draw nothing."""
    return ConstantCost(value) if is_constant(value) else RandomCost(value, seed, purpose, *names)


@dataclass(frozen=True)
class TransferModel:
    """What one exchange (upload, then download, of one model message) costs over one link.

    DESIGN: an RTT draws one r per exchange, up = round(r * up_share), down = r - up, in nanoseconds. `raw`: each
    direction costs its latency + 8 * message_bytes / bandwidth_bps.
    """

    profile: LinkProfile
    message_bytes: int

    @cached_property
    def is_constant(self) -> bool:
        """Whether every exchange takes the same time."""
        profile = self.profile
        return all(is_constant(v) for v in (profile.rtt_s, profile.latency_s, profile.up_s, profile.down_s))

    @cached_property
    def constant_ns(self) -> tuple[int, int]:
        """(up, down) of every exchange, where all take the same time."""
        return self.stream(0, "", "").next()

    def expected_ns(self) -> int:
        """Return the expected cost of an exchange, up plus down, in nanoseconds.

        Raises:  ValueError: the message takes more than `LONGEST_S` over this bandwidth.
        """
        profile = self.profile
        if profile.rtt_s is not None:
            return round(mean_s(profile.rtt_s) * NS_PER_S)
        up, down = self._parts()
        return round((mean_s(up[0]) + mean_s(down[0])) * NS_PER_S) + up[1] + down[1]

    def _parts(self) -> tuple[tuple[CostValue, int], tuple[CostValue, int]]:
        """Return (drawn cost, fixed nanoseconds) of the up and down direction."""
        profile = self.profile
        if profile.latency_s is None:
            assert profile.up_s is not None
            assert profile.down_s is not None
            return (profile.up_s, 0), (profile.down_s, 0)
        rate = profile.bandwidth_bps
        up, down = (rate.up, rate.down) if isinstance(rate, Bandwidth) else (rate, rate)
        return (profile.latency_s, self._wire_ns(up)), (profile.latency_s, self._wire_ns(down))

    def _wire_ns(self, rate_bps: float | None) -> int:
        assert rate_bps is not None
        seconds = 8 * self.message_bytes / rate_bps
        if seconds > LONGEST_S:
            raise ValueError(f"{self.message_bytes} bytes at {rate_bps:g} bit/s take more than {LONGEST_S:g} s")
        return to_ns(seconds)

    def stream(self, seed: int, link: str, node: str) -> Exchanges:
        """Return a node's exchanges over this link, in order; streams (seed, "rtt" or "up" and "down", link, node)."""
        profile = self.profile
        if profile.rtt_s is not None:
            share = 0.5 if profile.up_share is None else profile.up_share
            return RttExchanges(cost_stream(profile.rtt_s, seed, "rtt", link, node), share)
        up, down = self._parts()
        up_costs = cost_stream(up[0], seed, "up", link, node)
        return TwoWayExchanges(up_costs, up[1], cost_stream(down[0], seed, "down", link, node), down[1])


class Exchanges(Protocol):
    """The exchanges over one link in order."""

    def next(self) -> tuple[int, int]:
        """Return (up, down) of the next exchange in nanoseconds."""

    def many(self, num: int) -> tuple[Nanoseconds, Nanoseconds]:
        """Return (up, down) of the next `num` exchanges: (num,) each, or (1,) where it is always the same."""


@dataclass
class RttExchanges:
    rtt: Costs
    up_share: float

    def next(self) -> tuple[int, int]:
        total = self.rtt.take(1)
        up = round(total * self.up_share)
        return up, total - up

    def many(self, num: int) -> tuple[Nanoseconds, Nanoseconds]:
        total = self.rtt.sums(num, 1)
        up = np.rint(total * self.up_share).astype(np.int64)
        return up, total - up


@dataclass
class TwoWayExchanges:
    up: Costs
    up_ns: int
    down: Costs
    down_ns: int

    def next(self) -> tuple[int, int]:
        return self.up.take(1) + self.up_ns, self.down.take(1) + self.down_ns

    def many(self, num: int) -> tuple[Nanoseconds, Nanoseconds]:
        return self.up.sums(num, 1) + self.up_ns, self.down.sums(num, 1) + self.down_ns
