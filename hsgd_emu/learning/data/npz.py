"""NumPy's .npz archives, read with nothing taken on trust: neither sizes nor types nor what is left unsaid."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from numpy.lib import format as npy

from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.files import open_regular
from hsgd_emu.learning.data.dataset import Array, RefusedError
from hsgd_emu.learning.data.limits import check_fits, check_unpacked

_MOST_HEADER = 10_000
_KINDS = "biufU"  # booleans, integers, floats, and text (where a layout is named)


def read_npz(file: Path, names: Sequence[str], expected: str) -> dict[str, Array]:
    """Return the arrays of an .npz file, which may hold some of `names` and nothing else.

    Sizes are compared before anything is unpacked: what the header of each array says, what the archive says, and the
    memory that is free. Never unpickles.
    Raises:  ConfigError: no regular file, not such an archive, damaged, or too large; expected: what would be right.
    """
    with os.fdopen(open_regular(file, "an .npz file"), "rb") as stream:
        try:
            if stream.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise RefusedError("it is a single array, not an .npz file")
            with zipfile.ZipFile(stream) as archive:
                members = _members(archive, names)
                _check_size(file, sum(_num_bytes(archive, *member) for member in members.items()), stream)
                return {name: _array(archive, name, info) for name, info in members.items()}
        except ConfigError:
            raise
        except RefusedError as error:
            raise ConfigError.of(str(file), "data.folder", f"{error}; expected is {expected}") from None
        except Exception as error:  # a damaged zip raises many kinds
            message = f"cannot be read ({type(error).__name__}: {error}); expected is {expected}"
            raise ConfigError.of(str(file), "data.folder", message) from None


def _members(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    found = [info.filename.removesuffix(".npy") for info in infos]
    unknown = [name for name in found if name not in names]
    if unknown or len(set(found)) < len(found):
        what = f"{listed(unknown)} unknown" if unknown else "it holds an array twice"
        raise RefusedError(f"{what}; allowed are {listed(names)}")
    return dict(zip(found, infos, strict=True))


def _num_bytes(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> int:
    """Return how many bytes the array has, which its header and the archive must both say."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(f"{name} is compressed in a way that NumPy does not use")
    with archive.open(info) as stream:
        read = npy.read_array_header_1_0 if npy.read_magic(stream) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream, max_header_size=_MOST_HEADER)
        length = stream.tell()
    if dtype.kind not in _KINDS:
        raise RefusedError(f"{name} holds {dtype}; only numbers can be read")
    num_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or length + num_bytes != info.file_size:
        raise RefusedError(f"{name} says it has shape {shape}, but its file is not as long as that")
    return num_bytes


def _check_size(file: Path, num_bytes: int, stream: IO[bytes]) -> None:
    packed = os.fstat(stream.fileno()).st_size
    advice = "where it is right, store it without compression (numpy.savez)"
    check_unpacked(num_bytes, packed, "its arrays", str(file), "data.folder", advice)
    check_fits(num_bytes, "its arrays", str(file), "data.folder", "fewer samples would fit")


def _array(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False, max_header_size=_MOST_HEADER)
        if stream.read(1):  # at the end of a member its checksum is compared
            raise RefusedError(f"{name} is longer than it says")
        return array
