"""Decoded data sets are kept, found again, and never trusted when damaged."""

import os

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.learning.data import load_dataset


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    monkeypatch.setenv("HSGD_EMU_DATA", str(tmp_path / "data"))
    for part, value in (("train", 10), ("train", 20), ("test", 30)):
        folder = tmp_path / "data" / "images" / part / "x"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (value, 0, 0)).save(folder / f"{value}.bmp")
    return tmp_path / "data"


def load(**spec):
    """Return the data set and what was told while loading it."""
    told = []
    return load_dataset(DataSpec(dataset="image_folder", **spec), None, told.append), told


def cache_files(root):
    return sorted((root / ".hsgd_emu_cache").iterdir())


def same(one, other):
    names = ("train_x", "train_y", "test_x", "test_y")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
    return equal and (one.num_classes, one.mean, one.std) == (other.num_classes, other.mean, other.std)


def test_the_second_load_decodes_nothing_and_gives_the_same(root):
    first, told = load()
    assert told == ["decoding 3 images"]
    second, told = load()
    assert told == []
    assert same(first, second)
    assert first.train_x[:, 0, 0, 0].tolist() == [10, 20]
    assert len(cache_files(root)) == 1  # nothing half-written is left beside it


@pytest.mark.parametrize("damage", ["torn", "empty", "flipped", "text", "other"])
def test_a_damaged_cache_file_is_rebuilt(root, damage):
    first, _ = load()
    [file] = cache_files(root)
    content = bytearray(file.read_bytes())
    flipped = content.copy()
    flipped[content.index(first.train_x.tobytes())] ^= 1  # one bit of the first pixel
    damaged = {"torn": content[:-40], "empty": b"", "flipped": flipped, "text": b"hello", "other": None}[damage]
    if damaged is None:
        np.savez(file, train_x=np.ones(3))
    else:
        file.write_bytes(damaged)
    again, told = load()
    assert same(first, again)
    assert len(told) == 2
    assert "damaged" in told[0]
    assert load()[1] == []


def test_a_changed_file_or_option_is_decoded_anew(root):
    load()
    file = root / "images/train/x/10.bmp"
    Image.new("RGB", (2, 2), (99, 0, 0)).save(file)  # the same size in bytes; only the time differs
    os.utime(file, ns=(1, 1))
    assert load()[0].train_x[0, 0, 0, 0] == 99
    resized, told = load(image_size=(3, 3))
    assert told == ["decoding 3 images"]
    assert resized.train_x.shape == (2, 3, 3, 3)


def test_equal_names_sizes_and_times_in_another_folder_are_not_confused(root):
    # Archives often give every file the same time.
    other = root / "other"
    for file in sorted((root / "images").rglob("*.bmp")):
        copy = other / file.relative_to(root / "images")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (0, 7, 0)).save(copy)
        for each in (file, copy):
            os.utime(each, ns=(0, 0))
    load()
    assert load(folder="other")[0].train_x[0, 1, 0, 0] == 7


def test_without_the_environment_the_users_cache_folder_is_used(root, monkeypatch, tmp_path):
    monkeypatch.delenv("HSGD_EMU_DATA")
    load(root=str(root))
    assert len(list((tmp_path / "user_cache").rglob("image_folder-*.npz"))) == 1
    assert load(root=str(root))[1] == []


def test_where_no_cache_can_be_written_the_data_are_still_loaded(root, monkeypatch, tmp_path):
    (root / ".hsgd_emu_cache").write_text("a file, not a folder")
    (tmp_path / "user_cache").write_text("a file, not a folder")
    data, told = load()
    assert data.train_x[:, 0, 0, 0].tolist() == [10, 20]
    assert "no cache folder" in told[-1]


def test_a_full_disk_leaves_no_half_written_file(root, monkeypatch):
    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    data, told = load()
    assert data.train_x[:, 0, 0, 0].tolist() == [10, 20]
    assert "No space left" in told[-1]
    assert cache_files(root) == []
