"""LEAF's JSON files (Caldas et al. 2018): FEMNIST's pixels, CelebA's lists of image files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.files import read_text_bounded
from hsgd_emu.learning.data.cache import Told, cached
from hsgd_emu.learning.data.dataset import Array, Dataset, RefusedError, from_arrays
from hsgd_emu.learning.data.images import decode, decoding_options
from hsgd_emu.learning.data.spec import find_folder
from hsgd_emu.learning.data.tree import Unused, files_below, is_passed_over

LAYOUT = "train/*.json and test/*.json, in subfolders too (and img_align_celeba/ for CelebA)"
IMAGE_FOLDERS = ("img_align_celeba", "raw/img_align_celeba")
_KEYS = {"users": list, "num_samples": list, "user_data": dict}
_RIGHT = "a LEAF file has users, num_samples and user_data"
MOST_BYTES = 2**29
"""Of one JSON file. FEMNIST's are about 100 MB where the whole set is in 36 files."""
_MOST_LISTS = 4_000_000  # in one file: a list takes 50 times the memory of its two brackets
_MOST_OF_USER = 2**25
"""Characters. A FEMNIST writer has about a million."""
_MOST_BLANKS = 1000
FEMNIST_PIXELS = 784
FEMNIST_CLASSES = 62
FEMNIST_NORMALISATION = {"mean": 0.1307, "std": 0.3081}


@dataclass(frozen=True)
class _User:
    """One writer's samples as LEAF has them: either numbers or names of image files.

    Made as soon as a mapping with x and y is read, so that no more than one user's numbers are ever held as Python's.
    """

    num_inputs: int
    num_labels: int
    inputs: Array | list[str]
    labels: Array
    problem: str = ""
    """What is wrong with inputs or labels."""


def load_leaf(spec: DataSpec, base: Path, tell: Told) -> Dataset:
    """Return the samples of all users, users sorted by name, each user's samples in the file's order.

    Files are read at any depth below train and test. Inputs of 784 numbers are FEMNIST (float32, (N, 1, 28, 28), 1.0
    is white, 62 classes); other numbers stay as they are, not normalised. Inputs that are strings name image files
    (CelebA; uint8, mean and std 0.5). `writers` numbers the training users in sorted order; test users need not be
    among them.
    Raises:  ConfigError: a folder or key is missing, a file is not such JSON, inputs and labels do not match.
    """
    folder = find_folder(spec, base, LAYOUT, lambda root: any((root / "train").rglob("*.json")))
    unused = Unused(folder)
    files = {part: _json_files(folder / part, unused) for part in ("train", "test")}
    unused.say(tell.warn)
    image_folder = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    images = files_below([image_folder], ("",), "", Unused(folder))[0] if image_folder else []
    sources = [*files["train"], *files["test"], *images]
    options = decoding_options(spec) | {"layout": spec.layout}
    return cached("leaf", options, folder, sources, lambda: _build(spec, folder, files, image_folder, tell), tell)


def _build(
    spec: DataSpec, folder: Path, files: Mapping[str, list[Path]], image_folder: Path | None, tell: Told
) -> Dataset:
    tell.say(f"reading {sum(map(len, files.values()))} LEAF files")
    parts = {part: _users(files[part], folder / part) for part in ("train", "test")}
    users = [user for part in parts.values() for user in part]
    if len({isinstance(user.inputs, list) for user in users}) != 1:
        message = "some users' inputs are image names and others' numbers (or there is no sample at all)"
        raise ConfigError.of(str(folder), "data.folder", f"{message}; all must be alike")
    arrays: dict[str, Any] = {f"{part}_y": np.concatenate([u.labels for u in parts[part]]) for part in parts}
    arrays["writers"] = np.repeat(np.arange(len(parts["train"])), [len(user.labels) for user in parts["train"]])
    if isinstance(users[0].inputs, list):
        arrays |= _image_inputs(spec, folder, parts, image_folder, tell)
        return from_arrays(arrays, str(folder), "data.folder", "channels_first")
    arrays |= _number_inputs(folder, parts, arrays)
    return from_arrays(arrays, str(folder), "data.folder", spec.layout)


def _number_inputs(folder: Path, parts: Mapping[str, list[_User]], labels: Mapping[str, Array]) -> dict[str, Any]:
    shapes = sorted({np.shape(user.inputs)[1:] for part in parts.values() for user in part})
    if len(shapes) > 1:
        message = f"users have inputs of shapes {shapes[0]} and {shapes[1]}; all must have one shape"
        raise ConfigError.of(str(folder), "data.folder", message)
    inputs = {f"{part}_x": np.concatenate([user.inputs for user in parts[part]]) for part in parts}
    if shapes[0] != (FEMNIST_PIXELS,):
        return inputs
    largest = max(labels["train_y"].max(), labels["test_y"].max())
    classes = {"num_classes": FEMNIST_CLASSES} if largest < FEMNIST_CLASSES else {}
    return {name: x.reshape(-1, 1, 28, 28) for name, x in inputs.items()} | FEMNIST_NORMALISATION | classes


def _image_inputs(
    spec: DataSpec, folder: Path, parts: Mapping[str, list[_User]], image_folder: Path | None, tell: Told
) -> dict[str, Any]:
    if image_folder is None:
        looked_in = " and ".join(str(folder / name) for name in IMAGE_FOLDERS)
        message = f"its inputs are names of image files, but there is no folder of images; looked for {looked_in}"
        raise ConfigError.of(str(folder), "data.folder", message)
    names = {part: [name for user in parts[part] for name in user.inputs] for part in parts}
    outside = [name for part in names for name in names[part] if not _is_below(name)]
    if outside:
        text = f"these image names do not lie in {image_folder}: {listed(outside, 3)}"
        raise ConfigError.of(str(folder), "data.folder", text)
    pixels = decode([image_folder / name for part in names for name in names[part]], spec.image_size, tell)
    num_train = len(names["train"])
    return {"train_x": pixels[:num_train], "test_x": pixels[num_train:], "mean": 0.5, "std": 0.5}


def _is_below(name: str) -> bool:
    """Return whether an image's name leads to nowhere but into the folder of images, where changes are noticed."""
    parts = PurePath(name).parts
    return bool(parts) and not PurePath(name).is_absolute() and not any(map(is_passed_over, parts)) and "\0" not in name


def _json_files(folder: Path, unused: Unused) -> list[Path]:
    files = files_below([folder], (".json",), "a LEAF file", unused)[0] if folder.is_dir() else []
    if not files:
        message = f"there is no .json file here; expected in {folder.parent}: {LAYOUT}"
        raise ConfigError.of(str(folder), "data.folder", message)
    return files


def _users(files: Sequence[Path], folder: Path) -> list[_User]:
    """Return the users of one part that have samples, sorted by name."""
    users: dict[str, _User] = {}
    for file in files:
        for name, user in _users_of_file(file).items():
            if name in users:
                raise _bad(file, f"user {name!r} was already in an earlier file; each user may appear once")
            users[name] = user
    kept = [users[name] for name in sorted(users) if len(users[name].labels)]
    if not kept:
        raise ConfigError.of(str(folder), "data.folder", "the files hold no sample; at least one is needed")
    return kept


def _users_of_file(file: Path) -> dict[str, _User]:
    content = _parse(file)
    for key, kind in _KEYS.items():
        if not isinstance(content, dict) or key not in content:
            raise _bad(file, f"the key {key!r} is missing; {_RIGHT}")
        if not isinstance(content[key], kind):
            right = "a list" if kind is list else "a mapping from user to samples"
            raise _bad(file, f"{key!r} is {type(content[key]).__name__}; it must be {right}")
    if len(content["users"]) != len(content["num_samples"]):
        counts = f"{len(content['users'])} users but {len(content['num_samples'])} num_samples"
        raise _bad(file, f"there are {counts}; there must be as many of each")
    if sorted(map(str, content["users"])) != sorted(content["user_data"]):
        raise _bad(file, "'users' and 'user_data' must name the same users, each once")
    numbers = zip(content["users"], content["num_samples"], strict=True)
    return {str(name): _checked(file, name, number, content["user_data"]) for name, number in numbers}


def _parse(file: Path) -> Any:
    """Return the content of a LEAF file, every user's inputs and labels as arrays as soon as they are read."""
    text = read_text_bounded(file, MOST_BYTES, "a LEAF file")
    if not text[:_MOST_BLANKS].lstrip().startswith("{"):
        raise _bad(file, f"is no mapping; {_RIGHT}")
    for key in _KEYS:  # before anything is built of a large file of another kind
        if f'"{key}"' not in text:
            raise _bad(file, f"the key {key!r} is missing; {_RIGHT}")
    if sum(map(text.count, "[{}")) > _MOST_LISTS:
        raise _bad(file, f"holds more than {_MOST_LISTS} lists; a LEAF file has one for each sample")
    if _longest(text) > _MOST_OF_USER:
        raise _bad(file, f"holds more than {_MOST_OF_USER // 2**20} MiB of text for one user; that is too much")
    try:
        return json.loads(text, object_pairs_hook=partial(_object, file))
    except RecursionError:
        raise _bad(file, "is nested too deeply for a LEAF file") from None
    except ValueError as error:
        raise _bad(file, f"is not readable JSON ({type(error).__name__}: {error})") from None


def _longest(text: str) -> int:
    """Return the length of the longest stretch that closes no mapping: what is built of it is all held at once."""
    longest = start = 0
    while (end := text.find("}", start)) >= 0:
        longest, start = max(longest, end - start), end + 1
    return max(longest, len(text) - start)


def _object(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any] | _User:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise _bad(file, f"the key {twice!r} is there twice in one mapping")
    inputs, labels = content.get("x"), content.get("y")
    if not isinstance(inputs, list) or not isinstance(labels, list):
        return content
    try:
        return _User(len(inputs), len(labels), _inputs(inputs), _labels(labels))
    except RefusedError as refused:
        return _User(len(inputs), len(labels), [], np.zeros(0, np.int64), str(refused))


def _checked(file: Path, name: Any, num_samples: Any, user_data: Mapping[str, Any]) -> _User:
    """Return a user whose samples are as many as the file says."""
    user = user_data.get(name) if isinstance(name, str) else None
    if not isinstance(user, _User):
        raise _bad(file, f"user_data of user {name!r} is missing or lacks a list 'x' or 'y'")
    if not user.num_inputs == user.num_labels == num_samples:
        found = f"{user.num_inputs} inputs, {user.num_labels} labels and num_samples {num_samples}"
        raise _bad(file, f"user {name!r} has {found}; the three must agree")
    if user.problem:
        raise _bad(file, f"user {name!r}: {user.problem}")
    return user


def _inputs(values: list[Any]) -> Array | list[str]:
    if values and all(isinstance(value, str) for value in values):
        return values
    inputs = _numbers(values, "the inputs are not equally long lists of numbers")
    if values and inputs.ndim < 2:
        raise RefusedError("an input is a single number; it must be a list or an image's file name")
    with np.errstate(over="ignore"):  # what becomes infinite is refused with the other arrays
        return inputs.astype(np.float32)


def _labels(values: list[Any]) -> Array:
    numbers = _numbers(values, "the labels are not all whole numbers")
    # CelebA's labels are written 0.0 and 1.0
    if not (numbers.ndim == 1 and (np.abs(numbers) < 2**53).all() and (numbers == np.floor(numbers)).all()):
        raise RefusedError("the labels are not all whole numbers")
    return numbers.astype(np.int64)


def _numbers(values: list[Any], wrong: str) -> Array:
    """Return lists of numbers as an array; of numbers only, as NumPy would make some of texts and of nothing."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        raise RefusedError(wrong) from None
    if array.size and array.dtype.kind not in "iuf":
        raise RefusedError(wrong)
    return array


def _bad(file: Path, message: str) -> ConfigError:
    return ConfigError.of(str(file), "data.folder", message)
