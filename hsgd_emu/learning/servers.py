"""What a server makes of the model that it last sent down or received, and of the average of its children's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from hsgd_emu.config.server_schema import ServerSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.factory import import_factory
from hsgd_emu.learning.models import in_short

Tensors = dict[str, torch.Tensor]


class ServerRule(Protocol):
    """A rule of servers; one object for each server and trial."""

    def step(self, state: Tensors, x: Tensors, average: Tensors) -> Mapping[str, torch.Tensor]:
        """Return what the server sends on, by name.

        x: the trained parameters of the model that the server last sent down or received (at first: of the initial
        model), by name in the network's order; average: the same of its children's weighted average. Both are copies.
        state: what the rule keeps until its next step, tensors by any names; empty at first; kept in checkpoints.
        """
        ...


class Momentum:
    """m <- mu m + Delta; x <- x - eta m, Delta = x - average (FedAvgM; SlowMo at a constant rate); with nesterov
    x <- x - eta (Delta + mu m) (DiLoCo): `torch.optim.SGD` on Delta."""

    def __init__(self, learning_rate: float, momentum: float, nesterov: bool = False) -> None:
        self.rate, self.momentum, self.nesterov = learning_rate, momentum, nesterov

    def step(self, state: Tensors, x: Tensors, average: Tensors) -> Tensors:
        for name, before in x.items():
            delta = average[name].neg_().add_(before)
            m = state.get(name)
            if m is None:
                m = state[name] = torch.zeros_like(delta)
            m.mul_(self.momentum).add_(delta)
            before.sub_(delta.add_(m, alpha=self.momentum) if self.nesterov else m, alpha=self.rate)
        return x


class Moments:
    """m <- b1 m + (1 - b1) Delta; x <- x - eta m / (sqrt(v) + epsilon), without bias correction, m = v = 0 at first
    (FedAdam, FedYogi, FedAdagrad: Reddi et al. 2021, algorithm 2); v as `kind` says."""

    def __init__(self, kind: str, learning_rate: float, betas: tuple[float, float], epsilon: float) -> None:
        self.kind, self.rate, self.betas, self.epsilon = kind, learning_rate, betas, epsilon

    def step(self, state: Tensors, x: Tensors, average: Tensors) -> Tensors:
        for name, before in x.items():
            delta = average[name].neg_().add_(before)
            m, v = (state.setdefault(f"{moment} of {name}", torch.zeros_like(delta)) for moment in "mv")
            m.lerp_(delta, 1 - self.betas[0])
            self._second(v, delta.square_())
            before.addcdiv_(m, v.sqrt().add_(self.epsilon), value=-self.rate)
        return x

    def _second(self, v: torch.Tensor, square: torch.Tensor) -> None:
        if self.kind == "adam":
            v.lerp_(square, 1 - self.betas[1])
        elif self.kind == "yogi":
            v.addcmul_((v - square).sign_(), square, value=self.betas[1] - 1)
        else:
            v.add_(square)


class Outer:
    """One server's rule, and what it keeps from step to step."""

    def __init__(self, rule: ServerRule, spec: ServerSpec) -> None:
        self.rule, self.spec = rule, spec
        self.state: Tensors = {}

    def step(self, x: Tensors, average: Tensors) -> Mapping[str, torch.Tensor]:
        """Return what the server sends on. x, average: copies, which the rule may change.

        Raises:  ConfigError: an own rule fails, or gives something else than it should.
        """
        if not self.spec.is_own:
            return self.rule.step(self.state, x, average)
        shapes = {name: tensor.shape for name, tensor in x.items()}
        with _explained(self.spec.optimizer):
            found = self.rule.step(self.state, x, average)
            _check(found, shapes, self.state)
        return found


def server_rule(spec: ServerSpec, base: Path) -> ServerRule:
    """Return a new rule; base: where an own one's module is sought first.

    Raises:  ConfigError: the user's factory fails, or returns no rule.
    """
    whole = spec.whole()
    if whole.is_own:
        with _explained(whole.optimizer):
            rule: ServerRule = import_factory(whole.optimizer, base)(**(whole.options or {}))
            if not callable(getattr(rule, "step", None)):
                raise TypeError(f"the factory returned a {type(rule).__name__} without step(state, x, average)")
        return rule
    assert whole.learning_rate is not None
    if whole.momentum is not None:
        return Momentum(whole.learning_rate, whole.momentum, whole.optimizer == "nesterov")
    assert whole.betas is not None
    assert whole.epsilon is not None
    return Moments(whole.optimizer, whole.learning_rate, whole.betas, whole.epsilon)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn whatever an own rule raises into a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError.of("", "servers", f"the own rule '{name}' does not work: {in_short(error)}") from error


def _check(found: Any, shapes: Mapping[str, torch.Size], state: Any) -> None:
    """Raise TypeError or ValueError where a step gives something else than parameters of the same names and shapes."""
    if not isinstance(found, Mapping) or set(found) != set(shapes):
        what = f"of {sorted(found)}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise TypeError(f"step returned {what}; expected a mapping with the names of x")
    for name, tensor in found.items():
        if not isinstance(tensor, torch.Tensor) or tensor.shape != shapes[name]:
            raise ValueError(f"step returned '{name}' in another shape than {tuple(shapes[name])}")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or not isinstance(name, str):
            raise TypeError(f"state[{name!r}] is a {type(value).__name__}; only tensors by name can be kept")
