"""Servers that make something else of an average than they send on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.learning.models import mlp
from hsgd_emu.learning.servers import Outer, server_rule

from .test_stacked_training import HOW
from .twins import Trial, in_turns, synthetic

MLP = partial(mlp, (6,), (8,), 4)
ADAM = {"learning_rate": 0.1, "betas": (0.8, 0.9), "epsilon": 0.01}
RULES = {
    "momentum": ServerSpec(optimizer="momentum", momentum=0.5, learning_rate=0.7),
    "nesterov": ServerSpec(optimizer="nesterov", momentum=0.9),
    **{name: ServerSpec(optimizer=name, **ADAM) for name in ("adam", "yogi", "adagrad")},
}


@pytest.mark.parametrize(("way", "chunk"), HOW)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("members", [None, in_turns])
def test_twins(rule, way, chunk, members):
    # At a local server too, which keeps its state when a model comes from above.
    trial = Trial(MLP, synthetic((6,)), sizes=(3, 9, 3, 7), servers={4: RULES[rule], 6: RULES[rule]})
    trial.assert_twins(way, chunk, members=members)


def steps(spec: ServerSpec, averages: list[float], start: float = 1.0) -> list[float]:
    """Return where a rule leads when children send these averages, by one parameter."""
    outer, x, found = Outer(server_rule(spec.whole(), Path()), spec), {"w": torch.tensor([start]).double()}, []
    for average in averages:
        x = dict(outer.step(x, {"w": torch.tensor([average]).double()}))
        found.append(x["w"].item())
        x = {"w": x["w"].clone()}
    return found


def test_by_hand():
    # Delta 1, then from x = 0.5: m = 0.5 * 1 + 0.5 = 1, x = 0.5 - 0.5 * 1.
    assert steps(ServerSpec(optimizer="momentum", momentum=0.5, learning_rate=0.5), [0.0, 0.0]) == [0.5, 0.0]
    # m = 1: x = 1 - 0.5 (1 + 0.5); then Delta 0.25, m = 0.75: 0.25 - 0.5 (0.25 + 0.375).
    nesterov = ServerSpec(optimizer="nesterov", momentum=0.5, learning_rate=0.5)
    assert steps(nesterov, [0.0, 0.0]) == [0.25, -0.0625]
    # m = 0.5, v = 0.25, so 1 - 0.5 / (0.5 + 0.5); yogi: v = 0 + 0.25; adagrad: v = 1, so 1 - 0.5 / 1.5.
    given = {"learning_rate": 1.0, "betas": (0.5, 0.75), "epsilon": 0.5}
    assert steps(ServerSpec(optimizer="adam", **given), [0.0]) == [0.5]
    assert steps(ServerSpec(optimizer="yogi", **given), [0.0]) == [0.5]
    assert steps(ServerSpec(optimizer="adagrad", **given), [0.0]) == pytest.approx([2 / 3])
