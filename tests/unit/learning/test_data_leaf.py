"""LEAF files: users become writers, FEMNIST's pixels and CelebA's image names become arrays."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import load_dataset, partition


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HSGD_EMU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pixels(value):
    return [value] * 784


def write(folder, part, name, **samples):
    """Write a LEAF file in which each user has the given (x, y) lists."""
    content = {
        "users": list(samples),
        "num_samples": [len(y) for _, y in samples.values()],
        "user_data": {user: {"x": x, "y": y} for user, (x, y) in samples.items()},
    }
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / part / name).write_text(json.dumps(content))
    return content


@pytest.fixture
def femnist(tmp_path):
    folder = tmp_path / "femnist_leaf"
    write(folder, "train", "1.json", zoe=([pixels(0.25)], [61]), bob=([pixels(0.5), pixels(1.0)], [3, 4]))
    write(folder, "train", "2.json", amy=([pixels(0.0)], [0]))
    write(folder, "test", "1.json", eve=([pixels(0.75)], [7]), amy=([pixels(0.125)], [9]))
    return folder


def load(tmp_path, **spec):
    return load_dataset(DataSpec(dataset="leaf", root=str(tmp_path), **spec), tmp_path)


def refusal(tmp_path, **spec):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, **spec)
    return str(caught.value)


def test_femnist_comes_sorted_by_user_over_all_files(tmp_path, femnist):
    data = load(tmp_path)
    assert data.train_x.shape == (4, 1, 28, 28)
    assert data.train_x.dtype == np.float32
    # amy, bob (two), zoe; eve is in the test set only and is no writer
    assert data.train_x[:, 0, 5, 5].tolist() == [0.0, 0.5, 1.0, 0.25]
    assert data.train_y.tolist() == [0, 3, 4, 61]
    assert data.writers.tolist() == [0, 1, 1, 2]
    assert data.test_y.tolist() == [9, 7]
    assert (data.num_classes, data.mean, data.std) == (62, (0.1307,), (0.3081,))


def test_natural_gives_each_worker_whole_writers(tmp_path, femnist):
    data = load(tmp_path)
    spec = DataSpec(dataset="leaf", partition="natural")
    parts = partition(spec, data.train_y, data.writers, [[0, 1], [2]], seed=1)
    assert [part.tolist() for part in parts] == [[0], [1, 2], [3]]


def test_the_root_itself_may_be_the_folder(femnist):
    assert len(load(femnist).train_y) == 4


def test_labels_beyond_62_set_the_number_of_classes(tmp_path, femnist):
    # 4 + 2 samples cannot name a label 80 by themselves: 76 more make it plausible
    write(femnist, "train", "3.json", max=([pixels(0.0)] * 80, [80] + [1] * 79))
    assert load(tmp_path).num_classes == 81


def test_other_numbers_stay_vectors(tmp_path):
    folder = tmp_path / "synthetic"
    write(folder, "train", "a.json", u=([[1.0, 2.0], [3.0, 4.0]], [0, 1]))
    write(folder, "test", "a.json", v=([[5.0, 6.0]], [2]))
    data = load(tmp_path, folder="synthetic")
    assert data.train_x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (data.num_classes, data.mean) == (3, ())


def test_a_user_without_samples_is_passed_over(tmp_path, femnist):
    write(femnist, "train", "3.json", carl=([], []))
    assert load(tmp_path).writers.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("where", ["img_align_celeba", "raw/img_align_celeba"])
def test_image_names_are_read_from_the_image_folder(tmp_path, where):
    folder = tmp_path / "celeba"
    (folder / where).mkdir(parents=True)
    for number, colour in enumerate([(10, 0, 0), (0, 20, 0), (0, 0, 30)]):
        Image.new("RGB", (6, 4), colour).save(folder / where / f"{number}.png")
    write(folder, "train", "a.json", u2=(["0.png"], [1.0]), u1=(["2.png"], [0.0]))
    write(folder, "test", "a.json", u3=(["1.png"], [1.0]))
    data = load(tmp_path, folder="celeba")
    assert data.train_x[:, :, 0, 0].tolist() == [[0, 0, 30], [10, 0, 0]]  # u1, u2
    assert data.test_x[:, :, 0, 0].tolist() == [[0, 20, 0]]
    assert data.train_x.shape == (2, 3, 4, 6)
    assert (data.train_y.tolist(), data.num_classes, data.mean) == ([0, 1], 2, (0.5,) * 3)


def test_missing_images_are_named(tmp_path):
    folder = tmp_path / "celeba"
    for part in ("train", "test"):
        write(folder, part, "a.json", u=(["7.jpg"], [1.0]))
    message = refusal(tmp_path, folder="celeba")
    assert "img_align_celeba" in message
    (folder / "img_align_celeba").mkdir()
    assert "7.jpg" in refusal(tmp_path, folder="celeba")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.pop("user_data"), "the key 'user_data' is missing"),
        (lambda c: c.pop("num_samples"), "the key 'num_samples' is missing"),
        (lambda c: c.update(users={}), "'users' is dict; it must be a list"),
        (lambda c: c.update(num_samples=[]), "1 users but 0 num_samples"),
        (lambda c: c.update(num_samples=[5]), "2 inputs, 2 labels and num_samples 5"),
        (lambda c: c.update(users=["amy"]), "must name the same users"),
        (lambda c: c["user_data"]["bob"].pop("y"), "user 'bob' is missing or lacks a list 'x' or 'y'"),
        (
            lambda c: c["user_data"]["bob"].update(y=[1, 1.5]),
            "user 'bob': the labels are not all whole numbers",
        ),
        (lambda c: c["user_data"]["bob"].update(y=[1, "x"]), "not all whole numbers"),
        (lambda c: c["user_data"]["bob"].update(y=[1, 10**400]), "not all whole numbers"),
        (lambda c: c["user_data"]["bob"].update(y=[1, -1]), "label -1"),
        (lambda c: c["user_data"]["bob"].update(x=[[1.0], [1.0, 2.0]]), "not equally long lists"),
        (lambda c: c["user_data"]["bob"].update(x=[1.0, 2.0]), "single number"),
        (lambda c: c["user_data"]["bob"].update(x=[[1.0], [2.0]]), "shapes (1,) and (784,)"),
        (lambda c: c["user_data"]["bob"].update(x=["a", "b"]), "all must be alike"),
        (lambda c: c["user_data"]["bob"].update(x=[pixels(float("nan"))] * 2), "NaN"),
    ],
)
def test_a_malformed_file_is_refused_saying_what_is_wrong(tmp_path, femnist, change, says):
    content = write(femnist, "train", "1.json", bob=([pixels(0.5), pixels(1.0)], [3, 4]))
    change(content)
    (femnist / "train/1.json").write_text(json.dumps(content))
    message = refusal(tmp_path)
    assert says in message
    assert str(femnist) in message


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00", "[" * 100_000])
def test_broken_json_names_the_file(tmp_path, femnist, text):
    (femnist / "train/2.json").write_text(text)
    assert "train/2.json" in refusal(tmp_path)


def test_a_user_in_two_files_is_refused(tmp_path, femnist):
    write(femnist, "train", "3.json", bob=([pixels(0.5)], [3]))
    assert "3.json: data.folder: user 'bob' was already in an earlier file" in refusal(tmp_path)


def test_missing_parts_are_named(tmp_path, femnist):
    for file in (femnist / "test").iterdir():
        file.unlink()
    assert f"{femnist / 'test'}: data.folder: there is no .json file" in refusal(tmp_path)
    message = refusal(tmp_path, folder="nowhere")
    assert "HSGD_EMU_DATA" in message
    assert "train/*.json" in message


def test_files_are_found_at_any_depth_and_what_is_not_read_is_said(tmp_path, femnist):
    (femnist / "train/deep/er").mkdir(parents=True)
    (femnist / "train/2.json").rename(femnist / "train/deep/er/2.JSON")
    (femnist / "train/README.txt").write_text("x")
    (femnist / "train/.1.json.swp").write_text("x")
    said = []
    data = load_dataset(DataSpec(dataset="leaf", root=str(tmp_path)), tmp_path, warn=said.append)
    assert data.writers.tolist() == [0, 1, 1, 2]
    assert said[0] == f"{femnist}: not used: train/README.txt (a LEAF file ends in .json)"


def test_labels_that_only_test_samples_have_are_said(tmp_path, femnist):
    said = []
    load_dataset(DataSpec(dataset="leaf", root=str(tmp_path)), tmp_path, warn=said.append)
    assert said == ["test samples have the labels 7, 9, which no training sample has and no model can learn"]


@pytest.mark.parametrize(("layout", "shape"), [("channels_first", (4, 6, 2)), ("channels_last", (2, 4, 6))])
def test_nested_lists_of_images_need_a_layout_and_keep_it_in_the_cache(tmp_path, layout, shape):
    x = np.arange(48).reshape(1, 4, 6, 2).tolist()
    for part in ("train", "test"):
        write(tmp_path / "own", part, "a.json", u=(x, [0]), v=(x, [1]))
    assert "data.layout" in refusal(tmp_path, folder="own")
    for _ in range(2):
        assert load(tmp_path, folder="own", layout=layout).train_x.shape == (2, *shape)


def test_images_below_a_subfolder_are_noticed_when_they_change(tmp_path, monkeypatch):
    folder = tmp_path / "celeba"
    image = folder / "img_align_celeba/a/b/0.bmp"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (2, 2), (10, 0, 0)).save(image)
    for part in ("train", "test"):
        write(folder, part, "a.json", u=(["a/b/0.bmp"], [0]))
    assert load(tmp_path, folder="celeba").train_x[0, 0, 0, 0] == 10
    before = image.stat()
    Image.new("RGB", (2, 2), (20, 0, 0)).save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load(tmp_path, folder="celeba").train_x[0, 0, 0, 0] == 20
