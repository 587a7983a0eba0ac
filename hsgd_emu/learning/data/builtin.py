"""The data sets of scikit-learn and torchvision."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.files import open_regular
from hsgd_emu.learning.data.cache import Told
from hsgd_emu.learning.data.dataset import Dataset, from_arrays
from hsgd_emu.learning.data.spec import candidates, missing

SHAPES = {
    "digits": ((64,), 10),
    "cifar10": ((3, 32, 32), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion_mnist": ((1, 28, 28), 10),
}
"""Shape of a sample and number of classes of the data sets for which both are known without loading them."""

NUM_DIGITS_TRAIN = 1437
DOWNLOAD_TIMEOUT_S = 30.0


def load_digits() -> Dataset:
    """Return scikit-learn's 8 x 8 digits, pixels / 16: the first 1437 for training, the last 360 for test."""
    from sklearn.datasets import load_digits as sklearn_digits

    pixels, labels = sklearn_digits(return_X_y=True)
    x, y = (pixels / 16).astype(np.float32), labels.astype(np.int64)
    cut = NUM_DIGITS_TRAIN
    return from_arrays({"train_x": x[:cut], "train_y": y[:cut], "test_x": x[cut:], "test_y": y[cut:]}, "digits")


class _Published(NamedTuple):
    """A data set that torchvision knows how to download."""

    class_name: str
    mean: float
    std: float
    expected: str
    files: tuple[str, ...]
    """Patterns of the files that torchvision opens in the folder it is given."""
    layout: str | None = None
    """Where the channels of its images stand, if they have any."""


_IDX_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
PUBLISHED = {
    # 0.5 scales pixels to -1..1, as the H-SGD paper does; the others are the training sets' own mean and std.
    "cifar10": _Published(
        "CIFAR10",
        0.5,
        0.5,
        "cifar-10-python.tar.gz, or the folder cifar-10-batches-py unpacked from it",
        ("cifar-10-python.tar.gz", "cifar-10-batches-py/*"),
        "channels_last",
    ),
    "mnist": _Published("MNIST", 0.1307, 0.3081, f"MNIST/raw/ with {_IDX_FILES} (unpacked or .gz)", ("MNIST/raw/*",)),
    "fashion_mnist": _Published(
        "FashionMNIST",
        0.2860,
        0.3530,
        f"FashionMNIST/raw/ with {_IDX_FILES} (unpacked or .gz)",
        ("FashionMNIST/raw/*",),
    ),
}
_MOST_BYTES = 2**30  # a file of these data sets has at most 170 MB


def load_published(spec: DataSpec, base: Path, tell: Told) -> Dataset:
    """Return a torchvision data set from `<root>/<folder>` or the root itself, else download it there.

    torchvision's checksums guard CIFAR-10's files, which are pickles, before they are opened.
    Raises:  ConfigError: the data are not there, or damaged, and cannot be downloaded; a file is no regular file.
    """
    published = PUBLISHED[spec.dataset]
    for folder in candidates(spec, base):
        _check_files(published, folder)
        try:
            return _open(published, folder, download=False)
        except Exception:  # not there, or damaged: torchvision's kinds of errors differ from set to set
            continue
    folder = candidates(spec, base)[0]
    tell.say(f"downloading {spec.dataset} to {folder}")
    try:
        with _timeout(DOWNLOAD_TIMEOUT_S):
            return _open(published, folder, download=True)
    except Exception as error:
        what = "what is there is damaged, or " if _files(published, folder) else ""
        why = f"{what}the download failed: {type(error).__name__}: {' '.join(str(error).split())}"
        raise missing(spec, base, published.expected, why) from None


def _files(published: _Published, folder: Path) -> list[Path]:
    return sorted(file for pattern in published.files for file in folder.glob(pattern) if not file.is_dir())


def _check_files(published: _Published, folder: Path) -> None:
    """Refuse what is no file of a published data set before torchvision reads it to its end."""
    for file in _files(published, folder):
        descriptor = open_regular(file, "a file of this data set")
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        if size > _MOST_BYTES:
            text = f"has {size} bytes; a file of this data set has at most {_MOST_BYTES}"
            raise ConfigError.of(str(file), "data.folder", text)


def _open(published: _Published, folder: Path, download: bool) -> Dataset:
    import torchvision.datasets

    opener = getattr(torchvision.datasets, published.class_name)
    arrays: dict[str, Any] = {"num_classes": 10, "mean": published.mean, "std": published.std}
    for part in ("train", "test"):
        samples = opener(str(folder), train=part == "train", download=download)
        arrays |= {f"{part}_x": np.asarray(samples.data), f"{part}_y": np.asarray(samples.targets)}
    return from_arrays(arrays, str(folder), layout=published.layout)


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Keep a silent network from hanging the run; torchvision offers no timeout of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
