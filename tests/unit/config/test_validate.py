"""Checks against the typed models: what is reported, where, and what goes on in spite of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
from pydantic import Field

from hsgd_emu.config.reader import read_text
from hsgd_emu.config.run_schema import CaseSpec, RunSpec, TrainSpec
from hsgd_emu.config.schema import CostValue, Lognormal, Samples, TopologySpec
from hsgd_emu.config.validate import check, has_unknown_key
from hsgd_emu.errors import Problems


def checked(annotation: Any, text: str) -> tuple[Any, list[str]]:
    document = read_text(text, "f", Path())
    problems = Problems()
    model = check(annotation, document.data, document.source, problems)
    return model, [f"{problem.field}: {problem.message}" for problem in problems]


def test_lists_become_tuples_and_whole_numbers_seconds() -> None:
    model, problems = checked(TrainSpec, "{iterations: 5, learning_rate: 1}")
    assert (model.iterations, model.learning_rate, problems) == (5, 1.0, [])
    assert checked(CaseSpec, "{name: a, periods: [10, none]}")[0].periods == (10, "none")


def test_unknown_key_alone_does_not_hide_the_rest() -> None:
    model, problems = checked(TopologySpec, "{levels: [{name: a, count: 1, speed: 3}], colour: red}")
    assert model.levels[0].name == "a"
    assert [text.split(";")[0] for text in problems] == [
        "levels.0.speed: unknown key 'speed'",
        "colour: unknown key 'colour'",
    ]


def test_wrong_value_hides_only_its_own_model() -> None:
    assert checked(TrainSpec, "{iterations: 0}") == (
        None,
        ["iterations: found 0; expected a whole number of at least 1"],
    )


def test_misspelt_key_is_not_missing_as_well() -> None:
    assert checked(TrainSpec, "{iteration: 5}")[1] == ["iteration: unknown key 'iteration'; did you mean 'iterations'?"]
    # Nothing like it: both are told.
    assert len(checked(TrainSpec, "{steps: 5}")[1]) == 2


def test_what_is_no_model_is_as_strict_as_one() -> None:
    seeds = get_type_hints(RunSpec, include_extras=True)["seeds"]
    assert checked(seeds, "[1, 2]") == ((1, 2), [])
    assert len(checked(seeds, "[true, '3', 2.0]")[1]) == 3
    assert len(checked(Annotated[float, Field(ge=0)], ".inf")[1]) == 1
    assert len(checked(int, "'5'")[1]) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("{samples: [1, 2]}", Samples(samples=(1.0, 2.0))),
        (
            "{distribution: lognormal, median: 1, sigma: 0}",
            Lognormal(distribution="lognormal", median=1.0, sigma=0.0),
        ),
    ],
)
def test_cost_forms(text: str, value: Any) -> None:
    assert checked(CostValue, text) == (value, [])


def test_field_names_that_are_also_forms_keep_their_place() -> None:
    # `csv` and `samples` are a form of a cost and a key in it.
    assert checked(CostValue, "{csv: a.csv}")[1] == ["column: is missing"]
    assert checked(CostValue, "{samples: [x]}")[1] == ["samples.0: found 'x'; expected a number"]


def test_servers_may_have_any_name() -> None:
    # `mapping`, `list`, `number` and `word` are names of forms inside.
    model, problems = checked(CaseSpec, "{name: a, periods: {mapping: 5, number: none, word: 0, list: x}}")
    assert model is None
    assert [text.split(":")[0] for text in problems] == ["periods.word", "periods.list"]


def test_found_values_are_cut_and_printable() -> None:
    (text,) = checked(int, f"'{'x' * 500}'")[1]
    assert len(text) < 120


def test_unknown_key_is_found_only_where_it_stands() -> None:
    document = read_text("{a: {b: 1}, c: 2}", "f", Path())
    problems = [document.source.problem(("a", "b"), "unknown key 'b'")]
    assert has_unknown_key(document.source.at("a"), problems)
    assert not has_unknown_key(document.source, problems)
    assert not has_unknown_key(document.source.at("a"), [document.source.problem(("a", "b"), "is missing")])
