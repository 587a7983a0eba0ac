"""After which iteration each of several workers goes on: workers may be at different ones."""

from __future__ import annotations

from collections.abc import Sequence

Iterations = int | Sequence[int]
"""One for all workers, or one for each."""


def each(iterations: Iterations, workers: Sequence[int]) -> Sequence[int]:
    """Return the iteration of each worker."""
    return [iterations] * len(workers) if isinstance(iterations, int) else iterations
