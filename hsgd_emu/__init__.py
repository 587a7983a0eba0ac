"""Emulate Hierarchical SGD on a network, with real training behind every point.

>>> import hsgd_emu
>>> experiment = hsgd_emu.load("runs/demo.yaml")       # checked; raises ConfigError with every problem
>>> results = hsgd_emu.run("runs/demo.yaml")           # trains and emulates
>>> results = hsgd_emu.read("runs/out/demo")           # pandas frames: .curve, .timeline, .targets, .summary()
"""

from __future__ import annotations

from typing import Any

from hsgd_emu.errors import ConfigError, HsgdError, Problem, RunError

__all__ = ["ConfigError", "HsgdError", "Problem", "RunError", "load", "read", "run"]


def __getattr__(name: str) -> Any:
    """Import the three verbs when they are used, so that `import hsgd_emu` is quick."""
    if name == "load":
        from hsgd_emu.experiment import load_experiment

        return load_experiment
    if name == "run":
        import hsgd_emu.run as verb

        return verb
    if name == "read":
        from hsgd_emu.results.read import read_run

        return read_run
    raise AttributeError(f"module 'hsgd_emu' has no attribute '{name}'")
