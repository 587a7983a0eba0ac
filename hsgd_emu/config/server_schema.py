"""The typed, frozen models of what a server does with the average, and of what senders compress."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from hsgd_emu.config.schema import Fading, NonEmpty, Positive, StepSize, Strict, is_factory
from hsgd_emu.errors import listed, nearest

_WITH_MOMENTUM = ("momentum", "nesterov")
_WITH_MOMENTS = ("adam", "yogi", "adagrad")
OPTIMIZERS = ("average", *_WITH_MOMENTUM, *_WITH_MOMENTS)
"""Known names; beside them `module:factory` is a rule of the user's own."""
_TAKES = {
    "average": (),
    **dict.fromkeys(_WITH_MOMENTUM, ("learning_rate", "momentum")),
    **dict.fromkeys(_WITH_MOMENTS, ("learning_rate", "betas", "epsilon")),
}
DEFAULTS = {"learning_rate": 1.0, "betas": (0.9, 0.99), "epsilon": 1e-3}


class ServerSpec(Strict):
    """What a server makes of x, the model that it last sent down or received, and of its children's average.

    Delta = x - average.
    """

    optimizer: str
    """`average`: x becomes the average; `momentum`, `nesterov`, `adam`, `yogi`, `adagrad`; or `module:factory`."""
    learning_rate: StepSize | None = None
    """eta (1; to be given for adam, yogi, adagrad)."""
    momentum: Fading | None = None
    """mu of momentum and nesterov."""
    betas: Annotated[tuple[Fading, Fading] | None, Field(strict=False)] = None
    """What of m and of v stays at each step, of adam, yogi and adagrad ([0.9, 0.99])."""
    epsilon: Positive | None = None
    """Added to the root of v, of adam, yogi and adagrad (1e-3)."""
    options: dict[str, Any] | None = None
    """Keyword arguments for a `module:factory`."""

    @field_validator("optimizer")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in OPTIMIZERS and not is_factory(name):
            hint = nearest(name, OPTIMIZERS)
            raise ValueError(f"found '{name}'; expected one of {listed(OPTIMIZERS, 6)}, or module:factory{hint}")
        return name

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> Self:
        given = {name for name, value in self if value is not None and name != "optimizer"}
        if self.is_own:
            if given - {"options"}:
                text = f"{listed(sorted(given - {'options'}))} beside the own rule '{self.optimizer}'"
                raise ValueError(f"{text}; what it takes stands in options")
            return self
        takes = _TAKES[self.optimizer]
        for name in sorted(given.difference(takes)):
            users = [one for one, keys in _TAKES.items() if name in keys] or ["module:factory"]
            raise ValueError(f"{name} is of {listed(users)}; {self.optimizer} has none")
        needs = {"momentum"} if self.optimizer in _WITH_MOMENTUM else {"learning_rate"} & {*takes}
        for name in sorted(needs - given):
            example = {"momentum": 0.9, "learning_rate": 0.1}[name]
            text = f"{self.optimizer} needs a {name.replace('_', ' ')}"
            raise ValueError(f"{text}, as in {{optimizer: {self.optimizer}, {name}: {example}}}")
        return self

    @property
    def is_own(self) -> bool:
        """Whether the rule is the user's own."""
        return ":" in self.optimizer

    @property
    def changes_nothing(self) -> bool:
        """Whether the average is what comes of it."""
        if self.optimizer in _WITH_MOMENTUM:
            return self.momentum == 0 and self.learning_rate in (None, 1)
        return self.optimizer == "average"

    @property
    def is_linear(self) -> bool:
        """Whether it does the same to a sum of parameters as to each of them."""
        return self.optimizer in ("average", *_WITH_MOMENTUM)

    def whole(self) -> ServerSpec:
        """Return it with every default of its rule written out."""
        takes = ("options",) if self.is_own else _TAKES[self.optimizer]
        known = {**DEFAULTS, "options": {}}
        return self.model_copy(update={n: known[n] for n in takes if n in known and getattr(self, n) is None})


Direction = Literal["up", "down"]


class CompressionSpec(Strict):
    """What a sender sends instead of its model: r + C(model - r + e), r the model that both ends know."""

    method: Literal["top_k", "random_k", "quantize"]
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of all parameters, those that top_k and random_k send."""
    bits: Annotated[int, Field(ge=2, le=16)] | None = None
    """Of each parameter, with quantize."""
    rounding: Literal["stochastic", "nearest"] | None = None
    """How quantize rounds: so that the mean is right (the default), or to the nearest."""
    error_feedback: bool = True
    """Whether what was not sent is kept, as e, for the next time."""
    direction: Literal["up", "down", "both"] = "up"
    """Up to the server that aggregates the sender, down to those that it aggregates, or both."""

    @model_validator(mode="after")
    def _has_what_it_takes(self) -> Self:
        if self.fraction is not None and self.bits is not None:
            raise ValueError("both fraction and bits; fraction is of top_k and random_k, bits of quantize")
        needs, example = ("bits", 8) if self.method == "quantize" else ("fraction", 0.05)
        other = "fraction" if needs == "bits" else "bits"
        if getattr(self, other) is not None:
            raise ValueError(f"{other} does not belong to {self.method}, which needs {needs}")
        if getattr(self, needs) is None:
            raise ValueError(f"{self.method} needs {needs}, as in {{method: {self.method}, {needs}: {example}}}")
        if self.rounding is not None and needs != "bits":
            raise ValueError(f"rounding is of quantize; {self.method} has none")
        return self

    @property
    def changes_nothing(self) -> bool:
        """Whether all is sent as it is."""
        return self.fraction == 1

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Where what is sent is compressed."""
        return ("up", "down") if self.direction == "both" else (self.direction,)

    def whole(self) -> CompressionSpec:
        """Return it with every default of its method written out."""
        rounding = self.rounding or ("stochastic" if self.method == "quantize" else None)
        return self.model_copy(update={"rounding": rounding})


_Names = Annotated[
    NonEmpty[Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=2)]], Tag("<pairs>")
]


class MixingSpec(Strict):
    """Servers below the global one average with neighbours, instead of all together there (MLL-SGD)."""

    graph: Annotated[
        Annotated[Literal["links", "complete", "ring"], Tag("<word>")] | _Names,
        Discriminator(lambda value: "<word>" if isinstance(value, str) else "<pairs>"),
    ] = "links"
    """Who are neighbours: by the further links of the topology, all, the next ones in node order, or pairs of names."""
    weights: Annotated[
        Annotated[Literal["metropolis"], Tag("<word>")]
        | Annotated[NonEmpty[NonEmpty[Annotated[float, Field(ge=0, le=1)]]], Tag("<matrix>")],
        Discriminator(lambda value: "<word>" if isinstance(value, str) else "<matrix>"),
    ] = "metropolis"
    """What each takes of each: by Metropolis's rule, or a matrix in node order."""
