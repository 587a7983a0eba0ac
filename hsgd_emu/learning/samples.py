"""Which samples a worker sees at which iteration: a function of (seed, worker, iteration) alone.

Nothing here depends on the schedule, on how workers are batched together or on what was asked before, so all
cases of a seed share each worker's batch order, and a resumed trial needs no stored generator state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.data import Dataset
from hsgd_emu.rng import stream

Indices = np.ndarray[Any, np.dtype[np.int64]]
_BLOCK = 64
"""Augmentation draws are made for this many iterations at a time."""


class BatchOrder:
    """The order in which each worker goes through its shard.

    A worker's samples form one endless sequence: a fresh shuffle of its shard, then another, and so on (stream
    (seed, "batches", worker, shuffle number)). Batch t is the t-th piece of `batch_size` samples of it, so every
    batch is full, and one may reach over the end of a shuffle. `full` is the whole shard in its own order.
    """

    def __init__(
        self, seed: int, names: Sequence[str], shards: Sequence[Indices], batch_size: int | Literal["full"]
    ) -> None:
        self.seed, self.names, self.shards, self.batch_size = seed, names, shards, batch_size
        self._shuffle = lru_cache(maxsize=4 * len(names))(self._draw_shuffle)

    def _draw_shuffle(self, worker: int, number: int) -> Indices:
        return stream(self.seed, "batches", self.names[worker], number).permutation(self.shards[worker])

    def size(self, worker: int) -> int:
        """Return the number of samples in each of a worker's batches."""
        return len(self.shards[worker]) if self.batch_size == "full" else self.batch_size

    def batches(self, worker: int, iteration: int, num_steps: int) -> Indices:
        """Return the samples of the steps after `iteration`: (num_steps, batch size) indices."""
        shard = self.shards[worker]
        if self.batch_size == "full":
            return np.broadcast_to(shard, (num_steps, len(shard)))
        begin, end = iteration * self.batch_size, (iteration + num_steps) * self.batch_size
        first, last = begin // len(shard), (end - 1) // len(shard)
        sequence = np.concatenate([self._shuffle(worker, number) for number in range(first, last + 1)])
        start = begin - first * len(shard)
        return sequence[start : start + end - begin].reshape(num_steps, self.batch_size)


class Augmentation:
    """Random crop and flip per worker and iteration (stream (seed, "augment", worker, block of iterations))."""

    def __init__(self, seed: int, names: Sequence[str], augment: Augment, order: BatchOrder) -> None:
        # The whole shard each step has no randomness, by definition of `full`.
        self.augment = Augment() if order.batch_size == "full" else augment
        self.seed, self.names, self.order = seed, names, order
        self._block = lru_cache(maxsize=2 * len(names))(self._draw_block)

    @property
    def is_on(self) -> bool:
        return bool(self.augment.crop or self.augment.flip)

    def _draw_block(self, worker: int, block: int) -> tuple[Indices, np.ndarray[Any, np.dtype[np.bool_]]]:
        rng = stream(self.seed, "augment", self.names[worker], block)
        size = (_BLOCK, self.order.size(worker))
        return rng.integers(2 * self.augment.crop + 1, size=(*size, 2)), rng.random(size) < 0.5

    def draws(self, workers: Sequence[int], iteration: int) -> tuple[Indices, Indices]:
        """Return crop offsets (W, B, 2) and flips (W, B), 0 or 1, of the step after `iteration`."""
        blocks = [self._block(worker, iteration // _BLOCK) for worker in workers]
        at = iteration % _BLOCK
        flips = np.stack([flip[at] for _, flip in blocks]).astype(np.int64)
        return np.stack([offset[at] for offset, _ in blocks]), flips * int(self.augment.flip)


class ResidentData:
    """Training and test samples on the device; batches gathered, cropped, flipped and normalised for all workers
    at once."""

    def __init__(
        self,
        dataset: Dataset,
        order: BatchOrder,
        augmentation: Augmentation,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.order, self.augmentation, self.device, self.dtype = order, augmentation, device, dtype
        self.train_x = torch.from_numpy(np.ascontiguousarray(dataset.train_x)).to(device)
        self.train_y = torch.from_numpy(dataset.train_y).to(device)
        self.test_x = torch.from_numpy(np.ascontiguousarray(dataset.test_x)).to(device)
        self.test_y = torch.from_numpy(dataset.test_y).to(device)
        shape = (-1,) + (1,) * (self.train_x.dim() - 2)
        self.mean = torch.tensor(dataset.mean, dtype=dtype, device=device).view(shape) if dataset.mean else None
        self.std = torch.tensor(dataset.std, dtype=dtype, device=device).view(shape) if dataset.mean else None
        crop = augmentation.augment.crop
        self._size = tuple(self.train_x.shape[-2:])
        if crop:
            # Padded once: a crop is then one gather from the padded image.
            self.train_x = F.pad(self.train_x, (crop, crop, crop, crop))

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Return samples (N, ...) as floats: bytes scaled to 0..1, then (x - mean) / std."""
        scaled = x.to(self.dtype).div_(255) if x.dtype == torch.uint8 else x.to(self.dtype)
        return scaled if self.mean is None or self.std is None else (scaled - self.mean) / self.std

    def sample(self) -> torch.Tensor:
        """Return two training samples as the network sees them (images without their padding)."""
        x, crop = self.normalised(self.train_x[:2]), self.augmentation.augment.crop
        return x[..., crop:-crop, crop:-crop] if crop else x

    def indices(self, workers: Sequence[int], iteration: int, num_steps: int) -> torch.Tensor:
        """Return the samples of the next steps of workers with equal batch sizes: (num_steps, W, B)."""
        pieces = [self.order.batches(worker, iteration, num_steps) for worker in workers]
        return torch.from_numpy(np.stack(pieces, axis=1)).to(self.device)

    def batch(
        self, indices_WB: torch.Tensor, workers: Sequence[int], iteration: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (W, B, ...) samples and (W, B) labels of one step."""
        flat = indices_WB.flatten()
        x = self._augmented(flat, workers, iteration) if self.augmentation.is_on else self.train_x[flat]
        x = self.normalised(x)
        return x.view(*indices_WB.shape, *x.shape[1:]), self.train_y[indices_WB]

    def _augmented(self, flat: torch.Tensor, workers: Sequence[int], iteration: int) -> torch.Tensor:
        offsets, flips = self.augmentation.draws(workers, iteration)
        offset = torch.from_numpy(offsets).to(self.device).view(-1, 2)
        flip = torch.from_numpy(flips).to(self.device).view(-1, 1)
        height, width = self._size
        rows = offset[:, :1] + torch.arange(height, device=self.device)
        columns = torch.arange(width, device=self.device)
        columns = offset[:, 1:] + torch.where(flip == 1, width - 1 - columns, columns)
        channels = torch.arange(self.train_x.shape[1], device=self.device)
        return self.train_x[
            flat[:, None, None, None],
            channels[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
