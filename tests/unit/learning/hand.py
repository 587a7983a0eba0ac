"""The oracle for networks of any kind: a loop over nn.Module and torch.optim.SGD, one fresh network per node."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from hsgd_emu.engine.operations import NOBODY, Held
from hsgd_emu.learning.seeded import seeded_generators
from hsgd_emu.metrics import Metrics
from hsgd_emu.rng import seed_of

from .twins import Trial


class Hand:
    """Carries out each request at once; nothing of the package's learning is used but its random numbers."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.train = trial, trial.setup.train
        self.models = {slot: trial.model().double().train() for slot in trial.setup.slots.values()}
        settings = {"lr": self.train.learning_rate, "momentum": self.train.momentum}
        settings["weight_decay"] = self.train.weight_decay
        self.optimisers = [torch.optim.SGD(self.models[w].parameters(), **settings) for w in range(4)]
        self.seeds = [seed_of(trial.setup.seed, "dropout", name) for name in trial.setup.worker_names]
        self.losses: list[float] = []

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        for t in range(iteration, iteration + num_steps):
            ((x, y),) = self.trial.data.batches(self.trial.data.draws([worker], t, 1))
            with seeded_generators((self.seeds[worker] + t) % (2**63 - 1)):
                loss = F.cross_entropy(self.models[worker](x[0]), y[0])
                self.optimisers[worker].zero_grad()
                loss.backward()
            self.optimisers[worker].step()
            self.losses.append(loss.item())

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float], held: Held = NOBODY) -> None:
        """held: of averaged iterates, which nobody asks for here."""
        states = [self.models[child].state_dict() for child in children]
        average = {}
        for name, first in states[0].items():
            below = [state[name] for state in states]
            mean = sum(weight * one for weight, one in zip(weights, below, strict=True))
            average[name] = mean if first.is_floating_point() else torch.stack(below).amax(0)
        self.models[server].load_state_dict(average)

    def send_down(self, server: int) -> None:
        """Nothing is compressed here: what is received is the server's model."""

    def hand_down(self, server: int, child: int) -> None:
        self.models[child].load_state_dict(self.models[server].state_dict())

    def evaluate(self, server: int, iteration: int) -> Metrics:
        train_loss, self.losses = sum(self.losses) / len(self.losses), []
        model = self.models[server].eval()
        before = copy.deepcopy(model.state_dict())
        x, y = torch.from_numpy(self.trial.dataset.test_x).double(), torch.from_numpy(self.trial.dataset.test_y)
        with torch.no_grad(), seeded_generators(seed_of(self.trial.setup.seed, "evaluation")):
            logits = model(x)  # all test samples are one batch
        # What a network changes in evaluation is not for training.
        model.load_state_dict(before)
        model.train()
        accuracy = float((logits.argmax(1) == y).double().mean())
        return Metrics(train_loss=train_loss, test_loss=float(F.cross_entropy(logits, y)), test_accuracy=accuracy)

    def model_of(self, node: int) -> torch.nn.Module:
        return self.models[node]
