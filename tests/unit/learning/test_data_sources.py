"""digits, torchvision's sets, .npz files and the user's own factory."""

import struct
import urllib.error
import urllib.request

import numpy as np
import pytest

from hsgd_emu.config.run_schema import Augment, DataSpec, Normalize
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import dataset_root, load_dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HSGD_EMU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def arrays(**changes):
    """Return four fitting arrays: 3 training and 2 test samples of two numbers, some of them changed."""
    made = {
        "train_x": np.arange(6.0).reshape(3, 2),
        "train_y": np.array([0, 1, 2]),
        "test_x": np.ones((2, 2)),
        "test_y": np.array([1, 0]),
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def load_npz(tmp_path, content, **spec):
    np.savez(tmp_path / "data.npz", **content)
    return load_dataset(DataSpec(dataset="npz", root=str(tmp_path), **spec), tmp_path)


def refusal(load, *args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        load(*args, **kwargs)
    return str(caught.value)


# --- digits -----------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_first_1437_and_last_360():
    from sklearn.datasets import load_digits

    data = load_dataset(DataSpec(), base=None)
    pixels, labels = load_digits(return_X_y=True)
    assert (data.train_x == (pixels / 16).astype(np.float32)[:1437]).all()
    assert (data.test_x == (pixels / 16).astype(np.float32)[-360:]).all()
    assert (data.train_y == labels[:1437]).all()
    assert (data.test_y == labels[-360:]).all()
    assert (data.train_x.dtype, data.train_x.shape, data.train_y.dtype) == (np.float32, (1437, 64), np.int64)
    assert (data.num_classes, data.mean, data.std, data.writers) == (10, (), (), None)


def test_digits_can_be_normalised_with_one_figure_for_all():
    data = load_dataset(DataSpec(normalize=Normalize(mean=(0.3,), std=(0.4,))), base=None)
    assert (data.mean, data.std) == ((0.3,), (0.4,))


def test_a_spec_with_mistakes_is_refused_with_all_of_them():
    message = refusal(load_dataset, DataSpec(dataset="digit", partition="shards"), None)
    assert "data.dataset: 'digit'" in message
    assert "did you mean 'digits'?" in message
    assert "data.classes_per_worker" in message


# --- where data lie ---------------------------------------------------------------------------------


def test_the_root_is_the_spec_then_the_environment_then_the_cache(tmp_path, monkeypatch):
    assert dataset_root(DataSpec()) == tmp_path / "cache" / "hsgd_emu"
    monkeypatch.setenv("HSGD_EMU_DATA", "/some/where")
    assert str(dataset_root(DataSpec())) == "/some/where"
    assert dataset_root(DataSpec(root="own"), tmp_path) == tmp_path / "own"
    assert str(dataset_root(DataSpec(root="/abs"), tmp_path)) == "/abs"


# --- torchvision ------------------------------------------------------------------------------------


def write_idx(file, values):
    """Write an array in MNIST's IDX format: 0, 0, 8 = bytes, number of axes, big-endian lengths."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    file.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.mark.parametrize("below", ["mnist", ""])
def test_mnist_files_that_are_there_are_read(tmp_path, below):
    raw = tmp_path / below / "MNIST" / "raw"
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    for stem, count in (("train", 3), ("t10k", 2)):
        write_idx(raw / f"{stem}-images-idx3-ubyte", images[:count])
        write_idx(raw / f"{stem}-labels-idx1-ubyte", np.array([5, 0, 9])[:count])
    data = load_dataset(DataSpec(dataset="mnist", root=str(tmp_path)), tmp_path)
    assert (data.train_x[:, 0] == images).all()
    assert data.train_x.dtype == np.uint8
    assert (data.train_y.tolist(), data.test_y.tolist()) == ([5, 0, 9], [5, 0])
    assert (data.num_classes, data.mean, data.std) == (10, (0.1307,), (0.3081,))


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_without_data_and_network_the_error_says_how_to_fill_the_folder(tmp_path, monkeypatch, name):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    message = refusal(load_dataset, DataSpec(dataset=name, root=str(tmp_path)), tmp_path)
    layout = "cifar-10-batches-py" if name == "cifar10" else "train-images-idx3-ubyte"
    for part in (str(tmp_path / name), layout, "HSGD_EMU_DATA", "--set data.root=", "the download failed"):
        assert part in message


# --- npz --------------------------------------------------------------------------------------------


def test_npz_floats_become_float32_and_labels_int64(tmp_path):
    data = load_npz(tmp_path, arrays(train_y=np.array([0, 1, 2], np.uint8)))
    assert (data.train_x.dtype, data.train_y.dtype) == (np.float32, np.int64)
    assert data.train_x.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (data.num_classes, data.mean) == (3, ())


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((3, 5, 7), (3, 1, 5, 7)),  # grey
        ((3, 5, 7, 3), (3, 3, 5, 7)),  # channels last
        ((3, 3, 5, 7), (3, 3, 5, 7)),  # channels first
        ((3, 5, 7, 1), (3, 1, 5, 7)),
    ],
)
def test_npz_images_become_channels_first(tmp_path, shape, channels_first):
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    data = load_npz(tmp_path, arrays(train_x=x, test_x=x[:2]))
    assert data.train_x.shape == channels_first
    moved = x.transpose(0, 3, 1, 2) if shape[3:] in ((3,), (1,)) else x.reshape(channels_first)
    assert (data.train_x == moved).all()


IMAGES = np.arange(4 * 5 * 7 * 3).reshape(4, 5, 7, 3)


def with_images(x, **changes):
    return arrays(train_x=x[:3], test_x=x[3:], test_y=np.array([1]), **changes)


@pytest.mark.parametrize("kind", [np.uint8, np.float16, np.float64])
@pytest.mark.parametrize("how", ["spec", "array"])
def test_a_layout_says_where_channels_stand_in_any_shape(tmp_path, kind, how):
    # Two colours, so that no shape tells it: 3 x 1 images, 5 x 7 of four channels, square ones as deep as wide.
    for shape in ((3, 1, 3), (5, 7, 4), (3, 3, 3), (2, 2, 2), (1, 1, 1)):
        x = np.arange(4 * np.prod(shape)).reshape(4, *shape).astype(kind)
        for layout, moved in (("channels_first", x), ("channels_last", x.transpose(0, 3, 1, 2))):
            given, spec = ({}, {"layout": layout}) if how == "spec" else ({"layout": np.array(layout)}, {})
            data = load_npz(tmp_path, with_images(x, **given), **spec)
            assert (data.train_x == moved[:3]).all()
            assert data.train_x.shape == moved[:3].shape


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (np.float32, (8, 8, 3)),  # images, or 8 features of 8 x 3
        (np.float64, (28, 28, 1)),
        (np.float32, (64, 3, 3)),
        (np.float32, (16, 8, 8)),
        (np.float32, (3, 32, 3)),
        (np.uint8, (3, 32, 3)),
        (np.uint8, (1, 32, 3)),
        (np.uint8, (1, 1, 1)),
        (np.uint8, (4, 8, 8)),
        (np.uint8, (8, 8, 4)),
        (np.uint8, (2, 8, 8)),
    ],
)
def test_a_shape_that_does_not_tell_is_refused_naming_both_readings(tmp_path, kind, shape):
    message = refusal(load_npz, tmp_path, with_images(np.zeros((4, *shape), kind)))
    first, height, width = shape
    assert f"{first} channel{'s' * (first > 1)} of {height} x {width} (channels_first)" in message
    assert f"{width} channel{'s' * (width > 1)} of {first} x {height} (channels_last)" in message
    assert "data.layout" in message


@pytest.mark.parametrize(
    ("kind", "shape"),
    [(np.float32, (3, 8, 8)), (np.float32, (1, 28, 28)), (np.uint8, (3, 8, 8)), (np.float32, (1, 1, 64))],
)
def test_one_or_three_channels_first_need_no_layout(tmp_path, kind, shape):
    assert load_npz(tmp_path, with_images(np.zeros((4, *shape), kind))).train_x.shape[1:] == shape


@pytest.mark.parametrize("shape", [(6,), (5, 7), (2, 3, 4, 5)])
def test_floats_that_are_no_images_stay_as_they_are_and_have_no_layout(tmp_path, shape):
    x = np.arange(4.0 * np.prod(shape)).reshape(4, *shape)
    assert (load_npz(tmp_path, with_images(x)).train_x == x[:3]).all()
    assert "without channels; leave it out" in refusal(load_npz, tmp_path, with_images(x), layout="channels_last")


def test_grey_floats_without_channels_are_not_augmented(tmp_path):
    message = refusal(load_npz, tmp_path, with_images(np.ones((4, 8, 8))), augment=Augment(flip=True))
    assert "grey images of floats are (N, 1, H, W)" in message


def test_two_layouts_that_differ_and_words_that_are_none_are_refused(tmp_path):
    given = with_images(IMAGES.astype(np.uint8), layout=np.array("channels_last"))
    assert load_npz(tmp_path, given, layout="channels_last").train_x.shape == (3, 3, 5, 7)
    assert "leave one out" in refusal(load_npz, tmp_path, given, layout="channels_first")
    for wrong in ("NHWC", 1, ["channels_last"]):
        given["layout"] = np.array(wrong)
        assert "channels_first or channels_last" in refusal(load_npz, tmp_path, given)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_y": None}, "test_y missing"),
        ({"extra": np.ones(2)}, "extra unknown"),
        ({"train_y": np.array([0, 1])}, "train_y has shape (2,); for its 3 samples it must be (3,)"),
        ({"train_y": np.array([0.0, 1.0, 2.0])}, "train_y is float64; it must hold integers"),
        ({"train_y": np.array([0, 1, -1])}, "label -1"),
        ({"train_y": np.array([0, 1, 10**9])}, "labels count from 0"),
        ({"train_x": np.ones((3, 4))}, "both must be alike"),
        ({"train_x": np.ones(3)}, "train_x has shape (3,)"),
        ({"train_x": np.ones((0, 2)), "train_y": np.ones(0, int)}, "train_x has shape (0, 2)"),
        ({"train_x": np.ones((3, 2), np.int64)}, "train_x is int64"),
        ({"train_x": np.ones((3, 2), np.uint8)}, "give other inputs as float32"),
        ({"train_x": np.full((3, 2), np.nan)}, "NaN"),
        ({"num_classes": np.array(2)}, "at least 3 is right"),
        ({"mean": np.array([0.1])}, "std has 0 figures"),
        ({"mean": np.array([0.1]), "std": np.array([0.0])}, "above 0"),
        ({"mean": np.array([0.1]), "std": np.array([1e-300])}, "std 1e-06 at least"),
        ({"mean": np.array([1e300]), "std": np.array([1.0])}, "1e+06 at most"),
        ({"writers": np.array([1])}, "writers has shape (1,)"),
        ({"train_y": np.array([[0], [1], [2]])}, "train_y has shape (3, 1)"),
        ({"train_y": np.array([True, False, True])}, "train_y is bool"),
        ({"train_y": np.array(["0", "1", "2"])}, "train_y is <U1"),
        ({"train_y": np.array([0, 1, 2**64 - 1], np.uint64)}, "too large"),
        ({"num_classes": np.array(10**9)}, "more than there are samples"),
        ({"test_x": np.ones((0, 2)), "test_y": np.ones(0, int)}, "test_x has shape (0, 2)"),
        ({"train_x": np.ones((3, 2), np.uint16)}, "train_x is uint16; give uint8 images"),
        ({"train_x": np.ones((3, 2), bool)}, "train_x is bool"),
        ({"train_x": np.ones((3, 2), complex)}, "only numbers can be read"),
        ({"train_x": np.full((3, 2), 1e39)}, "too large"),
        ({"train_x": np.full((3, 2), -np.inf)}, "infinite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, changes, says):
    message = refusal(load_npz, tmp_path, arrays(**changes))
    assert says in message
    assert "data.npz: data.folder" in message


def test_pickles_and_broken_files_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(train_x=np.array([{}, {}, {}])))  # an object array is a pickle
    spec = DataSpec(dataset="npz", root=str(tmp_path))
    assert "train_x holds object; only numbers can be read" in refusal(load_dataset, spec, tmp_path)
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 torn")
    assert "cannot be read" in refusal(load_dataset, spec, tmp_path)
    with (tmp_path / "data.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    assert "single array" in refusal(load_dataset, spec, tmp_path)
    (tmp_path / "data.npz").unlink()
    assert "HSGD_EMU_DATA" in refusal(load_dataset, spec, tmp_path)


def test_the_root_may_be_the_file_itself(tmp_path):
    np.savez(tmp_path / "mine.npz", **arrays())
    data = load_dataset(DataSpec(dataset="npz", root=str(tmp_path / "mine.npz")), tmp_path)
    assert len(data.train_y) == 3


def test_vectors_cannot_be_augmented(tmp_path):
    assert "data.augment" in refusal(load_npz, tmp_path, arrays(), augment=Augment(flip=True))


# --- module:factory ---------------------------------------------------------------------------------

FACTORY = """
import numpy as np

def make(scale=1.0, how="tuple"):
    x, y = np.full((3, 2), scale), np.array([0, 1, 1])
    if how == "tuple":
        return x, y, x[:1], y[:1]
    if how == "mapping":
        return dict(train_x=x, train_y=y, test_x=x, test_y=y, num_classes=4, writers=np.array([5, 5, 6]))
    if how == "dataset":
        from hsgd_emu.learning.data import Dataset
        return Dataset(x, y, x, y, 2, mean=(0.5,), std=(2.0,))
    if how == "exit":
        raise SystemExit(3)
    return how
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "own_data_module.py").write_text(FACTORY)
    return "own_data_module:make"


def test_a_factory_beside_the_run_file_is_called_with_its_options(tmp_path, module):
    data = load_dataset(DataSpec(dataset=module, options={"scale": 7.0}), tmp_path)
    assert data.train_x.tolist() == [[7.0, 7.0]] * 3
    assert (data.train_x.dtype, data.num_classes) == (np.float32, 2)


def test_a_factory_may_return_a_mapping_or_a_dataset(tmp_path, module):
    data = load_dataset(DataSpec(dataset=module, options={"how": "mapping"}), tmp_path)
    assert (data.num_classes, data.writers.tolist()) == (4, [5, 5, 6])
    data = load_dataset(DataSpec(dataset=module, options={"how": "dataset"}), tmp_path)
    assert (data.num_classes, data.mean, data.std) == (2, (0.5,), (2.0,))


def test_equally_named_modules_of_two_folders_are_not_confused(tmp_path, module):
    load_dataset(DataSpec(dataset=module), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "own_data_module.py").write_text(FACTORY.replace("scale=1.0", "scale=9.0"))
    assert load_dataset(DataSpec(dataset=module), other).train_x[0, 0] == 9.0


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("no_such_module_here:make", {}, "ModuleNotFoundError"),
        ("own_data_module:missing", {}, "AttributeError"),
        ("own_data_module:make", {"colour": 1}, "TypeError"),
        ("own_data_module:make", {"how": "exit"}, "SystemExit: 3"),
        ("own_data_module:make", {"how": "text"}, "it returned str"),
        ("own_data_module:make", {"how": [1, 2, 3, 4]}, "train_x has shape ()"),
        ("own_data_module:make", {"how": {"train_x": 1}}, "train_y, test_x, test_y missing"),
    ],
)
def test_a_factory_that_fails_is_a_config_error(tmp_path, module, name, options, says):
    message = refusal(load_dataset, DataSpec(dataset=name, options=options), tmp_path)
    assert says in message
    assert message.startswith(f"{name}: data.dataset: ")


def test_the_module_path_is_put_back(tmp_path, module):
    import sys

    before = list(sys.path)
    load_dataset(DataSpec(dataset=module), tmp_path)
    assert sys.path == before


OWN_ARRAYS = """
import numpy as np

def make(how):
    x, y = np.arange(24.0).reshape(4, 6), np.array([0, 1, 1, 0])
    if how == "read-only":
        x.flags.writeable = False
    if how == "strided":
        x = np.arange(48.0).reshape(4, 12)[:, ::2]
        y = np.repeat(y, 2)[::2]
    if how == "fortran":
        x = np.asfortranarray(x)
    if how == "big-endian":
        x, y = x.astype(">f8"), y.astype(">i4")
    if how == "half":
        x = x.astype(np.float16)
    if how == "lists":
        x, y = x.tolist(), y.tolist()
    if how == "masked":
        x = np.ma.masked_less(x, 5)
    if how == "objects":
        x = x.astype(object)
    if how == "texts":
        x = x.astype(str)
    if how == "tensor":
        import torch
        x, y = torch.from_numpy(x), torch.from_numpy(y)
    if how == "gradient":
        import torch
        x = torch.from_numpy(x).requires_grad_()
    if how == "one class":
        y = y * 0
    return x, y, x[:2], y[:2]

def draws():
    import random
    import torch
    x = np.array([np.random.rand(4), [random.random() for _ in range(4)], torch.rand(4).numpy()])
    return x, [0, 1, 2], x, [0, 1, 2]
"""


@pytest.fixture
def own_arrays(tmp_path):
    (tmp_path / "own_arrays_module.py").write_text(OWN_ARRAYS)
    return lambda how, **to: load_dataset(
        DataSpec(dataset="own_arrays_module:make", options={"how": how}), tmp_path, **to
    )


@pytest.mark.parametrize("how", ["plain", "read-only", "strided", "fortran", "big-endian", "half", "lists", "tensor"])
def test_arrays_of_any_kind_become_plain_ones(own_arrays, how):
    data = own_arrays(how)
    x = np.arange(48.0).reshape(4, 12)[:, ::2] if how == "strided" else np.arange(24.0).reshape(4, 6)
    assert (data.train_x == x).all()
    assert (data.train_x.dtype, data.train_y.tolist()) == (np.float32, [0, 1, 1, 0])
    assert data.train_x.flags.c_contiguous
    assert data.train_x.flags.writeable
    assert data.train_x.dtype.isnative


@pytest.mark.parametrize(
    ("how", "says"),
    [("masked", "masked"), ("objects", "train_x is object"), ("texts", "train_x is <U"), ("gradient", "not an array")],
)
def test_arrays_that_are_no_numbers_are_refused(own_arrays, how, says):
    assert says in refusal(own_arrays, how)


def test_a_single_class_is_said(own_arrays):
    said = []
    own_arrays("one class", warn=said.append)
    assert said == ["there is one class only: every model is always right"]


def test_a_factory_that_draws_gives_the_same_every_time_and_changes_nobodys_draws(tmp_path, own_arrays):
    import random

    import torch

    spec = DataSpec(dataset="own_arrays_module:draws")
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    first = load_dataset(spec, tmp_path).train_x
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert (load_dataset(spec, tmp_path).train_x == first).all()
    assert len(np.unique(first)) == 12
