"""constraints.txt: exact versions of all that is installed, which the ranges of pyproject.toml allow."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"
)
REQUIRED = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]


def test_names_and_versions_only():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in PINNED)
    assert all(re.fullmatch(r"[0-9a-z.]+", version) for version in PINNED.values())
    assert "hsgd-emu" not in PINNED


@pytest.mark.parametrize("text", REQUIRED)
def test_every_range_allows_the_version_that_is_tested(text):
    required = Requirement(text)
    pinned = {canonicalize_name(name): Version(version) for name, version in PINNED.items()}
    assert pinned[canonicalize_name(required.name)] in required.specifier
