"""What learning depends on and a run file only names, as (what, version or hash); without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsgd_emu.errors import ConfigError, listed

FORMAT = 2
"""Counted up when the same run file comes to mean another learning, so that older trials are no longer found."""
LIBRARIES = ("hsgd-emu", "torch", "torchvision", "numpy", "scikit-learn")
SAW = "saw"
"""Where environment.json has them."""
Facts = Mapping[str, Any]
DATA = "data"
LEARNING_CODE = "hsgd-emu's code"
_MODULE, _MODEL, _RULE = "own module ", "model of seed ", "own rule "


def of_model(seed: int, value: str) -> dict[str, str]:
    """Return the fact of an own model: its initial weights, and what it computes."""
    return {f"{_MODEL}{seed}": value}


def of_rules(values: Mapping[str, str]) -> dict[str, str]:
    """Return the facts of the servers' own rules, by what names them: what they compute."""
    return {f"{_RULE}{name}": value for name, value in values.items()}


def of_modules(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return the facts of own modules, by name."""
    return {f"{_MODULE}{name}": value for name, value in hashes.items()}


def differences(before: Facts, now: Facts) -> list[str]:
    """Return in words what of the facts of two times or places is not alike; of hashes only that they differ.

    Models count where both tell of them: those of other seeds may have been asked for, or none could be made.
    """
    names = [name for name in dict.fromkeys([*before, *now]) if before.get(name) != now.get(name)]
    names = [name for name in names if not name.startswith(_MODEL) or (name in before and name in now)]
    # That another module, or other data to try it on, makes another model says nothing more.
    if any(name == DATA or name.startswith(_MODULE) for name in names):
        names = [name for name in names if not name.startswith(_MODEL)]
    return [_in_words(name, before, now) for name in names]


def require_alike(expected: Facts, saw: Facts, begun: str) -> None:
    """Raise ConfigError, naming what differs, unless what is seen here is what is expected; begun: where and when."""
    differ = differences(expected, saw)
    if differ:
        raise ConfigError.of("", "", f"is not like {begun}: {listed(differ)}")


def _in_words(name: str, before: Facts, now: Facts) -> str:
    if name == "format" or name in LIBRARIES:
        return f"{name} is {now.get(name)} and not {before.get(name)}"
    if name not in before:
        return f"{name} is new"
    return f"{name} is no longer used" if name not in now else f"{name} has changed"
