"""Text of files on its way to a terminal: what would command the terminal, or turn the text round, is left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (C0 but tab and line feed, C1), marks of direction, other line breaks, halves of characters."""


def plain(text: object) -> str:
    """Return text without the characters that a terminal would obey rather than show."""
    return _COMMANDS.sub("", str(text))


def say(text: object, **where: Any) -> None:
    """Print plain text. where: as of `print`."""
    print(plain(text), **where)


class Terminal(Console):
    """A console that shows the text it is given, whatever is in it; its own colours and lines stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or not _COMMANDS.search(segment.text):
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)
