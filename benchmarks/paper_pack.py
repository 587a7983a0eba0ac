"""What travels to a machine without network: the packed images, and the packages it lacks, as wheels.

Standard library only: this runs there before anything is installed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MIB = 2**20
MOST_BYTES = 64 * MIB
"""All that may travel there: what is carried and the checkout."""
PACKAGES = (
    *("annotated-types", "networkx", "platformdirs", "pydantic", "pydantic-core", "pyyaml", "simpy"),
    *("typing-extensions", "typing-inspection"),
)
"""What `hsgd_emu.run` needs beside torch, torchvision (with Pillow) and NumPy: for training, not for reports."""
PLATFORMS = tuple(f"manylinux{name}_x86_64" for name in ("2014", "_2_17", "_2_28"))
WHEELS, DATA, STAMP = "wheels", "data", "wheels.json"
DATASET = "cifar10_jpeg"


class PaperError(Exception):
    """What a person has to put right, in a sentence."""


# --- at home ----------------------------------------------------------------------------------------


def pack(data: Path | None, out: Path, pythons: Sequence[str], dry_run: bool = False) -> None:
    """Collect what travels into the folder `out`, anew; dry_run: only list it.

    Raises:  PaperError: the data are not there, a wheel cannot be had, or all together is too large.
    """
    if data is not None and not (data.is_file() and tarfile.is_tarfile(data)):
        raise PaperError(f"{data}: is no tar archive; right would be the packed images, train/<class>/*.jpg and test/")
    print("\n".join(packing_list(data, pythons)))
    if dry_run:
        return
    for name in (WHEELS, DATA):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    for python in pythons:
        _download(python, out / WHEELS)
    _write_identity(out / WHEELS)
    if data is not None:
        shutil.copyfile(data, out / DATA / f"{DATASET}.tar{data.suffix}")
    check_size(bytes_in(out), checkout_bytes(out.absolute()))


def packing_list(data: Path | None, pythons: Sequence[str]) -> list[str]:
    """Return what is to travel, a line each."""
    lines = [f"{pin}, for Python {' and '.join(pythons)}" for pin in pins()]
    return [*lines, f"{data}: {data.stat().st_size / MIB:.1f} MiB" if data else "no images: made-up ones (--small)"]


def pins() -> list[str]:
    """Return the packages in the versions that are installed here, where the tests passed."""
    return [f"{name}=={version(name)}" for name in PACKAGES]


def pip_command(python: str, out: Path) -> list[str]:
    """Return the command that fetches the wheels for another Python and for Linux on x86-64."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", python, "--dest", str(out)]
    return [*command, *(word for name in PLATFORMS for word in ("--platform", name)), *pins()]


def _download(python: str, out: Path) -> None:
    done = subprocess.run(pip_command(python, out), capture_output=True, text=True)
    if done.returncode:
        raise PaperError(f"pip could not fetch all wheels for Python {python}:\n{done.stderr.strip()}")


def _write_identity(folder: Path) -> None:
    """Write what pip would note of this package, so that results there name its version and commit."""
    from hsgd_emu.results.origin import commit

    name = f"hsgd_emu-{version('hsgd-emu')}"
    text = f"Metadata-Version: 2.1\nName: hsgd-emu\nVersion: {version('hsgd-emu')}\n"
    source = {"url": "", "vcs_info": {"vcs": "git", "commit_id": commit()}}
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/METADATA", text)
        wheel.writestr(f"{name}.dist-info/direct_url.json", json.dumps(source))


def bytes_in(folder: Path) -> int:
    """Return how much the files in a folder hold."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def checkout_bytes(carry: Path) -> int:
    """Return the size of the checkout's files that git does not ignore, without `carry`; 0: git does not know."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    files = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return sum(file.stat().st_size for file in files if file.is_file() and carry not in file.parents)


def check_size(carried: int, checkout: int) -> None:
    """Print what travels; raise PaperError where it is too much."""
    text = f"{carried / MIB:.1f} MiB carried and {checkout / MIB:.1f} MiB of checkout"
    if carried + checkout > MOST_BYTES:
        raise PaperError(f"{text} are more than the {MOST_BYTES // MIB} MiB that may travel; carry less")
    print(f"{text}: may travel (at most {MOST_BYTES // MIB} MiB)")


# --- there ------------------------------------------------------------------------------------------


def fits(wheel: str) -> bool:
    """Tell whether a wheel, by its file name, is one for this Python and machine."""
    python, abi, machine = wheel.removesuffix(".whl").rsplit("-", 3)[1:]
    is_machine = machine == "any" or machine.endswith(platform.machine())
    return is_machine and ("py3" in python.split(".") or abi == "abi3" or python == _tag())


def _tag() -> str:
    return f"cp{sys.version_info.major}{sys.version_info.minor}"


def unpack_wheels(carry: Path, site: Path) -> None:
    """Unpack the wheels that fit into `site`, whole or not at all. A wheel is a zip; none of ours has more to install.

    Raises:  PaperError: a package has no wheel for this Python.
    """
    wheels = sorted(path for path in (carry / WHEELS).glob("*.whl") if fits(path.name))
    found = {path.name.partition("-")[0].lower().replace("_", "-") for path in wheels}
    missing = [name for name in PACKAGES if name not in found]
    if missing:
        text = f"no wheel for {_tag()} on {platform.machine()} of {', '.join(missing)}"
        raise PaperError(f"{carry}: {text}; pack with --python {sys.version_info.major}.{sys.version_info.minor}")
    stamp = json.dumps({path.name: path.stat().st_size for path in wheels}, indent=1)
    if (site / STAMP).is_file() and (site / STAMP).read_text(encoding="utf-8") == stamp:
        return
    beside = site.with_name(f"{site.name}.new")
    for folder in (beside, site):
        shutil.rmtree(folder, ignore_errors=True)
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(beside)
    (beside / STAMP).write_text(stamp, encoding="utf-8")
    os.replace(beside, site)


def packed_images(carry: Path) -> Path | None:
    """Return the archive of images that was carried along, or None."""
    return next(iter(sorted((carry / DATA).glob(f"{DATASET}.tar*"))), None)


def unpack_images(archive: Path, folder: Path) -> None:
    """Unpack the images into `folder`, whole or not at all; nothing to do where it is there.

    Raises:  PaperError: the archive does not hold train/ and test/.
    """
    if folder.is_dir():
        return
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    with tarfile.open(archive) as images:
        images.extractall(beside, filter="data")
    whole = next((top for top in (beside, beside / DATASET) if (top / "train").is_dir()), None)
    if whole is None or not (whole / "test").is_dir():
        raise PaperError(f"{archive}: holds no train/ and test/")
    os.replace(whole, folder)
