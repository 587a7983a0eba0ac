"""The one form in which data sets reach the learner, and the one door through which arrays become it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsgd_emu.errors import ConfigError, listed

Array = np.ndarray[Any, np.dtype[Any]]
REQUIRED = ("train_x", "train_y", "test_x", "test_y")
OPTIONAL = ("num_classes", "mean", "std", "writers")


@dataclass(frozen=True)
class Dataset:
    """Training and test samples in memory.

    Pixels that are bytes become 0..1 (x / 255) on the device; then (x - mean) / std where mean is not empty.
    """

    train_x: Array
    """(num_train, C, H, W) uint8 images, or float32 of any shape (num_train, ...)."""
    train_y: Array
    """(num_train,) int64 in 0..num_classes-1."""
    test_x: Array
    """(num_test, ...), of the same type and shape per sample as train_x."""
    test_y: Array
    """(num_test,) int64."""
    num_classes: int
    mean: tuple[float, ...] = ()
    """Per channel (one figure where a sample has no channels); empty: no normalisation."""
    std: tuple[float, ...] = ()
    writers: Array | None = None
    """(num_train,) int64: who wrote each training sample, for the natural partition."""


class _RefusedError(Exception):
    """Why an array was refused; turned into a ConfigError that says where it came from."""


def from_arrays(arrays: Mapping[str, Any], where: str, field: str = "data.dataset") -> Dataset:
    """Return the data set made of train_x, train_y, test_x, test_y (and num_classes, mean, std, writers).

    uint8 inputs are images: (N, H, W) gets one channel; (N, A, B, C) is channels first if A is 1 or 3, else
    channels last if C is 1 or 3. Floats of any shape become float32. Labels are integers from 0.

    Raises:  ConfigError: an array is missing or has another type, shape, length or values.
    """
    try:
        return _from_arrays(arrays)
    except _RefusedError as refused:
        raise ConfigError.of(where, field, str(refused)) from None


def _from_arrays(arrays: Mapping[str, Any]) -> Dataset:
    absent = [name for name in REQUIRED if name not in arrays]
    unknown = [name for name in arrays if name not in (*REQUIRED, *OPTIONAL)]
    if absent or unknown:
        found = f"{listed(absent)} missing" if absent else f"{listed(unknown)} unknown"
        raise _RefusedError(f"{found}; needed are {listed(REQUIRED)}, allowed are {listed(OPTIONAL)}")
    train_x, test_x = _inputs("train_x", arrays["train_x"]), _inputs("test_x", arrays["test_x"])
    if (train_x.dtype, train_x.shape[1:]) != (test_x.dtype, test_x.shape[1:]):
        raise _RefusedError(f"train_x holds {_form(train_x)} but test_x holds {_form(test_x)}; both must be alike")
    train_y = _labels("train_y", arrays["train_y"], len(train_x))
    test_y = _labels("test_y", arrays["test_y"], len(test_x))
    num_classes = _num_classes(arrays.get("num_classes"), train_y, test_y)
    mean, std = _normalisation(arrays.get("mean"), arrays.get("std"), train_x)
    writers = _writers(arrays.get("writers"), len(train_x))
    return Dataset(train_x, train_y, test_x, test_y, num_classes, mean, std, writers)


def normalisation(
    mean: Any, std: Any, train_x: Array, where: str, field: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std), one figure per channel; ConfigError where the numbers do not fit the data."""
    try:
        return _normalisation(mean, std, train_x)
    except _RefusedError as refused:
        raise ConfigError.of(where, field, str(refused)) from None


def _form(x: Array) -> str:
    return f"{x.dtype} samples of shape {x.shape[1:]}"


def _array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, tensors on another device, objects of the user's own
        raise _RefusedError(f"{name} is not an array ({type(error).__name__}: {error})") from None


def _inputs(name: str, value: Any) -> Array:
    x = _array(name, value)
    if x.ndim < 2 or x.size == 0:
        raise _RefusedError(f"{name} has shape {x.shape}; a first axis of samples and at least one more are needed")
    if x.dtype == np.uint8:
        return _channels_first(name, x)
    if not np.issubdtype(x.dtype, np.floating):
        raise _RefusedError(f"{name} is {x.dtype}; give uint8 images or floats")
    if not np.isfinite(x).all():
        raise _RefusedError(f"{name} holds NaN or infinite values; every number must be finite")
    return np.ascontiguousarray(x, dtype=np.float32)


def _channels_first(name: str, x: Array) -> Array:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in (1, 3):
        return x
    if x.ndim == 4 and x.shape[3] in (1, 3):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    raise _RefusedError(
        f"{name} is uint8 of shape {x.shape}; images are (N, H, W), (N, H, W, C) or "
        "(N, C, H, W) with 1 or 3 channels (give other inputs as float32)"
    )


def _labels(name: str, value: Any, num_samples: int) -> Array:
    y = _integers(name, value, num_samples)
    if y.min() < 0:
        raise _RefusedError(f"{name} holds the label {y.min()}; labels count from 0")
    return y


def _integers(name: str, value: Any, num_samples: int) -> Array:
    y = _array(name, value)
    if y.shape != (num_samples,):
        raise _RefusedError(f"{name} has shape {y.shape}; for its {num_samples} samples it must be ({num_samples},)")
    if not np.issubdtype(y.dtype, np.integer):
        raise _RefusedError(f"{name} is {y.dtype}; it must hold integers")
    return y.astype(np.int64)


def _num_classes(value: Any, train_y: Array, test_y: Array) -> int:
    largest = int(max(train_y.max(), test_y.max()))
    if value is None:
        # A model gets one output per class, so a stray label (an id, a hash) must not become its width.
        if largest >= len(train_y) + len(test_y):
            raise _RefusedError(
                f"the label {largest} exceeds the number of samples; labels count from 0 without large gaps"
            )
        return largest + 1
    number = _array("num_classes", value)
    if number.shape != () or not np.issubdtype(number.dtype, np.integer):
        raise _RefusedError(f"num_classes is {value!r}; it must be an integer")
    if number <= largest:
        raise _RefusedError(
            f"num_classes is {int(number)} but there is a label {largest}; at least {largest + 1} is right"
        )
    return int(number)


def _normalisation(mean: Any, std: Any, train_x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means, stds = _figures("mean", mean), _figures("std", std)
    if not means and not stds:
        return (), ()
    channels = train_x.shape[1] if train_x.ndim == 4 else 1
    for name, figures in (("mean", means), ("std", stds)):
        if len(figures) not in (1, channels):
            right = "1" if channels == 1 else f"1 or {channels}"
            raise _RefusedError(f"{name} has {len(figures)} figures for {channels} channels; {right} would be right")
    if min(stds) <= 0:
        raise _RefusedError(f"std holds {min(stds)}; it must be above 0")
    return means * (channels // len(means)), stds * (channels // len(stds))


def _figures(name: str, value: Any) -> tuple[float, ...]:
    figures = _array(name, () if value is None else value)
    if figures.size and not (np.issubdtype(figures.dtype, np.number) and np.isfinite(figures).all()):
        raise _RefusedError(f"{name} is {value!r}; it must hold finite numbers")
    return tuple(float(figure) for figure in figures.ravel())


def _writers(value: Any, num_train: int) -> Array | None:
    if value is None:
        return None
    return _integers("writers", value, num_train)
