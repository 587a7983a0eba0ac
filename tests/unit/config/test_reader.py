"""The reader: which value an unquoted word is, where everything stands, and what `--set` changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsgd_emu.config import reader
from hsgd_emu.config.assign import set_value
from hsgd_emu.config.reader import Document, read_file, read_text
from hsgd_emu.errors import ConfigError


def read(text: str) -> Document:
    return read_text(text, "file.yaml", Path("folder"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # Plain YAML 1.1 would read these as text, as a boolean, as sixty times ten and a bit, as 8, as text.
        ("1e-3", 0.001),
        ("no", "no"),
        ("10:30", "10:30"),
        ("010", 10),
        ("0o17", 15),
        ("1_000", "1_000"),
        ("2026-01-02", "2026-01-02"),
        ("0x1F", 31),
        ("-5", -5),
        ("+.5", 0.5),
        ("5.", 5.0),
        ("1E+2", 100.0),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("~", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ('"true"', "true"),
        ("<<", "<<"),
        ("=", "="),
    ],
)
def test_plain_words(text: str, value: Any) -> None:
    found = read(f"key: {text}").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read_as_such() -> None:
    # It is refused later, where a number is expected, with its place.
    assert math.isnan(read("key: .nan").data["key"])


def test_every_value_knows_its_line() -> None:
    source = read("a: 1\nb:\n  - c: 2\n\n  - [3,\n     4]\n").source
    places = [("a",), ("b",), ("b", 0, "c"), ("b", 1, 0), ("b", 1, 1)]
    assert [source.at(*place).mark.where for place in places] == [f"file.yaml:{line}" for line in (1, 2, 3, 5, 6)]


def test_problem_of_a_value_that_is_not_there_stands_at_what_is_around_it() -> None:
    problem = read("a: 1\nb:\n  c: 2\n").source.at("b").problem(("d", "e"), "is missing")
    assert str(problem) == "file.yaml:2: b.d.e: is missing"


def test_alias_stands_where_it_is_used_and_its_inside_where_it_is_written() -> None:
    document = read("a: &a\n  b: 1\nc: *a\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.source.at("c").mark.where == "file.yaml:3"
    assert document.source.at("c", "b").mark.where == "file.yaml:2"


def test_aliases_are_counted_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    # The mapping and its two keys: 3; the first list and its items: 4; the second, two aliases of 4: 9; 16 in all.
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"
    monkeypatch.setattr(reader, "MAX_VALUES", 16)
    assert read(text).data["b"] == [[1, 2, 3], [1, 2, 3]]
    monkeypatch.setattr(reader, "MAX_VALUES", 15)
    with pytest.raises(ConfigError, match=r"file\.yaml:2: more than 15 values"):
        read(text)


def test_nesting_limit_is_exact() -> None:
    depth = reader.MAX_DEPTH
    read("[" * depth + "]" * depth)
    with pytest.raises(ConfigError, match=f"nested more than {depth} deep"):
        read("[" * (depth + 1) + "]" * (depth + 1))


@pytest.fixture(params=["C", "Python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: their words and limits differ, ours do not."""
    monkeypatch.setattr(reader, "_PARSER", yaml.CSafeLoader if request.param == "C" else yaml.SafeLoader)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    "text", ["[" * 50_000, "{a: " * 3000, "- " * 3000, "x: " + "[\n" * 3000, "a: ['[', [" + "[" * 900, "{a: [" * 500]
)
def test_nesting_is_refused_in_our_words_whatever_the_parser_allows(text: str) -> None:
    with pytest.raises(ConfigError, match=r":\d+: nested more than 40 deep$"):
        read(text)


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {b: 1\nc: 2\n", "2: not valid YAML: found ':'; expected ',' or '}' for the '{' of line 1"),
        ("a: [1, 2\n", "2: not valid YAML: found nothing more of it; expected ',' or ']' for the '[' of line 1"),
        ("a: [1,, 2]", "1: not valid YAML: found ','; expected a value or ']' for the '[' of line 1"),
        ("a: [1}]", "1: not valid YAML: found '}'; expected ',' or ']' for the '[' of line 1"),
        (
            "a: {b: c: d}",
            "1: not valid YAML: found ':'; expected ',' or '}' for the '{' of line 1; "
            "text with ': ' in it is to be put in quotes",
        ),
        ("a: 'b\nc: 1\n", "3: not valid YAML: the ' of line 1 is not closed"),
        ('a: 1\nb: "c\n', '3: not valid YAML: the " of line 2 is not closed'),
        (
            'a: "C:\\data"',
            "1: not valid YAML: a '\\' that begins no known escape; write '\\\\', or put the text in single quotes",
        ),
        ("a: @home", "1: not valid YAML: a text that begins with '@' is to be put in quotes"),
        ("a: * b", "1: not valid YAML: a text that begins with '*' is to be put in quotes"),
        ("a: %d", "1: not valid YAML: a text that begins with '%' is to be put in quotes"),
        ("a:\r\n\t- b", "2: not valid YAML: a tab; indent with spaces"),
        ("a:\n  b: 1\n\tc: 2", "3: not valid YAML: a tab; indent with spaces"),
        (
            "a: b: c",
            "1: not valid YAML: a second ': ' in one line; text with ': ' in it is to be put in quotes",
        ),
        ("a: 1\n  b: 2", "2: not valid YAML: a key stands where none is expected; indent it as the keys it belongs to"),
        ("a: 1\nb\nc: 2", "3: not valid YAML: line 2 is no 'key: value'"),
        (
            "a: 1\n- b",
            "2: not valid YAML: does not fit what stands above; expected a 'key: value' or '- value', "
            "indented as those it belongs to",
        ),
        ("k" * 2000 + ": 1", "1: not valid YAML: a key of more than 1024 characters"),
        ("a: 1\nb: \x07", "2: the character U+0007 is not allowed in YAML; remove it"),
        ("a: \ud800", "1: the character U+D800 is not allowed in YAML; remove it"),
    ],
)
def test_what_is_no_yaml_is_explained_in_our_words(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(text)
    assert str(error.value) == f"file.yaml:{message}"


def test_all_duplicate_keys_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        read("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    assert [str(problem) for problem in error.value.problems] == [
        "file.yaml:2: b.c: the key stands twice, first in line 2; remove one",
        "file.yaml:3: a: the key stands twice, first in line 1; remove one",
    ]


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\nseeds: [1]\r\n")
    assert read_file(path).data == {"name": "a", "seeds": [1]}


def test_base_is_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: 1")
    assert read_file(tmp_path / "a.yaml").source.base == tmp_path


def test_set_changes_makes_and_replaces() -> None:
    document = read("train: {iterations: 5}\nmodel: mlp\ncases: [{period: 1}, {period: 2}]\n")
    for assignment in ("train.iterations=7", "data.root=/x", "model.name=mlp", "cases.1.period=1e1", "seeds=[1, 2]"):
        set_value(document, assignment)
    assert document.data == {
        "train": {"iterations": 7},
        "model": {"name": "mlp"},
        "cases": [{"period": 1}, {"period": 10.0}],
        "data": {"root": "/x"},
        "seeds": [1, 2],
    }


def test_set_value_may_hold_an_equals_sign_and_be_empty() -> None:
    document = read("cases: [{name: a}]")
    set_value(document, "cases.0.name=P=5")
    set_value(document, "description=")
    assert document.data == {"cases": [{"name": "P=5"}], "description": None}


def test_what_set_changed_is_blamed_on_it_and_nothing_else() -> None:
    document = read("train:\n  iterations: 5\n  momentum: 0\n")
    set_value(document, "train.iterations=[1]")
    where = [document.source.at("train", *path).mark.where for path in [(), ("iterations", 0), ("momentum",)]]
    assert where == ["file.yaml:1", "--set train.iterations=[1]", "file.yaml:3"]


def test_set_leaves_the_other_uses_of_an_alias_alone() -> None:
    document = read("a: &a {rtt_s: [1, 2]}\nb: *a\n")
    set_value(document, "b.rtt_s.0=9")
    assert document.data == {"a": {"rtt_s": [1, 2]}, "b": {"rtt_s": [9, 2]}}
    assert document.source.at("a", "rtt_s", 0).mark.where == "file.yaml:1"


@pytest.mark.parametrize(
    "assignment", ["a", "=1", "a..b=1", ".=1", "list.2=0", "list.-1=0", "list.x=0", "none.0.a=1", "a=[", "a=\udcff"]
)
def test_set_refuses(assignment: str) -> None:
    with pytest.raises(ConfigError) as error:
        set_value(read("list: [0, 1]"), assignment)
    assert error.value.problems[0].where.startswith("--set ")
