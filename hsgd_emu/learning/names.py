"""Which models there are, and what is wrong with a model section, without importing torch."""

from __future__ import annotations

import importlib.util
import re
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from hsgd_emu.config.run_schema import ModelSpec
from hsgd_emu.errors import listed, nearest

OWN_MODELS = ("softmax_regression", "mlp", "cifar_cnn", "femnist_cnn", "vgg11")
_MOST_WEIGHTS = 10**9
_REGISTERED = re.compile(r"^@register_model\((?:name=[\"'](\w+)[\"'])?\)\n(?:(?!def ).*\n)*?def (\w+)\(", re.MULTILINE)


def torchvision_version() -> str:
    """Return torchvision's own version, as `0.29.2+cu132`, read from its files: importing it takes seconds."""
    folder = _torchvision()
    text = (folder / "version.py").read_text(encoding="utf-8") if folder else ""
    found = re.search(r"^__version__ = ['\"](.+)['\"]", text, re.MULTILINE)
    return found[1] if found else version("torchvision")


def torchvision_models() -> tuple[str, ...]:
    """Return the names of torchvision's classification models, read from its files too."""
    folder = _torchvision()
    if folder is None:
        return ()
    names = set()
    for path in sorted((folder / "models").glob("*.py")):
        for given, function in _REGISTERED.findall(path.read_text(encoding="utf-8")):
            names.add(given or function)
    return tuple(sorted(names))


def _torchvision() -> Path | None:
    found = importlib.util.find_spec("torchvision")
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def check_model_spec(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return (field, message) for what is wrong with a model section."""
    found = []
    if ":" not in spec.name and spec.name not in OWN_MODELS:
        others = torchvision_models()
        if spec.name not in others:
            hint = nearest(spec.name, [*OWN_MODELS, *others])
            known = f"known are {listed(OWN_MODELS)}, torchvision's classification models and module:factory"
            found.append(("model", f"no model '{spec.name}'{hint or '; ' + known}"))
    if spec.hidden is not None and spec.name != "mlp":
        found.append(("model.hidden", f"only mlp has hidden layers, not '{spec.name}'"))
    weights = sum(below * above for below, above in pairwise(spec.hidden or ()))
    if weights > _MOST_WEIGHTS:
        found.append(("model.hidden", f"{weights} weights between the hidden layers; at most {_MOST_WEIGHTS}"))
    if spec.output is not None and spec.name in OWN_MODELS:
        found.append(("model.output", f"'{spec.name}' has one output only"))
    if spec.options and spec.name in OWN_MODELS and spec.name != "vgg11":
        found.append(("model.options", f"'{spec.name}' takes no options"))
    return found
