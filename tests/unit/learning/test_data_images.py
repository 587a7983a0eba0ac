"""`image_folder`: what is read from a small tree of image files, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.config.run_schema import Augment, DataSpec, Normalize
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import load_dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HSGD_EMU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save(file, value, size=(4, 6), mode="RGB"):
    """Write an image of height x width `size` filled with `value`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size[1], size[0]), value).save(file)


@pytest.fixture
def tree(tmp_path):
    """Two classes, named so that cat comes first; cats in three colours, grey dogs; one test image each."""
    root = tmp_path / "images"
    save(root / "train/cat/b.png", (0, 255, 0))
    save(root / "train/cat/a.png", (255, 0, 0))
    save(root / "train/cat/c.PNG", (0, 0, 255))
    save(root / "train/dog/0.png", 100, mode="L")
    save(root / "train/dog/1.png", 200, mode="L")
    save(root / "test/cat/0.png", (1, 2, 3))
    save(root / "test/dog/0.png", (4, 5, 6))
    return root


def load(tmp_path, **spec):
    return load_dataset(DataSpec(dataset="image_folder", root=str(tmp_path), **spec), tmp_path)


def refusal(tmp_path, **spec):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **spec)
    return str(caught.value)


def test_classes_and_files_are_in_the_order_of_their_names(tmp_path, tree):
    data = load(tmp_path)
    assert data.train_x.dtype == np.uint8
    assert data.train_x.shape == (5, 3, 4, 6)
    # a.png red, b.png green, c.PNG blue, then the dogs, grey in all three channels
    expected = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [100] * 3, [200] * 3]
    assert data.train_x[:, :, 2, 3].tolist() == expected
    assert data.train_y.tolist() == [0, 0, 0, 1, 1]
    assert data.test_x[:, :, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (data.num_classes, data.mean, data.std) == (2, (0.5,) * 3, (0.5,) * 3)


def test_pixels_keep_their_places(tmp_path, tree):
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tree / "train/cat/a.png")
    assert (load(tmp_path).train_x[0] == pixels.transpose(2, 0, 1)).all()


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    for part in ("train", "test"):
        (tmp_path / "images" / part / "x").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "images" / part / "x" / "0.jpg", quality=90)
    expected = np.asarray(Image.open(tmp_path / "images/train/x/0.jpg"))
    assert (load(tmp_path).train_x[0] == expected.transpose(2, 0, 1)).all()


def test_all_grey_images_have_one_channel(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / "images" / part / "x" / "0.png", 77, mode="L")
    data = load(tmp_path)
    assert data.train_x.shape == (1, 1, 4, 6)
    assert set(data.train_x.ravel()) == {77}
    assert data.mean == (0.5,)


def test_the_root_itself_or_a_named_folder_may_hold_the_images(tmp_path, tree):
    assert len(load(tree).train_y) == 5
    tree.rename(tmp_path / "pets")
    assert len(load(tmp_path, folder="pets").train_y) == 5


def test_the_root_is_found_by_environment_and_relative_to_the_run_file(tmp_path, tree, monkeypatch):
    assert len(load_dataset(DataSpec(dataset="image_folder", root="images"), tmp_path).train_y) == 5
    monkeypatch.setenv("HSGD_EMU_DATA", str(tmp_path))
    assert len(load_dataset(DataSpec(dataset="image_folder"), tmp_path / "elsewhere").train_y) == 5


def test_image_size_is_height_then_width(tmp_path, tree):
    save(tree / "train/dog/2.png", (9, 9, 9), size=(10, 10))
    data = load(tmp_path, image_size=(3, 5))
    assert data.train_x.shape == (6, 3, 3, 5)
    assert set(data.train_x[5].ravel()) == {9}


def test_images_of_two_sizes_are_refused_naming_both_files(tmp_path, tree):
    save(tree / "train/dog/2.png", 0, size=(10, 12))
    message = refusal(tmp_path)
    assert "2.png" in message
    assert "10 x 12" in message
    assert "a.png is 4 x 6" in message
    assert "data.image_size" in message


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_file_that_is_no_image_is_named(tmp_path, tree, content):
    (tree / "train/dog/1.png").write_bytes(content)
    assert "train/dog/1.png: cannot be read as an image" in refusal(tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp"])
def test_an_image_cut_short_is_named(tmp_path, tree, ending):
    file = tree / f"train/dog/2.{ending}"
    Image.effect_noise((6, 4), 50).save(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) - 30])
    assert f"2.{ending}: cannot be read as an image" in refusal(tmp_path)


def test_all_bad_files_are_named_at_once_in_their_order(tmp_path, tree):
    for name in ("train/cat/c.PNG", "train/dog/1.png", "test/dog/0.png"):
        (tree / name).write_bytes(b"")
    save(tree / "test/cat/9.png", 0, size=(5, 5))
    lines = refusal(tmp_path).splitlines()
    assert [line.partition(": ")[0].removeprefix(f"{tree}/") for line in lines] == [
        "train/cat/c.PNG",
        "train/dog/1.png",
        "test/cat/9.png",
        "test/dog/0.png",
    ]


def test_many_bad_files_are_counted(tmp_path, tree):
    for number in range(30):
        (tree / f"train/dog/x{number}.png").write_bytes(b"")
    lines = refusal(tmp_path).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "data.folder: 10 more images cannot be used"


def sixteen_bits(mode):
    """Return a 16-bit PNG, PPM or TIFF; Pillow opens colours of 16 bits as if they had 8."""
    made = io.BytesIO()
    if mode == "grey.png":
        Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(made, "PNG")
    elif mode == "grey.tif":
        Image.fromarray(np.full((4, 6), 40000, np.uint16)).save(made, "TIFF")
    elif mode == "floats.tif":
        Image.fromarray(np.full((4, 6), 0.5, np.float32)).save(made, "TIFF")
    elif mode == "colour.ppm":
        made.write(b"P6 6 4 65535\n" + bytes(2 * 3 * 24))
    else:
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(4 * 37))),
            (b"IEND", b""),
        ]
        made.write(b"\x89PNG\r\n\x1a\n")
        for name, content in chunks:
            made.write(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)))
    return made.getvalue()


@pytest.mark.parametrize("mode", ["grey.png", "grey.tif", "floats.tif", "colour.ppm", "colour.png"])
def test_sixteen_bit_images_are_refused(tmp_path, tree, mode):
    (tree / f"train/dog/2.{mode[-3:]}").write_bytes(sixteen_bits(mode))
    assert "8 bits" in refusal(tmp_path)


@pytest.mark.parametrize(("mode", "value"), [("P", 7), ("RGBA", (1, 2, 3, 0)), ("CMYK", (0, 255, 255, 0)), ("1", 1)])
def test_other_modes_become_colours(tmp_path, tree, mode, value):
    image = Image.new(mode, (6, 4), value)
    ending = "jpg" if mode == "CMYK" else "png"
    image.save(tree / f"train/dog/2.{ending}")
    expected = np.asarray(Image.open(tree / f"train/dog/2.{ending}").convert("RGB")).transpose(2, 0, 1)
    assert (load(tmp_path).train_x[-1] == expected).all()


def loaded(tmp_path, **spec):
    """Return the data set and what was said of it."""
    said = []
    return load_dataset(DataSpec(dataset="image_folder", root=str(tmp_path), **spec), tmp_path, warn=said.append), said


def test_images_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path, tree):
    save(tree / "train/cat/more/deep/z.JPEG", (9, 9, 9))
    save(tree / "train/cat/more/a.Png", (8, 8, 8))
    save(tree / "train/cat/x.png/0.png", (7, 7, 7))  # a folder named like an image
    for _ in range(2):  # found again in the cache
        data, said = loaded(tmp_path)
        assert said == []
        assert data.train_y.tolist() == [0] * 6 + [1] * 2
        assert data.train_x[:6, 1, 0, 0].tolist() == [0, 255, 0, 8, 9, 7]  # a, b, c, more/a, more/deep/z, x.png/0


def test_a_very_deep_tree_is_read(tmp_path, tree):
    deep = tree / "train/cat" / "/".join("d" * 300)
    deep.mkdir(parents=True)
    save(deep / "z.png", (9, 9, 9))
    assert len(loaded(tmp_path)[0].train_y) == 6


def test_what_is_not_used_is_said_but_for_what_systems_leave_everywhere(tmp_path, tree):
    for name in ("train/cat/._a.png", "train/cat/.DS_Store", "train/dog/Thumbs.db", "train/dog/desktop.ini"):
        (tree / name).write_text("x")
    for name in ("train/__MACOSX/cat", "train/cat/__MACOSX", "test/.git"):
        save(tree / name / "0.png", 0)
    assert loaded(tmp_path)[1] == []
    for name in ("train/cat/notes.txt", "test/dog/sub/list.csv", "train/labels.json"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text("x")
    save(tree / "train/stray.png", 0)
    for _ in range(2):
        data, said = loaded(tmp_path)
        assert len(data.train_y) == 5
        assert [text.partition("(an image ends in .bmp")[0] for text in said if "image" in text][1:] == [
            f"{tree}: not used: train/cat/notes.txt, test/dog/sub/list.csv "
        ]
        assert f"{tree}: not used: train/labels.json, train/stray.png (it lies in no class folder)" in said


def test_many_unused_files_are_counted(tmp_path, tree):
    for number in range(10):
        (tree / f"train/cat/{number}.txt").write_text("")
    [text] = loaded(tmp_path)[1]
    assert "train/cat/0.txt, train/cat/1.txt, train/cat/2.txt and 7 more (an image ends in" in text


def test_links_are_followed_once_and_never_into_other_classes(tmp_path, tree):
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere / "0.png", (50, 50, 50))
    (tree / "train/cat/linked").symlink_to(elsewhere)
    (tree / "train/cat/one.png").symlink_to(elsewhere / "0.png")
    data, said = loaded(tmp_path)
    assert (data.train_y.tolist(), said) == ([0] * 5 + [1] * 2, [])
    for name, target in (("round", tree / "train/cat"), ("up", tree / "train"), ("other", tree / "train/dog")):
        (tree / "train/cat" / name).symlink_to(target)
    (elsewhere / "back").symlink_to(elsewhere)
    data, [text] = loaded(tmp_path)
    assert data.train_y.tolist() == [0] * 5 + [1] * 2
    assert "and 1 more (a folder that is read already under another name)" in text


def test_a_class_that_is_a_link_is_used_and_two_classes_of_one_folder_are_not(tmp_path, tree):
    (tree / "train/dog").rename(tmp_path / "dogs")
    (tree / "train/dog").symlink_to(tmp_path / "dogs")
    assert len(loaded(tmp_path)[0].train_y) == 5
    (tree / "train/wolf").symlink_to(tmp_path / "dogs")
    save(tree / "test/wolf/0.png", 0)
    assert f"{tree / 'train/wolf'}: data.folder: this class has no image" in refusal(tmp_path)


def test_an_empty_class_a_missing_test_folder_and_differing_classes_are_refused(tmp_path, tree):
    (tree / "train/emu/sub").mkdir(parents=True)
    (tree / "test/gnu").mkdir()
    lines = refusal(tmp_path).splitlines()
    assert lines[0].startswith(f"{tree / 'train/emu'}: data.folder: this class has no image")
    assert lines[1].startswith(f"{tree / 'test/gnu'}: data.folder: this class has no image")
    assert "only one of them has emu, gnu" in lines[2]
    (tree / "test/gnu").rmdir()
    save(tree / "train/emu/0.png", 0)
    assert "only one of them has emu" in refusal(tmp_path)
    (tree / "test").rename(tree / "tests")
    assert f"{tree / 'test'}: data.folder: there is no such folder" in refusal(tmp_path)


def test_missing_images_name_both_places_the_layout_and_the_ways_out(tmp_path):
    message = refusal(tmp_path, folder="pets")
    for part in (
        str(tmp_path / "pets"),
        f" {tmp_path}.",
        "HSGD_EMU_DATA",
        "--set data.root=",
        "train/<class>",
    ):
        assert part in message


def test_normalize_replaces_the_figures_for_all_channels_or_each(tmp_path, tree):
    data = load(tmp_path, normalize=Normalize(mean=(0.1,), std=(0.2, 0.3, 0.4)))
    assert (data.mean, data.std) == ((0.1,) * 3, (0.2, 0.3, 0.4))
    message = refusal(tmp_path, normalize=Normalize(mean=(0.1, 0.2), std=(1.0,)))
    assert "data.normalize: mean has 2 figures for 3 channels" in message


def test_images_can_be_augmented(tmp_path, tree):
    assert load(tmp_path, augment=Augment(crop=1, flip=True)).train_x.ndim == 4


def test_progress_says_how_many_images(tmp_path, tree):
    told = []
    load_dataset(DataSpec(dataset="image_folder", root=str(tmp_path)), tmp_path, told.append)
    assert told == ["decoding 7 images"]
