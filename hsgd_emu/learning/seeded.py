"""The global generators, which the user's own code may draw from without a seed of its own."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and PyTorch within, and put them back as they were afterwards.

    So a user's function gives the same in every process and changes no one else's draws.
    Not modelled: generators of its own that it makes without a seed, as numpy.random.default_rng().
    """
    import torch

    before, numpy_before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_devices()):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        # torch.manual_seed does the same, and takes a millisecond where there is no CUDA device.
        torch.default_generator.manual_seed(seed)
        if _devices():
            torch.cuda.manual_seed_all(seed)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpy_before)


def drawn_so_far() -> int:
    """Return a figure that changes with every draw from one of the global generators."""
    import torch

    kind, keys, *rest = np.random.get_state(legacy=True)
    torchs = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in _devices())]
    states = [state.numpy().tobytes() for state in torchs]
    return hash((random.getstate(), kind, np.asarray(keys).tobytes(), *rest, *states))


def _devices() -> Sequence[int]:
    import torch

    return range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
