"""SGD steps of one chunk of workers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hsgd_emu.learning.engines import Engine, Step
from hsgd_emu.learning.network import Network
from hsgd_emu.learning.rates import learning_rate
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.sgd import Sgd
from hsgd_emu.learning.stacks import Stacks


def take_steps(
    network: Network,
    engine: Engine,
    stacks: Stacks,
    data: ResidentData,
    workers: Sequence[int],
    iteration: int,
    num_steps: int,
) -> torch.Tensor:
    """Take the steps after `iteration` on workers in ascending order whose batches have one size.

    Returns the sum of each worker's mini-batch losses (W,).
    """
    train, masks = network.train, network.masks
    part = stacks.part(workers)
    sgd = Sgd(part.trained, part.momenta, train.momentum, train.weight_decay)
    draws = data.draws(workers, iteration, num_steps)
    losses_W = torch.zeros(len(workers), dtype=torch.float64, device=data.device)
    for t, (x, y) in enumerate(data.batches(draws, engine.grouped), start=iteration):
        drawn = masks.draw(y.shape[1], workers, t)
        losses_W += engine.step(part, sgd, Step(x, y, drawn, learning_rate(train, t), masks.seed(workers[0], t)))
    stacks.put(workers, part)
    return losses_W
