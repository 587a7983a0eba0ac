"""LEAF's JSON files (Caldas et al. 2018): FEMNIST's pixels, CelebA's lists of image files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data.cache import Tell, cached, fingerprint
from hsgd_emu.learning.data.dataset import Array, Dataset, from_arrays
from hsgd_emu.learning.data.images import decode, decoding_options
from hsgd_emu.learning.data.roots import find_folder

LAYOUT = "train/*.json and test/*.json (and img_align_celeba/ for CelebA)"
IMAGE_FOLDERS = ("img_align_celeba", "raw/img_align_celeba")
FEMNIST_PIXELS = 784
FEMNIST_CLASSES = 62
FEMNIST_NORMALISATION = {"mean": 0.1307, "std": 0.3081}


@dataclass(frozen=True)
class _User:
    """One writer's samples as LEAF has them: either numbers or names of image files."""

    inputs: Array | list[str]
    labels: Array


def load_leaf(spec: DataSpec, base: Path, tell: Tell) -> Dataset:
    """Return the samples of all users, users sorted by name, each user's samples in the file's order.

    Inputs of 784 numbers are FEMNIST (float32, (N, 1, 28, 28), 1.0 is white, 62 classes); other numbers stay
    vectors, not normalised. Inputs that are strings name image files (CelebA; uint8, mean and std 0.5).
    `writers` numbers the training users in sorted order; test users need not be among them.
    Raises:  ConfigError: a folder or key is missing, a file is not such JSON, inputs and labels do not match.
    """
    folder = find_folder(spec, base, LAYOUT, lambda root: any((root / "train").glob("*.json")))
    files = {part: _json_files(folder / part) for part in ("train", "test")}
    image_folder = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    images = sorted(image_folder.iterdir()) if image_folder else []
    key = fingerprint("leaf", decoding_options(spec), folder, [*files["train"], *files["test"], *images])
    return cached(key, lambda: _build(spec, folder, files, image_folder, tell), tell)


def _build(
    spec: DataSpec, folder: Path, files: Mapping[str, list[Path]], image_folder: Path | None, tell: Tell
) -> Dataset:
    tell(f"reading {sum(map(len, files.values()))} LEAF files")
    parts = {part: _users(files[part]) for part in ("train", "test")}
    users = [user for part in parts.values() for user in part]
    if len({isinstance(user.inputs, list) for user in users}) != 1:
        message = "some users' inputs are image names and others' numbers (or there is no sample at all)"
        raise ConfigError.of(str(folder), "data.folder", f"{message}; all must be alike")
    arrays: dict[str, Any] = {f"{part}_y": np.concatenate([u.labels for u in parts[part]]) for part in parts}
    arrays["writers"] = np.repeat(np.arange(len(parts["train"])), [len(user.labels) for user in parts["train"]])
    if isinstance(users[0].inputs, list):
        arrays |= _image_inputs(spec, folder, parts, image_folder, tell)
    else:
        arrays |= _number_inputs(folder, parts, arrays)
    return from_arrays(arrays, str(folder), "data.folder")


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
    spec: DataSpec, folder: Path, parts: Mapping[str, list[_User]], image_folder: Path | None, tell: Tell
) -> dict[str, Any]:
    if image_folder is None:
        looked_in = " and ".join(str(folder / name) for name in IMAGE_FOLDERS)
        message = f"its inputs are names of image files, but there is no folder of images; looked for {looked_in}"
        raise ConfigError.of(str(folder), "data.folder", message)
    names = {part: [name for user in parts[part] for name in user.inputs] for part in parts}
    pixels = decode([image_folder / str(name) for part in names for name in names[part]], spec.image_size, tell)
    num_train = len(names["train"])
    return {"train_x": pixels[:num_train], "test_x": pixels[num_train:], "mean": 0.5, "std": 0.5}


def _json_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.json"))
    if not files:
        message = f"there is no .json file here; expected in {folder.parent}: {LAYOUT}"
        raise ConfigError.of(str(folder), "data.folder", message)
    return files


def _users(files: Sequence[Path]) -> list[_User]:
    """Return the users of one part that have samples, sorted by name."""
    users: dict[str, _User] = {}
    for file in files:
        for name, user in _users_of_file(file).items():
            if name in users:
                raise _bad(file, f"user {name!r} was already in an earlier file; each user may appear once")
            users[name] = user
    kept = [users[name] for name in sorted(users) if len(users[name].labels)]
    if not kept:
        raise ConfigError.of(str(files[0].parent), "data.folder", "the files hold no sample; at least one is needed")
    return kept


def _users_of_file(file: Path) -> dict[str, _User]:
    content = _parse(file)
    for key, kind in (("users", list), ("num_samples", list), ("user_data", dict)):
        if not isinstance(content, dict) or key not in content:
            raise _bad(file, f"the key {key!r} is missing; a LEAF file has users, num_samples and user_data")
        if not isinstance(content[key], kind):
            right = "a list" if kind is list else "a mapping from user to samples"
            raise _bad(file, f"{key!r} is {type(content[key]).__name__}; it must be {right}")
    if len(content["users"]) != len(content["num_samples"]):
        counts = f"{len(content['users'])} users but {len(content['num_samples'])} num_samples"
        raise _bad(file, f"there are {counts}; there must be as many of each")
    if sorted(map(str, content["users"])) != sorted(content["user_data"]):
        raise _bad(file, "'users' and 'user_data' must name the same users, each once")
    numbers = zip(content["users"], content["num_samples"], strict=True)
    return {str(name): _user(file, name, number, content["user_data"]) for name, number in numbers}


def _parse(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _bad(file, f"is not readable JSON ({type(error).__name__}: {error})") from None


def _user(file: Path, name: Any, num_samples: Any, user_data: Mapping[str, Any]) -> _User:
    data = user_data.get(name) if isinstance(name, str) else None
    if not isinstance(data, dict) or not all(isinstance(data.get(key), list) for key in ("x", "y")):
        raise _bad(file, f"user_data of user {name!r} is missing or lacks a list 'x' or 'y'")
    if not len(data["x"]) == len(data["y"]) == num_samples:
        found = f"{len(data['x'])} inputs, {len(data['y'])} labels and num_samples {num_samples}"
        raise _bad(file, f"user {name!r} has {found}; the three must agree")
    return _User(_inputs(file, name, data["x"]), _labels(file, name, data["y"]))


def _inputs(file: Path, name: str, values: list[Any]) -> Array | list[str]:
    if values and all(isinstance(value, str) for value in values):
        return values
    try:
        inputs = np.asarray(values, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise _bad(file, f"the inputs of user {name!r} are not equally long lists of numbers") from None
    if values and inputs.ndim < 2:
        raise _bad(file, f"an input of user {name!r} is a single number; it must be a list or an image's file name")
    return inputs


def _labels(file: Path, name: str, values: list[Any]) -> Array:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        numbers = np.asarray([np.nan])
    # CelebA's labels are written 0.0 and 1.0
    if not (numbers.ndim == 1 and (np.abs(numbers) < 2**53).all() and (numbers == np.floor(numbers)).all()):
        raise _bad(file, f"the labels of user {name!r} are not all whole numbers")
    return numbers.astype(np.int64)


def _bad(file: Path, message: str) -> ConfigError:
    return ConfigError.of(str(file), "data.folder", message)
