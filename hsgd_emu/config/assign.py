"""KEY=VALUE: changes of a file's data by dotted key, also inside the other files that it names.

A mapping is merged into the mapping that is there, key by key at every depth; anything else (a list too) replaces what
is there, and so does an empty mapping. Of keys that exclude each other (`rtt_s` and `latency_s`, two distributions)
the new ones replace the old; so does another model, and what belongs to another data set. With another topology, what
the run binds for names that it lacks is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hsgd_emu.config.profiles import has_profile, read_named
from hsgd_emu.config.reader import Document, Mark, Source, put_value, read_text, relabelled
from hsgd_emu.errors import ConfigError, Problem, Problems

_EXCLUSIVE = (
    ("rtt_s", "up_s", "down_s", "latency_s"),
    ("samples", "csv", "distribution"),
    ("levels", "root"),
    ("rtt_s", "scale", "profile", "set"),
    ("add", "times", "rounds"),
    ("fraction", "bits"),
)
"""Of these keys, a mapping has some; one with others of them is another thing, not an addition."""
_NAMES = ("distribution", "schedule", "method")  # keys whose value says which others belong to them
_OF_DATASET = ("folder", "options", "layout")  # what in a data section belongs to the data set that it names


def set_value(document: Document, assignment: str, option: str = "--set") -> None:
    """Put KEY=VALUE (a dotted key, a YAML value) into the document, as `--set` on the command line.

    Mappings on the way are made where there are none; a number on the way is replaced by a mapping.
    Raises:  ConfigError: no '=' in it, an empty key, a list or an index of one that does not exist, or not YAML.
    """
    label = f"{option} {assignment}"
    key, equals, text = assignment.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError.of(label, "", "expected KEY=VALUE with a dotted key, as in train.iterations=500")
    value, mark = _parsed(text, label, document.source.base)
    merge_value(document, keys, value, mark)


def merge_value(document: Document, keys: Sequence[str], value: Any, mark: Mark) -> None:
    """Put a value in at a dotted key, merged into what is there; mark: where the value stands in truth.

    Raises:  ConfigError: see `set_value`; or a file on the way cannot be read.
    """
    _open_on_the_way(document, keys)
    _merge(document, keys, value, mark)
    if tuple(keys) == ("topology",) and isinstance(document.data, dict):
        _drop_unused(document)


def _merge(document: Document, keys: Sequence[str], value: Any, mark: Mark) -> None:
    old = _at(document.data, keys)
    if isinstance(old, dict) and isinstance(value, dict) and value and not _is_other(keys[-1], old, value):
        if keys[-1] == "data" and value.get("dataset", old.get("dataset")) != old.get("dataset"):
            for key in _OF_DATASET:
                old.pop(key, None)
        for key, inner in value.items():
            _merge(document, (*keys, key), inner, mark.inside.get(key, mark))
    else:
        put_value(document, keys, value, mark)


def _at(data: Any, keys: Sequence[str]) -> Any:
    """Return the value at a dotted key, None where there is none."""
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and key.isascii() and key.isdigit() and int(key) < len(data):
            data = data[int(key)]
        else:
            return None
    return data


def _is_other(section: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    for keys in _EXCLUSIVE:
        here, there = ({key for key in keys if key in one} for one in (new, old))
        if here and there and here.isdisjoint(there):
            return True
    return any(
        key in old and key in new and old[key] != new[key]
        for key in (*_NAMES, *(["name"] if section == "model" else []), *(["optimizer"] if section != "train" else []))
    )


def _open_on_the_way(document: Document, keys: Sequence[str]) -> None:
    """Put in place of a name what it stands for, where `keys` lead into it."""
    data = document.data
    if not isinstance(data, dict):
        return
    if keys[0] == "model" and isinstance(data.get("model"), str):
        mark = document.source.at("model").mark
        put_value(document, ("model",), {"name": data["model"]}, replace(mark, inside={"name": mark}))
    kinds = {"topology": "topologies", "compute": "latency_profiles"}
    if keys[0] in kinds and len(keys) > 1:
        _open(document, (keys[0],), kinds[keys[0]], document.source.at(keys[0]))
    if keys[0] == "profiles" and len(keys) > 2:
        bound = data.get("profiles")
        if isinstance(bound, dict) and keys[1] in bound:
            _open(document, ("profiles", keys[1]), "latency_profiles", document.source.at("profiles", keys[1]))
        else:
            _bind(document, keys[1])


def _open(document: Document, keys: Sequence[str], kind: str, source: Source) -> None:
    """Put the data of a file in place of its name, at `keys` of the document; source: where the name stands."""
    name = _at(document.data, keys)
    if not isinstance(name, str):
        return
    problems = Problems()
    found = read_named(kind, name, source, problems)
    if found is None:
        raise ConfigError(problems)
    put_value(document, keys, found.data, replace(found.source.mark, base=found.source.base))


def _topology(document: Document) -> tuple[Any, Source]:
    """Return the data of the run's topology (None: not to be had), and where they stand."""
    data, place = document.data.get("topology"), document.source.at("topology")
    if isinstance(data, str):
        found = read_named("topologies", data, place, Problems())
        return (found.data, found.source) if found else (None, place)
    return data, place


def _drop_unused(document: Document) -> None:
    """Drop what the run binds for names that its topology lacks."""
    topology, bound = _topology(document)[0], document.data.get("profiles")
    if topology is not None and isinstance(bound, dict):
        used = list(_names_in(topology))
        document.data["profiles"] = {name: value for name, value in bound.items() if name in used}


def _bind(document: Document, name: str) -> None:
    """Bind a profile that the topology names, and the run does not bind, to the data of its file."""
    topology, place = _topology(document)
    if name in _names_in(topology) and has_profile(name, place.base):
        put_value(document, ("profiles", name), name, Mark(place.mark.where))
        _open(document, ("profiles", name), "latency_profiles", place)


def _names_in(topology: Any) -> Iterator[Any]:
    """Yield what stands at every `uplink`, `compute` and `profile` of a topology's data."""
    if isinstance(topology, dict):
        for key, value in topology.items():
            if key in ("uplink", "compute", "profile"):
                yield value
            yield from _names_in(value)
    elif isinstance(topology, list):
        for item in topology:
            yield from _names_in(item)


def _parsed(text: str, label: str, base: Path) -> tuple[Any, Mark]:
    if not text.strip():
        return None, Mark(label)
    try:
        parsed = read_text(text, label, base)
    except ConfigError as error:
        raise ConfigError(Problem(label, "", problem.message) for problem in error.problems) from None
    return parsed.data, relabelled(parsed.source.mark, label)
