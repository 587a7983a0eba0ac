"""Seconds for people, integer nanoseconds for the clock; and times, sizes and rates written with a unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal

NS_PER_S = 1_000_000_000
LONGEST_S = 1e9
"""Longest single duration accepted (about 30 years): beyond it is a mistake in units, and int64 stays far away."""


MOST_NS = 2**63 - 1
"""The latest moment the clock can hold: 64 bits of nanoseconds, 292 years."""


def to_ns(seconds: float) -> int:
    """Return seconds as integer nanoseconds, rounded half to even.

    Raises:  ValueError: `seconds` is negative, not a number, infinite or above `LONGEST_S`.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST_S):
        raise ValueError(f"{seconds} s is not a duration between 0 and {LONGEST_S:g} s")
    return round(seconds * NS_PER_S)


def to_s(nanoseconds: int) -> float:
    """Return integer nanoseconds as seconds (exact to the nanosecond up to about 100 days)."""
    return nanoseconds / NS_PER_S


def stored_ns(seconds: float) -> int:
    """Return the integer nanoseconds that seconds were made of by `to_s`."""
    near = round(seconds * NS_PER_S)
    # The product is rounded too: beyond some 26 days it may be one off.
    return next((ns for ns in (near, near - 1, near + 1) if to_s(ns) == seconds), near)


# --- texts with a unit --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dimension:
    """What a number may measure, and the units in which it may be written: by name, how much of the base each is."""

    name: str
    base: str
    example: str
    units: Mapping[str, Decimal]
    known: str
    """The units as a message lists them."""


_PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_PREFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_TIMES = {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "μs": "1e-6", "ms": "1e-3"}  # micro sign, and Greek mu
_TIMES |= {"s": "1", "min": "60", "h": "3600", "d": "86400"}


def _prefixed(**units: str) -> dict[str, Decimal]:
    names = {name.replace("_per_s", "/s"): Decimal(size) for name, size in units.items()}
    return {f"{prefix}{name}": num * size for prefix, num in _PREFIXES.items() for name, size in names.items()}


TIME = Dimension("time", "seconds", "40 ms", {k: Decimal(v) for k, v in _TIMES.items()}, "ns, us, ms, s, min, h, d")
SIZE = Dimension(
    "size",
    "bytes",
    "60 KiB",
    _prefixed(B="1", bit="0.125") | {"byte": Decimal(1), "bytes": Decimal(1)},
    "B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024), and kbit, Mbit, ...",
)
RATE = Dimension(
    "rate",
    "bits per second",
    "100 Mbit/s",
    _prefixed(bit_per_s="1", bps="1", B_per_s="8"),
    "bit/s, kbit/s, Mbit/s, Gbit/s (or kbps, Mbps, Gbps), and B/s, kB/s, MB/s, MiB/s, ...",
)
_QUANTITY = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,4})?)\s*(?![eE][-+]?[0-9])([^\W\d_].*)")
_COMMA = re.compile(r"([-+]?[0-9]+),([0-9]+)\s*([^\W\d_].*)")
_BITS_OR_BYTES = re.compile(r"([kmgt]?)(i?)b(/s|ps)?", re.IGNORECASE)
_MOST_CHARS = 100
_FAR_TOO_MANY = 10**18
_EXACT = Context(prec=2 * _MOST_CHARS)


def quantity(text: str, dimension: Dimension) -> float | int | None:
    """Return a text such as ``40 ms`` in the base of its dimension, None where it is no number with a unit.

    Worked out in decimal digits, so that only the result is rounded: `0.1 ms` is the float nearest to 0.0001.
    Sizes are whole bytes.
    Raises:  ValueError: an unknown unit or one of something else, or no whole bytes; the text says what would be right.
    """
    text = text.strip()
    if len(text) > _MOST_CHARS:
        return None
    comma = _COMMA.fullmatch(text)
    if comma:
        raise ValueError(f"found '{text}'; write the number with a point, as in {comma[1]}.{comma[2]} {comma[3]}")
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, unit = match.groups()
    if unit not in dimension.units:
        raise ValueError(f"found '{text}'; {_wrong_unit(number, unit, dimension)}")
    found = _EXACT.multiply(Decimal(number), dimension.units[unit])
    if dimension is not SIZE:
        return float(found)
    if found.copy_abs() > _FAR_TOO_MANY:
        # No whole number of thousands of digits is made only to be refused.
        return _FAR_TOO_MANY if found > 0 else -_FAR_TOO_MANY
    if found != found.to_integral_value(context=_EXACT):
        raise ValueError(f"found '{text}'; {float(found):.15g} bytes are no whole number of bytes")
    return int(found)


def number(text: str, dimension: Dimension) -> float:
    """Return a number, or a text with a unit, in the base of its dimension; NaN for any other text. Raises as above."""
    found = quantity(text, dimension)
    return plain_number(text) if found is None else found


def plain_number(text: str) -> float:
    """Return the number that a text is by itself, NaN where it is none."""
    try:
        # float() would read 1_000 too.
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def _wrong_unit(number: str, unit: str, dimension: Dimension) -> str:
    here = f"expected a {dimension.name}, as in {dimension.example}"
    both = _BITS_OR_BYTES.fullmatch(unit)
    if any(char.isspace() or char.isdigit() for char in unit):
        return f"expected one number with one unit, as in {dimension.example}"
    for other in (TIME, SIZE, RATE):
        if unit in other.units:
            return f"that is a {other.name}; {here}"
    if both and dimension is not TIME:
        prefix = (both[1].lower() if both[1] in "kK" and not both[2] else both[1].upper()) + both[2].lower()
        bits, num_bytes = (f"{prefix}bit/s", f"{prefix}B/s") if dimension is RATE else (f"{prefix}bit", f"{prefix}B")
        return f"'{unit}' may mean bits or bytes; write {number} {bits} or {number} {num_bytes}"
    if unit in ("m", "M") and dimension is TIME:
        return f"'{unit}' may mean minutes or milliseconds; write {number} min or {number} ms"
    # MS, mbit/s; msec, minutes
    alike = [known for known in dimension.units if known.lower() == unit.lower()]
    alike = alike or sorted((known for known in _TIMES if unit.startswith(known) and dimension is TIME), key=len)
    hint = f"; did you mean '{alike[-1]}'?" if alike else ""
    return f"'{unit}' is no unit of {dimension.name}s; known are {dimension.known}{hint}"
