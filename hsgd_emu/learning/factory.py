"""Import the user's own `module:factory`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hsgd_emu.learning.own_code import modules_of


def import_factory(name: str, base: Path) -> Callable[..., Any]:
    """Return the function that `module:factory` names, the module sought in `base` first."""
    module_name, _, factory_name = name.partition(":")
    with modules_of(base, module_name):
        factory: Callable[..., Any] = getattr(importlib.import_module(module_name), factory_name)
    if not callable(factory):
        raise TypeError(f"'{name}' is a {type(factory).__name__}, not a function")
    return factory
