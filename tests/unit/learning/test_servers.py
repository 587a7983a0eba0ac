"""Servers that make something else of an average than they send on."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.learning.models import mlp
from hsgd_emu.learning.servers import Moments, Outer, server_rule

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


X = {"w": [[0.5, -1.0], [2.0, 0.25]], "b": [0.1, -0.2]}
AVERAGES = [
    {"w": [[0.4, -0.8], [1.5, 0.5]], "b": [0.3, -0.2]},
    {"w": [[0.1, -0.9], [1.2, 0.2]], "b": [-0.1, -0.1]},
    {"w": [[0.3, -0.5], [1.6, -0.4]], "b": [0.2, 0.4]},
]
# `aggregate_fit` of FedAvgM, FedAdam, FedYogi and FedAdagrad of Flower 1.6.0 (flwr.server.strategy, Apache 2.0), given
# two clients of 1 and 3 examples whose mean is AVERAGES. Its FedAdagrad has no first moment. Flower 1.42.0 gives
# the same but for FedAdam, whose rate it multiplies by sqrt(1 - b2^(r + 1)) / (1 - b1^(r + 1)) in round r.
FLOWER = {
    "momentum": (
        {"learning_rate": 0.7, "momentum": 0.9},
        [-0.013800000000000034, -0.4904, 0.859, -0.1524999999999999, 0.07760000000000002, 0.30399999999999994],
    ),
    "adam": (
        {"learning_rate": 0.1, "betas": (0.9, 0.99), "epsilon": 1e-3},
        [
            *(0.18511639738714894, -0.6904451356270138, 1.6329410388577863, 0.28845961866374425),
            *(0.14532672246038306, 0.0042181215026618896),
        ],
    ),
    "yogi": (
        {"learning_rate": 0.1},
        [
            *(0.18561349369620384, -0.6911545472889371, 1.6340131135262892, 0.288455736095415),
            *(0.14547833733375828, 0.0041974700165592765),
        ],
    ),
    "adagrad": (
        {"learning_rate": 0.1, "betas": (0.0, 0.99)},
        [
            *(0.3043812516893231, -0.8109956379965478, 1.7942829401845048, 0.2062578925972847),
            *(0.13907756313036104, -0.0031161662528756684),
        ],
    ),
}
FLOWERS_NEW_ADAM = [
    *(0.28711603780237605, -0.7913453018197975, 1.761446864332289, 0.2976011556203254),
    *(0.14811018682271174, -0.07716919951798507),
]


def tensors(given: dict[str, list]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in given.items()}


@pytest.mark.parametrize("name", FLOWER)
def test_agrees_with_flower(name):
    given, expected = FLOWER[name]
    spec = ServerSpec(optimizer=name, **given)
    outer, x = Outer(server_rule(spec, Path()), spec), tensors(X)
    for average in AVERAGES:
        x = dict(outer.step(x, tensors(average)))
    assert torch.cat([value.flatten() for value in x.values()]).tolist() == pytest.approx(expected, rel=1e-12)


def test_agrees_with_flowers_later_adam_but_for_its_rate():
    rule, x, state = Moments("adam", 0.1, (0.9, 0.99), 1e-3), tensors(X), {}
    for number, average in enumerate(AVERAGES, start=1):
        rule.rate = 0.1 * (1 - 0.99 ** (number + 1)) ** 0.5 / (1 - 0.9 ** (number + 1))
        x = rule.step(state, x, tensors(average))
    found = torch.cat([value.flatten() for value in x.values()]).tolist()
    assert found == pytest.approx(FLOWERS_NEW_ADAM, rel=1e-12)


def test_momentum_is_slowmo_at_a_constant_rate():
    # Wang, Tantia, Ballas, Rabbat 2020: u <- beta u + (x - average) / gamma, x <- x - alpha gamma u.
    alpha, beta, gamma, u = 0.7, 0.6, 0.05, tensors({"w": [0.0, 0.0]})["w"]
    spec = ServerSpec(optimizer="momentum", learning_rate=alpha, momentum=beta)
    outer, x = Outer(server_rule(spec, Path()), spec), tensors({"w": [1.0, -2.0]})
    slow, generator = x["w"].clone(), torch.Generator().manual_seed(1)
    for _ in range(6):
        step = torch.randn(2, generator=generator, dtype=torch.float64)
        u = beta * u + step / gamma
        slow = slow - alpha * gamma * u
        x = dict(outer.step(x, {"w": x["w"] - step}))
        torch.testing.assert_close(x["w"], slow, rtol=1e-12, atol=1e-12)
