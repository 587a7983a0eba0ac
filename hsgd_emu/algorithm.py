"""What a case computes, in words as a researcher would write them, and its name where its keys are exactly that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hsgd_emu.config.run_schema import (
    BETAS,
    EPSILON,
    CosineRate,
    InverseSqrtRate,
    LearningRate,
    PowerRate,
    StepRate,
    TrainSpec,
    is_adam,
    normal,
)
from hsgd_emu.config.server_schema import DEFAULTS, CompressionSpec, MixingSpec, ServerSpec
from hsgd_emu.engine.schedule import Schedule, Stage
from hsgd_emu.errors import listed
from hsgd_emu.experiment import Experiment
from hsgd_emu.topology.tree import Topology

Spec = TypeVar("Spec")
_RULES = {"momentum": "momentum", "nesterov": "Nesterov", "adam": "Adam", "yogi": "Yogi", "adagrad": "Adagrad"}
_OF_SERVERS = {
    "momentum": "FedAvgM",  # Hsu, Qi, Brown 2019
    "adam": "FedAdam",  # these three: Reddi et al. 2021
    "yogi": "FedYogi",
    "adagrad": "FedAdagrad",
}
_STATES = {"reset": "reset at each model", "average": "averaged"}
_MOST_NAMED = 4


@dataclass(frozen=True)
class Algorithm:
    """One case in words. name: of the literature, empty where no name has exactly these keys."""

    name: str
    schedule: str
    """When which server averages, and how many take part."""
    settings: tuple[str, ...]
    """What servers and messages are beside plain averages, and in what its steps and weights are not the run's."""

    @property
    def text(self) -> str:
        """All but the name: `P = 10, server Nesterov (0.7, 0.9), AdamW 0.001`."""
        return ", ".join((self.schedule, *self.settings))

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text


def algorithms(experiment: Experiment) -> dict[str, Algorithm]:
    """Return by case what it computes."""
    return {case.name: _algorithm(experiment, experiment.alone(case.name)) for case in experiment.cases}


def run_words(experiment: Experiment) -> str:
    """Return how cases train and average that do not say otherwise: `SGD 0.02, momentum 0.9, weighed by samples`."""
    weighed = [] if experiment.averaging.by == "workers" else [_WEIGHED[experiment.averaging.by]]
    loss = ["squared loss"] if experiment.train.loss == "squared" else []
    return ", ".join([*step_words(normal(experiment.train)), *loss, *weighed])


def _algorithm(run: Experiment, alone: Experiment) -> Algorithm:
    (schedule,), topology = alone.schedules, alone.topology
    steps, of_run = list(step_words(alone.train)), list(step_words(normal(run.train)))
    if {*of_run} <= {*steps}:
        steps = [text for text in steps if text not in of_run]
    settings = [
        *_of_nodes(alone.servers or {}, topology, schedule.servers, lambda name, spec: _server_words(spec, name)),
        *steps,
        *([] if schedule.graph is None else [_mixing_words(schedule.graph.spec)]),
        *_of_nodes(
            alone.compression or {},
            topology,
            range(len(topology.nodes)),
            lambda name, spec: f"{name or 'all'}: {compression_words(spec)}",
        ),
        *([] if alone.averaging == run.averaging else [_WEIGHED[alone.averaging.by]]),
    ]
    return Algorithm(_name(alone), schedule_words(schedule, topology), tuple(settings))


_WEIGHED = {"workers": "weighed by workers", "samples": "weighed by samples", "uniform": "weighed alike"}


# --- its name ---------------------------------------------------------------------------------------


def _name(alone: Experiment) -> str:
    """Return what the literature calls a case, by what it has beside SGD of any rate and weight decay, and averages of
    any weights over all workers or some."""
    (schedule,), train = alone.schedules, alone.train
    stages = schedule.stages
    keys = ("optimizer", "state", "proximal", "correction", "clip_norm", "step_probability")
    has = {key for key in keys if getattr(train, key) is not None} | ({"momentum"} if train.momentum else set())
    has |= {key for key in ("servers", "compression") if getattr(alone, key)}
    if schedule.graph is not None:
        return "MLL-SGD" if has <= {"step_probability"} else ""  # Castiglia, Das, Patterson 2021
    if len(stages) == 1 and schedule.is_local_sgd:
        return _of_one_level(stages[0], train, alone.servers or {}, has)
    if has:
        return ""
    if len(stages) == 1:
        return "" if _constant(stages[0].of_root) is None else "H-SGD"  # Wang et al. 2022
    return "post-local SGD" if schedule.is_local_sgd and _is_post_local(stages) else ""  # Lin et al. 2020


def _of_one_level(stage: Stage, train: TrainSpec, servers: Mapping[str, ServerSpec], has: set[str]) -> str:
    if stage.of_root == "once":
        return "" if has else "one-shot averaging"
    period = _constant(stage.of_root)
    if period is None:
        return "" if has else "local SGD with rounds of unlike lengths"  # Patel, Dieuleveut 2019
    if not has:
        return "mini-batch SGD" if period == 1 else "local SGD"
    if has == {"proximal"}:
        return "FedProx"  # Li et al. 2020
    if has == {"correction"}:
        return "SCAFFOLD"  # Karimireddy et al. 2020
    if has == {"momentum", "state"} and train.state == "average":
        return "PR-SGD with momentum"  # Yu, Jin, Yang 2019
    if "servers" not in has:
        return ""
    (server,) = servers.values()
    if has == {"servers"}:
        return _OF_SERVERS.get(server.optimizer, "")
    is_diloco = server.optimizer == "nesterov" and train.optimizer == "adamw" and "state" not in has
    return "DiLoCo" if is_diloco and has <= {"servers", "optimizer", "clip_norm"} else ""  # Douillard et al. 2023


def _is_post_local(stages: Sequence[Stage]) -> bool:
    periods = [_constant(stage.of_root) for stage in stages]
    return len(periods) == 2 and periods[0] == 1 and (periods[1] or 0) > 1


# --- its schedule -----------------------------------------------------------------------------------


def schedule_words(schedule: Schedule, topology: Topology) -> str:
    """Return when which server averages: `P = 10`, `G = 50, I = 5`, `P = 1 until 500, then P = 16`."""
    parts = []
    for stage in schedule.stages:
        share = "" if stage.participation >= 1 else f", {100 * stage.participation:g}% of the workers"
        until = "" if stage.end is None or stage is schedule.stages[-1] else f" until {stage.end:,}"
        parts.append(f"{_stage_words(stage, topology)}{share}{until}")
    return ", then ".join(parts)


def _stage_words(stage: Stage, topology: Topology) -> str:
    root = _rounds_words(stage.of_root)
    local = {server: period for server, period in stage.period.items() if server}
    if not local:
        return f"P = {root}"
    levels: dict[int, dict[int, int]] = {}
    for server, period in local.items():
        levels.setdefault(topology.nodes[server].level, {})[server] = period
    below = [_periods_words(levels[level], topology) for level in sorted(levels)]
    if len(below) == 1:
        return f"G = {root}, I = {below[0]}"
    return f"periods {root} | {' | '.join(below)}"


def _periods_words(periods: Mapping[int, int], topology: Topology) -> str:
    """Return the periods of one level's servers, with whose they are where they are not one."""
    if len({*periods.values()}) == 1:
        return f"{next(iter(periods.values())):,}"
    own = {topology.nodes[server].name: period for server, period in periods.items()}
    return _shortened(list(_of_nodes(own, topology, [*periods], lambda name, period: f"{period:,} ({name})")))


def _rounds_words(of_root: Any) -> str:
    if of_root == "once":
        return "T (once)"
    constant = _constant(of_root)
    if constant is not None:
        return f"{constant:,}"
    if "rounds" in of_root:
        return f"{_shortened([f'{length:,}' for length in of_root['rounds']])}, ..."
    first, add, times, most = (of_root.get(key) for key in ("first", "add", "times", "most"))
    lengths = [first + add * place if add else min(first * times**place, most or math.inf) for place in range(3)]
    at_most = "" if most is None else f", at most {most:,}"
    return f"{', '.join(f'{length:,}' for length in lengths)}, ...{at_most}"


def _constant(of_root: Any) -> int | None:
    """Return the period of a global server whose rounds are alike; None where they are not."""
    if isinstance(of_root, int):
        return of_root
    if of_root == "once":
        return None
    lengths = {*of_root.get("rounds", ())}
    if of_root.get("add") == 0 or of_root.get("times") == 1:
        lengths = {of_root["first"]}
    return int(lengths.pop()) if len(lengths) == 1 else None


# --- its steps --------------------------------------------------------------------------------------


def step_words(train: TrainSpec) -> Iterator[str]:
    """Yield what a step of a worker is: `AdamW 0.001`, `weight decay 0.1`, ..."""
    adam = {"adam": "Adam", "adamw": "AdamW"}.get(train.optimizer or "", "SGD")
    yield f"{adam} {_rate_words(train.learning_rate)}"
    if is_adam(train) and train.betas not in (None, BETAS):
        yield f"betas {', '.join(f'{beta:g}' for beta in train.betas or ())}"
    if is_adam(train) and train.epsilon not in (None, EPSILON):
        yield f"epsilon {train.epsilon:g}"
    state = "" if train.state is None else _STATES.get(train.state, "")
    if train.momentum:
        yield f"momentum {train.momentum:g}{f' {state}' if state else ''}"
    elif is_adam(train) and state:
        yield f"moments {state}"
    if train.weight_decay:
        yield f"weight decay {train.weight_decay:g}"
    if train.proximal:
        yield f"proximal {train.proximal:g}"
    if train.correction == "scaffold":
        yield "control variates"
    if train.clip_norm is not None:
        yield f"gradients cut to {train.clip_norm:g}"
    if train.step_probability is not None:
        yield f"steps with probability {_probability_words(train.step_probability)}"


def _rate_words(rate: LearningRate) -> str:
    if isinstance(rate, PowerRate):
        return f"{rate.initial:g} t^-{rate.exponent:g}"
    if isinstance(rate, InverseSqrtRate):
        return f"{rate.initial:g} / sqrt(1 + t / {rate.scale:g})"
    if isinstance(rate, CosineRate):
        warm = "" if rate.warmup is None else f", warmup {rate.warmup:,}"
        return f"{rate.initial:g} to {rate.final:g} (cosine{warm})"
    if isinstance(rate, StepRate):
        return f"{rate.initial:g} (x {rate.factor:g} after {_shortened([f'{at:,}' for at in rate.milestones])})"
    return f"{rate:g}"


def _probability_words(given: float | Mapping[str, float]) -> str:
    if not isinstance(given, Mapping):
        return f"{given:g}"
    if len(given) > _MOST_NAMED:
        return f"{min(given.values()):g} to {max(given.values()):g} at {len(given)} workers"
    return listed([f"{share:g} ({name})" for name, share in given.items()])


# --- its messages and servers -----------------------------------------------------------------------


def _server_words(spec: ServerSpec, name: str) -> str:
    if spec.is_own:
        return f"{name} {spec.optimizer}"
    spec = spec.whole()
    numbers = [spec.learning_rate, *([] if spec.momentum is None else [spec.momentum])]
    inner = ", ".join(f"{one:g}" for one in numbers if one is not None)
    more = []
    if spec.betas not in (None, DEFAULTS["betas"]):
        more.append(f"betas {', '.join(f'{beta:g}' for beta in spec.betas or ())}")
    if spec.epsilon not in (None, DEFAULTS["epsilon"]):
        more.append(f"epsilon {spec.epsilon:g}")
    rule = f"{name} {_RULES[spec.optimizer]} " + (f"({inner})" if len(numbers) > 1 else inner)
    return f"{rule} ({', '.join(more)})" if more else rule


def compression_words(spec: CompressionSpec) -> str:
    """Return what a sender sends: `top-k 5% up`, `4 bits up and down`."""
    if spec.method == "quantize":
        what = f"{spec.bits} bits{' (nearest)' if spec.rounding == 'nearest' else ''}"
    else:
        what = f"{spec.method.replace('_', '-')} {100 * (spec.fraction or 0):g}%"
    way = {"up": "up", "down": "down", "both": "up and down"}[spec.direction]
    return f"{what} {way}{'' if spec.error_feedback else ', no feedback'}"


def _mixing_words(spec: MixingSpec) -> str:
    graph = spec.graph if isinstance(spec.graph, str) else "pairs"
    return f"hubs mix with neighbours ({graph})"


def _of_nodes(
    given: Mapping[str, Spec], topology: Topology, among: Sequence[int], words: Callable[[str, Spec], str]
) -> Iterator[str]:
    """Yield what is said of nodes that have the same: under the name of their class where all of it have it.

    Args:    given: by node's name.  among: the nodes that could have it.  words: of a name and what it has.
    """
    whose: list[tuple[Spec, list[str]]] = []
    for name, spec in given.items():
        alike = next((names for one, names in whose if one == spec), None)
        if alike is None:
            whose.append((spec, [name]))
        else:
            alike.append(name)
    could = {topology.nodes[node].name: topology.nodes[node].class_name for node in among}
    for spec, names in whose:
        left, called = dict.fromkeys(names), list[str]()
        for of_class in dict.fromkeys(could[name] for name in names):
            members = [name for name, own in could.items() if own == of_class]
            whole = all(name in left for name in members)
            called += [of_class] if whole else [name for name in members if name in left]
        yield words("server" if names == [*could] and len(could) == 1 else _shortened(called), spec)


def _shortened(parts: Sequence[str]) -> str:
    """Return the parts with commas; of many the first and how many more."""
    if len(parts) <= _MOST_NAMED:
        return ", ".join(parts)
    return f"{', '.join(parts[: _MOST_NAMED - 1])}, {len(parts) - _MOST_NAMED + 1} more"
