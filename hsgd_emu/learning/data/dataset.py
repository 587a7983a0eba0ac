"""The one form in which data sets reach the learner, and the one door through which arrays become it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsgd_emu.errors import ConfigError, listed

Array = np.ndarray[Any, np.dtype[Any]]
REQUIRED = ("train_x", "train_y", "test_x", "test_y")
OPTIONAL = ("num_classes", "mean", "std", "writers", "layout")
LAYOUTS = ("channels_first", "channels_last")
_SMALLEST_STD, _LARGEST_FIGURE = 1e-6, 1e6
"""Of mean and std, as in the run file: float32 holds what becomes of the pixels."""
_MOST_CLASSES = 1000  # more are accepted only where there are as many samples: a model gets one output per class


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


class RefusedError(Exception):
    """Why data were refused; turned into a ConfigError that says where they came from."""


def from_arrays(
    arrays: Mapping[str, Any], where: str, field: str = "data.dataset", layout: str | None = None
) -> Dataset:
    """Return the data set made of train_x, train_y, test_x, test_y (and num_classes, mean, std, writers, layout).

    uint8 inputs are images, (N, H, W) gets one channel; floats of any shape become float32. Where the channels of
    (N, ., ., .) stand is told by `channels_first`. Labels are integers from 0.

    Args:    layout: the run file's `data.layout`.
    Raises:  ConfigError: an array is missing or has another type, shape, length or values.
    """
    try:
        return _from_arrays(arrays, layout)
    except RefusedError as refused:
        raise ConfigError.of(where, field, str(refused)) from None


def _from_arrays(arrays: Mapping[str, Any], asked: str | None) -> Dataset:
    absent = [name for name in REQUIRED if name not in arrays]
    unknown = [name for name in arrays if name not in (*REQUIRED, *OPTIONAL)]
    if absent or unknown:
        found = f"{listed(absent)} missing" if absent else f"{listed(unknown)} unknown"
        raise RefusedError(f"{found}; needed are {listed(REQUIRED)}, allowed are {listed(OPTIONAL)}")
    layout = _layout(arrays.get("layout"), asked)
    train_x, test_x = (_inputs(name, arrays[name], layout) for name in ("train_x", "test_x"))
    if (train_x.dtype, train_x.shape[1:]) != (test_x.dtype, test_x.shape[1:]):
        raise RefusedError(f"train_x holds {_form(train_x)} but test_x holds {_form(test_x)}; both must be alike")
    train_y = _labels("train_y", arrays["train_y"], len(train_x))
    test_y = _labels("test_y", arrays["test_y"], len(test_x))
    num_classes = _num_classes(arrays.get("num_classes"), train_y, test_y)
    mean, std = _normalisation(arrays.get("mean"), arrays.get("std"), train_x)
    given = arrays.get("writers")
    writers = None if given is None else _integers("writers", given, len(train_x))
    return Dataset(train_x, train_y, test_x, test_y, num_classes, mean, std, writers)


def peculiarities(dataset: Dataset) -> list[str]:
    """Return what is valid in a data set and yet should not be overlooked."""
    found = []
    if dataset.num_classes == 1:
        found.append("there is one class only: every model is always right")
    unseen = np.setdiff1d(dataset.test_y, dataset.train_y)
    if len(unseen):
        labels = f"label{'s' * (len(unseen) > 1)} {listed(unseen)}"
        found.append(f"test samples have the {labels}, which no training sample has and no model can learn")
    return found


def normalisation(mean: Any, std: Any, train_x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a run file's (mean, std), one figure per channel; ConfigError where the numbers do not fit the data."""
    try:
        return _normalisation(mean, std, train_x)
    except RefusedError as refused:
        raise ConfigError.of("", "data.normalize", str(refused)) from None


def _form(x: Array) -> str:
    return f"{x.dtype} samples of shape {x.shape[1:]}"


def _array(name: str, value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise RefusedError(f"{name} is a masked array; fill or leave out what is masked")
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, tensors on another device, objects of the user's own
        raise RefusedError(f"{name} is not an array ({type(error).__name__}: {error})") from None


def _inputs(name: str, value: Any, layout: str | None) -> Array:
    x = _array(name, value)
    if x.ndim < 2 or x.size == 0:
        raise RefusedError(f"{name} has shape {x.shape}; a first axis of samples and at least one more are needed")
    is_bytes = x.dtype == np.uint8
    if not is_bytes and not np.issubdtype(x.dtype, np.floating):
        text = "give uint8 images, whose 0 to 255 becomes 0 to 1, or floats, which stay as they are"
        raise RefusedError(f"{name} is {x.dtype}; {text}")
    if is_bytes and x.ndim not in (3, 4):
        text = "images are (N, H, W), (N, C, H, W) or (N, H, W, C)"
        raise RefusedError(f"{name} is uint8 of shape {x.shape}; {text} (give other inputs as float32)")
    if x.ndim == 4:
        x = channels_first(name, x, layout)
    elif layout is not None:
        raise RefusedError(f"layout is {layout}, but {name} has shape {x.shape}, without channels; leave it out")
    elif is_bytes:
        x = x[:, None]
    # Also a copy where the array is read-only (a file mapped into memory, a tensor's view).
    with np.errstate(over="ignore"):
        x = np.require(x, np.uint8 if is_bytes else np.float32, ("C", "W"))
    if not is_bytes and not np.isfinite(x).all():
        raise RefusedError(f"{name} holds NaN, infinite or too large values; every number must be a finite float32")
    return x


def channels_first(name: str, x: Array, layout: str | None) -> Array:
    """Return samples of three axes as (N, C, H, W): the only place that says which axis the channels are.

    `layout` says it. Without it an image has 1 or 3 channels: it is (C, H, W) where the first axis is 1 or 3 and the
    last is not. Bytes, which are always images, are (H, W, C) where the last axis is 1 or 3 and the first is not.
    Everything else is refused: floats may be features with any number of channels.
    """
    first, last = (x.shape[axis] in (1, 3) for axis in (1, 3))
    if layout is None and first != last and (first or x.dtype == np.uint8):
        layout = LAYOUTS[last]
    if layout is None:
        _, one, two, three = x.shape
        raise RefusedError(
            f"{name} has shape {x.shape}, so a sample may have {_said(one, two, three)} (channels_first) or "
            f"{_said(three, one, two)} (channels_last); say which with data.layout, or with 'layout' beside the arrays"
        )
    return x if layout == "channels_first" else x.transpose(0, 3, 1, 2)


def _said(channels: int, height: int, width: int) -> str:
    return f"{channels} channel{'s' * (channels > 1)} of {height} x {width}"


def _layout(given: Any, asked: str | None) -> str | None:
    """Return where the channels stand: as said beside the arrays, or in the run file."""
    if given is None:
        return asked
    text = str(given) if isinstance(given, str) or getattr(given, "shape", None) == () else ""
    if text not in LAYOUTS:
        raise RefusedError(f"layout is {given!r}; it must be {' or '.join(LAYOUTS)}")
    if asked not in (None, text):
        raise RefusedError(f"layout is {text} beside the arrays but data.layout says {asked}; leave one out")
    return text


def _labels(name: str, value: Any, num_samples: int) -> Array:
    y = _integers(name, value, num_samples)
    if y.min() < 0:
        raise RefusedError(f"{name} holds the label {y.min()}; labels count from 0")
    return y


def _integers(name: str, value: Any, num_samples: int) -> Array:
    y = _array(name, value)
    if y.shape != (num_samples,):
        raise RefusedError(f"{name} has shape {y.shape}; for its {num_samples} samples it must be ({num_samples},)")
    if not np.issubdtype(y.dtype, np.integer):
        raise RefusedError(f"{name} is {y.dtype}; it must hold integers (as {name}.astype('int64') does)")
    if np.issubdtype(y.dtype, np.unsignedinteger) and y.max() > np.iinfo(np.int64).max:
        raise RefusedError(f"{name} holds {y.max()}, which is too large")
    return y.astype(np.int64)


def _num_classes(value: Any, train_y: Array, test_y: Array) -> int:
    largest = int(max(train_y.max(), test_y.max()))
    if value is None:
        # A model gets one output per class, so a stray label (an id, a hash) must not become its width.
        if largest >= len(train_y) + len(test_y):
            raise RefusedError(
                f"the label {largest} exceeds the number of samples; labels count from 0 without large gaps"
            )
        return largest + 1
    number = _array("num_classes", value)
    if number.shape != () or not np.issubdtype(number.dtype, np.integer):
        raise RefusedError(f"num_classes is {value!r}; it must be an integer")
    if number <= largest:
        raise RefusedError(
            f"num_classes is {int(number)} but there is a label {largest}; at least {largest + 1} is right"
        )
    if number > max(_MOST_CLASSES, len(train_y) + len(test_y)):
        raise RefusedError(f"num_classes is {int(number)}, more than there are samples; {largest + 1} would do")
    return int(number)


def _normalisation(mean: Any, std: Any, train_x: Array) -> tuple[tuple[float, ...], tuple[float, ...]]:
    means, stds = _figures("mean", mean), _figures("std", std)
    if not means and not stds:
        return (), ()
    channels = train_x.shape[1] if train_x.ndim == 4 else 1
    for name, figures in (("mean", means), ("std", stds)):
        if len(figures) not in (1, channels):
            right = "1" if channels == 1 else f"1 or {channels}"
            raise RefusedError(f"{name} has {len(figures)} figures for {channels} channels; {right} would be right")
    if min(stds) <= 0:
        raise RefusedError(f"std holds {min(stds)}; it must be above 0")
    if min(stds) < _SMALLEST_STD or max(map(abs, means + stds)) > _LARGEST_FIGURE:
        raise RefusedError(f"mean and std may be {_LARGEST_FIGURE:g} at most, and std {_SMALLEST_STD:g} at least")
    return means * (channels // len(means)), stds * (channels // len(stds))


def _figures(name: str, value: Any) -> tuple[float, ...]:
    figures = _array(name, () if value is None else value)
    if figures.size and not (np.issubdtype(figures.dtype, np.number) and np.isfinite(figures).all()):
        raise RefusedError(f"{name} is {value!r}; it must hold finite numbers")
    return tuple(float(figure) for figure in figures.ravel())
