"""The typed, frozen models of profiles and topologies. One sentence per field; units stand in names."""

from __future__ import annotations

import math
import re
from statistics import median
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from hsgd_emu.config.says import SHOWN, TIMED
from hsgd_emu.units import LONGEST_S, RATE, SIZE, TIME, Dimension, quantity

MOST = 10**15
"""Largest number of anything: beyond it is a slip of the keyboard, and floats still hold it exactly."""
_MIN_MASS = 1e-3  # a truncated law is drawn from until a draw is kept: it must not be next to never
Positive = Annotated[float, Field(gt=0)]
MOST_RATE = 1e6
"""Largest learning rate and weight decay: beyond it nothing is learned, and float32 overflows."""
StepSize = Annotated[float, Field(gt=0, le=MOST_RATE)]
Fading = Annotated[float, Field(ge=0, lt=1)]
"""How much of what was is kept from step to step."""
Count = Annotated[int, Field(ge=1, le=MOST)]


def _in(dimension: Dimension) -> BeforeValidator:
    """Return what lets a text with a unit stand for the number; other texts are no numbers, which is said elsewhere."""

    def read(value: Any) -> Any:
        number = quantity(value, dimension) if isinstance(value, str) else None
        return value if number is None else number

    return BeforeValidator(read)


Time = Annotated[float, _in(TIME)]
"""Seconds, or a text such as `40 ms`; of any sign and size."""
Seconds = Annotated[Time, Field(ge=0, le=LONGEST_S)]
PositiveSeconds = Annotated[Time, Field(gt=0, le=LONGEST_S)]
Bytes = Annotated[Count, _in(SIZE)]
"""Bytes, or a text such as `60 KiB`."""
Rate = Annotated[Positive, _in(RATE)]
"""Bits per second, or a text such as `100 Mbit/s`."""


def _label(value: Any) -> Any:
    if isinstance(value, str) and not (0 < len(value) <= 100 and value.strip() == value and value.isprintable()):
        raise ValueError(f"{value!r:.60} is not a name: 1 to 100 printable characters, no space at its ends")
    return value


def _name(value: Any) -> Any:
    if isinstance(value, str) and ("/" in value or value in (".", "..")):
        raise ValueError(f"{value!r:.60} is not a name here: it may not contain '/', nor be '.' or '..'")
    return _label(value)


_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_factory(name: str) -> bool:
    """Return whether a name has the form `module:factory` (`package.module:factory` too): the user's own code."""
    return _FACTORY.fullmatch(name) is not None


Label = Annotated[str, BeforeValidator(_label)]
"""A name that is only shown."""
Name = Annotated[str, BeforeValidator(_name)]
"""A name that may become part of a file's name."""


class Strict(BaseModel):
    """Base of all file models: no unknown keys, no coercion, no NaN or infinity, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# Tags of unions stand in pydantic's locations among the keys; in <> none of them is taken for a key of the file.

Item = TypeVar("Item")
Other = TypeVar("Other")
NonEmpty = Annotated[tuple[Item, ...], Field(strict=False, min_length=1)]
"""A YAML list with at least one item, kept as a tuple."""
Either = Annotated[
    Annotated[Item, Tag("<plain>")] | Annotated[Other, Tag("<mapping>")],
    Discriminator(lambda value: "<mapping>" if isinstance(value, dict | BaseModel) else "<plain>"),
]
"""The first where no mapping stands, the second where one does."""


# --- what a transfer or a step costs ---------------------------------------------------------------


class Law(Strict):
    """A cost that is not the same each time; timing/costs.py draws from it."""

    times: ClassVar[tuple[str, ...]]
    """Its parameters that are seconds: the law is scaled as they are."""

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return str(getattr(self, "distribution", ""))

    @property
    def mean_s(self) -> float:
        """Its expectation."""
        raise NotImplementedError

    @property
    def typical_s(self) -> float:
        """Its median, or what is near it."""
        return self.mean_s

    @property
    def most_s(self) -> float:
        """The longest that can be drawn."""
        return math.inf

    def scaled(self, factor: float) -> Law:
        """Return the law of its draws times `factor`: of the same form, so that it is exact."""
        return self.model_copy(update={name: getattr(self, name) * factor for name in self.times})

    def mistake(self) -> str | None:
        """Return what is wrong between its parameters."""
        mean_s = self.mean_s
        return f"{self.kind} with a mean of {mean_s:g} s; at most {LONGEST_S:g} s" if mean_s > LONGEST_S else None


class Samples(Law):
    """Measured values, drawn with replacement."""

    samples: NonEmpty[Seconds]

    @property
    def kind(self) -> str:
        return f"{len(self.samples)} samples"

    @property
    def mean_s(self) -> float:
        return math.fsum(self.samples) / len(self.samples)

    @property
    def typical_s(self) -> float:
        return median(self.samples)

    @property
    def most_s(self) -> float:
        return max(self.samples)

    def scaled(self, factor: float) -> Law:
        return self.model_copy(update={"samples": tuple(sample * factor for sample in self.samples)})


class CsvSamples(Strict):
    """Measured values in one column of a CSV file with a header; read in when a profile is bound."""

    csv: str
    column: str
    unit: Literal["ns", "us", "µs", "μs", "ms", "s", "min", "h", "d"] | None = None
    """Of the cells that have none of their own (default: seconds)."""
    missing: Literal["error", "drop"] = "error"
    """What is done with rows in which nothing was measured: timeout, *, -1, NA, an empty cell, ..."""


class Lognormal(Law):
    """exp(N(ln median, sigma^2)); sigma is of the natural logarithm."""

    distribution: Literal["lognormal"]
    median: PositiveSeconds
    sigma: Annotated[float, Field(ge=0, le=10)]
    times = ("median",)

    @property
    def mean_s(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)

    @property
    def typical_s(self) -> float:
        return self.median


class Normal(Law):
    """N(mean, std^2) given that it is at least 0 (a negative draw is drawn again)."""

    distribution: Literal["normal"]
    mean: Annotated[Time, Field(ge=-LONGEST_S, le=LONGEST_S)]
    std: PositiveSeconds
    times = ("mean", "std")

    @property
    def mean_s(self) -> float:
        # E[X | X >= 0] = mean + std * pdf(a) / (1 - cdf(a)), a = -mean / std.
        a = -self.mean / self.std
        density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
        return self.mean + self.std * density / (0.5 * math.erfc(a / math.sqrt(2)))

    @property
    def typical_s(self) -> float:
        return max(0.0, self.mean)

    def mistake(self) -> str | None:
        if 0.5 * math.erfc(-self.mean / self.std / math.sqrt(2)) < _MIN_MASS:
            return f"normal with mean {self.mean:g} and std {self.std:g} is almost never at or above 0 seconds"
        return None


class Gamma(Law):
    """Gamma with mean shape * scale."""

    distribution: Literal["gamma"]
    shape: Annotated[float, Field(gt=0, le=1e9)]
    scale: PositiveSeconds
    times = ("scale",)

    @property
    def mean_s(self) -> float:
        return self.shape * self.scale


class Uniform(Law):
    """Uniform on [low, high]."""

    distribution: Literal["uniform"]
    low: Seconds
    high: Seconds
    times = ("low", "high")

    @property
    def mean_s(self) -> float:
        return (self.low + self.high) / 2

    @property
    def most_s(self) -> float:
        return self.high

    def mistake(self) -> str | None:
        return f"low {self.low:g} is above high {self.high:g}" if self.low > self.high else None


DISTRIBUTIONS = {"lognormal": Lognormal, "normal": Normal, "gamma": Gamma, "uniform": Uniform}


def _value_form(value: Any) -> str | None:
    if isinstance(value, BaseModel):
        name = getattr(value, "distribution", None)
        return f"<{name}>" if name else "<csv>" if isinstance(value, CsvSamples) else "<samples>"
    if isinstance(value, dict):
        if "distribution" in value:
            name = value["distribution"]
            return f"<{name}>" if isinstance(name, str) and name in DISTRIBUTIONS else None
        return "<samples>" if "samples" in value else "<csv>" if "csv" in value else None
    return "<number>"


CostValue = Annotated[
    Annotated[Seconds, Tag("<number>")]
    | Annotated[Samples, Tag("<samples>")]
    | Annotated[CsvSamples, Tag("<csv>")]
    | Annotated[Lognormal, Tag("<lognormal>")]
    | Annotated[Normal, Tag("<normal>")]
    | Annotated[Gamma, Tag("<gamma>")]
    | Annotated[Uniform, Tag("<uniform>")],
    Discriminator(_value_form),
]
"""Seconds: a number, measured samples, or a distribution."""


class Bandwidth(Strict):
    """Bits per second, towards the server (`up`) and away from it (`down`)."""

    up: Rate
    down: Rate


COST_FIELDS = ("rtt_s", "up_s", "down_s", "latency_s", "step_s")
"""The keys of a profile that are costs."""
MODELS, LATER_MODELS = ("raw",), ("slow_start", "lv08")
"""What `model` of a link profile may be, and what it will be able to be."""


class LinkProfile(Strict):
    """What one model message costs over a link: one of an RTT, up and down costs, or latency + bandwidth."""

    name: Annotated[Name | None, SHOWN] = None
    description: Annotated[str | None, SHOWN] = None
    source: Annotated[str | None, SHOWN] = None
    """Where the figures come from."""
    rtt_s: CostValue | None = None
    """Up plus down transfer of one whole model message."""
    up_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the RTT that the upload takes (default 0.5); only with rtt_s."""
    up_s: CostValue | None = None
    down_s: CostValue | None = None
    latency_s: CostValue | None = None
    """One-way latency, drawn anew in each direction; with bandwidth_bps and model."""
    bandwidth_bps: Either[Rate, Bandwidth] | None = None
    model: str | None = None
    """raw: a direction costs latency_s + 8 * message bytes / bandwidth_bps."""
    shared: bool | None = None

    @property
    def rates_bps(self) -> tuple[float, float] | None:
        """Its bandwidths up and down."""
        rate = self.bandwidth_bps
        return None if rate is None else (rate.up, rate.down) if isinstance(rate, Bandwidth) else (rate, rate)


class ComputeProfile(Strict):
    """What one SGD step costs on a worker."""

    name: Annotated[Name | None, SHOWN] = None
    description: Annotated[str | None, SHOWN] = None
    source: Annotated[str | None, SHOWN] = None
    step_s: CostValue | None = None


# --- topology ---------------------------------------------------------------------------------------


LinkRef = Either[str, LinkProfile]
"""A link profile by name or path, or inline."""
ComputeRef = Either[str, ComputeProfile]


Ref = str | int
"""A profile of a topology: its name, or a number where it is inline."""


class NodeSpec(Strict):
    """A node, or `count` equal subtrees, of an explicit tree. Without children it is a worker."""

    name: Name
    count: Count = 1
    uplink: Annotated[LinkRef | None, TIMED] = None
    """Profile of the link to its parent."""
    compute: Annotated[ComputeRef | None, TIMED] = None
    """Workers only: the compute profile of this class of workers."""
    aggregation_s: Annotated[CostValue | None, TIMED] = None
    """Servers only: cost of one aggregation (default 0)."""
    children: NonEmpty[NodeSpec] | None = None


class RootSpec(Strict):
    """The global server."""

    name: Name = "root"
    aggregation_s: Annotated[CostValue | None, TIMED] = None
    children: NonEmpty[NodeSpec] | None = None


class LevelSpec(Strict):
    """One level below the root: every node of the level above has `count` of these."""

    name: Name
    count: Count
    uplink: Annotated[LinkRef | None, TIMED] = None
    compute: Annotated[ComputeRef | None, TIMED] = None
    aggregation_s: Annotated[CostValue | None, TIMED] = None


class LinkSpec(Strict):
    """A further link beside the tree; a name that stands for several nodes means each of them."""

    between: Annotated[tuple[str, str], Field(strict=False)]
    """From, to: `up` costs are paid from the first to the second."""
    profile: LinkRef


Routing = Literal["tree", "least_cost"]


class TopologySpec(Strict):
    """A tree of servers and workers, compact (`levels`) or explicit (`root.children`), and further links."""

    name: Annotated[Name | None, SHOWN] = None
    description: Annotated[str | None, SHOWN] = None
    source: Annotated[str | None, SHOWN] = None
    root: RootSpec | None = None
    levels: NonEmpty[LevelSpec] | None = None
    links: Annotated[tuple[LinkSpec, ...], Field(strict=False), TIMED] = ()
    routing: Annotated[Routing, TIMED] = "tree"
    """tree: up the tree, or over a further link straight to the server that aggregates, where that is expected to cost
    less; least_cost: the way of least expected cost, through any other nodes."""
