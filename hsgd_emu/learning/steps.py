"""Steps of one chunk of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from hsgd_emu.engine.skipped import Taken
from hsgd_emu.learning.engines import Engine, Step
from hsgd_emu.learning.iterations import Iterations, each
from hsgd_emu.learning.network import Network
from hsgd_emu.learning.rates import learning_rate
from hsgd_emu.learning.samples import Draws, ResidentData
from hsgd_emu.learning.stacks import Part, Stacks, Tensors
from hsgd_emu.learning.updates import rule_of

Rates = Sequence[float] | torch.Tensor
Masks = Callable[[int], Tensors]
"""Returns the dropout masks of a step of a sequence."""


@dataclass(frozen=True)
class Taker:
    """Takes steps on the workers of one trial."""

    network: Network
    engine: Engine
    stacks: Stacks
    data: ResidentData
    taken: Mapping[int, Taken] = field(default_factory=dict)
    """By worker that skips steps."""

    def take(
        self, workers: Sequence[int], iterations: Iterations, num_steps: int, holds: Sequence[Sequence[int]] = ()
    ) -> torch.Tensor:
        """Take the steps after `iterations` on workers whose batches have one size, and whose rates are alike.

        iterations: of each worker's own, those it skips not counted; holds: by step, for how many iterations each
        worker's model counts after it, where iterates are averaged.

        Returns the sum of each worker's mini-batch losses (W,).
        """
        part, begins = self.stacks.part(workers), each(iterations, workers)
        draws = self.data.draws(workers, begins, num_steps)
        rates = self.rates(workers[0], begins[0], num_steps)
        losses_W = self.run(part, draws, rates, lambda step: self.masks(workers, begins, step), workers[0], holds)
        self.stacks.put(workers, part)
        return losses_W

    def rates(self, worker: int, iteration: int, num_steps: int) -> Rates:
        """Return the learning rates of a worker's steps: on CUDA as a tensor, which a captured period reads anew."""
        found = self.rates_of(worker, iteration, num_steps)
        on_cuda = self.data.device.type == "cuda"
        return torch.tensor(found, dtype=self.data.dtype, device=self.data.device) if on_cuda else found

    def rates_of(self, worker: int, iteration: int, num_steps: int) -> list[float]:
        """Return the learning rates of a worker's steps; they go by the iterations of all, skipped ones too."""
        taken = self.taken.get(worker)
        found = taken.iterations(iteration, num_steps) if taken else range(iteration, iteration + num_steps)
        return [learning_rate(self.network.train, t) for t in found]

    def masks(self, workers: Sequence[int], iterations: Iterations, step: int) -> Tensors:
        """Return the dropout masks (W, *shape) of a step of those after `iterations`."""
        at = [iteration + step for iteration in each(iterations, workers)]
        return self.network.masks.draw(self.data.order.size(workers[0]), workers, at)

    def run(
        self,
        part: Part,
        draws: Draws,
        rates: Rates,
        masks: Masks,
        first: int,
        holds: Sequence[Sequence[int]] = (),
    ) -> torch.Tensor:
        """Take steps from what was drawn; first: the first worker, whose seed is for all other randomness."""
        rule = rule_of(part, self.network.train)
        losses_W = torch.zeros(draws.indices.shape[2], dtype=torch.float64, device=self.data.device)
        for step, (x, y) in enumerate(self.data.batches(draws, self.engine.grouped)):
            seed = self.network.masks.seed(first, draws.iteration + step)
            losses_W += self.engine.step(part, rule, Step(x, y, masks(step), rates[step], seed))
            if holds:
                part.hold(holds[step])
        return losses_W
