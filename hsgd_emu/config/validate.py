"""Check a piece of data against its typed model, and say every mistake in the house's words."""

from __future__ import annotations

import types
import typing
from collections.abc import Collection
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Tag, TypeAdapter, ValidationError

from hsgd_emu.config.hints import hint
from hsgd_emu.config.reader import Path_, Source
from hsgd_emu.config.run_schema import RATES
from hsgd_emu.config.schema import DISTRIBUTIONS
from hsgd_emu.config.wording import COST, expected, form, shown
from hsgd_emu.errors import Problem, listed, nearest

UNKNOWN = "unknown key"


def check(annotation: Any, data: Any, source: Source, problems: list[Problem]) -> Any:
    """Return `data` as the typed model, or None after adding every problem found.

    Unknown keys alone are reported but do not hide the rest: the model is then built without them, so that checks
    across sections still run.
    """
    adapter = _adapter(annotation)
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    # A list whose items are wrong is not too short as well.
    errors = [e for e in errors if e["type"] != "too_short" or not _has_deeper(e["loc"], errors)]
    unknown = [_data_path(e["loc"], data) for e in errors if e["type"] == "extra_forbidden"]
    for entry in errors:
        path = _data_path(entry["loc"], data, keep_last=entry["type"] == "missing")
        if entry["type"] == "missing" and _is_misspelt(path, unknown):
            continue
        if entry["type"].startswith("union_tag"):
            path = (*path, *_tag_key(entry["input"]))
        entry["input"] = _as_given(entry["input"], data, path)
        problem = source.problem(path, _message(annotation, entry, path, source))
        if problem not in problems:
            problems.append(problem)
    # What a model says of its keys together it says only now.
    return check(annotation, _without(data, unknown), source, problems) if len(unknown) == len(errors) else None


@lru_cache(maxsize=256)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """Return the validator of a type: slow to make, and the same files' types are checked over and over in a study."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)
    # What is no model has no settings of its own: without these, `seeds: [true, "3"]` would be 1 and 3.
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _as_given(found: Any, data: Any, path: Path_) -> Any:
    """Return the text that stands at `path` where pydantic names the number that was made of it."""
    if isinstance(found, int | float):
        for key in path:
            if not _holds(data, key):
                return found
            data = data[key]
        return data if isinstance(data, str) else found
    return found


def has_unknown_key(source: Source, problems: list[Problem]) -> bool:
    """Return whether an unknown key of the mapping at `source` is reported: it may be meant as one that is missing."""
    return any(
        problem.message.startswith(UNKNOWN) and problem == source.problem((key,), problem.message)
        for problem in problems
        for key in [problem.field.rpartition(".")[2]]
    )


def _is_misspelt(path: Path_, unknown: list[Path_]) -> bool:
    """Return whether a missing key stands there after all, under a name that is nearly its own."""
    return any(key[:-1] == path[:-1] and nearest(str(key[-1]), [str(path[-1])]) for key in unknown)


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


def unknown_key(key: str, known: Collection[str]) -> str:
    """Return what is said of a key that does not belong where it stands."""
    if key == "step_s" and "rtt_s" in known:
        return f"{UNKNOWN} '{key}'; it belongs to a compute profile, and a link needs a link profile (rtt_s, ...)"
    if key in ("rtt_s", "up_s", "down_s", "latency_s") and "step_s" in known:
        return f"{UNKNOWN} '{key}'; it belongs to a link profile, and a worker needs a compute profile (step_s)"
    return f"{UNKNOWN} '{key}'{nearest(key, known) or hint(key, known) or f'; known: {listed(known, 20)}'}"


def _message(annotation: Any, entry: Any, path: Path_, source: Source) -> str:
    kind, ctx, found = entry["type"], entry.get("ctx", {}), entry["input"]
    field = source.at(*path).prefix
    if kind == "extra_forbidden":
        return unknown_key(str(path[-1]), _known_keys(annotation, entry["loc"][:-1]))
    if kind == "missing":
        return missing(field)
    if kind == "value_error":
        return str(ctx["error"])
    if kind.startswith("union_tag"):
        return _union_message(found)
    if kind == "literal_error" and isinstance(found, str):
        words = _words(annotation, entry["loc"])
        if len(words) == 1:
            return f"found {shown(found)}; expected a whole number or '{words[0]}'"
        return _one_of(found, words)
    if kind == "literal_error":
        return f"found {shown(found)}; expected one of {listed(_words(annotation, entry['loc']))}"
    return f"found {shown(found)}; expected {expected(kind, ctx, field, found)}"


def missing(field: Path_) -> str:
    """Return what is said of a key that has to stand at `field` and does not."""
    return f"is missing; expected {form(field)}" if form(field) else "is missing"


def _tag_key(found: Any) -> Path_:
    """Return the key that says which form a mapping has, where it stands."""
    keys = [key for key in ("schedule", "distribution") if isinstance(found, dict) and key in found]
    return tuple(keys[:1])


def _union_message(found: Any) -> str:
    """Return what is said of a mapping in none of the forms that a rate or a cost may have."""
    for key, words in (("schedule", list(RATES)), ("distribution", list(DISTRIBUTIONS))):
        if isinstance(found, dict) and key in found:
            return _one_of(found[key], words)
    if isinstance(found, dict) and "initial" in found:
        return f"found {shown(found)}; expected a schedule in it: one of {listed(RATES)}"
    return f"found {shown(found)}; expected {COST}"


def _one_of(found: Any, words: list[str]) -> str:
    return f"found {shown(found)}; expected one of {listed(words)}{nearest(str(found), words)}"


def _known_keys(annotation: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys of the model that stands at a pydantic location below `annotation`."""
    models = [kind for kind in _kinds(annotation, loc) if isinstance(kind, type) and issubclass(kind, BaseModel)]
    keys = [[info.alias or name for name, info in model.model_fields.items()] for model in models]
    return max(keys, key=len, default=[])


def _words(annotation: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Return the words that may stand at a pydantic location below `annotation`."""
    return [word for kind in _kinds(annotation, loc) if get_origin(kind) is Literal for word in get_args(kind)]


def _kinds(annotation: Any, loc: tuple[str | int, ...]) -> list[Any]:
    """Return the types that may stand at a pydantic location below `annotation`, unions and notes taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0], loc)
    if origin in (Union, types.UnionType):
        return _kinds_in_union(get_args(annotation), loc)
    if not loc:
        return [annotation]
    if origin is tuple:
        return _kinds(get_args(annotation)[0], loc[1:])
    if origin is dict:
        return _kinds(get_args(annotation)[1], loc[1:])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        hints = typing.get_type_hints(annotation, include_extras=True)
        field = next((name for name, info in annotation.model_fields.items() if info.alias == loc[0]), str(loc[0]))
        return _kinds(hints[field], loc[1:])
    return []


def _kinds_in_union(options: tuple[Any, ...], loc: tuple[str | int, ...]) -> list[Any]:
    for option in options:
        tags = [m.tag for m in get_args(option)[1:] if isinstance(m, Tag)] if get_origin(option) else []
        if tags and loc and tags[0] == loc[0]:
            return _kinds(option, loc[1:])
    return [kind for option in options if option is not type(None) for kind in _kinds(option, loc)]
