"""Image files -> uint8 arrays, and the `image_folder` data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.data.cache import Tell, cached, fingerprint
from hsgd_emu.learning.data.dataset import Array, Dataset, from_arrays
from hsgd_emu.learning.data.roots import find_folder

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
LAYOUT = "train/<class>/*.jpg and test/<class>/*.jpg (png and other formats too)"
GREY_MODES = ("1", "L", "LA")
CHUNK = 128
Size = tuple[int, int]
"""(height, width)."""
T = TypeVar("T")


def load_image_folder(spec: DataSpec, base: Path, tell: Tell) -> Dataset:
    """Return the images of `<root>/<folder>/{train,test}/<class>/` (or below the root itself).

    Classes are numbered in the order of their names, files within a class in the order of theirs. Mean and
    standard deviation are 0.5 (pixels in -1..1).
    Raises:  ConfigError: a folder is missing or empty, the classes differ, an image is unreadable or of
             another size.
    """
    folder = find_folder(spec, base, LAYOUT, lambda root: all((root / part).is_dir() for part in ("train", "test")))
    train = _classes(folder, "train")
    test = _classes(folder, "test")
    if list(train) != list(test):
        differing = sorted(set(train) ^ set(test))
        message = f"train and test must have the same classes; only one of them has {listed(differing)}"
        raise ConfigError.of(str(folder), "data.folder", message)
    files = [file for part in (train, test) for paths in part.values() for file in paths]
    key = fingerprint("image_folder", decoding_options(spec), folder, files)
    return cached(key, lambda: _build(spec, folder, train, test, files, tell), tell)


def decoding_options(spec: DataSpec) -> dict[str, Any]:
    """Return what the decoded pixels depend on beside the files."""
    return {"image_size": spec.image_size, "pillow": version("pillow")}


def _build(
    spec: DataSpec,
    folder: Path,
    train: dict[str, list[Path]],
    test: dict[str, list[Path]],
    files: list[Path],
    tell: Tell,
) -> Dataset:
    pixels = decode(files, spec.image_size, tell)
    num_train = sum(map(len, train.values()))
    labels = [np.repeat(np.arange(len(part)), [len(paths) for paths in part.values()]) for part in (train, test)]
    arrays = {
        "train_x": pixels[:num_train],
        "train_y": labels[0],
        "test_x": pixels[num_train:],
        "test_y": labels[1],
    }
    return from_arrays(arrays | {"num_classes": len(train), "mean": 0.5, "std": 0.5}, str(folder))


def _classes(folder: Path, part: str) -> dict[str, list[Path]]:
    """Return the sorted image files of each class, classes sorted by name."""
    where = folder / part
    if not where.is_dir():
        raise ConfigError.of(str(where), "data.folder", f"there is no such folder; expected in {folder}: {LAYOUT}")
    names = sorted(entry.name for entry in os.scandir(where) if entry.is_dir() and not entry.name.startswith("."))
    if not names:
        raise ConfigError.of(str(where), "data.folder", f"there is no class folder in it; expected: {LAYOUT}")
    return {name: _images(where / name) for name in names}


def _images(folder: Path) -> list[Path]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
    images = [folder / name for name in names if name.lower().endswith(EXTENSIONS)]
    if not images:
        message = f"this class has no image; remove the folder or put images in it ({listed(EXTENSIONS)})"
        raise ConfigError.of(str(folder), "data.folder", message)
    return images


def decode(files: Sequence[Path], image_size: Size | None, tell: Tell) -> Array:
    """Return the images as (num_images, C, H, W) uint8; C is 1 if every image is grey, else 3.

    With `image_size` (height, width) images of another size are resized (bilinear, antialiased); without it
    all must have the size of the first. Transparency is dropped; of an animation the first frame is taken.
    Not modelled: orientation tags; images of more than 8 bits per channel are refused.

    Raises:  ConfigError: an image cannot be read, or two differ in size.
    """
    tell(f"decoding {len(files)} images")
    size = image_size or _read(files[0], lambda image: (image.height, image.width))
    first = None if image_size else files[0]
    pixels, is_grey = _allocate(len(files), size), np.zeros(len(files), bool)

    def pixels_of(image: Image.Image) -> tuple[Array, bool]:
        return _pixels(image, size, first)

    def fill(start: int) -> None:
        for index in range(start, min(start + CHUNK, len(files))):
            pixels[index], is_grey[index] = _read(files[index], pixels_of)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Results come in the order of the files, so the error reported is the first bad file's.
        for chunk, _ in enumerate(pool.map(fill, range(0, len(files), CHUNK))):
            if chunk % 100 == 99:
                tell(f"decoding {len(files)} images: {(chunk + 1) * CHUNK * 100 // len(files)}%")
    return pixels[:, :1].copy() if is_grey.all() else pixels


def _allocate(num_images: int, size: Size) -> Array:
    try:
        return np.empty((num_images, 3, *size), np.uint8)
    except (MemoryError, ValueError):
        gibibytes = num_images * 3 * size[0] * size[1] / 2**30
        message = f"{num_images} images of {size[0]} x {size[1]} pixels need {gibibytes:.0f} GiB of memory"
        raise ConfigError.of("", "data.image_size", f"{message}; a smaller size would fit") from None


def _read(file: Path, take: Callable[[Image.Image], T]) -> T:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return take(image)
    except _WrongImageError as wrong:
        raise ConfigError.of(str(file), "", str(wrong)) from None
    except Exception as error:  # Pillow raises many kinds for damaged files
        message = f"cannot be read as an image ({type(error).__name__}: {error}); replace or remove the file"
        raise ConfigError.of(str(file), "", message) from None


class _WrongImageError(Exception):
    """An image that can be read but not used."""


def _pixels(image: Image.Image, size: Size, first: Path | None) -> tuple[Array, bool]:
    """Return (3, H, W) pixels and whether the image is grey; `first` is the file whose size all must have."""
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        raise _WrongImageError(f"has mode {image.mode}, more than 8 bits per channel; convert it to 8 bits")
    found = (image.height, image.width)
    if found != size and first is not None:
        raise _WrongImageError(
            f"is {found[0]} x {found[1]} pixels (height x width) but {first} is {size[0]} x {size[1]}; "
            "set data.image_size to resize all images"
        )
    colour = image.convert("RGB")
    if found != size:
        colour = colour.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(colour).transpose(2, 0, 1), image.mode in GREY_MODES
