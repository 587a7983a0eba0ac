"""One seed, many streams: each keyed by purpose and entity name, never by the order of calls.

Changing one link's profile leaves every other draw as it was (common random numbers).
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_sequence(seed: int, purpose: str, *names: str | int) -> np.random.SeedSequence:
    """Return the seed sequence of the stream (seed, purpose, names)."""
    key = "\0".join([purpose, *map(str, names)]).encode()
    words = np.frombuffer(hashlib.sha256(key).digest(), dtype="<u4")
    return np.random.SeedSequence([seed, *(int(word) for word in words)])


def stream(seed: int, purpose: str, *names: str | int) -> np.random.Generator:
    """Return the NumPy generator of the stream (seed, purpose, names)."""
    return np.random.Generator(np.random.PCG64(seed_sequence(seed, purpose, *names)))


def seed_of(seed: int, purpose: str, *names: str | int) -> int:
    """Return one 63-bit seed for a generator of another library, keyed like `stream`."""
    return int(seed_sequence(seed, purpose, *names).generate_state(1, np.uint64)[0] >> np.uint64(1))
