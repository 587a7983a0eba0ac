"""What decides the bits of a trial beside its run file, as this process sees it: versions, data, own code."""

from __future__ import annotations

from pathlib import Path

from hsgd_emu.experiment import Experiment
from hsgd_emu.learning.material import Material

Facts = tuple[tuple[str, str], ...]


def facts_of(experiment: Experiment, seed: int) -> Facts:
    """Return (what, version or hash) of all that the learning of a seed depends on and the run file only names.

    See `Material.facts`. Data that were loaded once, and own modules, stay as they are until `forget`.
    """
    return tuple(_material(experiment).facts([seed]).items())


def forget() -> None:
    """Look at data and own code anew at the next question: they may have changed."""
    _materials.clear()


_materials: dict[tuple[str, str, Path], Material] = {}


def _material(experiment: Experiment) -> Material:
    data = experiment.data.model_copy(update={"partition": "iid", "classes_per_worker": None, "alpha": None})
    model = repr(experiment.model) if ":" in experiment.model.name else ""
    asked = repr(data), model, experiment.base
    if asked not in _materials:
        _materials[asked] = Material(data, experiment.model, experiment.base)
        _materials[asked].shrink()
    return _materials[asked]
