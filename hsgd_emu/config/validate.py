"""Check a piece of data against its typed model, and say every mistake in the house's words."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, TypeAdapter, ValidationError

from hsgd_emu.config.reader import Path_, Source
from hsgd_emu.config.schema import DISTRIBUTIONS, RATES
from hsgd_emu.errors import Problem, listed, nearest

Model = TypeVar("Model")

_COST = "a number of seconds, {samples: [...]}, {csv: FILE, column: NAME} or {distribution: NAME, ...}"
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
    "model_type": "a mapping of keys",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "literal_error": "{expected}",
    "model_attributes_type": "a mapping of keys",
}


def check(annotation: Any, data: Any, source: Source, problems: list[Problem]) -> Any:
    """Return `data` as the typed model, or None after adding every problem found.

    Unknown keys alone are reported but do not hide the rest: the model is then built without them, so that checks
    across sections still run.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # A list whose items are wrong is not too short as well.
    errors = [e for e in errors if e["type"] != "too_short" or not _has_deeper(e["loc"], errors)]
    unknown = [_data_path(e["loc"], data) for e in errors if e["type"] == "extra_forbidden"]
    for entry in errors:
        path = _data_path(entry["loc"], data, keep_last=entry["type"] == "missing")
        problem = source.problem(path, _message(annotation, entry, path))
        if problem not in problems:
            problems.append(problem)
    if len(unknown) == len(errors):
        return adapter.validate_python(_without(data, unknown))
    return None


def _has_deeper(loc: tuple[str | int, ...], errors: list[Any]) -> bool:
    return any(len(e["loc"]) > len(loc) and e["loc"][: len(loc)] == loc for e in errors)


def _data_path(loc: tuple[str | int, ...], data: Any, keep_last: bool = False) -> Path_:
    """Return a pydantic location without the union tags, which do not stand in the file."""
    path: list[str | int] = []
    for place, key in enumerate(loc):
        if _holds(data, key):
            data = data[key]
        elif not (keep_last and place == len(loc) - 1):
            continue
        path.append(key)
    return tuple(path)


def _holds(data: Any, key: str | int) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list | tuple) and isinstance(key, int) and key < len(data)


def _without(data: Any, paths: list[Path_]) -> Any:
    """Return `data` copied without the keys at `paths`."""
    if isinstance(data, dict):
        gone = {path[0] for path in paths if len(path) == 1}
        return {
            key: _without(value, [path[1:] for path in paths if path[0] == key and len(path) > 1])
            for key, value in data.items()
            if key not in gone
        }
    if isinstance(data, list):
        return [_without(v, [p[1:] for p in paths if p[0] == i and len(p) > 1]) for i, v in enumerate(data)]
    return data


def _message(annotation: Any, entry: Any, path: Path_) -> str:
    kind, ctx, found = entry["type"], entry.get("ctx", {}), entry["input"]
    if kind == "extra_forbidden":
        known = _known_keys(annotation, entry["loc"][:-1])
        hint = nearest(str(path[-1]), known)
        return f"unknown key '{path[-1]}'{hint or f'; known keys are {listed(known, 20)}'}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(ctx["error"])
    if kind.startswith("union_tag"):
        return f"found {shown(found)}; expected {_union_expected(found)}"
    if kind == "literal_error" and isinstance(found, str):
        words = [word.strip(" '") for word in ctx["expected"].replace(" or ", ",").split(",")]
        if len(words) == 1:
            return f"found {shown(found)}; expected a whole number or '{words[0]}'"
        return f"found {shown(found)}; expected one of {listed(words)}{nearest(found, words)}"
    if kind in _EXPECTED:
        return f"found {shown(found)}; expected {_EXPECTED[kind].format(**ctx)}"
    return f"found {shown(found)}; {entry['msg']}"


def _union_expected(found: Any) -> str:
    if isinstance(found, dict) and "schedule" in found:
        return f"schedule to be one of {listed(RATES)}{nearest(str(found['schedule']), RATES)}"
    if isinstance(found, dict) and "distribution" in found:
        return f"distribution to be one of {listed(DISTRIBUTIONS)}{nearest(str(found['distribution']), DISTRIBUTIONS)}"
    if isinstance(found, dict) and "initial" in found:
        return f"a schedule: one of {listed(RATES)}"
    return _COST


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut to a readable length."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"a mapping ({listed(value, 4)})" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}...'"


def _known_keys(annotation: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the model that stands at a pydantic location below `annotation`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _known_keys(get_args(annotation)[0], loc)
    if origin in (Union, types.UnionType):
        return _known_keys_in_union(get_args(annotation), loc)
    if origin is tuple:
        return _known_keys(get_args(annotation)[0], loc[1:])
    if origin is dict:
        return _known_keys(get_args(annotation)[1], loc[1:])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not loc:
            return list(annotation.model_fields)
        return _known_keys(typing.get_type_hints(annotation, include_extras=True)[str(loc[0])], loc[1:])
    return []


def _known_keys_in_union(options: tuple[Any, ...], loc: tuple[str | int, ...]) -> list[str]:
    for option in options:
        tags = [m.tag for m in get_args(option)[1:] if isinstance(m, Tag)] if get_origin(option) else []
        if tags and loc and tags[0] == loc[0]:
            return _known_keys(option, loc[1:])
    found = [_known_keys(option, loc) for option in options if option is not type(None)]
    return max(found, key=len, default=[])
