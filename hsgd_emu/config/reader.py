"""YAML text -> plain data that remembers its lines.

Differences to plain YAML, each to keep a typing mistake from becoming a wrong number: ``1e-3`` is a number, only
true and false are booleans, ``10:30`` is text, a key may stand once, tags are refused, and size, nesting and the
number of values (aliases counted in full) are limited. The parser is driven event by event with no recursion,
because deep nesting crashes the recursive C loader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from hsgd_emu.errors import ConfigError, Problem, nearest
from hsgd_emu.files import read_text_bounded

_QUOTED = re.compile(r"'(?:[^']++|'')*+'|\"(?:[^\"\\]++|\\.)*+\"", re.DOTALL)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_CLOSING = {"[": "]", "{": "}"}
_LONGEST_KEY = 1024


Opened = tuple[str, int]
"""The bracket of the innermost list or mapping in brackets that is not closed yet, and its line."""


@dataclass(frozen=True)
class Broken:
    """Where a parser gave up: offsets into the text.

    What is said of it comes from the text and the place alone: parsers word their complaints differently and change
    them; where they give up they agree.  begun: where what it could not finish began, if it says so.
    """

    text: str
    at: int
    begun: int | None
    opened: Opened | None

    @property
    def line(self) -> int:
        """Number of the line, from 1."""
        return self.text.count("\n", 0, self.at) + 1

    def explained(self) -> str:
        """Return what is wrong there, and what would be right."""
        start = self.text.rfind("\n", 0, self.at) + 1
        line = self.text[start:].split("\n", 1)[0]
        char = self.text[self.at : self.at + 1]
        begun = "" if self.begun is None else self.text[self.begun : self.begun + 1]
        if re.match(r" *\t", line) or char == "\t":
            return "a tab; indent with spaces"
        quoted = _QUOTED.match(self.text, self.begun or 0)
        if begun in ("'", '"') and not quoted:
            return f"the {begun} of line {self._begun_line()} is not closed"
        if begun == '"' and quoted and self.at < quoted.end():
            return "a '\\' that begins no known escape; write '\\\\', or put the text in single quotes"
        odd = char if char and char in "@`%" else begun if begun and begun in "&*!|>%" else ""
        if odd:
            return f"a text that begins with '{odd}' is to be put in quotes"
        if self.opened is not None:
            return self._in_brackets(char, self.opened)
        if self.at - start > _LONGEST_KEY:
            return f"a key of more than {_LONGEST_KEY} characters"
        if char == ":" and ": " in line[: self.at - start]:
            return "a second ': ' in one line; text with ': ' in it is to be put in quotes"
        if char == ":":
            return "a key stands where none is expected; indent it as the keys it belongs to"
        is_key = ":" in self.text[self.begun or 0 :].split("\n", 1)[0]
        if self.begun is not None and self._begun_line() < self.line and not is_key:
            return f"line {self._begun_line()} is no 'key: value'"
        return "does not fit what stands above; expected a 'key: value' or '- value', indented as those it belongs to"

    def _begun_line(self) -> int:
        return self.text.count("\n", 0, self.begun or 0) + 1

    def _in_brackets(self, char: str, opened: Opened) -> str:
        bracket, line = opened
        found = f"found '{char}'" if char.strip() and char.isprintable() else "found nothing more of it"
        hint = "; text with ': ' in it is to be put in quotes" if char == ":" and line == self.line else ""
        wanted = "a value" if char == "," else "','"
        return f"{found}; expected {wanted} or '{_CLOSING[bracket]}' for the '{bracket}' of line {line}{hint}"


def depth_added(text: str) -> int:
    """Return how many more brackets are opened than closed in a piece of YAML."""
    bare = re.sub(r"(?m)(^|\s)#.*$", "", _QUOTED.sub("", text))
    return sum(bare.count(opening) - bare.count(closing) for opening, closing in _CLOSING.items())


def forbidden(text: str) -> tuple[int, str] | None:
    """Return line and name of the first character that no YAML may hold, or None."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return None
    return text.count("\n", 0, found.start()) + 1, f"U+{ord(found.group()):04X}"


MAX_BYTES = 8 * 2**20
MAX_DEPTH = 40
MAX_VALUES = 500_000
MAX_DIGITS = 100
_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= {".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan")}

Path_ = tuple[str | int, ...]
"""Where a value stands: keys and list indices from the top of the file."""


@dataclass(slots=True)
class Mark:
    """Where a value stands, and the marks of what is inside it."""

    where: str
    inside: dict[str | int, Mark] = field(default_factory=dict)
    num_values: int = 1
    base: Path | None = None
    """Folder of its file, where that is another one than what is around it stands in."""


@dataclass(frozen=True)
class Source:
    """A file, or a part of it: turns a path of keys into a file and line."""

    mark: Mark
    base: Path
    """Folder of the file."""
    prefix: Path_ = ()

    def at(self, *path: str | int) -> Source:
        """Return the source of the value at `path`."""
        mark, base = self.mark, self.base
        for key in path:
            mark = mark.inside.get(key, mark)
            base = mark.base or base
        return Source(mark, base, (*self.prefix, *path))

    @property
    def folder(self) -> Path:
        """Folder that paths given here are relative to: the file's, or for `--set` and its like the current one."""
        return Path() if self.mark.where.startswith("--") else self.base

    def files(self) -> set[Path]:
        """Return the files that this and what is inside it were read from."""
        found, marks = set(), [self.mark]
        while marks:
            mark = marks.pop()
            name, colon, line = mark.where.rpartition(":")
            if colon and line.isdigit() and not name.startswith("--"):
                found.add(Path(name))
            marks += mark.inside.values()
        return found

    def problem(self, path: Path_, message: str) -> Problem:
        """Return the problem of the value at `path`, or of the nearest value around it that exists."""
        here = self.at(*path)
        return Problem(here.mark.where, ".".join(map(str, here.prefix)), message)


@dataclass
class Document:
    """The data of one file, and where each value stands."""

    data: Any
    source: Source


def read_file(path: Path) -> Document:
    """Return the data of a YAML file.

    Raises:  ConfigError: the file is missing, too large, not text, or not the YAML described above.
    """
    if path.is_dir():
        inside = next((path / name for name in ("run.yaml", "study.yaml") if (path / name).is_file()), None)
        text = (
            f"the folder of a {inside.stem}; right would be its file, {inside}" if inside else "a YAML file is expected"
        )
        raise ConfigError.of(str(path), "", f"is {text}" if inside else f"is a folder; {text}")
    return read_text(read_text_bounded(path, MAX_BYTES, "a YAML file"), str(path), path.parent)


def read_text(text: str, label: str, base: Path) -> Document:
    """Return the data of YAML text; `label` stands for the file's name in messages."""
    builder = _Builder(label)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    spoilt = forbidden(text)
    if spoilt is not None:
        line, name = spoilt
        raise ConfigError.of(f"{label}:{line}", "", f"the character {name} is not allowed in YAML; remove it")
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        builder.problems.append(builder.broken(text, error.problem_mark, error.context_mark))
    except yaml.YAMLError:
        builder.problems.append(Problem(label, "", "not valid YAML"))
    except ConfigError as error:
        builder.problems += error.problems
    if builder.problems:
        raise ConfigError(builder.problems)
    if not builder.done:
        raise ConfigError.of(f"{label}:1", "", "the file is empty; a mapping of keys is expected")
    data, mark = builder.done[0]
    return Document(data, Source(mark, base))


def _events(text: str) -> Iterator[Any]:
    loader = _PARSER(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


@dataclass
class _Open:
    """A mapping or list that is being read."""

    data: Any
    mark: Mark
    anchor: str | None
    opened: Opened | None
    """Where it stands in brackets."""
    key: str | None = None
    key_where: str = ""


class _Builder:
    """Builds data and marks from parser events with a stack of its own."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, Mark]] = {}
        self.done: list[tuple[Any, Mark]] = []
        self.problems: list[Problem] = []
        self.num_values = 0
        self.end = 0
        """How much of the text the parser's events account for; the parser itself may have looked further."""

    def broken(self, text: str, at: Any, begun: Any) -> Problem:
        """Return the problem of text that the parser gave up, from its marks of the place and of the beginning."""
        opened = self.stack[-1].opened if self.stack else None
        found = Broken(text, len(text) if at is None else at.index, None if begun is None else begun.index, opened)
        where = f"{self.label}:{found.line}"
        # The parser looks ahead, and some have a limit of their own.
        if len(self.stack) + depth_added(text[self.end : found.at]) > MAX_DEPTH:
            return Problem(where, "", _TOO_DEEP)
        return Problem(where, "", f"not valid YAML: {found.explained()}")

    def take(self, event: Any) -> None:
        self.end = event.end_mark.index
        where = f"{self.label}:{event.start_mark.line + 1}"
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.problems.append(Problem(where, self._field(), f"the tag '{tag}' is not allowed; write plain values"))
        if isinstance(event, yaml.NodeEvent):
            alias = self.anchors.get(event.anchor or "") if isinstance(event, yaml.AliasEvent) else None
            self.num_values += alias[1].num_values if alias else 1
            if self.num_values > MAX_VALUES:
                raise ConfigError.of(where, "", f"more than {MAX_VALUES} values (aliases counted in full)")
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event, where)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event, where)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            closed = self.stack.pop()
            self._add(closed.data, closed.mark, closed.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event.anchor, where)
        elif isinstance(event, yaml.DocumentStartEvent) and self.done:
            raise ConfigError.of(where, "", "a second document begins ('---'); one file holds one document")

    def _open(self, event: Any, where: str) -> None:
        if self._awaits_key():
            raise ConfigError.of(where, "", "a list or mapping stands where a key is expected; quote the text?")
        if len(self.stack) >= MAX_DEPTH:
            raise ConfigError.of(where, "", _TOO_DEEP)
        data: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        opened = ("{" if isinstance(data, dict) else "[", event.start_mark.line + 1) if event.flow_style else None
        self.stack.append(_Open(data, Mark(where), event.anchor, opened))

    def _awaits_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].data, dict) and self.stack[-1].key is None

    def _scalar(self, event: Any, where: str) -> None:
        if self._awaits_key():
            top = self.stack[-1]
            if event.value in top.data:
                first = top.mark.inside[event.value].where.rpartition(":")[2]
                text = f"the key stands twice, first in line {first}; remove one"
                self.problems.append(Problem(where, self._field(event.value), text))
            top.key, top.key_where = event.value, where
            return
        value = event.value
        if event.implicit[0]:
            try:
                value = _plain(value)
            except ValueError:
                text = f"found a number of {len(value)} digits; at most {MAX_DIGITS} are read"
                self.problems.append(Problem(where, self._field(), text))
        self._add(value, Mark(where), event.anchor)

    def _alias(self, anchor: str | None, where: str) -> None:
        if self._awaits_key() or anchor is None or anchor not in self.anchors:
            raise ConfigError.of(where, "", f"the alias '*{anchor}' does not stand for a finished value")
        value, mark = self.anchors[anchor]
        self._add(value, Mark(where, mark.inside, mark.num_values), None)

    def _add(self, value: Any, mark: Mark, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = (value, mark)
        if not self.stack:
            self.done.append((value, mark))
            return
        top = self.stack[-1]
        top.mark.num_values += mark.num_values
        if isinstance(top.data, list):
            top.mark.inside[len(top.data)] = mark
            top.data.append(value)
        elif top.key is not None:
            # The key's line, not the value's: a block value begins a line later.
            top.mark.inside[top.key] = Mark(top.key_where, mark.inside, mark.num_values)
            top.data[top.key] = value
            top.key = None

    def _field(self, key: str | None = None) -> str:
        keys: list[str] = []
        for level in self.stack:
            keys += [str(len(level.data))] if isinstance(level.data, list) else [level.key] if level.key else []
        return ".".join([*keys, *([key] if key is not None else [])])


def _plain(text: str) -> Any:
    """Return the value of an unquoted scalar (YAML 1.2 core schema).

    Raises:  ValueError: a whole number of more than MAX_DIGITS digits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(text)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return float("-inf" if text.startswith("-") else "inf")
    return text


def put_value(document: Document, keys: Sequence[str], value: Any, value_mark: Mark) -> None:
    """Put a value into the document in place of what is there; value_mark: where the value stands in truth.

    Whatever is changed below the top is copied first, so that a shallow copy of the document is one to change.
    """
    label = value_mark.where
    data, mark = document.data, document.source.mark
    if not isinstance(data, dict):
        return
    for depth, name in enumerate(keys[:-1]):
        step = _index(data, name, label, ".".join(keys[: depth + 1]))
        inner = data[step] if isinstance(data, list) else data.get(step)
        if not isinstance(inner, dict | list) and keys[depth + 1].isdigit():
            text = f"there is no list here, so '{keys[depth + 1]}' is no index of it"
            text += nearest(name, data) if isinstance(data, dict) and name not in data else ""
            raise ConfigError.of(label, ".".join(keys[: depth + 1]), text)
        # A copy: through an alias the same value may stand elsewhere too, and stays as it is there.
        data[step] = inner.copy() if isinstance(inner, dict | list) else {}
        old = mark.inside[step] if isinstance(inner, dict | list) else Mark(label)
        mark.inside[step] = replace(old, inside=dict(old.inside))
        data, mark = data[step], mark.inside[step]
    step = _index(data, keys[-1], label, ".".join(keys))
    data[step] = value
    mark.inside[step] = value_mark


def _index(data: Any, name: str, label: str, key: str) -> Any:
    if not isinstance(data, list):
        return name
    if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(data)):
        known = f"; it has 0 to {len(data) - 1}" if len(data) > 1 else "; it has only 0" if data else "; it is empty"
        raise ConfigError.of(label, key, f"'{name}' is not an index of this list{known}")
    return int(name)


def relabelled(mark: Mark, label: str) -> Mark:
    """Return the marks of a value that stands as a whole at one place."""
    return Mark(label, {key: relabelled(inner, label) for key, inner in mark.inside.items()}, mark.num_values)
