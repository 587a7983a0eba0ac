"""Image files -> uint8 arrays, and the `image_folder` data set."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.files import open_regular
from hsgd_emu.learning.data.cache import Told, cached
from hsgd_emu.learning.data.dataset import Array, Dataset, RefusedError, from_arrays
from hsgd_emu.learning.data.limits import BOMB_RATIO, check_fits, check_unpacked
from hsgd_emu.learning.data.spec import find_folder
from hsgd_emu.learning.data.tree import Unused, files_below, is_passed_over

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of these; it would open others as well, some of them by running another program."""
LAYOUT = "train/<class>/*.jpg and test/<class>/*.jpg (png and other formats too, in subfolders too)"
GREY_MODES = ("1", "L", "LA")
CHUNK = 128
MOST_PIXELS = 50_000_000
"""Of one image: 200 MB while it is decoded."""
_LARGE_PIXELS = 4_000_000  # larger images are decoded one at a time
_MOST_BYTES = 2**28  # of one image file
_MOST_TOLD = 20  # bad images are named one by one up to so many
Size = tuple[int, int]
"""(height, width)."""
T = TypeVar("T")


def load_image_folder(spec: DataSpec, base: Path, tell: Told) -> Dataset:
    """Return the images in and below `<root>/<folder>/{train,test}/<class>/` (or below the root itself).

    Classes are numbered in the order of their names, files within a class in the order of their paths. Mean and
    standard deviation are 0.5 (pixels in -1..1). Files that are not used are told of, but for hidden ones.
    Raises:  ConfigError: a folder is missing or empty, the classes differ, images are unreadable or of another size.
    """
    folder = find_folder(spec, base, LAYOUT, lambda root: all((root / part).is_dir() for part in ("train", "test")))
    unused = Unused(folder)
    train, test = _classes(folder, unused)
    unused.say(tell.warn)
    files = [file for part in (train, test) for paths in part.values() for file in paths]

    def build() -> Dataset:
        pixels, num_train = decode(files, spec.image_size, tell), sum(map(len, train.values()))
        train_y, test_y = (np.repeat(np.arange(len(part)), list(map(len, part.values()))) for part in (train, test))
        arrays = {"train_x": pixels[:num_train], "train_y": train_y, "test_x": pixels[num_train:], "test_y": test_y}
        figures = {"num_classes": len(train), "mean": 0.5, "std": 0.5}
        return from_arrays(arrays | figures, str(folder), layout="channels_first")

    return cached("image_folder", decoding_options(spec), folder, files, build, tell)


def decoding_options(spec: DataSpec) -> dict[str, Any]:
    """Return what the decoded pixels depend on beside the files."""
    return {"image_size": spec.image_size, "pillow": version("pillow")}


def _classes(folder: Path, unused: Unused) -> list[dict[str, list[Path]]]:
    """Return the image files of each class of train and of test, classes sorted by name.

    Raises:  ConfigError: every folder that is missing or empty, and every class that only one of the two has.
    """
    problems: list[Problem] = []
    found = [_classes_of(folder, part, unused, problems) for part in ("train", "test")]
    differing = sorted(set(found[0]) ^ set(found[1]))
    if differing and all(found):
        text = f"train and test must have the same classes; only one of them has {listed(differing)}"
        problems.append(Problem(str(folder), "data.folder", text))
    if problems:
        raise ConfigError(problems)
    return found


def _classes_of(folder: Path, part: str, unused: Unused, problems: list[Problem]) -> dict[str, list[Path]]:
    where = folder / part
    if not where.is_dir():
        text = f"there is no such folder; expected in {folder}: {LAYOUT}"
        problems.append(Problem(str(where), "data.folder", text))
        return {}
    entries = sorted(path for path in where.iterdir() if not is_passed_over(path.name))
    for path in entries:
        if not path.is_dir():
            unused.add(path, "it lies in no class folder")
    folders = [path for path in entries if path.is_dir()]
    if not folders:
        text = f"there is no class folder in it; expected: {LAYOUT}"
        problems.append(Problem(str(where), "data.folder", text))
        return {}
    images = files_below(folders, EXTENSIONS, "an image", unused)
    for path, files in zip(folders, images, strict=True):
        if not files:
            text = f"this class has no image; remove the folder or put images in it ({listed(EXTENSIONS)})"
            problems.append(Problem(str(path), "data.folder", text))
    return {path.name: files for path, files in zip(folders, images, strict=True)}


def decode(files: Sequence[Path], image_size: Size | None, tell: Told) -> Array:
    """Return the images as (num_images, C, H, W) uint8; C is 1 if every image is grey, else 3.

    With `image_size` (height, width) images of another size are resized (bilinear, antialiased); without it
    all must have the size of the first. Transparency is dropped; of an animation the first frame is taken.
    Not modelled: orientation tags; images of more than 8 bits per channel are refused.

    Raises:  ConfigError: images cannot be read or differ in size, all of them; they need more memory than there is.
    """
    tell.say(f"decoding {len(files)} images")
    with _quiet_pillow():
        size = image_size or _read(files[0], lambda image: (image.height, image.width))
        pixels = _allocate(files, size, is_resized=image_size is not None)
        is_grey, bad = np.zeros(len(files), bool), list[Problem]()
        one_large, first = threading.Lock(), None if image_size else files[0]

        def pixels_of(image: Image.Image) -> tuple[Array, bool]:
            _check_usable(image, size, first)
            is_large = image.height * image.width > _LARGE_PIXELS
            with one_large if is_large else nullcontext():  # nothing is decoded that is not used
                return _decoded(image, size), image.mode in GREY_MODES

        def fill(start: int) -> list[Problem]:
            bad: list[Problem] = []
            for index in range(start, min(start + CHUNK, len(files))):
                try:
                    pixels[index], is_grey[index] = _read(files[index], pixels_of)
                except ConfigError as error:
                    bad += error.problems
            return bad

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            # Results come in the order of the files, and so do the problems.
            for chunk, found in enumerate(pool.map(fill, range(0, len(files), CHUNK))):
                bad += found
                if chunk % 100 == 99:
                    tell.say(f"decoding {len(files)} images: {(chunk + 1) * CHUNK * 100 // len(files)}%")
    if bad:
        more = [Problem("", "data.folder", f"{len(bad) - _MOST_TOLD} more images cannot be used")]
        raise ConfigError(bad[:_MOST_TOLD] + (more if len(bad) > _MOST_TOLD else []))
    return pixels[:, :1].copy() if is_grey.all() else pixels


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Let Pillow not warn of large images: what is too large is refused here."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _allocate(files: Sequence[Path], size: Size, is_resized: bool) -> Array:
    num_bytes = len(files) * 3 * size[0] * size[1]
    what = f"{len(files)} images of {size[0]} x {size[1]} pixels"
    advice = "a smaller data.image_size would fit"
    if not is_resized:
        packed = sum(file.stat().st_size for file in files)
        check_unpacked(num_bytes, packed, what, str(files[0]), "data.image_size", advice)
    check_fits(num_bytes, what, "", "data.image_size", advice)
    return np.empty((len(files), 3, *size), np.uint8)


def _read(file: Path, take: Callable[[Image.Image], T]) -> T:
    from PIL import Image

    with os.fdopen(open_regular(file, "an image"), "rb") as stream:
        num_bytes = os.fstat(stream.fileno()).st_size
        if num_bytes > _MOST_BYTES:
            raise ConfigError.of(str(file), "", f"has {num_bytes} bytes; an image may have at most {_MOST_BYTES}")
        try:
            with Image.open(stream, formats=FORMATS) as image:
                _check_pixels(image, num_bytes)
                return take(image)
        except RefusedError as wrong:
            raise ConfigError.of(str(file), "", str(wrong)) from None
        except Image.DecompressionBombError:
            raise ConfigError.of(str(file), "", f"has {_TOO_MANY}") from None
        except Exception as error:  # Pillow raises many kinds for damaged files
            message = f"cannot be read as an image ({type(error).__name__}: {error}); replace or remove the file"
            raise ConfigError.of(str(file), "", message) from None


_TOO_MANY = f"more than {MOST_PIXELS // 1_000_000} million pixels; a smaller image is needed"


def _check_pixels(image: Image.Image, num_bytes: int) -> None:
    """Refuse an image that is too large to be decoded, or far too large for its file."""
    pixels = image.height * image.width
    if pixels > MOST_PIXELS:
        raise RefusedError(f"is {image.height} x {image.width} pixels (height x width), {_TOO_MANY}")
    if pixels > _LARGE_PIXELS and 3 * pixels > BOMB_RATIO * num_bytes:
        found = f"is {image.height} x {image.width} pixels (height x width) in {num_bytes} bytes"
        raise RefusedError(f"{found} (a decompression bomb?); where it is right, make it smaller")


def _check_usable(image: Image.Image, size: Size, first: Path | None) -> None:
    """Refuse an image that is deep, or of another size than the first where none is resized."""
    found = (image.height, image.width)
    if found != size and first is not None:
        raise RefusedError(
            f"is {found[0]} x {found[1]} pixels (height x width) but {first} is {size[0]} x {size[1]}; set "
            "data.image_size to resize all images"
        )
    if _is_deep(image):
        raise RefusedError(f"has mode {image.mode}, more than 8 bits per channel; convert it to 8 bits")


def _decoded(image: Image.Image, size: Size) -> Array:
    """Return (3, H, W) pixels."""
    from PIL import Image

    colour = image.convert("RGB")
    if colour.size != size[::-1]:
        colour = colour.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(colour).transpose(2, 0, 1)


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image has more than 8 bits per channel in its file; Pillow opens some of these as 8 bits."""
    stored = [tile[3] for tile in getattr(image, "tile", ())]
    is_deep_ppm = image.format == "PPM" and any(isinstance(raw, tuple) and raw[1] > 255 for raw in stored)
    return image.mode.startswith(("I", "F")) or is_deep_ppm or any(";16" in str(raw) for raw in stored)
