"""How many bytes messages have, and how many have been sent: by hand."""

from __future__ import annotations

from dataclasses import replace

from oracle.drive import experiment_of, plan_of

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.messages import ModelShape, Sends
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import RoundRecord

RUN = """
name: bytes
topology:
  name: t
  levels: [{name: edge, count: 2, uplink: link}, {name: worker, count: 3, uplink: link}]
profiles: {link: {latency_s: 0.0, bandwidth_bps: 8000, model: raw}}
compute: {step_s: 0.001}
model: softmax_regression
train: {iterations: 8}
cases: [{name: H-SGD, periods: [4, 2]}, {name: half, periods: [4, 2], participation: 0.34}]
message_bytes: 1000
"""


def rounds(plan: Plan) -> list[RoundRecord]:
    found: list[RoundRecord] = []
    emulate(plan, Operations(), found.append)
    return found


def test_each_message_counts_once() -> None:
    """A round of 4: twice 6 workers and once 2 servers; of those that sit out, each is sent what it does not send."""
    experiment = experiment_of(RUN)
    everybody = [(one.uploaded_bytes, one.downloaded_bytes) for one in rounds(plan_of(experiment, 0, 1))]
    assert everybody == [(14_000, 14_000), (28_000, 28_000)]
    some = [(one.uploaded_bytes, one.downloaded_bytes) for one in rounds(plan_of(experiment, 1, 1))]
    assert some == [(6_000, 14_000), (12_000, 28_000)]


def test_state_is_sent_with_the_model() -> None:
    """Three times the bytes at 1,000 bytes a second: a worker is sending or receiving for 3 s each, as is a server."""
    plan = replace(plan_of(experiment_of(RUN), 0, 1), sends=Sends(copies=3))
    first, _ = rounds(plan)
    assert first.time_ns == (4 * 1 + 6 * 3_000) * 10**6
    assert first.uploaded_bytes == 42_000


def test_a_coded_message_is_its_share_of_the_model() -> None:
    """Of 7 numbers and 2 bytes of buffers, 5 + 2 bytes: 7/30 of 1,000, rounded up."""
    shape = ModelShape((3, 4), 2)
    sends = Sends(coded={(2, "up"): lambda tensors: len(tensors) + 3, (1, "down"): sum}, shape=lambda: shape)
    found = sends.messages([(1, 0), (2, 1), (3, 1)], 1000)
    assert shape.num_bytes == 30
    assert {node: tuple(one.num_bytes for one in both) for (node, _), both in found.items()} == {
        1: (1000, 1000),
        2: (234, 300),
        3: (1000, 300),
    }
