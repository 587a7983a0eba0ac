"""What is said of text that is no YAML: from the text and the place alone, never in the parser's words.

Parsers word their complaints differently and change them; where they give up they agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUOTED = re.compile(r"'(?:[^']++|'')*+'|\"(?:[^\"\\]++|\\.)*+\"", re.DOTALL)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_CLOSING = {"[": "]", "{": "}"}
_LONGEST_KEY = 1024


@dataclass(frozen=True)
class Opened:
    """The innermost list or mapping in brackets that is not closed yet, and its line."""

    bracket: str
    line: int


@dataclass(frozen=True)
class Broken:
    """Where a parser gave up: offsets into the text.

    begun: where what it could not finish began, if it says so.
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
        char, begun = self.text[self.at : self.at + 1], self._begun_char()
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
        if self.begun is not None and self._begun_line() < self.line and self._is_no_key():
            return f"line {self._begun_line()} is no 'key: value'"
        return "does not fit what stands above; expected a 'key: value' or '- value', indented as those it belongs to"

    def _begun_char(self) -> str:
        return "" if self.begun is None else self.text[self.begun : self.begun + 1]

    def _begun_line(self) -> int:
        return self.text.count("\n", 0, self.begun or 0) + 1

    def _is_no_key(self) -> bool:
        return ":" not in self.text[self.begun or 0 :].split("\n", 1)[0]

    def _in_brackets(self, char: str, opened: Opened) -> str:
        found = f"found '{char}'" if char.strip() and char.isprintable() else "found nothing more of it"
        hint = "; text with ': ' in it is to be put in quotes" if char == ":" and opened.line == self.line else ""
        close = _CLOSING[opened.bracket]
        wanted = "a value" if char == "," else "','"
        return f"{found}; expected {wanted} or '{close}' for the '{opened.bracket}' of line {opened.line}{hint}"


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
