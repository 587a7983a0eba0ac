"""Tables as text, and how they are drawn on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class TextTable:
    """A table as text; the first `num_left` columns are aligned left, the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_left: int = 1
    title: str | None = None


def rich_table(table: TextTable) -> Table:
    """Return a table as the command line prints it."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), title_justify="left")
    found.title = None if table.title is None else Text(table.title, style="bold")
    for place, head in enumerate(table.header):
        found.add_column(Text(head), justify="left" if place < table.num_left else "right", overflow="fold")
    for row in table.rows:
        found.add_row(*map(Text, row))
    return found
