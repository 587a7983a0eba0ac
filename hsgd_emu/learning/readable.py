"""The readable twin: Algorithm 1 as a plain loop, one nn.Module and one optimiser of torch.optim per worker.

Slow and obvious. Tests hold the stacked learner to it; benchmarks compare the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import BETAS, EPSILON, is_adam
from hsgd_emu.config.server_schema import CompressionSpec, Direction, ServerSpec
from hsgd_emu.engine.operations import NOBODY, NOTHING, Held, Version
from hsgd_emu.learning.dropout import DropoutMasks, with_masked_dropout
from hsgd_emu.learning.engines import ByModule
from hsgd_emu.learning.evaluation import evaluate, evaluate_workers, with_averaged
from hsgd_emu.learning.examine import WHOLE, copied, examine, tensors_of
from hsgd_emu.learning.losses import loss_of
from hsgd_emu.learning.network import TrialSetup
from hsgd_emu.learning.outputs import logits_of
from hsgd_emu.learning.rates import learning_rate
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.metrics import Metrics
from hsgd_emu.rng import stream


class ReadableLearner:
    """Carries out each request at once, one worker after the other."""

    def __init__(self, model: nn.Module, data: ResidentData, setup: TrialSetup) -> None:
        self.data, self.setup, self.train = data, setup, setup.train
        model = model.to(data.device, data.dtype).train()
        ((x, y),) = data.batches(data.trial_draws(2))
        self.batch = WHOLE if examine(model, x[0], y[0]).mixes else None
        dropouts = with_masked_dropout(model, data.sample())
        self.masks = DropoutMasks(model, dropouts, setup.seed, setup.worker_names, data.sample())
        self.model = model
        self.workers = [copied(model) for _ in setup.worker_names]
        self.optimisers = [self._optimiser(worker) for worker in self.workers]
        self.can_diverge = [name for name, start in tensors_of(model).items() if bool(torch.isfinite(start).all())]
        self.controls = [self._controls() for _ in self.workers]
        """SCAFFOLD's c_j of each worker."""
        self.losses: list[tuple[int, float]] = []
        """Of each step: its iteration, and its loss."""
        self.outers: dict[int, tuple[dict[str, torch.Tensor], torch.optim.Optimizer | _Moments]] = {}
        """By server with a rule of its own: its copy of what is trained, and what steps it."""
        self.unsent: dict[tuple[int, Direction], tuple[torch.Tensor, int]] = {}
        """By sender and direction: e, as one vector, and how often it has sent."""

    def _optimiser(self, worker: nn.Module) -> torch.optim.Optimizer:
        """Return a worker's optimiser, its state as PyTorch's would be after a step with gradients of zero."""
        train, trained = self.train, [p for p in worker.parameters() if p.requires_grad]
        found: torch.optim.Optimizer
        if is_adam(train):
            kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
            betas, epsilon = train.betas or BETAS, train.epsilon or EPSILON
            found = kind(trained, lr=1.0, betas=betas, eps=epsilon, weight_decay=train.weight_decay)
            for p in trained:
                found.state[p] = {
                    "step": torch.tensor(0),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        else:
            found = torch.optim.SGD(trained, lr=1.0, momentum=train.momentum, weight_decay=train.weight_decay)
            for p in trained if train.momentum else ():
                found.state[p] = {"momentum_buffer": torch.zeros_like(p)}
        return found

    def _loss(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.train.loss == "squared":
            return 0.5 * (outputs - F.one_hot(y, outputs.shape[1])).square().sum(1).mean()
        return F.cross_entropy(outputs, y)

    def start(self, version: Version) -> None:
        start = _copy_of(self.model)
        sums = {name: torch.zeros_like(start[its]) for name, its in self._sums()}
        version.register = start | self._sent_beside(0) | self._controls() | sums

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        slot = self.setup.slots[worker]
        model = self.workers[slot]
        self._receive(slot, version.register)
        totals = {name: version.register[name].clone() for name, _ in self._sums()}
        for t in range(iteration, iteration + num_steps):
            if self._takes(slot, t):
                self._step(slot, t, version.register)
            if self.setup.averaged_after is not None and t >= self.setup.averaged_after:
                for name, its in self._sums():
                    totals[name] += model.state_dict()[its]
        rates = sum(learning_rate(self.train, t) for t in range(iteration, iteration + num_steps))
        for name, weight in model.named_parameters() if self.train.correction else ():
            own, c = self.controls[slot], version.register[f"control of {name}"]
            own[f"control of {name}"] += (version.register[name] - weight.detach()) / rates - c
        sent = {name: control.clone() for name, control in self.controls[slot].items()}
        made.register = _copy_of(model) | self._sent_beside(slot) | totals | sent

    def _controls(self) -> dict[str, torch.Tensor]:
        """Return SCAFFOLD's control variates as they are at first; none without it."""
        named = self.model.named_parameters() if self.train.correction else ()
        return {f"control of {name}": torch.zeros_like(p.detach()) for name, p in named}

    def _step(self, slot: int, t: int, received: dict[str, torch.Tensor]) -> None:
        """Let a worker take the step after iteration t."""
        model, optimiser = self.workers[slot], self.optimisers[slot]
        n = sum(self._takes(slot, earlier) for earlier in range(t))  # the batch is the worker's own n-th
        ((x, y),) = self.data.batches(self.data.draws([slot], n, 1))
        for name, mask in self.masks.draw(len(y[0]), [slot], n).items():
            model.get_submodule(name.removesuffix(".mask")).mask = mask[0]
        with seeded_generators(self.masks.seed(slot, n)):
            loss = self._loss(logits_of(model(x[0])), y[0])
        optimiser.param_groups[0]["lr"] = learning_rate(self.train, t)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # PyTorch ships it without types
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and self.train.proximal:
                parameter.grad += self.train.proximal * (parameter.detach() - received[name])
        if self.train.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), self.train.clip_norm)
        for name, parameter in model.named_parameters() if self.train.correction else ():
            if parameter.grad is not None:
                name = f"control of {name}"
                parameter.grad += received[name] - self.controls[slot][name]
        optimiser.step()
        self.losses.append((t, float(loss.detach())))

    def _receive(self, worker: int, register: dict[str, torch.Tensor]) -> None:
        """Load a model; the optimiser's state is the worker's own, as new, or what was sent with the model."""
        model = self.workers[worker]
        model.load_state_dict({name: register[name] for name in model.state_dict()})
        for name, value in self._state(worker):
            if self.train.state == "reset":
                value.zero_()
            elif self.train.state == "average":
                value.copy_(register[name])

    def _sent_beside(self, worker: int) -> dict[str, torch.Tensor]:
        """Return a copy of what a worker sends with its model."""
        return {n: value.clone() for n, value in self._state(worker)} if self.train.state == "average" else {}

    def _state(self, worker: int) -> list[tuple[str, torch.Tensor]]:
        """Return the state of a worker's optimiser by name."""
        state, named = self.optimisers[worker].state, self.workers[worker].named_parameters()
        return [(f"{key} of {name}", value) for name, p in named for key, value in state[p].items()]

    def _takes(self, slot: int, t: int) -> bool:
        """Return whether a worker takes the step after iteration t."""
        taken = self.setup.taken.get(slot)
        return taken is None or taken.before(t + 1) > taken.before(t)

    def _sums(self) -> list[tuple[str, str]]:
        """Return what is summed over iterations, where iterates are averaged: the name of the sum, and its own."""
        state = self.model.state_dict().items() if self.setup.averaged_after is not None else ()
        return [(f"sum of {name}", name) for name, tensor in state if tensor.is_floating_point()]

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        states = [version.register for version in versions]
        average = {}
        for name, first in states[0].items():
            if first.is_floating_point():
                average[name] = sum(w * state[name] for w, state in zip(weights, states, strict=True))
            else:
                average[name] = torch.stack([state[name] for state in states]).amax(0)
        num = len([t for t in range(held.begin, held.end) if t >= (self.setup.averaged_after or 0)])
        for name, its in self._sums() if held.share else ():
            # Who sits out has the model received after each iteration.
            other = begun.register[name] + num * begun.register[its]
            average[name] = (1 - held.share) * average[name] + held.share * other
        mixed = begun is NOTHING  # among hubs, whose rules have been followed before
        made.register = average if mixed else average | self._outer_step(server, begun.register, average)

    def _outer_step(
        self, server: int, before: dict[str, torch.Tensor], average: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Return the trained parameters as the server's own rule makes them; without one, none."""
        if server not in self.setup.servers:
            return {}
        if server not in self.outers:
            model = copied(self.model)
            spec = self.setup.servers[server].whole()
            copies: dict[str, torch.Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self.outers[server] = copies, _outer_optimiser(spec, list(copies.values()))
        trained, optimiser = self.outers[server]
        for name, parameter in trained.items():
            parameter.data.copy_(before[name])
            parameter.grad = before[name] - average[name]
        optimiser.step()
        return {name: parameter.detach().clone() for name, parameter in trained.items()}

    def compress(self, made: Version, node: int, direction: Direction, version: Version, base: Version) -> None:
        sender, names = self.setup.senders[node, direction], [n for n, p in self.model.named_parameters()]
        u = torch.cat([(version.register[n] - base.register[n]).flatten() for n in names])
        kept, count = self.unsent.get((node, direction), (torch.zeros_like(u), 0))
        keys = (sender.name,) if direction == "up" else (sender.name, "down")
        rng = stream(self.setup.seed, "compression", *keys, count + 1)
        u += kept
        sizes = [base.register[name].numel() for name in names]
        sent = _compressed(sender.spec, u, sizes, rng)
        self.unsent[node, direction] = u - sent if sender.spec.error_feedback else kept, count + 1
        parts = zip(names, torch.split(sent, sizes), strict=True)
        made.register = version.register | {n: base.register[n] + c.view_as(base.register[n]) for n, c in parts}

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        due = [loss for t, loss in self.losses if t < iteration]
        self.losses = [(t, loss) for t, loss in self.losses if t >= iteration]
        train_loss = sum(due) / len(due) if due else None
        found = self._evaluated(self.model_of(version))
        num = 0 if self.setup.averaged_after is None else iteration - self.setup.averaged_after
        averaged = None
        if num > 0:
            model = self.model_of(version)
            model.load_state_dict(model.state_dict() | {its: version.register[n] / num for n, its in self._sums()})
            averaged = self._evaluated(model)
        metrics = with_averaged(replace(found, train_loss=train_loss), averaged)
        if not self.setup.evaluates_workers:
            return metrics
        model = self.model_of(version)
        engine = ByModule(model, batched=False, loss=loss_of(self.train))
        loss, _ = evaluate_workers(engine, tensors_of(model), self.data, self.setup.evaluation_seed, self.batch)
        return replace(metrics, training_set_loss=loss)

    def _evaluated(self, model: nn.Module) -> Metrics:
        tensors = tensors_of(model)
        finite = all(bool(torch.isfinite(tensors[name]).all()) for name in self.can_diverge)
        engine, seed = ByModule(model, batched=False, loss=loss_of(self.train)), self.setup.evaluation_seed
        found = evaluate(engine, [tensors], self.data, seed, self.batch)[0]
        return found if finite else found.diverged()

    def model_of(self, version: Version) -> nn.Module:
        """Return a version as a network."""
        model = copied(self.model)
        model.load_state_dict({name: version.register[name] for name in model.state_dict()})
        return model


def _copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _outer_optimiser(spec: ServerSpec, parameters: list[torch.Tensor]) -> torch.optim.Optimizer | _Moments:
    """Return what steps a server's parameters along Delta, which is in their `grad`."""
    if spec.optimizer in ("momentum", "nesterov"):
        assert spec.learning_rate is not None
        return torch.optim.SGD(
            parameters, lr=spec.learning_rate, momentum=spec.momentum or 0.0, nesterov=spec.optimizer == "nesterov"
        )
    return _Moments(spec, parameters)


class _Moments:
    """FedAdam, FedYogi, FedAdagrad, written as their formulas are."""

    def __init__(self, spec: ServerSpec, parameters: list[torch.Tensor]) -> None:
        self.spec, self.parameters = spec, parameters
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]

    def step(self) -> None:
        (b1, b2), eta, epsilon = (
            self.spec.betas or (0.9, 0.99),
            self.spec.learning_rate or 1.0,
            self.spec.epsilon or 0.0,
        )
        for i, p in enumerate(self.parameters):
            delta, v = p.grad, self.v[i]
            assert delta is not None
            self.m[i] = b1 * self.m[i] + (1 - b1) * delta
            if self.spec.optimizer == "adam":
                self.v[i] = b2 * v + (1 - b2) * delta**2
            elif self.spec.optimizer == "yogi":
                self.v[i] = v - (1 - b2) * delta**2 * torch.sign(v - delta**2)
            else:
                self.v[i] = v + delta**2
            p.data -= eta * self.m[i] / (torch.sqrt(self.v[i]) + epsilon)


def _compressed(spec: CompressionSpec, u: torch.Tensor, sizes: list[int], rng: np.random.Generator) -> torch.Tensor:
    """Return C(u), u the whole model as one vector of parameters of these sizes."""
    sent = torch.zeros_like(u)
    if spec.method == "quantize":
        steps = 2 ** ((spec.bits or 0) - 1) - 1
        parts = []
        for part in torch.split(u, sizes):
            largest = float(part.abs().max())
            in_steps = part / (largest or 1.0) * steps
            if spec.rounding == "nearest":
                in_steps = in_steps.round()
            else:
                in_steps = torch.floor(in_steps + torch.from_numpy(rng.random(len(part))))
            parts.append(in_steps / steps * largest)
        return torch.cat(parts)
    k = max(1, round((spec.fraction or 0) * len(u)))
    if spec.method == "top_k":
        places = torch.sort(u.abs(), descending=True, stable=True).indices[:k]
        sent[places] = u[places]
    else:
        places = torch.from_numpy(rng.choice(len(u), k, replace=False))
        sent[places] = u[places] * (1 if spec.error_feedback else len(u) / k)
    return sent
