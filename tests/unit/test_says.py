"""Every key of a run file says what it decides, and decides that: a trial's identity, re-timing and run.yaml follow."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from pydantic import BaseModel

from hsgd_emu.config.run_schema import RunSpec, TrainSpec
from hsgd_emu.config.says import ENDS, KINDS, LEARNED, LOCAL, NAMES, NOTHING, SHOWN, TIMED, Says, said
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.growth import other_than_added
from hsgd_emu.study.retime import check_same_learning
from hsgd_emu.study.training.wanted import Resources, wanted

RUN = """
name: two
topology:
  levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 3, uplink: near, compute: phone}]
  links: [{between: [site-0, site-1], profile: far}]
profiles: {near: {rtt_s: 0.02}, far: {rtt_s: 1.5}, phone: {step_s: 0.004}}
compute: {step_s: 0.01}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 24}
cases: [{name: even, periods: [12, 4]}, {name: local, period: 4}]
targets: {test_accuracy: [0.1]}
published: {source: Table 1, times: [{case: even, metric: test_accuracy, target: 0.1, time_s: 3}]}
"""
TREE = (
    "topology={root: {children: [{name: site, count: 2, uplink: far, children: [{name: w, count: 3, uplink: near}]}]}}"
)
COST = "profiles.far.rtt_s"
PLACES: dict[str, tuple[str, ...]] = {
    "RunSpec": ("",),
    "DataSpec": ("data",),
    "Augment": ("data.augment",),
    "Normalize": ("data.normalize", "data.normalize={mean: [0.5], std: [0.5]}"),
    "ModelSpec": ("model",),
    "TrainSpec": ("train",),
    "StepRate": ("train.learning_rate", "train.learning_rate={schedule: step, initial: 0.1, milestones: [8]}"),
    "CosineRate": ("train.learning_rate", "train.learning_rate={schedule: cosine, initial: 0.1}"),
    "PowerRate": ("train.learning_rate", "train.learning_rate={schedule: power, initial: 0.1, exponent: 0.5}"),
    "InverseSqrtRate": ("train.learning_rate", "train.learning_rate={schedule: inverse_sqrt, initial: 0.1}"),
    "CaseSpec": ("cases.0",),
    "RoundsSpec": ("cases.0.periods.0", "cases.0.periods.0={first: 4, times: 2, most: 16}"),
    "PhaseSpec": ("cases.0.phases.0", "cases=[{name: even, phases: [{iterations: 12, period: 4}, {period: 2}]}]"),
    "HierAvgSpec": ("cases.0.hier_avg", "cases=[{name: even, hier_avg: {K1: 4, K2: 12, S: 3}}]"),
    "CaseTrainSpec": ("cases.0.train", "cases.0.train={momentum: 0.5, weight_decay: 0.1, participation: 0.9}"),
    "AveragingSpec": ("averaging",),
    "ServerSpec": ("servers.root", "servers={root: {optimizer: adam, learning_rate: 0.1}}"),
    "MixingSpec": ("mixing", "cases=[{name: even, periods: [12, 4]}]", "mixing={}"),
    "CompressionSpec": ("compression.site", "compression={site: {method: top_k, fraction: 0.5}}"),
    "EvaluationSpec": ("evaluation",),
    "AveragedSpec": ("evaluation.averaged", "evaluation.averaged={after: 0}"),
    "TargetSpec": ("targets",),
    "PublishedSpec": ("published",),
    "PublishedTime": ("published.times.0",),
    "TopologySpec": ("topology",),
    "LevelSpec": ("topology.levels.1",),
    "RootSpec": ("topology.root",),
    "NodeSpec": ("topology.root.children.0", TREE),
    "LinkSpec": ("topology.links.0",),
    "LinkProfile": ("profiles.far",),
    "Bandwidth": (
        "profiles.far.bandwidth_bps",
        "profiles.far={latency_s: 1, bandwidth_bps: {up: 1000, down: 2000}, model: raw}",
    ),
    "ComputeProfile": ("compute",),
    "Samples": (COST, f"{COST}={{samples: [1, 2]}}"),
    "CsvSamples": (COST, f"{COST}={{csv: one.csv, column: a}}"),
    "Lognormal": (COST, f"{COST}={{distribution: lognormal, median: 1, sigma: 0.5}}"),
    "Normal": (COST, f"{COST}={{distribution: normal, mean: 1, std: 0.5}}"),
    "Gamma": (COST, f"{COST}={{distribution: gamma, shape: 2, scale: 0.5}}"),
    "Uniform": (COST, f"{COST}={{distribution: uniform, low: 1, high: 2}}"),
}
"""Where a model stands in the run file, and what puts it there."""
RATE_FORM = "train.learning_rate={schedule: cosine, initial: 0.1, final: 0.2}"
COST_FORM = f"{COST}={{distribution: gamma, shape: 9, scale: 9}}"
BOTH_WAYS = "profiles.far={up_s: 1, down_s: 1}"
RAW = "profiles.far={latency_s: 1, bandwidth_bps: 1000, model: raw}"
LOCAL_SGD = "cases=[{name: even, period: 12, train: {participation: 1}}, {name: local, period: 4}]"
CHANGES: dict[str, tuple[str, ...]] = {
    "RunSpec.message_bytes": ("message_bytes=5",),
    "RunSpec.seeds": ("seeds=[2]",),
    "RunSpec.timeline": ("timeline=none",),
    "DataSpec.dataset": ("data.dataset=mnist",),
    "DataSpec.root": ("data.root=/elsewhere",),
    "DataSpec.folder": ("data={dataset: mnist, folder: a}", "data.folder=b"),
    "DataSpec.partition": ("data.partition=iid",),
    "DataSpec.classes_per_worker": ("data={partition: shards, classes_per_worker: 2}", "data.classes_per_worker=3"),
    "DataSpec.alpha": ("data={partition: dirichlet, alpha: 0.1}", "data.alpha=0.2"),
    "DataSpec.image_size": ("data={dataset: image_folder}", "data.image_size=[8, 8]"),
    "DataSpec.layout": ("data={dataset: npz, folder: a.npz}", "data.layout=channels_last"),
    "DataSpec.options": ("data={dataset: 'own:make'}", "data.options={a: 1}"),
    "Augment.crop": ("data.dataset=mnist", "data.augment.crop=4"),
    "Augment.flip": ("data.dataset=mnist", "data.augment.flip=true"),
    "Normalize.mean": ("data.normalize.mean=[0.25]",),
    "Normalize.std": ("data.normalize.std=[0.25]",),
    "ModelSpec.name": ("model={name: softmax_regression}", "model.name=cifar_cnn"),
    "ModelSpec.hidden": ("model.hidden=[9]",),
    "ModelSpec.num_outputs": ("model.num_outputs=12",),
    "ModelSpec.output": ("model={name: 'own:make'}", "model.output=1"),
    "ModelSpec.options": ("model={name: 'own:make'}", "model.options={a: 1}"),
    "TrainSpec.batch_size": ("train.batch_size=full",),
    "TrainSpec.learning_rate": ("train.learning_rate=0.5",),
    "TrainSpec.iterations": ("train.iterations=36",),
    "StepRate.schedule": (RATE_FORM,),
    "StepRate.milestones": ("train.learning_rate.milestones=[9]",),
    "CosineRate.schedule": ("train.learning_rate=0.1",),
    "InverseSqrtRate.schedule": (RATE_FORM,),
    "PowerRate.schedule": (RATE_FORM,),
    "CosineRate.warmup": ("train.learning_rate.warmup=3",),
    "ServerSpec.optimizer": ("servers.root.optimizer=yogi",),
    "ServerSpec.momentum": ("servers.root={optimizer: momentum, momentum: 0.5, learning_rate: 1}",),
    "ServerSpec.betas": ("servers.root.betas=[0.5, 0.5]",),
    "ServerSpec.options": ("servers={root: {optimizer: 'own:make'}}", "servers.root.options={a: 1}"),
    "MixingSpec.graph": ("mixing.graph=ring",),
    "MixingSpec.weights": ("mixing.weights=[[0.6, 0.4], [0.4, 0.6]]",),
    "CompressionSpec.method": ("compression.site.method=random_k",),
    "CompressionSpec.bits": ("compression={site: {method: quantize, bits: 4}}", "compression.site.bits=8"),
    "CompressionSpec.rounding": (
        "compression={site: {method: quantize, bits: 4}}",
        "compression.site.rounding=nearest",
    ),
    "TrainSpec.proximal": ("train.proximal=0.5",),
    "TrainSpec.loss": ("train.loss=squared",),
    "TrainSpec.optimizer": ("train.optimizer=adam",),
    "TrainSpec.betas": ("train.optimizer=adam", "train.betas=[0.5, 0.9]"),
    "TrainSpec.epsilon": ("train.optimizer=adam", "train.epsilon=0.1"),
    "CaseTrainSpec.optimizer": ("cases.0.train.momentum=0", "cases.0.train.optimizer=adam"),
    "CaseTrainSpec.betas": ("cases.0.train={optimizer: adam, momentum: 0}", "cases.0.train.betas=[0.5, 0.9]"),
    "CaseTrainSpec.epsilon": ("cases.0.train={optimizer: adam, momentum: 0}", "cases.0.train.epsilon=0.1"),
    "TrainSpec.correction": (LOCAL_SGD, "train.correction=scaffold"),
    "CaseTrainSpec.correction": (LOCAL_SGD, "cases.0.train.correction=scaffold"),
    "TrainSpec.step_probability": ("train.step_probability={worker: 0.5}",),
    "CaseTrainSpec.step_probability": ("cases.0.train.step_probability=0.5",),
    "TrainSpec.state": ("train.momentum=0.5", "train.state=reset"),
    "CaseTrainSpec.state": ("cases.0.train.state=average",),
    "CaseTrainSpec.proximal": ("cases.0.train.proximal=0.5",),
    "RoundsSpec.first": ("cases.0.periods.0.first=8",),
    "RoundsSpec.add": ("cases.0.periods.0={first: 4, add: 4}", "cases.0.periods.0.add=8"),
    "RoundsSpec.times": ("cases.0.periods.0.times=3",),
    "RoundsSpec.most": ("cases.0.periods.0.most=8",),
    "RoundsSpec.rounds": ("cases.0.periods.0={rounds: [4, 20]}", "cases.0.periods.0.rounds=[8, 16]"),
    "PhaseSpec.iterations": ("cases.0.phases.0.iterations=8",),
    "PhaseSpec.period": ("cases.0.phases.0.period=6",),
    "PhaseSpec.periods": (
        "cases=[{name: even, phases: [{iterations: 12, periods: [6, 2]}, {period: 3}]}]",
        "cases.0.phases.0.periods.1=3",
    ),
    "PhaseSpec.participation": ("cases.0.phases.0.participation=0.3",),
    "HierAvgSpec.K1": ("cases.0.hier_avg.K1=6",),
    "HierAvgSpec.K2": ("cases.0.hier_avg.K2=24",),
    "HierAvgSpec.S": ("cases.0.hier_avg.S=6",),
    "CaseTrainSpec.learning_rate": ("cases.0.train.learning_rate=0.5",),
    "CaseTrainSpec.participation": ("cases.0.train.participation=0.3",),
    "CaseSpec.name": ("published=null", "cases.0.name=other"),
    "CaseSpec.period": ("cases.1.period=6", "cases=[{name: even, period: 4}]", "cases.0.period=6"),
    "CaseSpec.phases": ("cases=[{name: even, phases: [{iterations: 4, period: 4}, {period: 2}]}]",),
    "CaseSpec.periods": ("cases.0.periods=[12, 6]",),
    "EvaluationSpec.every_iterations": ("evaluation.every_iterations=24",),
    "EvaluationSpec.workers": ("evaluation.workers=true",),
    "AveragedSpec.after": ("evaluation.averaged.after=4",),
    "TargetSpec.averaged_test_accuracy": ("evaluation.averaged={}", "targets.averaged_test_accuracy=[0.5]"),
    "TargetSpec.averaged_test_loss": ("evaluation.averaged={}", "targets.averaged_test_loss=[0.5]"),
    "TargetSpec.training_set_loss": ("evaluation.workers=true", "targets.training_set_loss=[0.5]"),
    "TargetSpec.test_accuracy": ("published=null", "targets.test_accuracy=[0.5]"),
    "TargetSpec.test_loss": ("targets.test_loss=[0.5]",),
    "TargetSpec.train_loss": ("targets.train_loss=[0.5]",),
    "PublishedSpec.known": ("published.known={far: 1}",),
    "PublishedTime.case": ("published.times.0.case=local",),
    "PublishedTime.metric": ("targets.test_loss=[0.1]", "published.times.0.metric=test_loss"),
    "PublishedTime.target": ("targets={test_accuracy: [0.1, 0.2]}", "published.times.0.target=0.2"),
    "PublishedTime.iterations": (
        "published.times=[{case: even, time_s: 3, iterations: 12}]",
        "published.times.0.iterations=24",
    ),
    "LevelSpec.uplink": ("topology.levels.0.uplink=near", "topology.levels.1.uplink=far"),
    "LevelSpec.aggregation_s": ("topology.levels.0.aggregation_s=2",),
    "NodeSpec.compute": ("topology.root.children.0.children.0.compute={step_s: 1}",),
    "LinkSpec.between": ("topology.links.0.between=[site-1, site-0]",),
    "LinkSpec.profile": ("topology.links.0.profile=near",),
    "LinkProfile.up_s": (BOTH_WAYS, "profiles.far.up_s=2"),
    "LinkProfile.down_s": (BOTH_WAYS, "profiles.far.down_s=2"),
    "LinkProfile.latency_s": (RAW, "profiles.far.latency_s=2"),
    "LinkProfile.bandwidth_bps": (RAW, "profiles.far.bandwidth_bps=2000"),
    "LinkProfile.model": (RAW, "profiles.far={rtt_s: 1}"),
    "LinkProfile.shared": (RAW, "profiles.far.shared=false"),
    "ComputeProfile.step_s": ("compute.step_s=2",),
    "Samples.samples": (f"{COST}.samples=[1, 3]",),
    "CsvSamples.csv": (f"{COST}.csv=other.csv",),
    "CsvSamples.column": (f"{COST}.column=b",),
    **dict.fromkeys((f"{one}.distribution" for one in ("Lognormal", "Normal", "Gamma", "Uniform")), (COST_FORM,)),
}
"""What is assigned first, if anything, and then the change; keys that have another plain value need none."""
OTHERS = {float: 0.25, int: 3, str: "other"}


# --- the walk ---------------------------------------------------------------------------------------


def parts(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is put together of."""
    if get_origin(annotation) is Annotated:
        yield from parts(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType, tuple, dict):
        for inner in get_args(annotation):
            yield from parts(inner)
    else:
        yield annotation


def walk(model: type[BaseModel], around: Says = NOTHING) -> Iterator[tuple[str, Says, tuple[Any, ...]]]:
    """Yield model.field, what it says and its types, for all that stands in a model; once for each thing said."""
    waiting, seen = [(model, around)], set()
    while waiting:
        model, around = waiting.pop()
        if (model, around) in seen:
            continue
        seen.add((model, around))
        hints = get_type_hints(model, include_extras=True)
        for name, says in said(model, around).items():
            kinds = tuple(parts(hints[name]))
            yield f"{model.__name__}.{name}", says, kinds
            waiting += [(kind, says) for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def unsaid(model: type[BaseModel]) -> list[str]:
    """Return the fields that do not say exactly one of the three."""
    return [field for field, says, _ in walk(model) if (says & KINDS) not in (LEARNED, TIMED, SHOWN)]


FIELDS = {field: (says, kinds) for field, says, kinds in walk(RunSpec)}
LEAVES = [
    field
    for field, (_, kinds) in FIELDS.items()
    if field in CHANGES or not any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)
]


def test_every_key_says_one_of_the_three():
    assert unsaid(RunSpec) == []


def test_a_key_says_the_same_wherever_it_stands():
    for field, says, _ in walk(RunSpec):
        assert says & KINDS == FIELDS[field][0] & KINDS, field


class Proximal(TrainSpec):
    proximal: float = 0.0


class More(RunSpec):
    server: float = 0.0
    train: Annotated[Proximal, LEARNED]


def test_a_section_that_does_not_say_is_found_and_a_key_inside_one_is_learned():
    assert unsaid(More) == ["More.server"]
    assert {field: says for field, says, _ in walk(More)}["Proximal.proximal"] == LEARNED


# --- what they decide -------------------------------------------------------------------------------


def read(folder: Path, sets: tuple[str, ...]) -> Experiment:
    (folder / "run.yaml").write_text(RUN)
    for name, column in (("one", 1), ("other", 2)):
        (folder / f"{name}.csv").write_text(f"a,b\n{column},{column + 4}\n")
    return load_experiment(folder / "run.yaml", sets)


def found(data: Any, path: str) -> Any:
    for key in path.split("."):
        data = data[int(key)] if isinstance(data, list) else (data or {}).get(key)
    return data


def change(field: str, before: Experiment) -> str:
    """Return an assignment that gives a key another value."""
    if field in CHANGES:
        return CHANGES[field][-1]
    model, _, name = field.partition(".")
    path = f"{PLACES[model][0]}.{name}".strip(".")
    value, kinds = found(yaml.safe_load(before.resolved()), path), FIELDS[field][1]
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind) if word != value]
    if words:
        return f"{path}={words[0]}"
    if isinstance(value, bool):
        return f"{path}={str(not value).lower()}"
    if isinstance(value, int | float):
        return f"{path}={value + 1 if isinstance(value, int) else value / 2 + 0.2}"
    return f"{path}={next(OTHERS[kind] for kind in kinds if kind in OTHERS)}"


def pair(folder: Path, field: str, *sets: str) -> tuple[Experiment, Experiment]:
    """Return a run and the same with another value of a key."""
    given = (*PLACES[field.partition(".")[0]][1:], *CHANGES.get(field, ())[:-1], *sets)
    before = read(folder, given)
    after = read(folder, (*given, change(field, before)))
    return before, after


def key(experiment: Experiment) -> str:
    """Return the identity of a trial, without a look at the data."""
    cpu = Resources("cpu", "cpu", "fp32")
    return wanted(experiment, experiment.cases[0].name, experiment.seeds[0], cpu, look=False).key


def refused(before: Experiment, after: Experiment) -> bool:
    try:
        check_same_learning(before, after)
    except ConfigError:
        return True
    return False


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("field", LEAVES)
def test_a_key_decides_what_it_says(tmp_path, field):
    before, after = pair(tmp_path, field)
    says = FIELDS[field][0]
    # Where targets may end a trial, that is no other trial, only less or more of it.
    assert (key(before) != key(after)) == bool(says & LEARNED and not says & ENDS)
    # A trial is recorded under its case's name.
    assert refused(before, after) == bool(says & LEARNED or field == "CaseSpec.name")
    # Samples of a file are written out.
    assert (before.resolved() != after.resolved()) == (not says & LOCAL and field != "CsvSamples.missing")


def test_a_run_that_is_there_gets_more_or_other_words(tmp_path):
    stays = set()
    for field in LEAVES:
        before, after = pair(tmp_path, field)
        stays |= set() if other_than_added(after, yaml.safe_load(before.resolved())) else {field}
    words = {field for field in LEAVES if field.startswith(("Published", "TargetSpec"))} | {"RunSpec.description"}
    assert stays == words | {"TrainSpec.iterations", "DataSpec.root", "CsvSamples.missing"}


@pytest.mark.parametrize("field", [field for field in LEAVES if FIELDS[field][0] & ENDS and FIELDS[field][0] & SHOWN])
def test_targets_decide_where_they_end_trials(tmp_path, field):
    before, after = pair(tmp_path, field, "train.until_targets=true")
    assert refused(before, after)
    assert key(before) == key(after)


def test_what_names_is_shown():
    assert {field for field, (says, _) in FIELDS.items() if says & NAMES} == {"RunSpec.name", "CaseSpec.name"}
