"""Decoded data sets are kept, found again, and never trusted when damaged."""

import os

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
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


@pytest.mark.parametrize("change", ["another key's file", "another pixel", "another label", "no digest"])
def test_a_whole_cache_file_of_other_content_is_rebuilt(root, change):
    first, _ = load()
    [file] = cache_files(root)
    with np.load(file) as stored:
        arrays = dict(stored)
    if change == "another key's file":
        load(image_size=(2, 2))
        [other] = set(cache_files(root)) - {file}
        os.replace(other, file)
    else:
        if change == "another pixel":
            arrays["train_x"][0, 0, 0, 0] ^= 1
        elif change == "another label":
            arrays["test_y"][0] = 1
        else:
            del arrays["digest"]
        np.savez(file, **arrays)
    again, told = load()
    assert same(first, again)
    assert "damaged" in told[0]


def change_in_place(file):
    """Change the pixels of a file, keeping its size and times."""
    before = file.stat()
    content = file.read_bytes()
    file.write_bytes(content[:-8] + b"\x63" * 8)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file):
    """Put another file of the same size and time in the place of one."""
    before, beside = file.stat(), file.with_name("beside")
    beside.write_bytes(file.read_bytes()[:-8] + b"\x63" * 8)
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(beside, file)


@pytest.mark.parametrize("how", [change_in_place, replace])
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_change_that_keeps_size_and_time_is_noticed(root, how, below):
    file = root / "images/train/x" / below / "5.bmp"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (5, 5, 5)).save(file)
    before = load()[0].train_x
    how(file)
    after, told = load()
    assert told == ["decoding 4 images"]
    assert not np.array_equal(before, after.train_x)


def test_added_removed_and_renamed_files_are_noticed(root):
    load()
    file = root / "images/train/x/new/15.bmp"
    file.parent.mkdir()
    Image.new("RGB", (2, 2), (15, 0, 0)).save(file)
    assert load()[0].train_x[:, 0, 0, 0].tolist() == [10, 20, 15]  # 10.bmp, 20.bmp, new/15.bmp
    file.rename(root / "images/train/x/15.bmp")
    assert load()[0].train_x[:, 0, 0, 0].tolist() == [10, 15, 20]
    (root / "images/train/x/10.bmp").unlink()
    assert load()[0].train_x[:, 0, 0, 0].tolist() == [15, 20]


def test_files_that_change_while_they_are_read_are_not_used(root, monkeypatch):
    from hsgd_emu.learning.data import images

    decode = images.decode

    def slow(files, image_size, tell):
        change_in_place(files[0])
        return decode(files, image_size, tell)

    monkeypatch.setattr(images, "decode", slow)
    with pytest.raises(ConfigError, match="its files changed while they were read; start again"):
        load()
    assert cache_files(root) == []


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
