"""What messages say was found, and what would be right at a place in a file."""

from __future__ import annotations

from typing import Any

from hsgd_emu.config.reader import Path_
from hsgd_emu.errors import listed
from hsgd_emu.metrics import SHARES
from hsgd_emu.units import RATE, SIZE, TIME, Dimension

COST = "a number of seconds, {samples: [...]}, {csv: FILE, column: NAME} or {distribution: NAME, ...}"
LINK = "a profile: its name, its path, or the profile itself, as in {rtt_s: 0.05}"
COMPUTE = "a profile: its name, its path, or the profile itself, as in {step_s: 0.004}"
_FORMS = {
    "uplink": LINK,
    "profile": LINK,
    "compute": COMPUTE,
    "profiles": "a mapping of names to profiles, as in {near: {rtt_s: 0.05}}",
    "topology": "the name of a topology, its path, or the topology itself",
    "levels": "a list of levels from the root down, as in [{name: worker, count: 5, uplink: near}]",
    "children": "a list of nodes, as in [{name: worker, count: 5, uplink: near}]",
    "between": "two names, as in [worker, root]",
    "links": "a list of links, as in [{between: [worker, root], profile: far}]",
    "data": "a mapping, as in {dataset: digits, partition: by_label}",
    "model": "the name of a model, or a mapping, as in {name: mlp, hidden: [200]}",
    "train": "a mapping, as in {iterations: 2000, learning_rate: 0.02}",
    "cases": "a list of cases, as in [{name: P=5, period: 5}]",
    "periods": "a list with one period per level, as in [50, 5], or a mapping of servers to periods",
    "averaging": "a mapping, as in {by: workers}",
    "servers": "a mapping, as in {root: {optimizer: momentum, momentum: 0.9}}",
    "compression": "a mapping, as in {worker: {method: top_k, fraction: 0.05}}",
    "evaluation": "a mapping, as in {every_iterations: 50}",
    "averaged": "a mapping, as in {after: 0}",
    "targets": "a mapping, as in {test_accuracy: [0.8]}",
    "published": "the path of a file, or a mapping, as in {source: Table 2, times: [{case: P=5, time_s: 673.5}]}",
    "times": "a list of times, as in [{case: P=5, metric: test_accuracy, target: 0.5, time_s: 673.5}]",
    "seeds": "a list of whole numbers, as in [1, 2, 3]",
    **dict.fromkeys(SHARES, "a list of fractions, as in [0.8]"),
    "image_size": "height and width, as in [32, 32]",
    "run": "the path of a run file, its name under runs/, or the run itself",
    "axes": "a list of axes, as in [{name: far, rtt_s: far, values: [0.1, 1]}]",
    "values": "a list of values, as in [0.05, 0.2], or {from: 0.02, to: 2, num: 13, spacing: log}",
    "sample": "a mapping, as in {num: 200, seed: 1}",
    "scenarios": "a list of scenarios, as in [{far: 0.3, near: 0.02}]",
    "bandwidth_bps": "a number of bits per second, or {up: NUMBER, down: NUMBER}",
}
"""What stands at a key, for those who put something of another type there, or nothing."""

_SECTIONS = ("data", "model", "train", "cases", "averaging", "evaluation", "targets", "seeds")
"""Keys that have their form only at the top of a run file."""
_FRACTIONS = (*SHARES, "up_share", "participation", "step_probability")
_NO_DIMENSION = ("sigma", "shape", "up_share")
_EXPECTED = {
    "int_type": "{noun}",
    "int_from_float": "{noun}",
    "float_type": "{noun}",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "greater_than": "{noun} above {gt}",
    "greater_than_equal": "{noun} of at least {ge}",
    "less_than": "{noun} below {lt}",
    "less_than_equal": "{noun} of at most {le}",
    "too_short": "at least one item",
    "too_long": "at most {max_length} items",
}
_STRUCTURAL = ("string_type", "tuple_type", "list_type", "dict_type", "model_type", "model_attributes_type", "too_long")


def form(field: Path_) -> str:
    """Return what stands at a dotted field, or an empty string where that is no fixed thing."""
    if len(field) == 2 and field[0] == "profiles":
        return LINK
    if not field or (field[-1] in _SECTIONS and len(field) > 1):
        return ""
    return _FORMS.get(str(field[-1]), "")


def expected(kind: str, ctx: dict[str, Any], field: Path_, found: Any) -> str:
    """Return what would be right for an error of pydantic's."""
    if kind not in _EXPECTED:
        return form(field) or "another kind of value"
    if kind in _STRUCTURAL and form(field):
        return form(field)
    if kind == "float_type" and isinstance(found, list) and str(field[-1]).endswith("_s"):
        return COST
    bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in ctx.items()}
    text = _EXPECTED[kind].format(**bounds, noun=_noun(kind, ctx, field))
    dimension = dimension_of(field)
    if dimension and kind in ("int_type", "float_type") and isinstance(found, str) and not _is_number(found):
        return f"{text}, or one with its unit, as in {dimension.example}"
    return text + _correction(kind, found)


def dimension_of(field: Path_) -> Dimension | None:
    """Return what the number at a dotted field measures: names of fields end in their units."""
    keys = [key for key in field if isinstance(key, str)]
    if not keys or keys[-1] in _NO_DIMENSION:
        return None
    suffixes = {"_s": TIME, "_bytes": SIZE, "_bps": RATE}
    found = (suffixes[suffix] for key in reversed(keys) for suffix in suffixes if key.endswith(suffix))
    return next(found, None)


def _noun(kind: str, ctx: dict[str, Any], field: Path_) -> str:
    keys = [key for key in field if isinstance(key, str)]
    if any(key in _FRACTIONS for key in keys[-2:]):  # or one of a mapping of them
        return "a fraction"
    dimension = dimension_of(field)
    if dimension:
        return f"a {'whole ' * (dimension is SIZE)}number of {dimension.base}"
    whole = kind.startswith("int_") or any(isinstance(bound, int) for bound in ctx.values())
    return "a whole number" if whole else "a number"


def _correction(kind: str, found: Any) -> str:
    """Return how the value found would be written right, where that is plain."""
    scalar = isinstance(found, str | int | float) and not isinstance(found, bool)
    if kind == "int_type" and isinstance(found, float) and found.is_integer():
        return f", written as {int(found)}" if abs(found) < 1e15 else ""
    if kind == "string_type" and scalar:
        return f", in quotes: '{found}'"
    is_type = {"int_type": str.isdecimal, "float_type": _is_number}.get(kind)
    if is_type and isinstance(found, str) and is_type(found):
        return ", without quotes"
    if kind == "tuple_type" and scalar:
        return f", as in [{found}]"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"a mapping ({listed([_cut(str(key)) for key in value], 4)})" if value else "an empty mapping"
    if isinstance(value, float) and float(f"{value:g}") == value and not (value.is_integer() and abs(value) < 1e6):
        return f"{value:g}"  # 1e+12, as it was written, rather than 1000000000000.0
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
