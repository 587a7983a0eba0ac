"""Data of the right shape and number without a download, and a network of one's own, both as `module:factory`.

What a step costs does not depend on the pixels. Every class has a pattern of its own under the noise, though, so that
a loop that learns shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn

Array = np.ndarray[Any, np.dtype[Any]]
_SQUARES = 4
"""A class's pattern is 4 x 4 grey squares per channel: coarse, so that it survives crop and flip."""


@lru_cache(maxsize=1)
def images(channels: int, size: int, num_classes: int, num_train: int, num_test: int) -> dict[str, Any]:
    """Return byte images (N, channels, size, size), half noise and half their class's pattern; labels in turn.

    size: height and width in pixels, a multiple of 4.
    """
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 128, (num_classes, channels, _SQUARES, _SQUARES), dtype=np.uint8)
    patterns = patterns.repeat(size // _SQUARES, axis=2).repeat(size // _SQUARES, axis=3)
    x = rng.integers(0, 128, (num_train + num_test, channels, size, size), dtype=np.uint8)
    return _parts(x, patterns, num_train) | {"mean": 0.5, "std": 0.5}


@lru_cache(maxsize=1)
def vectors(num_features: int, num_classes: int, num_train: int, num_test: int) -> dict[str, Any]:
    """Return float vectors (N, num_features), noise and their class's pattern; labels in turn."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((num_classes, num_features), dtype=np.float32)
    return _parts(rng.standard_normal((num_train + num_test, num_features), dtype=np.float32), patterns, num_train)


def _parts(x: Array, patterns: Array, num_train: int) -> dict[str, Any]:
    num_classes = len(patterns)
    for label, pattern in enumerate(patterns):
        x[label::num_classes] += pattern  # in place: no second copy of the data
    y = np.arange(len(x)) % num_classes
    return {
        "train_x": x[:num_train],
        "train_y": y[:num_train],
        "test_x": x[num_train:],
        "test_y": y[num_train:],
        "num_classes": num_classes,
    }


def lenet28(input_shape: Sequence[int], num_classes: int) -> nn.Module:
    """Return LeNet-5 with ReLU and max-pooling, for 1x28x28 images: a network that the product does not know."""
    if tuple(input_shape) != (1, 28, 28):
        raise ValueError(f"needs 1x28x28 images, not {tuple(input_shape)}")
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, num_classes),
    )
