"""Files made to harm: bombs, special files, headers and counts that lie. Refused in a sentence, with little memory."""

import io
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import load_dataset


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("HSGD_EMU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def little_memory():
    """Let nothing here take gigabytes, whatever goes wrong."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def refusal(tmp_path, dataset, **spec):
    with pytest.raises(ConfigError) as caught:
        load_dataset(DataSpec(dataset=dataset, root=str(tmp_path), **spec), tmp_path)
    return str(caught.value)


# --- images -----------------------------------------------------------------------------------------


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, rows, bits=8, colour=0):
    """Return a PNG whose rows may be far fewer than its header says."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def image_files(tmp_path, content, ending="png", number=2):
    for part in ("train", "test"):
        folder = tmp_path / "images" / part / "x"
        folder.mkdir(parents=True)
        for index in range(number):
            (folder / f"{index}.{ending}").write_bytes(content)


@pytest.mark.parametrize("image_size", [None, (8, 8)])
@pytest.mark.parametrize(("height", "width"), [(13000, 13000), (9000, 9000), (40000, 3000), (100000, 100000)])
def test_images_with_too_many_pixels_are_refused_by_their_headers(tmp_path, height, width, image_size):
    image_files(tmp_path, png(width, height, bytes(1000)))
    message = refusal(tmp_path, "image_folder", image_size=image_size)
    assert "0.png" in message
    assert "more than 50 million pixels" in message


@pytest.mark.parametrize("image_size", [None, (8, 8)])
def test_a_large_image_in_a_few_bytes_is_refused(tmp_path, image_size):
    image_files(tmp_path, png(6000, 6000, bytes(1000)))
    message = refusal(tmp_path, "image_folder", image_size=image_size)
    assert "0.png: is 6000 x 6000 pixels (height x width) in " in message
    assert "a decompression bomb?" in message


def test_many_images_that_unpack_to_hundreds_of_times_their_size_are_refused(tmp_path):
    image_files(tmp_path, png(2000, 2000, bytes(1000)), number=12)  # 288 MB
    message = refusal(tmp_path, "image_folder")
    assert "a decompression bomb?" in message
    assert "data.image_size" in message


def test_names_cannot_write_to_the_terminal(tmp_path):
    image_files(tmp_path, png(2, 2, bytes(6)))
    (tmp_path / "images/train/x/\x1b[31m\nred.txt").write_text("")
    said = []
    load_dataset(DataSpec(dataset="image_folder", root=str(tmp_path)), tmp_path, warn=said.append)
    assert "train/x/\\x1b[31m\\nred.txt" in said[0]


@pytest.mark.parametrize("ending", ["gif", "bmp", "ppm", "tif"])
def test_other_formats_with_huge_headers_are_refused(tmp_path, ending):
    made = io.BytesIO()
    Image.new("L", (2, 2)).save(made, {"gif": "GIF", "bmp": "BMP", "ppm": "PPM", "tif": "TIFF"}[ending])
    content = bytearray(made.getvalue())
    if ending == "gif":
        content[6:10] = struct.pack("<HH", 60000, 60000)
        place = content.index(b",\0\0\0\0") + 5
        content[place : place + 4] = struct.pack("<HH", 60000, 60000)
    elif ending == "bmp":
        content[18:26] = struct.pack("<ii", 60000, 60000)
    elif ending == "ppm":
        content = b"P5 60000 60000 255\n" + bytes(100)
    else:
        for tag in (256, 257):  # width and height in the directory of a little-endian TIFF
            place = content.index(struct.pack("<HH", tag, 4) if tag else b"") + 8
            content[place : place + 4] = struct.pack("<I", 60000)
    image_files(tmp_path, bytes(content), ending)
    assert f"0.{ending}" in refusal(tmp_path, "image_folder")


def test_a_file_of_another_format_is_not_opened(tmp_path):
    # Of PostScript Pillow would let another program make an image.
    made = io.BytesIO()
    Image.new("L", (4, 4)).save(made, "PCX")
    image_files(tmp_path, made.getvalue())
    (tmp_path / "images/test/x/1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\nshowpage\n")
    assert refusal(tmp_path, "image_folder").count("cannot be read as an image") == 1
    for file in (tmp_path / "images").rglob("0.png"):
        file.write_bytes(png(4, 4, bytes(20)))
    assert refusal(tmp_path, "image_folder").count("cannot be read as an image") == 2  # a PCX and the PostScript


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "folder", "circle", "nowhere"])
def test_what_is_no_file_is_never_opened_and_said(tmp_path, kind):
    image_files(tmp_path, png(2, 2, bytes(6)))
    put(tmp_path / "images/train/x/2.png", kind)
    said = []
    data = load_dataset(DataSpec(dataset="image_folder", root=str(tmp_path)), tmp_path, warn=said.append)
    assert len(data.train_y) == 2
    told = [f"{tmp_path / 'images'}: not used: train/x/2.png (no regular file, or a broken link)"]
    assert said == ["there is one class only: every model is always right", *told][::-1][kind == "folder" :]


NAMES = {"pipe": "named pipe", "device": "device", "socket": "socket"}


def put(path, kind):
    """Make a special file of a kind."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        path.symlink_to("nowhere")


# --- npz --------------------------------------------------------------------------------------------


def npy(shape, content=b"", dtype="<f4"):
    """Return an array's file whose header says `shape`, whatever follows."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def npz(path, compression=zipfile.ZIP_DEFLATED, **members):
    """Write an archive of two fitting training samples and one test sample, some of its members replaced."""
    fitting = {
        "train_x": npy((2, 2), bytes(16)),
        "train_y": npy((2,), struct.pack("<qq", 0, 1), "<i8"),
        "test_x": npy((1, 2), bytes(8)),
        "test_y": npy((1,), struct.pack("<q", 1), "<i8"),
    }
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (fitting | members).items():
            archive.writestr(f"{name}.npy", content)


def test_the_fitting_archive_is_read(tmp_path):
    npz(tmp_path / "data.npz")
    data = load_dataset(DataSpec(dataset="npz", root=str(tmp_path)), tmp_path)
    assert (data.train_x.shape, data.train_y.tolist()) == ((2, 2), [0, 1])


@pytest.mark.parametrize(
    ("member", "says"),
    [
        (npy((10**6, 10**6), bytes(16)), "not as long as that"),
        (npy((10**30,), bytes(16)), "not as long as that"),
        (npy((-2, -2), bytes(16)), "not as long as that"),
        (npy((2, 2), bytes(20)), "not as long as that"),
        (npy((2, 2), bytes(12)), "not as long as that"),
        (npy((2, 2), bytes(16), "|O"), "holds object"),
        (npy((10**15,), b"", "|V0"), "only numbers can be read"),
        (npy((2, 2), bytes(32), "<M8[s]"), "only numbers can be read"),
        (npy("(" * 5000, bytes(16)), "cannot be read"),
        (npy("(2,) * 10**9", bytes(16)), "cannot be read"),
        (b"", "cannot be read"),
        (b"cos\nsystem\n(S'true'\ntR.", "cannot be read"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_refused(tmp_path, member, says):
    npz(tmp_path / "data.npz", train_x=member)
    message = refusal(tmp_path, "npz")
    assert message.startswith(f"{tmp_path / 'data.npz'}: data.folder: ")
    assert says in message


def test_an_archive_that_unpacks_to_much_more_than_its_size_is_refused_before(tmp_path, monkeypatch):
    from hsgd_emu.learning.data import limits

    npz(tmp_path / "data.npz", train_x=npy((2**20, 2), bytes(2**23)))  # 8 MB of zeros in about 8 kB
    assert "train_y has shape (2,)" in refusal(tmp_path, "npz")  # so much is let pass, and read
    monkeypatch.setattr(limits, "BOMB_BYTES", 2**22)
    message = refusal(tmp_path, "npz")
    assert "a decompression bomb?" in message
    assert "numpy.savez" in message


def test_an_archive_that_lies_about_its_own_sizes_is_refused(tmp_path):
    file = tmp_path / "data.npz"
    npz(file, train_x=npy((2**18, 2), bytes(2**21)))
    content = bytearray(file.read_bytes())
    true = struct.pack("<I", 2**21 + len(npy((2**18, 2))))
    assert content.count(true) == 2  # beside the member, and in the directory
    file.write_bytes(content.replace(true, struct.pack("<I", len(npy((2, 2))) + 16)))
    assert "cannot be read" in refusal(tmp_path, "npz")
    # With the shape changed as well only the checksum is left to tell.
    npz(file, train_x=npy((2, 2), bytes(2**21)))
    content = bytearray(file.read_bytes()).replace(true, struct.pack("<I", len(npy((2, 2))) + 16))
    file.write_bytes(content)
    assert "cannot be read" in refusal(tmp_path, "npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_packed_in_another_way_is_refused(tmp_path, compression):
    npz(tmp_path / "data.npz", compression)
    assert "a way that NumPy does not use" in refusal(tmp_path, "npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unknown_and_repeated_arrays_are_refused(tmp_path):
    npz(tmp_path / "data.npz", more=npy((1,), bytes(4)))
    assert "more unknown" in refusal(tmp_path, "npz")
    npz(tmp_path / "data.npz")
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("train_y.npy", npy((2,), struct.pack("<qq", 1, 0), "<i8"))
    assert "holds an array twice" in refusal(tmp_path, "npz")


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_a_special_file_as_npz_is_refused_by_what_it_is(tmp_path, kind):
    put(tmp_path / "data.npz", kind)
    assert f"data.npz: is a {NAMES[kind]}" in refusal(tmp_path, "npz")


# --- LEAF -------------------------------------------------------------------------------------------

USER = {"x": [[0.5, 1.0], [1.5, 2.0]], "y": [0, 1]}


def leaf(tmp_path, content):
    """Write a fitting test part, and as the training part whatever is given."""
    for part in ("train", "test"):
        (tmp_path / "femnist_leaf" / part).mkdir(parents=True, exist_ok=True)
    fitting = {"users": ["u"], "num_samples": [2], "user_data": {"u": USER}}
    (tmp_path / "femnist_leaf/test/a.json").write_text(json.dumps(fitting))
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "femnist_leaf/train/a.json").write_text(text)


def leaf_text(user, num_samples="2", name='"u"'):
    return f'{{"users": [{name}], "num_samples": [{num_samples}], "user_data": {{{name}: {user}}}}}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, 1]}', "3"), "num_samples 3; the three must agree"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, 1]}', "1e400"), "the three must agree"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, 1]}', '"2"'), "the three must agree"),
        (leaf_text('{"x": [[1, 2], [3, 1e400]], "y": [0, 1]}'), "NaN, infinite or too large"),
        (leaf_text('{"x": [[1, 2], [3, 1e39]], "y": [0, 1]}'), "NaN, infinite or too large"),
        (leaf_text('{"x": [[1, 2], [3, NaN]], "y": [0, 1]}'), "NaN, infinite or too large"),
        (leaf_text('{"x": [["1", "2"], ["3", "4"]], "y": [0, 1]}'), "not equally long lists of numbers"),
        (leaf_text('{"x": [[1, 2], [3, null]], "y": [0, 1]}'), "not equally long lists of numbers"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [true, false]}'), "labels are not all whole numbers"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": ["0", "1"]}'), "labels are not all whole numbers"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, 1e300]}'), "labels are not all whole numbers"),
        (
            leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, ' + "9" * 5000 + "]}"),
            "a.json: data.folder: is not readable JSON",
        ),
        (leaf_text('{"x": ' + "[" * 100_000), "nested too deeply"),
        (leaf_text('{"x": ' + "[" * 100_000 + "]" * 100_000 + ', "y": []}'), "nested too deeply"),
        (leaf_text('{"x": [' + "[], " * 4_000_001 + '[]], "y": []}'), "more than 4000000 lists"),
        (leaf_text('{"x": [[1, 2]], "x": [[1, 2], [3, 4]], "y": [0, 1]}'), "'x' is there twice"),
        (leaf_text('{"x": [[1]], "y": [0]}, "u": {"x": [[1, 2], [3, 4]], "y": [0, 1]}'), "'u' is there twice"),
        (leaf_text('{"x": [[1, 2], [3, 4]], "y": [0, 1]}', name="7"), "is not readable JSON"),
    ],
)
def test_hostile_json_is_refused(tmp_path, text, says):
    leaf(tmp_path, text)
    message = refusal(tmp_path, "leaf")
    assert says in message
    assert "femnist_leaf" in message


def test_one_user_of_many_megabytes_is_refused(tmp_path):
    leaf(tmp_path, leaf_text('{"x": [' + "1," * 2**24 + '1], "y": [0]}'))
    assert "more than 32 MiB of text for one user" in refusal(tmp_path, "leaf")


def test_a_large_file_of_another_kind_is_not_built(tmp_path):
    leaf(tmp_path, "[" + "1," * 2**22 + "1]")
    assert "is no mapping" in refusal(tmp_path, "leaf")
    leaf(tmp_path, '{"a": [' + "1," * 2**22 + "1]}")
    assert "the key 'users' is missing" in refusal(tmp_path, "leaf")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "..", "", ".hidden/a.png", "a\0b.png"])
def test_an_image_name_that_leaves_the_folder_of_images_is_refused(tmp_path, name):
    leaf(tmp_path, {"users": ["u"], "num_samples": [1], "user_data": {"u": {"x": [name], "y": [0]}}})
    (tmp_path / "femnist_leaf/test/a.json").write_text((tmp_path / "femnist_leaf/train/a.json").read_text())
    (tmp_path / "femnist_leaf/img_align_celeba").mkdir()
    (tmp_path / "femnist_leaf/secret.png").write_bytes(png(2, 2, bytes(6)))
    assert "do not lie in" in refusal(tmp_path, "leaf")


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "circle"])
def test_a_special_file_among_leafs_is_said_and_not_read(tmp_path, kind):
    leaf(tmp_path, {"users": ["u"], "num_samples": [2], "user_data": {"u": USER}})
    put(tmp_path / "femnist_leaf/train/b.json", kind)
    said = []
    load_dataset(DataSpec(dataset="leaf", root=str(tmp_path)), tmp_path, warn=said.append)
    assert any("train/b.json (no regular file" in text for text in said)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_special_image_that_leaf_names_is_refused(tmp_path, kind):
    leaf(tmp_path, {"users": ["u"], "num_samples": [1], "user_data": {"u": {"x": ["a.png"], "y": [0]}}})
    (tmp_path / "femnist_leaf/test/a.json").write_text((tmp_path / "femnist_leaf/train/a.json").read_text())
    (tmp_path / "femnist_leaf/img_align_celeba").mkdir()
    put(tmp_path / "femnist_leaf/img_align_celeba/a.png", kind)
    assert f"a.png: is a {NAMES[kind]}; an image is expected" in refusal(tmp_path, "leaf")


# --- torchvision ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "file"),
    [("mnist", "MNIST/raw/train-images-idx3-ubyte"), ("cifar10", "cifar-10-python.tar.gz")],
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_special_file_among_torchvisions_is_refused(tmp_path, dataset, file, kind):
    (tmp_path / dataset / file).parent.mkdir(parents=True, exist_ok=True)
    put(tmp_path / dataset / file, kind)
    assert f"is a {NAMES[kind]}" in refusal(tmp_path, dataset)


# --- memory -----------------------------------------------------------------------------------------


def test_what_does_not_fit_into_memory_is_refused_by_name(tmp_path, monkeypatch):
    from hsgd_emu.learning.data import limits

    monkeypatch.setattr(limits, "free_memory", lambda: 100)
    image_files(tmp_path, png(8, 8, bytes(72)))
    message = refusal(tmp_path, "image_folder")
    assert "more than half of the 0.0 MiB that are free" in message
    np.savez(tmp_path / "data.npz", train_x=np.zeros((20, 2)))
    assert "more than half" in refusal(tmp_path, "npz")


def test_the_free_memory_of_this_machine_is_known():
    from hsgd_emu.learning.data.limits import free_memory

    assert 2**20 < (free_memory() or 0) < 2**60


@pytest.mark.slow
def test_a_run_of_bombs_ends_in_little_time_and_memory(tmp_path):
    image_files(tmp_path, png(13000, 13000, bytes(13001 * 13000)))
    run = (
        "name: bomb\ntopology: {levels: [{name: worker, count: 2, uplink: far}]}\nprofiles: {far: {rtt_s: 0.2}}\n"
        "compute: {step_s: 0.004}\ndata: {dataset: image_folder, root: .}\nmodel: mlp\n"
        "train: {batch_size: 2, iterations: 10}\ncases: [{name: a, period: 5}]\n"
    )
    (tmp_path / "run.yaml").write_text(run)
    code = (
        "import resource, subprocess, sys; "
        "rc = subprocess.run([sys.executable, '-m', 'hsgd_emu.cli', 'run', 'run.yaml']).returncode; "
        "print(rc, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    rc, kibibytes = map(int, found.stdout.split()[-2:])
    assert rc == 2, found.stderr
    assert kibibytes < 2**20
