"""One local period of all workers as one CUDA graph: captured once, replayed with new batches, masks and rates.

Nothing in a period waits for the host. Where workers learn in several chunks, their work is captured on streams side
by side, so that small kernels of different workers fill the device together. The static inputs and the capture are
apart, so that all but the capture itself runs and is tested on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from hsgd_emu.learning.samples import Draws
from hsgd_emu.learning.stacks import Tensors, rows_of
from hsgd_emu.learning.steps import Rates, Taker

Body = Callable[[], None]
Capture = Callable[[Sequence[Body]], Callable[[], None]]
"""Takes the work of some chunks, which may run side by side, and returns a function that does it again."""

_STREAMS = 8
_MOST_GRAPHS = 32
_MASK_BYTES = 2**30
"""Periods whose dropout masks take more than this are not captured."""


def cuda_capture(bodies: Sequence[Body]) -> Callable[[], None]:
    """Capture work on the current CUDA device, each body on one of a few streams."""
    graph = torch.cuda.CUDAGraph()
    streams: list[torch.cuda.Stream] = [torch.cuda.Stream() for _ in range(min(_STREAMS, len(bodies)))]  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        main = torch.cuda.current_stream()
        for stream in streams:
            stream.wait_stream(main)
        for number, body in enumerate(bodies):
            with torch.cuda.stream(streams[number % len(streams)]):
                body()
        for stream in streams:
            main.wait_stream(stream)
    return graph.replay


@dataclass
class _Chunk:
    """Static inputs and output of one chunk."""

    workers: Sequence[int]
    draws: Draws
    masks: list[Tensors]
    losses: torch.Tensor


class Period:
    """A captured sequence of steps of some workers."""

    def __init__(
        self, taker: Taker, chunks: Sequence[Sequence[int]], iteration: int, num_steps: int, capture: Capture
    ) -> None:
        """chunks: workers, in ascending order without gaps; iteration: any, only shapes are taken from it."""
        self.taker, self.num_steps = taker, num_steps
        data = taker.data
        self.rates = torch.zeros(num_steps, dtype=data.dtype, device=data.device)
        self.chunks = [
            _Chunk(
                workers,
                data.draws(workers, iteration, num_steps),
                [taker.masks(workers, iteration, step) for step in range(num_steps)],
                torch.zeros(len(workers), dtype=torch.float64, device=data.device),
            )
            for workers in chunks
        ]
        self.replay = capture([partial(self._run, chunk) for chunk in self.chunks])

    def _run(self, chunk: _Chunk) -> None:
        part = self.taker.stacks.part(chunk.workers)
        masks = chunk.masks
        losses = self.taker.run(part, chunk.draws, self.rates, lambda step: masks[step], chunk.workers[0])
        chunk.losses.copy_(losses)

    def take(self, iterations: Sequence[int]) -> torch.Tensor:
        """Take the steps after `iterations`, one of each worker, and return the sum of each worker's losses (W,)."""
        rates: Rates = self.taker.rates(self.chunks[0].workers[0], iterations[0], self.num_steps)
        self.rates.copy_(torch.as_tensor(rates))
        left = iter(iterations)
        for chunk in self.chunks:
            begins = [next(left) for _ in chunk.workers]
            drawn = self.taker.data.draws(chunk.workers, begins, self.num_steps)
            for static, new in zip(chunk.draws.tensors(), drawn.tensors(), strict=True):
                static.copy_(new)
            for step, masks in enumerate(chunk.masks):
                for name, new in self.taker.masks(chunk.workers, begins, step).items():
                    masks[name].copy_(new)
        self.replay()
        return torch.cat([chunk.losses for chunk in self.chunks])


class Periods:
    """Captures the periods that come again and again.

    A period is taken step by step the first time, which also warms up what a capture needs.
    """

    def __init__(self, taker: Taker, capture: Capture = cuda_capture) -> None:
        self.taker, self.capture = taker, capture
        self._known: dict[tuple[tuple[int, ...], int, int], Period | None] = {}

    def take(
        self, workers: Sequence[int], chunk: int, iterations: Sequence[int], num_steps: int
    ) -> torch.Tensor | None:
        """Take steps on workers by a captured period and return their losses; None: take them step by step."""
        key = tuple(workers), chunk, num_steps
        if isinstance(rows_of(workers), list) or self._mask_bytes(workers) * num_steps > _MASK_BYTES:
            return None
        if key not in self._known:
            if len(self._known) < _MOST_GRAPHS:
                self._known[key] = None
            return None
        period = self._known[key]
        if period is None:
            chunks = [workers[start : start + chunk] for start in range(0, len(workers), chunk)]
            try:
                period = Period(self.taker, chunks, iterations[0], num_steps, self.capture)
            except torch.OutOfMemoryError:
                return None
            self._known[key] = period
        return period.take(iterations)

    def forget(self) -> None:
        """Let go of all captured periods."""
        self._known.clear()

    def _mask_bytes(self, workers: Sequence[int]) -> int:
        masks = self.taker.network.masks
        return masks.num_bytes(self.taker.data.order.size(workers[0])) * len(workers)
