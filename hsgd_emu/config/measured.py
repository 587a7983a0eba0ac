"""Measured values: one column of a CSV file as other tools write it, read without guessing."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsgd_emu.config.schema import CsvSamples
from hsgd_emu.config.wording import shown
from hsgd_emu.errors import ConfigError, listed, nearest
from hsgd_emu.files import read_text_bounded
from hsgd_emu.units import LONGEST_S, TIME, number, plain_number

MAX_CSV_BYTES = 32 * 2**20
BROKEN_CSV = "not CSV; a quote is not closed, or a cell has more than 100000 characters"
MAX_ROWS = 100_000
"""Samples that a CSV file may give: all of them are written into the run.yaml of the results, to be read again."""
_MISSING = ("", "*", "-", "--", "?", "???", "na", "n/a", "#n/a", "nan", "null", "none", "lost", "timeout", "timed out")
"""What other tools write where nothing was measured, in small letters; numbers below 0 are taken for such marks too."""
_MOST_TOLD = 10
_DELIMITERS = ",;\t"
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_UNIT_IN_NAME = re.compile(r"(?:.*[_\s(\[])?(ns|us|µs|μs|ms|s)[)\]]?", re.IGNORECASE)
"""total_s, rtt_ms, "RTT (ms)", ms; rtt_min is a least one."""


class MeasuredError(Exception):
    """Everything that is wrong with a CSV file, a text each."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes


def read_measured(given: CsvSamples, path: Path) -> tuple[tuple[float, ...], str]:
    """Return the seconds in a column of a CSV file, and in words how many rows had none, empty where all had.

    Cells are in the unit of `given`, or have their own. Commas, semicolons or tabs divide: whichever gives the column.
    Raises:  MeasuredError: no such file or column, or rows without a time in it (which `missing: drop` does not cover).
    """
    try:
        text = read_text_bounded(path, MAX_CSV_BYTES, "a CSV file")
    except ConfigError as error:
        raise MeasuredError(str(error)) from None
    delimiter, column = _layout(text, path, given)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    found: list[float] = []
    dropped: Counter[str] = Counter()
    wrong: list[str] = []
    for line, cells, width in _rows(reader, path):
        where, cell = f"{path}:{line}", cells[column].strip() if column < len(cells) else ""
        if any(extra.strip() for extra in cells[width:]):
            comma = "; write decimals with a point" if delimiter == "," else ""
            wrong.append(f"{where}: {len(cells)} cells for {width} column{'s' * (width > 1)}{comma}")
        elif given.missing == "drop" and _missing(cell):
            dropped[_missing(cell)] += 1
        else:
            try:
                found.append(_seconds(cell, given))
            except ValueError as error:
                wrong.append(f"{where}: {error}")
        if len(found) + dropped.total() > MAX_ROWS:
            raise MeasuredError(f"{path} has more than {MAX_ROWS} rows; keep every tenth, say")
    if wrong:
        more = len(wrong) - _MOST_TOLD
        rest = [f"{path}: and {more} more row{'s' * (more > 1)} like these"] if more > 0 else []
        raise MeasuredError(*wrong[:_MOST_TOLD], *rest)
    if not found:
        all_missing = f": all {dropped.total()} rows are missing" if dropped else ""
        raise MeasuredError(f"{path} has no values in column '{given.column}'{all_missing}")
    kinds = listed(f"{times:,} x {what}" for what, times in dropped.most_common())
    told = f"{dropped.total():,} of {len(found) + dropped.total():,} rows dropped as missing: {kinds}"
    return tuple(found), told if dropped else ""


def _layout(text: str, path: Path, given: CsvSamples) -> tuple[str, int]:
    """Return what divides the cells, and the place of the column."""
    headers = {delimiter: _header(text, delimiter) for delimiter in _DELIMITERS}
    for delimiter, header in headers.items():
        if given.column in header:
            if header.count(given.column) > 1:
                raise MeasuredError(f"{path}:1: the column '{given.column}' stands twice; rename one of them")
            unit = unit_named(given.column)
            if given.unit is None and unit not in (None, "s"):
                text = f"{path}: the column '{given.column}' is named in {unit}; add unit: {unit}, or unit: s"
                raise MeasuredError(f"{text} where it is in seconds")
            return delimiter, header.index(given.column)
    header = max(headers.values(), key=len)
    if any(not math.isnan(plain_number(name)) for name in header):
        raise MeasuredError(f"{path}:1: found {shown(header[0])}; the first line is to name the columns")
    there = nearest(given.column, header) or (f"; it has {listed(header)}" if any(header) else "; it is empty")
    raise MeasuredError(f"{path} has no column '{given.column}'{there}")


def _header(text: str, delimiter: str) -> list[str]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        return [name.strip() for name in next((row for row in rows if row), [])]
    except csv.Error:
        return []


def unit_named(column: str) -> str | None:
    """Return the unit that a column's name ends in, if it does: `ms` of `rtt_ms`."""
    named = _UNIT_IN_NAME.fullmatch(column)
    return named[1].lower() if named else None


def _rows(reader: Any, path: Path) -> Iterator[tuple[int, list[str], int]]:
    """Yield (line, cells, number of columns) of the rows below the header that are not blank."""
    width = 0
    try:
        for cells in reader:
            if cells and not width:
                width = len(cells)
            elif cells:
                yield reader.line_num, cells, width
    except csv.Error:
        raise MeasuredError(f"{path}:{reader.line_num}: {BROKEN_CSV}") from None


def _missing(cell: str) -> str:
    """Return what stands for a value that was not measured; empty where it is one."""
    if cell.lower() in _MISSING:
        return f"'{cell.lower()}'" if cell else "empty"
    return "below 0" if plain_number(cell) < 0 else ""


def _seconds(cell: str, given: CsvSamples) -> float:
    """Return the seconds of a cell. Raises ValueError with what is wrong with it."""
    is_plain = not math.isnan(plain_number(cell))
    seconds = number(f"{cell} {given.unit}" if is_plain and given.unit else cell, TIME)
    if 0 <= seconds <= LONGEST_S:
        return seconds
    if _DECIMAL_COMMA.fullmatch(cell):
        raise ValueError(f"found '{cell}'; write decimals with a point, as in {cell.replace(',', '.')}")
    hint = "; `missing: drop` leaves such rows out" if _missing(cell) and given.missing != "drop" else ""
    raise ValueError(f"found {shown(cell or None)}; expected a number of {given.unit or 'seconds'}, at least 0{hint}")
