"""Which samples a worker sees at which iteration: a function of (seed, worker, iteration) alone.

Nothing here depends on the schedule, on how workers are batched together or on what was asked before, so all
cases of a seed share each worker's batch order, and a resumed trial needs no stored generator state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional as F

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.blocks import blocks_of
from hsgd_emu.learning.data import Dataset
from hsgd_emu.learning.iterations import Iterations, each
from hsgd_emu.rng import stream

Indices = np.ndarray[Any, np.dtype[np.int64]]
_KEPT_BYTES = 2**28
_AT_ONCE = 2**18
"""Vectors are gathered for as many steps at a time as make about this many numbers."""
_SHUFFLED = 1024
"""Samples shuffled at a time: a stream takes longer to make than a small shard takes to shuffle."""
_BLOCK = 64
"""Augmentation draws are made for this many iterations at a time."""


class BatchOrder:
    """The order in which each worker goes through its shard.

    A worker's samples form one endless sequence: a fresh shuffle of its shard, then another, and so on (stream
    (seed, "batches", worker, block), a block being as many shuffles as make about `_SHUFFLED` samples, at least one).
    Batch t is the t-th piece of `batch_size` samples of it, so every batch is full, and one may reach over the end of
    a shuffle. `full` is the whole shard in its own order.
    """

    def __init__(
        self, seed: int, names: Sequence[str], shards: Sequence[Indices], batch_size: int | Literal["full"]
    ) -> None:
        self.seed, self.names, self.shards, self.batch_size = seed, names, shards, batch_size
        self._shuffles = lru_cache(maxsize=2 * len(names))(self._draw_shuffles)

    def _shuffles_per_block(self, worker: int) -> int:
        return max(1, _SHUFFLED // len(self.shards[worker]))

    def _draw_shuffles(self, worker: int, block: int) -> Indices:
        rng = stream(self.seed, "batches", self.names[worker], block)
        shuffles = np.tile(self.shards[worker], (self._shuffles_per_block(worker), 1))
        return rng.permuted(shuffles, axis=1, out=shuffles).ravel()

    def size(self, worker: int) -> int:
        """Return the number of samples in each of a worker's batches."""
        return len(self.shards[worker]) if self.batch_size == "full" else self.batch_size

    def batches(self, worker: int, iteration: int, num_steps: int) -> Indices:
        """Return the samples of the steps after `iteration`: (num_steps, batch size) indices."""
        shard = self.shards[worker]
        if self.batch_size == "full":
            return np.broadcast_to(shard, (num_steps, len(shard)))
        length = self._shuffles_per_block(worker) * len(shard)
        begin, end = iteration * self.batch_size, (iteration + num_steps) * self.batch_size
        first, last = begin // length, (end - 1) // length
        sequence = np.concatenate([self._shuffles(worker, block) for block in range(first, last + 1)])
        start = begin - first * length
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

    def draws(
        self, workers: Sequence[int], iterations: Iterations, num_steps: int
    ) -> tuple[Indices, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Return crop offsets (num_steps, B, W, 2) and flips (num_steps, B, W) of the steps after `iterations`."""
        pairs = zip(workers, each(iterations, workers), strict=True)
        offsets, flips = zip(*(self._steps(worker, begin, num_steps) for worker, begin in pairs), strict=True)
        return np.stack(offsets, axis=2), np.stack(flips, axis=2)

    def _steps(self, worker: int, iteration: int, num_steps: int) -> tuple[Indices, Any]:
        first, last = iteration // _BLOCK, (iteration + num_steps - 1) // _BLOCK
        blocks = [self._block(worker, block) for block in range(first, last + 1)]
        start = iteration - first * _BLOCK
        offsets, flips = (np.concatenate(parts)[start : start + num_steps] for parts in zip(*blocks, strict=True))
        return offsets, flips if self.augment.flip else np.zeros_like(flips)


@dataclass(frozen=True)
class Draws:
    """What is drawn for some steps of W workers with batches of one size B, on the device.

    iteration: after which those of the first worker begin.

    indices: (num_steps, B, W) samples; offsets: (num_steps, B, W, 2) of crops and flips: (num_steps, B, W) bool, or
    None without augmentation.
    """

    iteration: int
    indices: torch.Tensor
    offsets: torch.Tensor | None
    flips: torch.Tensor | None

    def tensors(self) -> list[torch.Tensor]:
        """Return those that are there."""
        return [tensor for tensor in (self.indices, self.offsets, self.flips) if tensor is not None]


class ResidentData:
    """Training and test samples on the device; batches gathered, cropped, flipped and normalised for all workers
    at once.

    Images of three channels of bytes are kept as one 32-bit number a pixel: numbers are gathered several times faster
    than bytes (benchmarks/learning.py).
    """

    def __init__(
        self,
        dataset: Dataset,
        order: BatchOrder,
        augmentation: Augmentation,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.order, self.augmentation, self.device, self.dtype = order, augmentation, device, dtype
        train_x = torch.from_numpy(np.ascontiguousarray(dataset.train_x))
        self.train_y = torch.from_numpy(dataset.train_y).to(device)
        self.test_x = torch.from_numpy(np.ascontiguousarray(dataset.test_x)).to(device)
        self.test_y = torch.from_numpy(dataset.test_y).to(device)
        self.is_image = train_x.dim() == 4
        self._shape = tuple(train_x.shape[1:])
        self._numel = train_x[0].numel()
        self._is_byte = train_x.dtype == torch.uint8
        self.mean = torch.tensor(dataset.mean, dtype=dtype, device=device) if dataset.mean else None
        self.std = torch.tensor(dataset.std, dtype=dtype, device=device) if dataset.mean else None
        self._kept: dict[tuple[int, bool], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._sample = self.normalised(train_x[:2].clone().to(device))
        self._is_packed = self.is_image and self._is_byte and self._shape[0] == 3
        crop = augmentation.augment.crop if self.is_image else 0
        self._train_x = _cells(train_x, crop, self._is_packed).to(device)
        if self.is_image:
            height, width = self._shape[1:]
            self._windows = self._train_x.unfold(-2, height, 1).unfold(-2, width, 1)
            if self._train_x.dim() == 4:  # (N, C, offsets, ...) -> (N, offsets, ..., C, height, width)
                self._windows = self._windows.permute(0, 2, 3, 1, 4, 5)

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Return samples (N, C, ...) as floats: bytes scaled to 0..1, then (x - mean) / std."""
        changes = self._is_byte or self.mean is not None
        return self._scale(x.to(self.dtype, copy=changes), (-1,) + (1,) * (x.dim() - 2))

    def _scale(self, x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Normalise in place; shape: of the statistics, so that they meet the channels of x."""
        if self._is_byte:
            x.div_(255)
        return x if self.mean is None or self.std is None else x.sub_(self.mean.view(shape)).div_(self.std.view(shape))

    def sample(self) -> torch.Tensor:
        """Return two training samples as the network sees them (images without their padding)."""
        return self._sample

    def trial_draws(self, num_samples: int) -> Draws:
        """Return one batch for each of two workers: the first training samples, and the last."""
        num = len(self.train_y)
        first = torch.arange(min(num_samples, num), device=self.device)
        return self._unchanged(torch.stack([first, num - 1 - first], 1)[None])

    def _unchanged(self, indices: torch.Tensor) -> Draws:
        """Return draws of samples (num_steps, B, W) that nothing is done to."""
        if not self.augmentation.is_on or not self.is_image:
            return Draws(0, indices, None, None)
        middle = torch.full((*indices.shape, 2), self.augmentation.augment.crop, device=self.device)
        return Draws(0, indices, middle, torch.zeros(indices.shape, dtype=torch.bool, device=self.device))

    def trial_test_x(self, num_samples: int, blocks: bool) -> torch.Tensor:
        """Return the first test samples, as `test_batches` has them."""
        return next(self._make_test_batches(num_samples, blocks))[0]

    def test_batches(self, size: int, blocks: bool = False) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Return the test set in order, as normalised samples (N, ...) and labels; images channels last in memory.

        blocks: of 2x2 pixels (N, 4 x C, height / 2, width / 2), see `learning.blocks`.

        A test set that is not too large is normalised once and kept.
        """
        num_bytes = self.test_x.numel() * torch.finfo(self.dtype).bits // 8
        if num_bytes > _KEPT_BYTES:
            return self._make_test_batches(size, blocks)
        if (size, blocks) not in self._kept:
            self._kept[size, blocks] = list(self._make_test_batches(size, blocks))
        return self._kept[size, blocks]

    def _make_test_batches(self, size: int, blocks: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(self.test_y), size):
            x = self.test_x[start : start + size]
            if self.is_image:
                x = x.contiguous(memory_format=torch.channels_last)
            x = self.normalised(x)
            yield blocks_of(x) if blocks else x, self.test_y[start : start + size]

    def train_batches(self, size: int, blocks: bool = False) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Return the training set in order, without augmentation, as `test_batches` returns the test set."""
        for start in range(0, len(self.train_y), size):
            samples = torch.arange(start, min(start + size, len(self.train_y)), device=self.device)
            ((x_WB, y_WB),) = self.batches(self._unchanged(samples[None, :, None]))
            x = x_WB[0].contiguous(memory_format=torch.channels_last) if self.is_image else x_WB[0]
            yield blocks_of(x) if blocks else x, y_WB[0]

    def draws(self, workers: Sequence[int], iterations: Iterations, num_steps: int) -> Draws:
        """Return what is drawn for the steps after `iterations` of workers with equal batch sizes."""
        begins = each(iterations, workers)
        pieces = [self.order.batches(worker, at, num_steps) for worker, at in zip(workers, begins, strict=True)]
        indices = torch.from_numpy(np.stack(pieces, axis=2)).to(self.device)
        if not self.augmentation.is_on or not self.is_image:
            return Draws(begins[0], indices, None, None)
        offsets, flips = self.augmentation.draws(workers, begins, num_steps)
        there = (torch.from_numpy(drawn).to(self.device) for drawn in (offsets, flips))
        return Draws(begins[0], indices, *there)

    def batches(self, draws: Draws, grouped: bool = False) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the samples (W, B, ...) and labels (W, B) of each step.

        grouped: images as (B, W x C, height, width), channels last in memory.
        """
        at_once = 1 if self.is_image else max(1, _AT_ONCE // max(1, draws.indices[0].numel() * self._numel))
        for start in range(0, len(draws.indices), at_once):
            indices_SWB = draws.indices[start : start + at_once].transpose(1, 2)
            flat = indices_SWB.reshape(-1)
            y_SWB = self.train_y.index_select(0, flat).view(indices_SWB.shape)
            if self.is_image:
                yield self._images(draws, start, grouped), y_SWB[0]
            else:
                rows = self.normalised(self._train_x.index_select(0, flat))
                yield from zip(rows.view(*indices_SWB.shape, *self._shape), y_SWB, strict=True)

    def _images(self, draws: Draws, step: int, grouped: bool) -> torch.Tensor:
        indices = draws.indices[step]
        x = self._scale(self._spread(self._gathered(indices, draws, step), indices.shape), (-1,))
        return x.flatten(3).permute(0, 3, 1, 2) if grouped else x.permute(3, 0, 4, 1, 2).contiguous()

    def _gathered(self, indices: torch.Tensor, draws: Draws, step: int) -> torch.Tensor:
        """Return the images at indices (B, W), cropped and flipped, as (B x W, [C,] height, width)."""
        flat = indices.reshape(-1)
        if draws.offsets is None or draws.flips is None:
            cells = self._train_x.flatten(1).index_select(0, flat)
            return cells.view(len(flat), *self._train_x.shape[1:])
        offsets = draws.offsets[step].view(-1, 2)
        cells = self._windows[flat, offsets[:, 0], offsets[:, 1]]
        flips = draws.flips[step].view(-1, *(1,) * (cells.dim() - 1))
        return torch.where(flips, cells.flip(-1), cells) if self.augmentation.augment.flip else cells

    def _spread(self, cells: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return (B, height, width, W, C) floats of gathered cells."""
        cells = cells.view(*shape, *cells.shape[1:])  # (B, W, [C,] height, width)
        if not self._is_packed:
            with_channels = cells.unsqueeze(2) if cells.dim() == 4 else cells
            apart = with_channels.permute(0, 3, 4, 1, 2)
            return apart.to(self.dtype, memory_format=torch.contiguous_format, copy=True)
        # Pixels are put in place as numbers, and only then taken apart into channels.
        channels = cells.permute(0, 2, 3, 1).contiguous().unsqueeze(-1).view(torch.uint8)
        out = torch.empty(*channels.shape[:-1], 3, dtype=self.dtype, device=self.device)
        for channel in range(3):
            out[..., channel] = channels[..., channel]
        return out


def _cells(x: torch.Tensor, crop: int, packed: bool) -> torch.Tensor:
    """Return images as they are gathered from: padded, pixels of three bytes as one number (N, height, width)."""
    if crop:
        x = F.pad(x, (crop, crop, crop, crop))
    if packed:
        pixels = torch.zeros(len(x), *x.shape[2:], 4, dtype=torch.uint8)
        pixels[..., :3] = x.permute(0, 2, 3, 1)
        return pixels.view(torch.int32).squeeze(-1)
    return x.squeeze(1) if x.dim() == 4 and x.shape[1] == 1 else x
