"""What a message costs over one link: one class for each model of a transfer.

Not modelled: bandwidth shared between transfers, slow start, loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hsgd_emu.config.schema import COST_FIELDS, Bandwidth, ComputeProfile, LinkProfile
from hsgd_emu.timing.costs import Cost, Nanoseconds, Stream
from hsgd_emu.units import LONGEST_S, NS_PER_S, to_ns

Profile = TypeVar("Profile", LinkProfile, ComputeProfile)


class Message(NamedTuple):
    """What is sent: a model."""

    num_bytes: int


class Exchanges(Protocol):
    """A node's exchanges over one link, in order: a message up, then one down."""

    def next(self, up: Message, down: Message) -> tuple[int, int]:
        """Return (up, down) of the next exchange in nanoseconds."""

    def many(self, num: int, up: Message, down: Message) -> tuple[Nanoseconds, Nanoseconds]:
        """Return (up, down) of the next `num` exchanges: (num,) each, or (1,) where it is always the same."""


class Transfer(ABC):
    """What messages cost over a link of one profile, bound once: equal to itself alone, as a `Cost` is."""

    needs_bytes = False
    """Whether a message's size tells in what it costs."""
    text: str
    """In words, {FIELD} standing for a cost."""

    def __init__(self, profile: LinkProfile) -> None:
        self.profile = profile
        self.costs = costs_of(profile)

    @property
    def is_constant(self) -> bool:
        """Whether every exchange takes the same time."""
        return all(cost.is_constant for cost in self.costs.values())

    @abstractmethod
    def expected_s(self, message: Message) -> tuple[float, float]:
        """Return the expected seconds of a message towards the upper end of the link and towards its lower end."""

    def expected_ns(self, message: Message) -> int:
        """Return the expected cost of an exchange, up plus down, in nanoseconds.

        Raises:  ValueError: the message takes more than `LONGEST_S` over this link.
        """
        return round(sum(self.expected_s(message)) * NS_PER_S)

    def up_share(self, message: Message) -> float | None:
        """Return which share of what is expected of an exchange goes up; None: half of it."""
        up, down = self.expected_s(message)
        # Of 1/3 all digits; of 0.0375 / 0.05 not the last, which is rounding.
        return float(f"{up / (up + down):.12g}") if up != down else None

    @abstractmethod
    def stream(self, seed: int, link: str, node: str) -> Exchanges:
        """Return a node's exchanges over this link, in order: from streams (seed, ..., link, node)."""

    def at_expectation(self) -> Transfer:
        """Return the transfer of which every cost is what is expected of it."""
        return transfer_of(self.profile.model_copy(update={name: c.expected_s for name, c in self.costs.items()}))

    def scaled(self, factor: float) -> Transfer:
        """Return the transfer of which every time is multiplied by `factor`."""
        return transfer_of(scaled(self.profile, factor))


class Rtt(Transfer):
    """One r is drawn for an exchange, whatever is sent: up = round(r * up_share), down = r - up, in nanoseconds."""

    def __init__(self, profile: LinkProfile) -> None:
        super().__init__(profile)
        self.share = 0.5 if profile.up_share is None else profile.up_share
        self.text = "RTT {rtt_s}" + ("" if profile.up_share is None else f", {100 * profile.up_share:g}% of it up")

    def expected_s(self, message: Message) -> tuple[float, float]:
        rtt_s = self.costs["rtt_s"].expected_s
        return rtt_s * self.share, rtt_s * (1 - self.share)

    def expected_ns(self, message: Message) -> int:
        return round(self.costs["rtt_s"].expected_s * NS_PER_S)

    def up_share(self, message: Message) -> float | None:
        return self.profile.up_share

    def stream(self, seed: int, link: str, node: str) -> Exchanges:
        return _RttExchanges(self.costs["rtt_s"].stream(seed, "rtt", link, node), self.share)


@dataclass
class _RttExchanges:
    rtt: Stream
    up_share: float

    def next(self, up: Message, down: Message) -> tuple[int, int]:
        total = self.rtt.take(1)
        up_ns = round(total * self.up_share)
        return up_ns, total - up_ns

    def many(self, num: int, up: Message, down: Message) -> tuple[Nanoseconds, Nanoseconds]:
        total = self.rtt.sums(num, 1)
        up_ns = np.rint(total * self.up_share).astype(np.int64)
        return up_ns, total - up_ns


class OneWay(Transfer):
    """Each direction is drawn by itself; what is sent then takes 8 * bytes / bandwidth, which here is nothing."""

    text = "up {up_s}, down {down_s}"
    up_bps = down_bps = math.inf
    up, down = "up_s", "down_s"
    """The keys of what is drawn."""

    def expected_s(self, message: Message) -> tuple[float, float]:
        up_s, down_s, num_bits = self.costs[self.up].expected_s, self.costs[self.down].expected_s, 8 * message.num_bytes
        return up_s + num_bits / self.up_bps, down_s + num_bits / self.down_bps

    def expected_ns(self, message: Message) -> int:
        wire_ns = _wire_ns(message, self.up_bps) + _wire_ns(message, self.down_bps)
        return round((self.costs[self.up].expected_s + self.costs[self.down].expected_s) * NS_PER_S) + wire_ns

    def stream(self, seed: int, link: str, node: str) -> Exchanges:
        up = self.costs[self.up].stream(seed, "up", link, node)
        down = self.costs[self.down].stream(seed, "down", link, node)
        return _OneWayExchanges(up, down, self.up_bps, self.down_bps)


class Raw(OneWay):
    """A direction costs its latency, drawn, + 8 * bytes / bandwidth."""

    needs_bytes = True
    up = down = "latency_s"

    def __init__(self, profile: LinkProfile) -> None:
        super().__init__(profile)
        assert profile.rates_bps is not None
        self.up_bps, self.down_bps = profile.rates_bps
        both = isinstance(profile.bandwidth_bps, Bandwidth)
        rates = f"{self.up_bps:g} up, {self.down_bps:g} down" if both else f"{self.up_bps:g}"
        self.text = f"latency {{latency_s}} + 8 x bytes / ({rates} bit/s)"


@lru_cache
def _wire_ns(message: Message, rate_bps: float) -> int:
    seconds = 8 * message.num_bytes / rate_bps
    if seconds > LONGEST_S:
        raise ValueError(f"{message.num_bytes} bytes at {rate_bps:g} bit/s take more than {LONGEST_S:g} s")
    return to_ns(seconds)


@dataclass
class _OneWayExchanges:
    up: Stream
    down: Stream
    up_bps: float
    down_bps: float

    def next(self, up: Message, down: Message) -> tuple[int, int]:
        return self.up.take(1) + _wire_ns(up, self.up_bps), self.down.take(1) + _wire_ns(down, self.down_bps)

    def many(self, num: int, up: Message, down: Message) -> tuple[Nanoseconds, Nanoseconds]:
        up_ns, down_ns = _wire_ns(up, self.up_bps), _wire_ns(down, self.down_bps)
        return self.up.sums(num, 1) + up_ns, self.down.sums(num, 1) + down_ns


_MODELS: dict[str, type[Transfer]] = {"raw": Raw}


def transfer_of(profile: LinkProfile) -> Transfer:
    """Return what messages cost over the links of a profile, whose CSV samples have been read in."""
    if profile.rtt_s is not None:
        return Rtt(profile)
    if profile.up_s is not None:
        return OneWay(profile)
    assert profile.model is not None
    return _MODELS[profile.model](profile)


def bound(profile: LinkProfile | ComputeProfile) -> Transfer | Cost:
    """Return what a message costs over the links of a profile, or a step on its workers."""
    return transfer_of(profile) if isinstance(profile, LinkProfile) else costs_of(profile)["step_s"]


def costs_of(profile: LinkProfile | ComputeProfile) -> dict[str, Cost]:
    """Return the costs of a profile by its keys."""
    given = {name: getattr(profile, name, None) for name in COST_FIELDS}
    return {name: Cost(value) for name, value in given.items() if value is not None}


def scaled(profile: Profile, factor: float) -> Profile:
    """Return the profile with every time multiplied by `factor`: each form stays what it is, so it is exact.

    The split of an RTT stays; bandwidths are divided. CSV samples must have been read in.
    """
    new: dict[str, Any] = {name: cost.scaled(factor).value for name, cost in costs_of(profile).items()}
    rate = getattr(profile, "bandwidth_bps", None)
    if rate is not None:
        both = isinstance(rate, Bandwidth)
        new["bandwidth_bps"] = (
            Bandwidth.model_construct(up=rate.up / factor, down=rate.down / factor) if both else rate / factor
        )
    if profile.source is not None:
        # The figures are no longer those of the source.
        new["source"] = f"{profile.source.strip()} (every time x {factor:g})"
    return profile.model_copy(update=new)
