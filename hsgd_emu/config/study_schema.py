"""The typed, frozen models of a study file. One sentence per field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hsgd_emu.config.run_schema import CaseSpec, TargetSpec
from hsgd_emu.config.schema import MOST, Count, Either, Label, Name, NonEmpty, Strict
from hsgd_emu.config.wording import dimension_of
from hsgd_emu.units import TIME, Dimension, quantity

Spacing = Literal["linear", "log"]
KINDS = ("rtt_s", "scale", "profile", "set")
"""What an axis may change; each axis has one of these keys."""


class Range(Strict):
    """Numbers from one end to the other, both included, rounded to six digits."""

    from_: Annotated[float, Field(alias="from", ge=-MOST, le=MOST)]
    to: Annotated[float, Field(ge=-MOST, le=MOST)]
    num: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many of them; a sample needs none, for it draws from the whole range."""
    spacing: Spacing = "linear"
    """log: each is the same factor above the one before."""
    whole: bool = False
    """Rounded to whole numbers."""


def dimension_of_axis(kind: str, key: str) -> Dimension | None:
    """Return what the values of an axis measure; texts with such a unit stand for numbers."""
    return TIME if kind == "rtt_s" else dimension_of(tuple(key.split("."))) if kind == "set" else None


class AxisSpec(Strict):
    """One thing that differs between scenarios, and the values it takes."""

    @model_validator(mode="before")
    @classmethod
    def _range_in_numbers(cls, data: Any) -> Any:
        """Read the ends of a range that have a unit; what cannot be read is no number, and is told as such."""
        if not isinstance(data, dict) or not isinstance(data.get("values"), dict):
            return data
        given = [(kind, data[kind]) for kind in KINDS if isinstance(data.get(kind), str)]
        dimension = dimension_of_axis(*given[0]) if given else None
        return {**data, "values": {key: _number(value, dimension) for key, value in data["values"].items()}}

    name: Label
    rtt_s: str | None = None
    """A profile of the topology, which becomes a constant RTT of these seconds."""
    scale: str | None = None
    """A profile (or `compute`), every time of which is multiplied by these factors, after all other changes."""
    profile: str | None = None
    """A profile of the topology, which is bound to other profiles: names, paths or inline."""
    set: str | None = None
    """Any dotted key of the run file, such as compute.step_s, topology or cases.3.periods.0."""
    values: Either[NonEmpty[Any], Range] | None = None
    spacing: Spacing | None = None
    """How a list of numbers is spread, for pictures and for the search between them (default: as it looks)."""


def _number(value: Any, dimension: Dimension | None) -> Any:
    if dimension is None or not isinstance(value, str):
        return value
    try:
        number = quantity(value, dimension)
    except ValueError:
        return value
    return value if number is None else number


class SampleSpec(Strict):
    """Scenarios drawn at random instead of the full grid: a number of a range, or one of a list, for every axis."""

    num: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1


class CaseGrid(Strict):
    """Local SGD for every P, and H-SGD for every G and I of which I divides G and is less (two levels)."""

    P: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    G: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    I: Annotated[tuple[Count, ...], Field(strict=False)] = ()  # noqa: E741


class StudySpec(Strict):
    """Many scenarios of one run: axes over its fields, as a full grid, a list or a random sample."""

    name: Name
    description: str | None = None
    run: Either[str, dict[str, Any]]
    """A run file: its path, its name under runs/, or the run itself."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changes of the run file that hold in every scenario: values by dotted key."""
    axes: NonEmpty[AxisSpec]
    sample: SampleSpec | None = None
    scenarios: NonEmpty[dict[str, Any]] | None = None
    """Instead of the full grid: values by axis; an axis that is not named stays as the run file has it."""
    replications: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Draws of the network's randomness per scenario, case and seed."""
    targets: TargetSpec | None = None
    """Instead of the run's."""
    cases: Either[NonEmpty[CaseSpec], CaseGrid] | None = None
    """Instead of the run's: a list as there, or {P: [...], G: [...], I: [...]}."""
