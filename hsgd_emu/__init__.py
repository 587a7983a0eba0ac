"""Emulate Hierarchical SGD on a network, with real training behind every point.

>>> import hsgd_emu
>>> experiment = hsgd_emu.load("runs/demo.yaml")       # checked; raises ConfigError with every problem
>>> results = hsgd_emu.run("runs/demo.yaml")           # trains and emulates
>>> results = hsgd_emu.read("runs/out/demo")           # pandas frames: .curve, .timeline, .targets, .summary()
>>> results = hsgd_emu.retime("runs/out/demo", "runs/out/slower", scales=["far=2"])
>>> results = hsgd_emu.run_study("runs/studies/demo_far_near_step.yaml")    # .summary, .best, .crossovers, .times
>>> found = hsgd_emu.plan("runs/demo.yaml", ("test_accuracy", 0.8))         # which schedule; print(*found.lines())
>>> found = hsgd_emu.sensitivity("runs/out/demo")      # which link or worker would help most if it were faster
>>> found = hsgd_emu.fit("runs/out/demo", "measured.csv")                   # which RTTs explain measured times
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hsgd_emu.errors import ConfigError, HsgdError, Problem, RunError

_VERBS = {
    "load": ("hsgd_emu.experiment", "load_experiment"),
    "read": ("hsgd_emu.verbs", "read"),
    "retime": ("hsgd_emu.verbs", "retime"),
    "run_study": ("hsgd_emu.verbs", "run_study"),
    "plan": ("hsgd_emu.study.planning.plan", "plan_schedule"),
    "sensitivity": ("hsgd_emu.study.sensitivity", "sensitivity"),
    "fit": ("hsgd_emu.study.fitting.fit", "fit"),
}

__all__ = ["ConfigError", "HsgdError", "Problem", "RunError", "run", *_VERBS]


def __getattr__(name: str) -> Any:
    """Import a verb when it is used, so that `import hsgd_emu` is quick."""
    if name == "run":
        # The module itself can be called.
        return import_module("hsgd_emu.run")
    if name in _VERBS:
        module, function = _VERBS[name]
        return getattr(import_module(module), function)
    raise AttributeError(f"module 'hsgd_emu' has no attribute '{name}'")
