"""What goes wrong, said so that a person can put it right."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BAD_NAMES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)
"""What the system answers where a name is wrong, and nothing of its own."""


@dataclass(frozen=True)
class Problem:
    """One mistake in the input: where it stands, which field, and what would be right.

    where: ``file:line``, ``--set KEY=VALUE`` or a file or folder; field: dotted key, may be empty.
    """

    where: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.field, self.message) if part)

    def printable(self) -> Problem:
        """Return it with what the user's files may bring in (line breaks, control characters) escaped."""
        return Problem(*map(_printable, (self.where, self.field, self.message)))


class Problems(list[Problem]):
    """The mistakes found so far, and beside them the notes: what is valid, and yet should not be overlooked."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Problem] = []

    def note(self, note: Problem) -> None:
        """Add a note, once."""
        note = note.printable()
        if note not in self.notes:
            self.notes.append(note)


class HsgdError(Exception):
    """A failure that is reported by its message alone, without a traceback."""

    exit_code = 1


class ConfigError(HsgdError):
    """Bad input: every problem found, in the order of the files, each on one printable line."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problem.printable() for problem in problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[tuple[Problem, ...]]]:
        """Let it travel between processes: it is made of its problems, not of its text."""
        return type(self), (self.problems,)

    @classmethod
    def of(cls, where: str, field: str, message: str) -> ConfigError:
        """Return the error of a single problem."""
        return cls([Problem(where, field, message)])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def unwritable(path: Path | str, error: OSError) -> HsgdError:
    """Return the error of what cannot be written: bad input where the name is wrong, else a fault of the system."""
    text = f"cannot be written ({error.strerror or error})"
    return ConfigError.of(str(path), "", text) if error.errno in _BAD_NAMES else RunError(f"{path}: {text}")


class RunError(HsgdError):
    """A run that could not go on, or a run folder that cannot be used as asked."""


_MOST_WORDS = 10_000
_LONGEST_WORD = 200


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the known word nearest to `word`, or an empty string.

    Nothing is looked for where it would take long: among very many words, or for a text that is no word.
    """
    words = sorted(known)
    few = len(words) <= _MOST_WORDS and len(word) <= _LONGEST_WORD
    match = difflib.get_close_matches(word, words, n=1, cutoff=0.65) if few else []
    return f"; did you mean '{match[0]}'?" if match else ""


def listed(words: Iterable[object], most: int = 12) -> str:
    """Return the words as ``a, b, c``, cut after `most` of them."""
    texts = [str(word) for word in words]
    shown = ", ".join(texts[:most])
    return shown if len(texts) <= most else f"{shown} and {len(texts) - most} more"
