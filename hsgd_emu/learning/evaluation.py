"""Figures of models on the whole test set, and on the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from hsgd_emu.learning.engines import Engine
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.stacks import Tensors
from hsgd_emu.metrics import Metrics, OfWorker

BATCH = 250
"""Samples at a time on a CPU, where larger batches no longer fit the cache; a GPU takes `GPU_BATCH`."""
GPU_BATCH = 5000


def evaluate(
    engine: Engine, models: Sequence[Tensors], data: ResidentData, seed: int = 0, batch: int | None = None
) -> list[Metrics]:
    """Return the test figures of each model, without augmentation: the mean of the loss trained on, and accuracy.

    Each batch is prepared once for all models. A sample whose loss is not finite does not count as right, whatever the
    largest of its logits is.

    seed: of what a network draws in evaluation; batch: samples at a time (default: what the device does best).
    """
    size = batch or _at_once(data)
    losses = torch.zeros(len(models), dtype=torch.float64, device=data.device)
    correct = torch.zeros(len(models), dtype=torch.int64, device=data.device)
    with torch.no_grad():
        for place, (x, y) in enumerate(data.test_batches(size, engine.blocks)):
            for number, model in enumerate(models):
                found = engine.logits(model, x, seed + place)
                loss_B = engine.loss.of_samples(found, y)
                losses[number] += loss_B.double().sum()
                correct[number] += ((found.argmax(1) == y) & loss_B.isfinite()).sum()
    num = len(data.test_y)
    return [
        Metrics(test_loss=loss / num, test_accuracy=right / num)
        for loss, right in zip(losses.tolist(), correct.tolist(), strict=True)
    ]


def _at_once(data: ResidentData) -> int:
    """Return how many samples the device does best at a time."""
    return GPU_BATCH if data.device.type == "cuda" else BATCH


def evaluate_workers(
    engine: Engine, model: Tensors, data: ResidentData, seed: int = 0, batch: int | None = None
) -> tuple[float, list[tuple[float | None, float]]]:
    """Return a model's loss on all samples that workers hold, and (loss, accuracy) on each worker's own data.

    As `evaluate`, on training samples; a worker's loss that is not a finite number is None.
    """
    size = batch or _at_once(data)
    losses, right = [], []
    with torch.no_grad():
        for place, (x, y) in enumerate(data.train_batches(size, engine.blocks)):
            found = engine.logits(model, x, seed + place)
            losses.append(engine.loss.of_samples(found, y).double())
            right.append((found.argmax(1) == y) & losses[-1].isfinite())
    loss_N, right_N = torch.cat(losses).cpu(), torch.cat(right).double().cpu()
    shards = [torch.from_numpy(shard) for shard in data.order.shards]
    own = [(float(loss_N[shard].mean()), float(right_N[shard].mean())) for shard in shards]
    finite = [(loss if math.isfinite(loss) else None, accuracy) for loss, accuracy in own]
    return float(loss_N[torch.cat(shards)].mean()), finite


def of_workers(
    names: Sequence[str],
    iteration: int,
    train_losses: Sequence[float | None],
    own: Sequence[tuple[float | None, float]],
) -> list[OfWorker]:
    """Return the figures of all workers at an evaluation."""
    return [
        OfWorker(name, iteration, train_loss, *figures)
        for name, train_loss, figures in zip(names, train_losses, own, strict=True)
    ]


def with_averaged(found: Metrics, averaged: Metrics | None = None) -> Metrics:
    """Return a global model's figures with those of the averaged one, if there is one yet."""
    if averaged is None:
        return found
    return replace(found, averaged_test_loss=averaged.test_loss, averaged_test_accuracy=averaged.test_accuracy)
