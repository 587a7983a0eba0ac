"""Times, sizes and rates written with a unit: exact, and never taken for another unit."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsgd_emu.units import RATE, SIZE, TIME, Dimension, number, quantity, to_ns

TIMES = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
"""Nanoseconds."""
PREFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
PREFIXES |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@pytest.mark.parametrize(
    ("text", "dimension", "right"),
    [
        ("40 ms", TIME, 0.04),
        ("1.5 min", TIME, 90),
        ("2 h", TIME, 7200),
        ("1 d", TIME, 86400),
        ("250 us", TIME, 0.00025),
        ("250µs", TIME, 0.00025),
        ("7 ns", TIME, 7e-9),
        (" .5  s ", TIME, 0.5),
        ("1e3 ms", TIME, 1.0),
        ("-3 ms", TIME, -0.003),
        ("60 KiB", SIZE, 61440),
        ("2.6 GB", SIZE, 2_600_000_000),
        ("3 MiB", SIZE, 3 * 2**20),
        ("1 kB", SIZE, 1000),
        ("8 Mbit", SIZE, 1_000_000),
        ("60040 bytes", SIZE, 60040),
        ("100 Mbit/s", RATE, 1e8),
        ("100 Mbps", RATE, 1e8),
        ("56 kbps", RATE, 56_000),
        ("1 Gbit/s", RATE, 1e9),
        ("10 MB/s", RATE, 8e7),
        ("1 MiB/s", RATE, 8 * 2**20),
        ("2.4 Tbit/s", RATE, 2.4e12),
    ],
)
def test_a_text_with_a_unit_is_the_number_in_the_base(text: str, dimension: Dimension, right: float) -> None:
    assert quantity(text, dimension) == right
    assert type(quantity(text, dimension)) is (int if dimension is SIZE else float)


@pytest.mark.parametrize("text", ["", "40", "0.05", "1e3", "ms", "fast", "10:30", "1_000 ms", "inf s", "٣ ms"])
def test_what_is_no_number_with_a_unit_is_left_to_be_told_as_no_number(text: str) -> None:
    assert quantity(text, TIME) is None


@pytest.mark.parametrize(
    ("text", "dimension", "said"),
    [
        ("40 MB", TIME, "that is a size; expected a time, as in 40 ms"),
        ("40 ms", SIZE, "that is a time; expected a size, as in 60 KiB"),
        ("100 Mbit", RATE, "that is a size; expected a rate, as in 100 Mbit/s"),
        ("100 Mbit/s", SIZE, "that is a rate; expected a size"),
        ("100 Mb/s", RATE, "write 100 Mbit/s or 100 MB/s"),
        ("100 Mb", RATE, "write 100 Mbit/s or 100 MB/s"),
        ("5 gb", SIZE, "write 5 Gbit or 5 GB"),
        ("5 kb", SIZE, "write 5 kbit or 5 kB"),
        ("5 Kib", SIZE, "write 5 Kibit or 5 KiB"),
        ("3 m", TIME, "write 3 min or 3 ms"),
        ("3 Ms", TIME, "did you mean 'ms'?"),
        ("3 Min", TIME, "did you mean 'min'?"),
        ("3 minutes", TIME, "did you mean 'min'?"),
        ("3 usec", TIME, "did you mean 'us'?"),
        ("3 lightyears", TIME, "known are ns, us, ms, s, min, h, d"),
        ("1,5 s", TIME, "as in 1.5 s"),
        ("1 min 30 s", TIME, "one number with one unit"),
        ("1.5 B", SIZE, "1.5 bytes are no whole number of bytes"),
        ("3 bit", SIZE, "0.375 bytes are no whole number of bytes"),
    ],
)
def test_another_unit_is_an_error_that_says_what_would_be_right(text: str, dimension: Dimension, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        quantity(text, dimension)
    assert str(error.value).startswith(f"found '{text}'; ")
    assert said in str(error.value)


def test_numbers_without_a_unit_are_in_the_base() -> None:
    assert number("0.04", TIME) == number("40 ms", TIME) == 0.04
    assert math.isnan(number("1_0", TIME))
    assert math.isnan(number("soon", TIME))


DIGITS = st.decimals(min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False, places=6)


@given(DIGITS, st.sampled_from(list(TIMES)), st.sampled_from(["", " ", "  "]))
@example("0.1", "ms", " ")
@example("0.000003", "h", " ")
def test_times_are_exact_to_the_nanosecond(digits: object, unit: str, space: str) -> None:
    exact_ns = Fraction(str(digits)) * TIMES[unit]
    seconds = quantity(f"{digits}{space}{unit}", TIME)
    assert seconds == float(exact_ns / 10**9)  # the float nearest to the exact value
    # Within a hundred days a float of seconds tells nanoseconds apart.
    if exact_ns < 8 * 10**15 and exact_ns.denominator == 1:
        assert seconds is not None
        assert to_ns(seconds) == exact_ns


@given(st.integers(0, 10**12), st.sampled_from(list(PREFIXES)), st.sampled_from(["B", "bit"]))
def test_sizes_are_exact(num: int, prefix: str, unit: str) -> None:
    bits = num * PREFIXES[prefix] * (8 if unit == "B" else 1)
    text = f"{num} {prefix}{unit}"
    if bits % 8 and bits <= 8 * 10**18:
        with pytest.raises(ValueError, match="no whole number of bytes"):
            quantity(text, SIZE)
    else:
        assert quantity(text, SIZE) == min(bits // 8, 10**18)


@given(DIGITS, st.sampled_from(list(PREFIXES)), st.sampled_from(["bit/s", "bps", "B/s"]))
def test_rates_are_exact(digits: object, prefix: str, unit: str) -> None:
    exact = Fraction(str(digits)) * PREFIXES[prefix] * (8 if unit == "B/s" else 1)
    assert quantity(f"{digits} {prefix}{unit}", RATE) == float(exact)


TEXTS = st.text(st.sampled_from("0159.,+-eE kKMGTibBpsmhµ/_\n\x1b٣"), max_size=14)


@given(TEXTS, st.sampled_from([TIME, SIZE, RATE]))
@example("1e9999 GB", SIZE)
@example("9" * 99 + " s", TIME)
@example("1e-9999 B", SIZE)
def test_any_text_is_a_number_none_or_an_explained_mistake(text: str, dimension: Dimension) -> None:
    try:
        found, said = quantity(text, dimension), "found '"
    except ValueError as error:
        found, said = None, str(error)
    assert found is None or isinstance(found, int | float)
    assert said.startswith("found '")
