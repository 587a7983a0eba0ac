"""What an exchange over one link costs, drawn and expected."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hsgd_emu.config.schema import Bandwidth, Lognormal, Samples
from hsgd_emu.config.schema import LinkProfile as Link
from hsgd_emu.timing.transfers import Message, transfer_of

MS = 1_000_000
ONE = Message(1)


def exchange(profile: Link, num_bytes: int = 1000) -> tuple[int, int]:
    return transfer_of(profile).stream(1, "link", "node").next(Message(num_bytes), Message(num_bytes))


@pytest.mark.parametrize(
    ("profile", "up_ns", "down_ns"),
    [
        (Link(rtt_s=0.1), 50 * MS, 50 * MS),
        (Link(rtt_s=0.1, up_share=0.8), 80 * MS, 20 * MS),
        (Link(rtt_s=0.1, up_share=0.0), 0, 100 * MS),
        (Link(rtt_s=0.1, up_share=1.0), 100 * MS, 0),
        (Link(up_s=0.03, down_s=0.01), 30 * MS, 10 * MS),
        # 1000 bytes = 8000 bits: 8 ms at 1 Mbit/s, 4 ms at 2 Mbit/s.
        (Link(latency_s=0.01, bandwidth_bps=1e6, model="raw"), 18 * MS, 18 * MS),
        (Link(latency_s=0.01, bandwidth_bps=Bandwidth(up=1e6, down=2e6), model="raw"), 18 * MS, 14 * MS),
    ],
)
def test_up_and_down(profile: Link, up_ns: int, down_ns: int) -> None:
    assert exchange(profile) == (up_ns, down_ns)
    assert transfer_of(profile).expected_ns(Message(1000)) == up_ns + down_ns


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_up_and_down_are_the_drawn_rtt_to_the_nanosecond(share: float) -> None:
    value = Lognormal(distribution="lognormal", median=0.1, sigma=1)
    whole = transfer_of(Link(rtt_s=value)).stream(1, "link", "node")
    split = transfer_of(Link(rtt_s=value, up_share=share)).stream(1, "link", "node")
    for _ in range(300):
        (up, down), rtt = split.next(ONE, ONE), sum(whole.next(ONE, ONE))
        assert up + down == rtt
        assert up == round(rtt * share)


def test_latency_is_drawn_anew_in_each_direction() -> None:
    drawn = Samples(samples=tuple(n / 1000 for n in range(100)))
    exchanges = transfer_of(Link(latency_s=drawn, bandwidth_bps=1e9, model="raw")).stream(1, "link", "node")
    pairs = [exchanges.next(ONE, ONE) for _ in range(50)]
    assert sum(up == down for up, down in pairs) < 10


@pytest.mark.parametrize(
    ("profile", "expected_s"),
    [
        (Link(rtt_s=Samples(samples=(0.1, 0.4))), 0.25),
        (Link(up_s=Samples(samples=(0.1, 0.4)), down_s=0.05), 0.3),
        (Link(rtt_s=Lognormal(distribution="lognormal", median=0.1, sigma=1.0)), 0.1 * math.exp(0.5)),
        (Link(latency_s=Samples(samples=(0.1, 0.3)), bandwidth_bps=8e3, model="raw"), 2 * 0.2 + 2 * 1.0),
    ],
)
def test_expected_cost_is_up_plus_down(profile: Link, expected_s: float) -> None:
    assert transfer_of(profile).expected_ns(Message(1000)) == round(expected_s * 1e9)


def test_a_node_has_its_own_draws_on_a_shared_link() -> None:
    model: Any = transfer_of(Link(rtt_s=Samples(samples=tuple(n / 1000 for n in range(1, 500)))))
    first, second = model.stream(1, "link", "a"), model.stream(1, "link", "b")
    assert [first.next(ONE, ONE) for _ in range(5)] != [second.next(ONE, ONE) for _ in range(5)]


def test_a_message_that_takes_thirty_years_is_refused() -> None:
    model = transfer_of(Link(latency_s=0.0, bandwidth_bps=1e-3, model="raw"))
    with pytest.raises(ValueError, match=r"1000000000 bytes at 0\.001 bit/s"):
        model.expected_ns(Message(10**9))
