"""The typed, frozen models of a run file. One sentence per field; units stand in names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

from pydantic import BaseModel, Discriminator, Field, Tag, create_model, model_validator

from hsgd_emu.config.says import COMMON, ENDS, GROWS, LEARNED, LOCAL, NAMES, SCHEDULED, SHOWN, TIMED, said
from hsgd_emu.config.schema import (
    MOST_RATE,
    Bytes,
    ComputeRef,
    Count,
    Either,
    Fading,
    Label,
    LinkRef,
    Name,
    NonEmpty,
    Positive,
    PositiveSeconds,
    Seconds,
    StepSize,
    Strict,
    TopologySpec,
)
from hsgd_emu.config.server_schema import CompressionSpec, MixingSpec, ServerSpec
from hsgd_emu.metrics import METRICS, TARGETS

MOST_ITERATIONS = 10**8
Iterations = Annotated[int, Field(ge=1, le=MOST_ITERATIONS)]
Width = Annotated[int, Field(ge=1, le=100_000)]
"""Outputs of one layer."""
Side = Annotated[int, Field(ge=1, le=4096)]
"""Pixels of one side of an image."""
Pixel = Annotated[float, Field(ge=-1e6, le=1e6)]

word_or_number = Discriminator(lambda value: "<word>" if isinstance(value, str) else "<number>")


class Augment(Strict):
    """Random augmentation of training images, drawn per worker and iteration."""

    crop: Annotated[int, Field(ge=0, le=64)] = 0
    """Padding in pixels before a random crop back to the image's size; 0 is off."""
    flip: bool = False
    """Random horizontal flip."""


class Normalize(Strict):
    """(pixel - mean) / std per channel (or for all), pixels scaled to 0..1 first when they are bytes."""

    mean: Annotated[tuple[Pixel, ...], Field(strict=False, min_length=1)]
    std: Annotated[tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...], Field(strict=False, min_length=1)]


class DataSpec(Strict):
    """Which data, and how they are spread over the workers."""

    dataset: str = "digits"
    root: Annotated[str | None, SHOWN | LOCAL] = None
    """Folder of the data sets (default: $HSGD_EMU_DATA, else the user's cache folder)."""
    folder: str | None = None
    """Folder (or file) of this data set below the root; each data set has a default."""
    partition: Literal["iid", "by_label", "shards", "dirichlet", "natural", "group_iid", "group_non_iid"] = "iid"
    classes_per_worker: Count | None = None
    alpha: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    grouping: Literal["contiguous", "random"] = "contiguous"
    """Which worker gets which part: in worker order, or in a random order drawn per seed."""
    augment: Augment = Augment()
    normalize: Normalize | None = None
    """Instead of the data set's own normalisation."""
    image_size: Annotated[tuple[Side, Side], Field(strict=False)] | None = None
    """(height, width) that image files are resized to; without it all must have one size."""
    layout: Literal["channels_first", "channels_last"] | None = None
    """Where the channels of your own arrays stand, for shapes that do not tell: (C, H, W) or (H, W, C)."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for a `module:factory`."""


OutputKey = Annotated[Annotated[int, Tag("<number>")] | Annotated[str, Tag("<word>")], word_or_number]


class ModelSpec(Strict):
    """A classifier by name: ours, torchvision's, or the user's own `module:factory`."""

    name: str
    hidden: NonEmpty[Width] | None = None
    """mlp only: widths of the hidden layers (default 200)."""
    num_outputs: Width | None = None
    """Outputs of the last layer (default: the data set's classes; vgg11: 1000, as the paper)."""
    output: OutputKey | None = None
    """Which one holds the logits, where the network returns several outputs: its index or its name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments for a torchvision model or a `module:factory`."""


class StepRate(Strict):
    schedule: Literal["step"]
    initial: StepSize
    milestones: NonEmpty[Count]
    """Iterations after which the rate is multiplied by `factor`."""
    factor: StepSize = 0.1

    @model_validator(mode="after")
    def _stays_finite(self) -> Self:
        last = math.log10(self.initial) + len(self.milestones) * math.log10(self.factor)
        if last > math.log10(MOST_RATE):
            raise ValueError(f"the rate after all milestones is 1e{last:.0f}; at most {MOST_RATE:g}")
        return self


class CosineRate(Strict):
    schedule: Literal["cosine"]
    initial: StepSize
    final: Annotated[float, Field(ge=0, le=MOST_RATE)] = 0.0
    warmup: Count | None = None
    """Over so many first steps the rate rises in equal steps to where the cosine has got."""


class InverseSqrtRate(Strict):
    """initial / sqrt(1 + t / scale)."""

    schedule: Literal["inverse_sqrt"]
    initial: StepSize
    scale: Positive = 1.0


class PowerRate(Strict):
    """initial * t^-exponent, t = 1 for the first step."""

    schedule: Literal["power"]
    initial: StepSize
    exponent: Annotated[float, Field(ge=0, le=1)]


RATES = {"step": StepRate, "cosine": CosineRate, "inverse_sqrt": InverseSqrtRate, "power": PowerRate}


def _rate_form(value: Any) -> str | None:
    if not isinstance(value, dict | BaseModel):
        return "<number>"
    name = value.get("schedule") if isinstance(value, dict) else getattr(value, "schedule", None)
    return f"<{name}>" if name in list(RATES) else None


LearningRate = Annotated[
    Annotated[StepSize, Tag("<number>")]
    | Annotated[StepRate, Tag("<step>")]
    | Annotated[CosineRate, Tag("<cosine>")]
    | Annotated[InverseSqrtRate, Tag("<inverse_sqrt>")]
    | Annotated[PowerRate, Tag("<power>")],
    Discriminator(_rate_form),
]


Probability = Annotated[float, Field(gt=0, le=1)]
StepProbability = Either[Probability, Annotated[dict[str, Probability], Field(min_length=1)]]
Samples = Annotated[int, Field(ge=1, le=10**8)]
BatchSize = Annotated[Annotated[Samples, Tag("<number>")] | Annotated[Literal["full"], Tag("<word>")], word_or_number]


class TrainSpec(Strict):
    """What a step of a worker is, and how many there are."""

    batch_size: Annotated[BatchSize, COMMON] = 20
    """Samples per step, or `full`: the whole local shard each step."""
    learning_rate: LearningRate = 0.02
    iterations: Annotated[Iterations, SCHEDULED | GROWS | COMMON]
    """T, local iterations per worker."""
    until_targets: Annotated[bool, ENDS | COMMON] = False
    """A trial ends with the first evaluation at which all targets have been reached; `iterations` is the most."""
    loss: Annotated[Literal["cross_entropy", "squared"] | None, COMMON] = None
    """What is made small, and test_loss with it: cross-entropy, or half the squared distance of the outputs to 1 at the
    label and 0 elsewhere."""
    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    """Each worker's (default: sgd), as torch.optim has them; adamw decays weights beside the gradient."""
    betas: Annotated[tuple[Fading, Fading], Field(strict=False)] | None = None
    """Of adam and adamw (default: [0.9, 0.999]): how much of the moments of the gradient is kept from step to step."""
    epsilon: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of adam and adamw (default: 1e-8), added to the root."""
    clip_norm: Annotated[float, Field(gt=0, le=MOST_RATE)] | None = None
    """Each gradient of a worker that is longer, over all parameters, is cut to this length."""
    momentum: Fading = 0.0
    """Of sgd. Each worker's own; `state` says what becomes of it where models are averaged."""
    state: Literal["keep", "reset", "average"] | None = None
    """What happens to a worker's momentum, or Adam's moments, when it receives a model: they stay (the default), are as
    new, or are sent and averaged with the models, by the same weights."""
    weight_decay: Annotated[float, Field(ge=0, le=MOST_RATE)] = 0.0
    proximal: Annotated[float, Field(ge=0, le=MOST_RATE)] | None = None
    """FedProx's mu: each gradient + mu (w - r), r the model that the worker received last."""
    correction: Literal["none", "scaffold"] | None = None
    """SCAFFOLD: each gradient - c_j + c, control variates that travel with the models."""
    participation: Annotated[float, Field(gt=0, le=1), SCHEDULED] = 1.0
    """Fraction of each group's workers, drawn anew every local period, that take part."""
    step_probability: StepProbability | None = None
    """In each iteration a worker takes its step with this probability, else skips it: one for all, or by worker or
    class of workers; those that are not named have 1."""
    dtype: Annotated[Literal["float32", "float64"], COMMON] = "float32"


BETAS, EPSILON = (0.9, 0.999), 1e-8
NEUTRAL = {
    "loss": "cross_entropy",
    "optimizer": "sgd",
    "betas": BETAS,
    "epsilon": EPSILON,
    "state": "keep",
    "proximal": 0.0,
    "correction": "none",
}
"""Values of keys of `train` that are as without the key."""


def is_adam(train: TrainSpec) -> bool:
    """Return whether workers step by Adam or AdamW."""
    return train.optimizer in ("adam", "adamw")


def normal(train: TrainSpec) -> TrainSpec:
    """Return a section that means the same, without the keys that change nothing."""
    gone = {name for name, value in NEUTRAL.items() if getattr(train, name) == value}
    if not is_adam(train):
        gone |= {"betas", "epsilon"} if train.momentum else {"betas", "epsilon", "state"}
    return train.model_copy(update=dict.fromkeys(gone))


def copies_sent(train: TrainSpec) -> int:
    """Return how many times as large as the model a message is: control variates go too, momentum that is averaged, or
    both moments."""
    if train.correction == "scaffold":
        return 2
    if normal(train).state != "average":
        return 1
    return 3 if is_adam(train) else 2


OF_ALL_CASES = [name for name, says in said(TrainSpec).items() if says & COMMON]
if TYPE_CHECKING:
    CaseTrainSpec = Strict
else:
    CaseTrainSpec = create_model(
        "CaseTrainSpec",
        __base__=Strict,
        __module__=__name__,
        __doc__="What a case trains with instead of what the run's `train` says, key by key.",
        **{
            name: (kind | None, None)
            for name, kind in get_type_hints(TrainSpec, include_extras=True).items()
            if name not in OF_ALL_CASES
        },
    )


class AveragingSpec(Strict):
    """How a server weighs its children: workers (the paper's objective (2)), samples, or uniform."""

    by: Literal["workers", "samples", "uniform"] = "workers"


class RoundsSpec(Strict):
    """Rounds of unlike lengths: growing by `add` or `times`, or listed. The last one is cut to what is left."""

    first: Count | None = None
    add: Annotated[int, Field(ge=0, le=MOST_ITERATIONS)] | None = None
    """Iterations by which each round is longer than the one before."""
    times: Count | None = None
    """How many times as long as the one before each round is."""
    most: Count | None = None
    """The length beyond which `times` makes none longer."""
    rounds: NonEmpty[Count] | None = None
    """The length of each; the last one repeats."""

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        given = {name for name, value in self if value is not None}
        if given not in ({"rounds"}, {"first", "add"}, {"first", "times"}, {"first", "times", "most"}):
            raise ValueError("expected {first, add}, {first, times, most} (most may be left out), or {rounds: [...]}")
        if self.most is not None and self.first is not None and self.first > self.most:
            raise ValueError(f"first is {self.first}, above most, {self.most}")
        return self


def _period_form(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict | BaseModel) else "<word>" if isinstance(value, str) else "<number>"


Period = Annotated[
    Annotated[Count, Tag("<number>")]
    | Annotated[Literal["once"], Tag("<word>")]
    | Annotated[RoundsSpec, Tag("<mapping>")],
    Discriminator(_period_form),
]
LevelPeriod = Annotated[
    Annotated[Count, Tag("<number>")]
    | Annotated[Literal["none", "once"], Tag("<word>")]
    | Annotated[RoundsSpec, Tag("<mapping>")],
    Discriminator(_period_form),
]

LevelPeriods = Either[NonEmpty[LevelPeriod], Annotated[dict[str, LevelPeriod], Field(min_length=1)]]


class PhaseSpec(Strict):
    """A part of a case with a schedule of its own; its rounds begin anew, and none goes on beyond its end."""

    iterations: Iterations | None = None
    """How many it has; the last one has the rest."""
    period: Period | None = None
    """As a case's."""
    periods: LevelPeriods | None = None
    """As a case's."""
    participation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of the case's."""

    @model_validator(mode="after")
    def _has_one_schedule(self) -> Self:
        _require_one(period=self.period, periods=self.periods)
        return self


class HierAvgSpec(Strict):
    """Hier-AVG(K1, K2, S) of Zhou and Cong: another notation for `period` or `periods`, which run.yaml shows."""

    K1: Count
    """Iterations between two averages of a group of S workers."""
    K2: Count
    """Iterations between two averages of all workers: a multiple of K1."""
    S: Count
    """Workers of a group: 1, those of every lowest server, or all."""

    @model_validator(mode="after")
    def _is_a_multiple(self) -> Self:
        if self.K2 % self.K1:
            raise ValueError(f"K2 is {self.K2}, not a multiple of K1, {self.K1}")
        return self


Servers = Annotated[dict[str, ServerSpec], Field(min_length=1)]
"""By server or class of servers."""
Compression = Annotated[dict[str, CompressionSpec], Field(min_length=1)]
"""By sender or class of senders."""
WHOLE_SECTIONS = ("averaging", "servers", "mixing", "compression")
"""Sections that a case may have instead of the run's; `train` is merged with the run's key by key."""


class CaseSpec(Strict):
    """One schedule: `period` for local SGD, `periods` for H-SGD, `phases` for one after the other."""

    name: Annotated[Label, SHOWN | NAMES]
    period: Period | None = None
    """P: workers average at the global server every P iterations, once at the end, or in rounds of unlike lengths."""
    periods: LevelPeriods | None = None
    """Per level from the root down, or per server (a name or a class of servers); `none` skips a server. The global
    server's may be `once` or rounds, too."""
    phases: NonEmpty[PhaseSpec] | None = None
    """Parts with a `period` or `periods` each, one after the other: post-local SGD, and schedules that change below."""
    hier_avg: HierAvgSpec | None = None
    """{K1, K2, S}: Hier-AVG's notation."""
    participation: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead of train.participation."""
    train: Annotated[CaseTrainSpec | None, LEARNED] = None
    """What this case trains with otherwise than the run."""
    averaging: Annotated[AveragingSpec | None, LEARNED] = None
    """Instead of the run's averaging."""
    servers: Annotated[Servers | None, LEARNED] = None
    """Instead of the run's servers."""
    compression: Annotated[Compression | None, LEARNED] = None
    """Instead of the run's compression."""
    mixing: Annotated[MixingSpec | None, LEARNED] = None
    """Instead of the run's mixing."""

    @model_validator(mode="after")
    def _has_one_schedule(self) -> Self:
        _require_one(period=self.period, periods=self.periods, phases=self.phases, hier_avg=self.hier_avg)
        return self


def _require_one(**schedules: Any) -> None:
    """Raise ValueError unless one of a case's ways to say its schedule is given."""
    given = [name for name, value in schedules.items() if value is not None]
    if len(given) == 1:
        return
    what = "neither period nor periods" if not given else f"both {' and '.join(given)}"
    others = [name for name in schedules if name not in ("period", "periods")]
    text = f"gives {what}; give period (local SGD) or periods (H-SGD)"
    raise ValueError(f"{text}, or {' or '.join(others)}" if others else text)


def train_of(train: TrainSpec, case: CaseSpec) -> TrainSpec:
    """Return the run's section with what a case says otherwise."""
    return train.model_copy(update={key: value for key, value in case.train or () if value is not None})


class AveragedSpec(Strict):
    """The mean of the models after all iterations (Polyak-Ruppert averaging), before they are averaged with others."""

    after: Annotated[int, Field(ge=0, le=MOST_ITERATIONS)] = 0
    """Iterations that are left out at the beginning."""


class EvaluationSpec(Strict):
    """Which global aggregations are evaluated."""

    every_iterations: Count = 1
    """The first global aggregation at or after each multiple of this (and always the last one)."""
    averaged: Annotated[AveragedSpec | None, LEARNED] = None
    """Evaluate the averaged model too."""
    workers: Annotated[bool | None, LEARNED] = None
    """Evaluate the global model on each worker's own data too, and on the whole training set."""


Target = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(gt=0, le=1)]


if TYPE_CHECKING:
    TargetSpec = Strict
    Metric = str
else:
    TargetSpec = create_model(
        "TargetSpec",
        __base__=Strict,
        __module__=__name__,
        __doc__="Levels that count as reached: accuracy at or above, loss at or below.",
        **{
            name: (Annotated[tuple[_Share if METRICS[name].is_share else Target, ...], Field(strict=False)], ())
            for name in TARGETS
        },
    )
    Metric = Literal[TARGETS]


class PublishedTime(Strict):
    """One measured time of a case: until it reached a target, or for a number of iterations."""

    case: str
    time_s: PositiveSeconds
    metric: Metric | None = None
    """With target; where neither is given, the run's only target is meant."""
    target: Target | None = None
    iterations: Count | None = None
    """Instead of metric and target."""


class PublishedSpec(Strict):
    """What others measured, to be shown beside the run's own times; it changes nothing of the run."""

    source: str
    """Where the times come from, as a reader would look for it."""
    description: str | None = None
    times: NonEmpty[PublishedTime]
    known: dict[str, Seconds] = Field(default_factory=dict)
    """Costs that were published too, in seconds by profile (or `compute`): a fit to the times takes them as given."""


class RunSpec(Strict):
    """One experiment: cases (schedules) x seeds on one topology, data set and model."""

    name: Annotated[Name, SHOWN | NAMES]
    description: Annotated[str | None, SHOWN] = None
    topology: Annotated[Either[str, TopologySpec], LEARNED]
    profiles: Annotated[dict[str, LinkRef], TIMED] = Field(default_factory=dict)
    """Binds names that the topology uses to a file, a path or an inline profile."""
    compute: Annotated[ComputeRef | None, TIMED] = None
    """Every worker's, unless its class in the topology names another profile."""
    data: Annotated[DataSpec, LEARNED] = DataSpec()
    model: Annotated[Either[str, ModelSpec], LEARNED]
    train: Annotated[TrainSpec, LEARNED]
    cases: Annotated[NonEmpty[CaseSpec], LEARNED | SCHEDULED | GROWS]
    averaging: Annotated[AveragingSpec, LEARNED] = AveragingSpec()
    servers: Annotated[Servers | None, LEARNED] = None
    """What servers do with the average, by server or class of servers (default: they send it on)."""
    compression: Annotated[Compression | None, LEARNED] = None
    """What senders send instead of their whole model, by sender or class of senders."""
    mixing: Annotated[MixingSpec | None, LEARNED] = None
    """With whom the servers below the global one average."""
    evaluation: Annotated[EvaluationSpec, LEARNED | SCHEDULED] = EvaluationSpec()
    targets: Annotated[TargetSpec, SHOWN | ENDS] = TargetSpec()
    published: Annotated[Either[str, PublishedSpec] | None, SHOWN] = None
    """Times that others measured: the path of their file, or inline."""
    seeds: Annotated[NonEmpty[Annotated[int, Field(ge=0, lt=2**63)]], LEARNED | SCHEDULED | GROWS] = (1,)
    timeline: Annotated[Literal["full", "rounds", "none"] | None, TIMED] = None
    """How much of the timeline is kept (default: full for small runs, else rounds)."""
    message_bytes: Annotated[Bytes | None, TIMED] = None
    """Size of one model message (default: the model's parameters and buffers)."""
