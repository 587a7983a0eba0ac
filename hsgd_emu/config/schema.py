"""The typed, frozen models of the three kinds of files. One sentence per field; units stand in names."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from hsgd_emu.units import LONGEST_S

MOST = 10**15
"""Largest number of anything: beyond it is a slip of the keyboard, and floats still hold it exactly."""
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=MOST)]


def _label(value: Any) -> Any:
    if isinstance(value, str) and not (0 < len(value) <= 100 and value.strip() == value and value.isprintable()):
        raise ValueError(f"{value!r:.60} is not a name: 1 to 100 printable characters, no space at its ends")
    return value


def _name(value: Any) -> Any:
    if isinstance(value, str) and ("/" in value or value in (".", "..")):
        raise ValueError(f"{value!r:.60} is not a name here: it may not contain '/', nor be '.' or '..'")
    return _label(value)


Label = Annotated[str, BeforeValidator(_label)]
"""A name that is only shown."""
Name = Annotated[str, BeforeValidator(_name)]
"""A name that may become part of a file's name."""


class Strict(BaseModel):
    """Base of all file models: no unknown keys, no coercion, no NaN or infinity, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# Tags of unions stand in pydantic's locations among the keys; in <> none of them is taken for a key of the file.

Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(strict=False, min_length=1)]
"""A YAML list with at least one item, kept as a tuple."""


# --- what a transfer or a step costs ---------------------------------------------------------------


class Samples(Strict):
    """Measured values, drawn with replacement."""

    samples: NonEmpty[Seconds]


class CsvSamples(Strict):
    """Measured values in one column of a CSV file with a header."""

    csv: str
    column: str


class Lognormal(Strict):
    """exp(N(ln median, sigma^2)); sigma is of the natural logarithm."""

    distribution: Literal["lognormal"]
    median: Annotated[float, Field(gt=0, le=LONGEST_S)]
    sigma: Annotated[float, Field(ge=0, le=10)]


class Normal(Strict):
    """N(mean, std^2) given that it is at least 0 (a negative draw is drawn again)."""

    distribution: Literal["normal"]
    mean: Annotated[float, Field(ge=-LONGEST_S, le=LONGEST_S)]
    std: Annotated[float, Field(gt=0, le=LONGEST_S)]


class Gamma(Strict):
    """Gamma with mean shape * scale."""

    distribution: Literal["gamma"]
    shape: Annotated[float, Field(gt=0, le=1e9)]
    scale: Annotated[float, Field(gt=0, le=LONGEST_S)]


class Uniform(Strict):
    """Uniform on [low, high]."""

    distribution: Literal["uniform"]
    low: Seconds
    high: Seconds


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

    up: Positive
    down: Positive


def _mapping_or(mapping: str, other: str) -> Any:
    """Return the discriminator of a union: tag `mapping` for mappings and models, tag `other` for the rest."""
    return Discriminator(lambda value: f"<{mapping}>" if isinstance(value, dict | BaseModel) else f"<{other}>")


_WORD_OR_NUMBER = Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>")


class LinkProfile(Strict):
    """What one model message costs over a link: one of an RTT, up and down costs, or latency + bandwidth."""

    name: Name | None = None
    description: str | None = None
    source: str | None = None
    """Where the figures come from."""
    rtt_s: CostValue | None = None
    """Up plus down transfer of one whole model message."""
    up_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the RTT that the upload takes (default 0.5); only with rtt_s."""
    up_s: CostValue | None = None
    down_s: CostValue | None = None
    latency_s: CostValue | None = None
    """One-way latency, drawn anew in each direction; with bandwidth_bps and model."""
    bandwidth_bps: (
        Annotated[
            Annotated[Positive, Tag("<number>")] | Annotated[Bandwidth, Tag("<both>")],
            _mapping_or("both", "number"),
        ]
        | None
    ) = None
    model: str | None = None
    """raw: a direction costs latency_s + 8 * message bytes / bandwidth_bps."""
    shared: bool | None = None


class ComputeProfile(Strict):
    """What one SGD step costs on a worker."""

    name: Name | None = None
    description: str | None = None
    source: str | None = None
    step_s: CostValue | None = None


# --- topology ---------------------------------------------------------------------------------------


LinkRef = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[LinkProfile, Tag("<profile>")], _mapping_or("profile", "name")
]
"""A link profile by name or path, or inline."""
ComputeRef = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[ComputeProfile, Tag("<profile>")], _mapping_or("profile", "name")
]


class NodeSpec(Strict):
    """A node, or `count` equal subtrees, of an explicit tree. Without children it is a worker."""

    name: Name
    count: Count = 1
    uplink: LinkRef | None = None
    """Profile of the link to its parent."""
    compute: ComputeRef | None = None
    """Workers only: the compute profile of this class of workers."""
    aggregation_s: CostValue | None = None
    """Servers only: cost of one aggregation (default 0)."""
    children: NonEmpty[NodeSpec] | None = None


class RootSpec(Strict):
    """The global server."""

    name: Name = "root"
    aggregation_s: CostValue | None = None
    children: NonEmpty[NodeSpec] | None = None


class LevelSpec(Strict):
    """One level below the root: every node of the level above has `count` of these."""

    name: Name
    count: Count
    uplink: LinkRef | None = None
    compute: ComputeRef | None = None
    aggregation_s: CostValue | None = None


class LinkSpec(Strict):
    """A further link beside the tree; a name that stands for several nodes means each of them."""

    between: Annotated[tuple[str, str], Field(strict=False)]
    """From, to: `up` costs are paid from the first to the second."""
    profile: LinkRef


class TopologySpec(Strict):
    """A tree of servers and workers, compact (`levels`) or explicit (`root.children`), and further links."""

    name: Name | None = None
    description: str | None = None
    source: str | None = None
    root: RootSpec | None = None
    levels: NonEmpty[LevelSpec] | None = None
    links: Annotated[tuple[LinkSpec, ...], Field(strict=False)] = ()


# --- run --------------------------------------------------------------------------------------------


class Augment(Strict):
    """Random augmentation of training images, drawn per worker and iteration."""

    crop: Annotated[int, Field(ge=0, le=64)] = 0
    """Padding in pixels before a random crop back to the image's size; 0 is off."""
    flip: bool = False
    """Random horizontal flip."""


class Normalize(Strict):
    """(pixel - mean) / std per channel (or for all), pixels scaled to 0..1 first when they are bytes."""

    mean: Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
    std: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]


class DataSpec(Strict):
    """Which data, and how they are spread over the workers."""

    dataset: str = "digits"
    root: str | None = None
    """Folder of the data sets (default: $HSGD_EMU_DATA, else the user's cache folder)."""
    folder: str | None = None
    """Folder (or file) of this data set below the root; each data set has a default."""
    partition: Literal["iid", "by_label", "shards", "dirichlet", "natural", "group_iid", "group_non_iid"] = "iid"
    classes_per_worker: Count | None = None
    alpha: Positive | None = None
    grouping: Literal["contiguous", "random"] = "contiguous"
    """Which worker gets which part: in worker order, or in a random order drawn per seed."""
    augment: Augment = Augment()
    normalize: Normalize | None = None
    """Instead of the data set's own normalisation."""
    image_size: Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    """(height, width) that image files are resized to; without it all must have one size."""
    options: dict[str, Any] = {}
    """Keyword arguments for a `module:factory`."""


class ModelSpec(Strict):
    """A classifier by name: ours, torchvision's, or the user's own `module:factory`."""

    name: str
    hidden: NonEmpty[Count] | None = None
    """mlp only: widths of the hidden layers (default 200)."""
    num_outputs: Count | None = None
    """Outputs of the last layer (default: the data set's classes; vgg11: 1000, as the paper)."""
    options: dict[str, Any] = {}
    """Keyword arguments for a torchvision model or a `module:factory`."""


class StepRate(Strict):
    schedule: Literal["step"]
    initial: Positive
    milestones: NonEmpty[Count]
    """Iterations after which the rate is multiplied by `factor`."""
    factor: Positive = 0.1


class CosineRate(Strict):
    schedule: Literal["cosine"]
    initial: Positive
    final: Annotated[float, Field(ge=0)] = 0.0


class InverseSqrtRate(Strict):
    """initial / sqrt(1 + t / scale)."""

    schedule: Literal["inverse_sqrt"]
    initial: Positive
    scale: Positive = 1.0


RATES = {"step": StepRate, "cosine": CosineRate, "inverse_sqrt": InverseSqrtRate}


def _rate_form(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return "<number>"
    name = value.get("schedule") if isinstance(value, dict) else getattr(value, "schedule", None)
    return f"<{name}>" if name in list(RATES) else None


LearningRate = Annotated[
    Annotated[Positive, Tag("<number>")]
    | Annotated[StepRate, Tag("<step>")]
    | Annotated[CosineRate, Tag("<cosine>")]
    | Annotated[InverseSqrtRate, Tag("<inverse_sqrt>")],
    Discriminator(_rate_form),
]


BatchSize = Annotated[Annotated[Count, Tag("<number>")] | Annotated[Literal["full"], Tag("<word>")], _WORD_OR_NUMBER]


class TrainSpec(Strict):
    """Plain SGD at every worker."""

    batch_size: BatchSize = 20
    """Samples per step, or `full`: the whole local shard each step."""
    learning_rate: LearningRate = 0.02
    iterations: Count
    """T, local iterations per worker."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Each worker keeps its own momentum; it is neither sent nor averaged."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    participation: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of each group's workers, drawn anew every local period, that take part."""
    dtype: Literal["float32", "float64"] = "float32"


LevelPeriod = Annotated[Annotated[Count, Tag("<number>")] | Annotated[Literal["none"], Tag("<word>")], _WORD_OR_NUMBER]


class CaseSpec(Strict):
    """One schedule: `period` for local SGD, `periods` for H-SGD."""

    name: Label
    period: Count | None = None
    """P: workers average at the global server every P iterations."""
    periods: (
        Annotated[
            Annotated[NonEmpty[LevelPeriod], Tag("<list>")]
            | Annotated[dict[str, LevelPeriod], Field(min_length=1), Tag("<mapping>")],
            _mapping_or("mapping", "list"),
        ]
        | None
    ) = None
    """Per level from the root down, or per server (a name or a class of servers); `none` skips a server."""
    participation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of train.participation."""


class AveragingSpec(Strict):
    """How a server weighs its children: workers (the paper's objective (2)), samples, or uniform."""

    by: Literal["workers", "samples", "uniform"] = "workers"


class EvaluationSpec(Strict):
    """Which global aggregations are evaluated."""

    every_iterations: Count = 1
    """The first global aggregation at or after each multiple of this (and always the last one)."""


Target = Annotated[float, Field(ge=0)]


class TargetSpec(Strict):
    """Levels that count as reached: accuracy at or above, loss at or below."""

    test_accuracy: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(strict=False)] = ()
    test_loss: Annotated[tuple[Target, ...], Field(strict=False)] = ()
    train_loss: Annotated[tuple[Target, ...], Field(strict=False)] = ()


class RunSpec(Strict):
    """One experiment: cases (schedules) x seeds on one topology, data set and model."""

    name: Name
    description: str | None = None
    topology: Annotated[
        Annotated[str, Tag("<name>")] | Annotated[TopologySpec, Tag("<topology>")],
        _mapping_or("topology", "name"),
    ]
    profiles: dict[str, LinkRef] = {}
    """Binds names that the topology uses to a file, a path or an inline profile."""
    compute: ComputeRef | None = None
    """Every worker's, unless its class in the topology names another profile."""
    data: DataSpec = DataSpec()
    model: Annotated[Annotated[str, Tag("<name>")] | Annotated[ModelSpec, Tag("<model>")], _mapping_or("model", "name")]
    train: TrainSpec
    cases: NonEmpty[CaseSpec]
    averaging: AveragingSpec = AveragingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    targets: TargetSpec = TargetSpec()
    seeds: NonEmpty[Annotated[int, Field(ge=0, lt=2**63)]] = (1,)
    timeline: Literal["full", "rounds", "none"] | None = None
    """How much of the timeline is kept (default: full for small runs, else rounds)."""
    message_bytes: Count | None = None
    """Size of one model message (default: the model's parameters and buffers)."""
