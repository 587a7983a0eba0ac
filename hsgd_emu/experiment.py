"""A run file with its topology, profiles and schedules put together and checked: what `check` checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from hsgd_emu.config.load import RunDraft, TopologyDraft, load_run
from hsgd_emu.config.published import checked_published
from hsgd_emu.config.reader import Path_, Source
from hsgd_emu.config.run_schema import (
    WHOLE_SECTIONS,
    AveragingSpec,
    CaseSpec,
    DataSpec,
    EvaluationSpec,
    ModelSpec,
    PublishedSpec,
    RunSpec,
    TargetSpec,
    TrainSpec,
)
from hsgd_emu.config.says import ENDS, KINDS, LEARNED, LOCAL, NOTHING, Says, said
from hsgd_emu.config.schema import ComputeProfile, Ref
from hsgd_emu.config.server_schema import CompressionSpec, MixingSpec, ServerSpec
from hsgd_emu.config.train_keys import check_train_keys
from hsgd_emu.config.writer import to_yaml
from hsgd_emu.effects import Effects, effects_of
from hsgd_emu.engine.emulate import operations_hash
from hsgd_emu.engine.gates import gate_of
from hsgd_emu.engine.messages import UNKNOWN_BYTES, ModelShape, Sends
from hsgd_emu.engine.mixing import build_graph
from hsgd_emu.engine.network import Network
from hsgd_emu.engine.plan import Plan, check_clock, surely_fits
from hsgd_emu.engine.record import Keep
from hsgd_emu.engine.schedule import Mistakes, Schedule, as_periods, build_schedule
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.learning.data.spec import check_data_spec
from hsgd_emu.learning.names import check_model_spec
from hsgd_emu.timing.transfers import Message
from hsgd_emu.together import (
    check_evaluation,
    check_mixing,
    check_step_probability,
    check_together,
    check_whole_sections,
    of_no_use,
    path_of,
)
from hsgd_emu.topology.routes import Routes
from hsgd_emu.topology.tree import Topology, build_topology

_SMALL_TIMELINE_ROWS = 250_000
_of_run = attrgetter(*WHOLE_SECTIONS)
_SHAPES: dict[str, ModelShape] = {}
"""By data and model: building one takes longer than all that is asked of it."""


@dataclass(frozen=True)
class Experiment:
    """One run file, everything resolved: cases x seeds on a network, with data, model and training."""

    source: Source
    name: str
    description: str | None
    network: Network
    topology_draft: TopologyDraft
    compute: ComputeProfile | None
    data: DataSpec
    model: ModelSpec
    train: TrainSpec
    cases: tuple[CaseSpec, ...]
    schedules: tuple[Schedule, ...]
    averaging: AveragingSpec
    servers: Mapping[str, ServerSpec] | None
    mixing: MixingSpec | None
    compression: Mapping[str, CompressionSpec] | None
    evaluation: EvaluationSpec
    targets: TargetSpec
    seeds: tuple[int, ...]
    timeline: Keep
    message_bytes: int | None
    shape: ModelShape | None = field(default=None, compare=False)
    """What the model is made of, where that is known."""
    published: PublishedSpec | None = None
    """Times that others measured; each has a target or iterations. Nothing that is learned or timed depends on it."""
    notes: tuple[Problem, ...] = field(default=(), compare=False)
    """What is valid in the files, and yet should not be overlooked."""

    @property
    def base(self) -> Path:
        """Folder of the run file."""
        return self.source.base

    @cached_property
    def worker_names(self) -> tuple[str, ...]:
        """Names of the workers in depth-first order."""
        return tuple(self.topology.nodes[worker].name for worker in self.topology.workers)

    @property
    def own_code(self) -> tuple[str, ...]:
        """Every `module:factory` that the run names: to load it is to run whatever is written there."""
        rules = (spec.optimizer for spec in self.own_rules)
        return tuple(dict.fromkeys((*self.own_data_and_model, *rules)))

    @property
    def own_data_and_model(self) -> tuple[str, ...]:
        """Every `module:factory` that alone could tell how large a model is."""
        return tuple(dict.fromkeys(name for name in (self.data.dataset, self.model.name) if ":" in name))

    @property
    def own_rules(self) -> tuple[ServerSpec, ...]:
        """The servers' rules that are the user's own."""
        return tuple(spec for spec in self._server_specs() if spec.is_own)

    def _server_specs(self) -> list[ServerSpec]:
        """Return what servers do with the average, of the run and of all cases."""
        given = [self.servers, *(case.servers for case in self.cases)]
        return [spec for servers in given for spec in (servers or {}).values()]

    def files(self) -> set[Path]:
        """Return the files that the run is read from, as far as their names tell: its own, its topology's, its data."""
        named = [
            text for model in (self.data, self.model, *self._server_specs()) for text in texts(plain(model)) if text
        ]
        modules = [f"{name.partition(':')[0].replace('.', '/')}.py" for name in self.own_code]
        found = {self.base / name for name in (*named, *modules)}
        return (
            {path for path in found if "\0" not in str(path)} | self.source.files() | self.topology_draft.source.files()
        )

    def target_levels(self) -> list[tuple[str, float]]:
        """Return (metric, target) pairs in the order of the file."""
        return _levels(self.targets)

    @property
    def topology(self) -> Topology:
        """Its nodes and links."""
        return self.network.topology

    def alone(self, name: str) -> Experiment:
        """Return the run of one case, what it says otherwise than the run written into the run's sections."""
        case, effects = self._case(name), self.effects(name)
        return replace(
            self,
            cases=(case.model_copy(update=dict.fromkeys(("train", *WHOLE_SECTIONS))),),
            schedules=(self._schedule(name),),
            train=effects.train,
            **effects.sections,
        )

    def effects(self, case: str) -> Effects:
        """Return what holds for a case."""
        of_run = _of_run(self)
        return effects_of(self._case(case), self.train, self._schedule(case), self.topology, of_run)

    def sends(self, case: str) -> Sends:
        """Return what the messages of a case carry."""
        return self._sends(self.effects(case))

    def _sends(self, effects: Effects) -> Sends:
        return Sends(copies=effects.copies, coded=effects.coded, shape=self.known_shape)

    @cached_property
    def compresses(self) -> bool:
        """Whether some message depends on what the model is made of."""
        return any(self.effects(case.name).senders for case in self.cases)

    def of_shape(self, shape: ModelShape | None) -> Experiment:
        """Return the run with what is known of its model."""
        return self if shape is None else replace(self, shape=shape)

    def known_shape(self) -> ModelShape:
        """Return what the model is made of; where that is not known, a model is built."""
        if self.shape is not None:
            return self.shape
        from hsgd_emu.learning.models import model_shape, sized_model

        key = repr((self.data, self.model, self.base))
        if key not in _SHAPES:
            _SHAPES[key] = model_shape(sized_model(self.data, self.model, self.base))
        return _SHAPES[key]

    @cached_property
    def most_sent(self) -> int:
        """How many times the model's size no message exceeds."""
        return max((self.sends(case.name).most for case in self.cases), default=1)

    def _case(self, name: str) -> CaseSpec:
        return next(case for case in self.cases if case.name == name)

    def _schedule(self, name: str) -> Schedule:
        return next(schedule for schedule in self.schedules if schedule.name == name)

    def routes(self, schedule: Schedule, message_bytes: int) -> Routes:
        """Return the routes of nodes to the servers that aggregate them."""
        return self.network.links(Message(message_bytes)).routes(schedule.pairs)

    def plan(
        self,
        schedule: Schedule,
        routes: Routes,
        message_bytes: int,
        seed: int,
        num_samples: Sequence[int] | None = None,
    ) -> Plan:
        """Return the plan of one trial; num_samples: by worker number, for averages weighed by samples."""
        effects, (gate, depends_on_time) = self.effects(schedule.name), gate_of(self._case(schedule.name))
        averaging = effects.sections["averaging"]
        by_samples = averaging.by == "samples" and num_samples is not None
        weight_of = dict(zip(self.topology.workers, map(float, num_samples or ()), strict=by_samples))
        return Plan(
            schedule=schedule,
            network=self.network,
            routes=routes,
            iterations=self.train.iterations,
            message_bytes=message_bytes,
            seed=seed,
            evaluate_every=self.evaluation.every_iterations,
            weight_of=weight_of if by_samples else {},
            uniform=averaging.by == "uniform",
            gate=gate,
            depends_on_time=depends_on_time,
            sends=self._sends(effects),
            servers=effects.servers,
            senders=effects.senders,
            step_probability=effects.step_probability,
        )

    def resolved(self) -> str:
        """Return the run as YAML text with every name resolved and every default written out."""
        draft = self.topology_draft
        profiles: dict[str, Any] = {
            name: plain(profile)
            for name, profile in [*draft.links.items(), *draft.computes.items()]
            if isinstance(name, str)
        }
        found = self.sections(KINDS, but=LOCAL)
        found["topology"] = with_profiles(plain(draft.spec), draft)
        if profiles:
            found["profiles"] = profiles
        text = to_yaml({key: found[key] for key in RunSpec.model_fields if key in found})
        return text + "".join(f"# {one}\n" for one in self.mixing_in_words())

    def mixing_in_words(self) -> list[str]:
        """Return for each case in which hubs mix how fast their models come together, as far as it is known."""
        found = []
        for case, schedule in zip(self.cases, self.schedules, strict=True):
            if schedule.graph is not None and self.effects(case.name).sections["averaging"].by != "samples":
                zeta = schedule.graph.zeta(self.plan(schedule, {}, 1, self.seeds[0]).hub_weights)
                found.append(f"mixing of '{case.name}': zeta = {zeta:.6g}")
        return found

    def operations_hash(self, schedule: Schedule, seed: int, message_bytes: int) -> str:
        """Return the hash of all that the trial of a case and seed does, from sections that are not `learned` alone.

        Averages by samples count as by workers: how many samples there are is not known here.
        """
        return operations_hash(self.plan(schedule, self.routes(schedule, message_bytes), message_bytes, seed))

    def sections(self, some: Says, but: Says = NOTHING) -> dict[str, Any]:
        """Return the run file beside topology and profiles: what says any of `some` and none of `but`."""
        words = {key: says for key, says in said(RunSpec).items() if key not in ("topology", "profiles")}
        found = {key: part(getattr(self, key), some, but, says) for key, says in words.items()}
        return {key: section for key, section in found.items() if section is not None}

    @property
    def decisive(self) -> Says:
        """What a key says on which the learning of this run depends."""
        return LEARNED | ENDS if self.train.until_targets else LEARNED


def part(value: Any, some: Says, but: Says, says: Says) -> Any:
    """Return as `plain` what says any of `some` and none of `but` in a value that says `says`; None: nothing does."""
    if isinstance(value, BaseModel):
        words = said(type(value), says)
        found = {name: part(inner, some, but, words[name]) for name, inner in value}
        return {name: inner for name, inner in found.items() if inner is not None} or None
    if not says & some or says & but:
        return None
    return [part(item, some, but, says) for item in value] if isinstance(value, tuple) else plain(value)


def plain(model: Any) -> Any:
    """Return a typed model as YAML-ready data without what is not given."""
    if isinstance(model, BaseModel):
        return {name: plain(value) for name, value in model if value is not None}
    if isinstance(model, tuple | list):
        return [plain(value) for value in model]
    if isinstance(model, dict):
        return {key: plain(value) for key, value in model.items()}
    return model


def texts(data: Any) -> Iterator[str]:
    """Yield every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from texts(value)


def with_profiles(value: Any, draft: TopologyDraft, named: Collection[Ref] = (), path: Path_ = ()) -> Any:
    """Return topology data whose inline profiles, and those `named` here, are written out; path: where they stand."""
    ref = draft.refs.get(path)
    if ref is not None and (isinstance(ref, int) or ref in named):
        return plain(draft.links.get(ref) or draft.computes.get(ref) or ref)
    if path in draft.aggregations:
        return plain(draft.aggregations[path])
    if isinstance(value, dict):
        return {key: with_profiles(inner, draft, named, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_profiles(inner, draft, named, (*path, place)) for place, inner in enumerate(value)]
    return value


def load_experiment(path: Path | str, sets: Sequence[str] = ()) -> Experiment:
    """Return the checked experiment of a run file with `--set` assignments applied.

    Raises:  ConfigError: everything that is wrong with the run file and the files it names, at once.
    """
    return build_experiment(load_run(Path(path), sets))


def build_experiment(draft: RunDraft) -> Experiment:
    """Return the experiment of a draft.

    Raises:  ConfigError: every problem found.
    """
    s, source, problems = draft.sections, draft.source, draft.problems
    for key, check in (("data", check_data_spec), ("model", check_model_spec)):
        if s[key] is not None:
            problems += [source.problem(tuple(f.split(".")), text) for f, text in check(s[key])]
    if s["seeds"] is not None and len(set(s["seeds"])) < len(s["seeds"]):
        twice = [seed for seed, times in Counter(s["seeds"]).items() if times > 1]
        problems.append(source.problem(("seeds",), f"{listed(twice)} stands there more than once"))
    train, targets = s["train"], s["targets"]
    if train is not None and train.until_targets and targets is not None and not any(levels for _, levels in targets):
        text = "found true, but there are no targets; give some, as in targets: {test_accuracy: [0.8]}"
        problems.append(source.problem(("train", "until_targets"), text))
    check_train_keys(draft)
    check_evaluation(draft)
    topology = network = None
    schedules: list[Schedule | None] = []
    if draft.topology is not None:
        topology = build_topology(draft.topology, problems)
    if topology is not None and draft.topology is not None:
        schedules = [_mixed(draft, topology, *one) for one in enumerate(_schedules(draft, topology))]
        check_step_probability(draft, topology)
        _check_compute(draft, topology)
        bound = [*draft.topology.links.items(), *draft.topology.computes.items(), (None, draft.compute)]
        network = Network.of(topology, {ref: profile for ref, profile in bound if profile is not None})
        _check_routes(draft, network, [one for one in schedules if one is not None])
        check_whole_sections(draft, topology, schedules)
    published = _published(draft, schedules)
    draft.raise_problems()
    assert topology is not None
    assert draft.topology is not None
    sections = {one.name: s[one.name] for one in fields(Experiment) if one.name in s}
    given: dict[str, Any] = {
        "source": source,
        "network": network,
        "topology_draft": draft.topology,
        "compute": draft.compute,
        "data": _with_root(s["data"], source),
        "cases": tuple(case for case in draft.cases if case is not None),
        "schedules": tuple(one for one in schedules if one is not None),
        "timeline": s["timeline"] or _default_timeline(topology, schedules, s["train"], len(s["seeds"])),
        "published": published,
        "notes": tuple(problems.notes),
    }
    experiment = Experiment(**sections | given)
    check_together(experiment, draft)
    check_mixing(experiment, draft)
    _check_clock(experiment, draft)
    draft.raise_problems()
    for note in of_no_use(experiment):
        problems.note(note)
    return replace(experiment, notes=tuple(problems.notes))


def _levels(targets: TargetSpec) -> list[tuple[str, float]]:
    return [(metric, level) for metric, levels in targets for level in levels]


def _published(draft: RunDraft, schedules: Sequence[Schedule | None]) -> PublishedSpec | None:
    """Return the published times, checked against the run as far as that is known to be right."""
    spec, source, targets = draft.sections["published"], draft.published_source, draft.sections["targets"]
    if spec is None or source is None or not draft.cases or None in draft.cases:
        return None
    assert isinstance(spec, PublishedSpec)
    known = {schedule.name: schedule.mistake_at for schedule in schedules if schedule is not None}
    cases = {case.name: known.get(case.name) for case in draft.cases if case is not None}
    return checked_published(spec, source, cases, None if targets is None else _levels(targets), draft.problems)


def _with_root(data: DataSpec, source: Source) -> DataSpec:
    """Return the data section with its root as a path from the current folder."""
    if data.root is None:
        return data
    root = source.at("data", "root").folder / Path(data.root).expanduser()
    return data.model_copy(update={"root": str(root.absolute())})


def _schedules(draft: RunDraft, topology: Topology) -> list[Schedule | None]:
    train = draft.sections["train"]
    schedules = []
    for number, case in enumerate(draft.cases):
        mistakes: Mistakes = []
        schedule = None
        if case is not None:
            iterations = train.iterations if train is not None else None
            participation = train.participation if train is not None else 1.0
            case = draft.cases[number] = as_periods(case, topology, mistakes)
            schedule = build_schedule(case, topology, iterations, participation, mistakes)
        draft.problems += [draft.source.problem(("cases", number, *path), text) for path, text in mistakes]
        schedules.append(schedule)
    return schedules


def _mixed(draft: RunDraft, topology: Topology, number: int, schedule: Schedule | None) -> Schedule | None:
    """Return a case's schedule with the graph of its hubs, where they mix; None where there is a mistake in that."""
    case, path = draft.cases[number], path_of("mixing", draft.cases[number], number)
    spec = case.mixing if case is not None and case.mixing is not None else draft.sections["mixing"]
    if spec is None or schedule is None:
        return schedule

    def mistake(key: str, text: str) -> None:
        where = f" (case '{schedule.name}')" if len(path) == 1 else ""
        draft.problems.append(draft.source.problem((*path, key) if key else path, text + where))

    if len(schedule.stages) > 1:
        mistake("", "beside phases, whose servers need not be the same in each; leave out one of the two")
        return None
    graph = build_graph(spec, schedule.stages[0].children[0], topology, mistake)
    return None if graph is None else replace(schedule, graph=graph)


def _check_compute(draft: RunDraft, topology: Topology) -> None:
    if draft.sections["compute"] is not None or any(p.field.startswith("compute") for p in draft.problems):
        return
    without = [topology.nodes[worker] for worker in topology.workers if topology.nodes[worker].compute is None]
    if without:
        classes = listed(dict.fromkeys(node.class_name for node in without))
        text = f"is missing, and the topology names no compute profile for {classes}; e.g. {{step_s: 0.004}}"
        draft.problems.append(draft.source.problem(("compute",), text))


def _check_routes(draft: RunDraft, network: Network, schedules: Sequence[Schedule]) -> None:
    """Report nodes that no link connects to the server that aggregates them."""
    assert draft.topology is not None
    topology, message = network.topology, Message(draft.sections["message_bytes"] or UNKNOWN_BYTES)
    if not _all_cost(draft.topology, network, message, draft.problems):
        return
    links = network.links(message)
    told: set[Path_] = set()
    for schedule in schedules:
        found = links.routes(schedule.pairs)
        for pair in schedule.pairs:
            if pair not in found:
                lost = pair[0]  # the first node on the way up that has no link to its parent
                while lost in topology.uplinks:
                    lost = topology.nodes[lost].parent or 0
                path = topology.nodes[lost].path
                if path not in told:
                    told.add(path)
                    node, server = topology.nodes[pair[0]], topology.nodes[pair[1]]
                    text = f"is missing, and no other link leads from '{node.name}' to '{server.name}'"
                    freely = replace(network, topology=replace(topology, routing="least_cost"))
                    if freely.links(message).routes([pair]):
                        text += "; `routing: least_cost` in the topology allows ways through other nodes, and finds one"
                    draft.problems.append(draft.topology.source.problem((*path, "uplink"), text))


def _all_cost(draft: TopologyDraft, network: Network, message: Message, problems: list[Problem]) -> bool:
    """Return whether all links have a profile, and none takes longer than any run may (added to the problems)."""
    if not all(link.profile in network.transfers for link in network.topology.links):
        return False
    before = len(problems)
    for path, ref in draft.refs.items():
        try:
            if ref in network.transfers:
                network.transfers[ref].expected_ns(message)
        except ValueError as error:
            problems.append(draft.source.problem(path, str(error)))
    return len(problems) == before


def _check_clock(experiment: Experiment, draft: RunDraft) -> None:
    """Report cases that take longer than the clock can hold, as far as that is known before the model is."""
    num_bytes = experiment.message_bytes or 1
    most = Message(num_bytes * experiment.most_sent)
    if surely_fits(experiment.network, most, experiment.train.iterations):
        return
    for schedule in experiment.schedules:
        routes = experiment.routes(schedule, num_bytes)
        plan = experiment.plan(schedule, routes, num_bytes, experiment.seeds[0])
        try:
            check_clock(plan)
        except ConfigError as error:
            draft.problems += relocated(error, experiment).problems


def _default_timeline(
    topology: Topology, schedules: Sequence[Schedule | None], train: TrainSpec, num_seeds: int
) -> Literal["full", "rounds"]:
    """Return `full` where all trials together have few enough rows: about four per node and phase."""
    rows = sum(
        4 * len(children) * stage.num_phases(server, train.iterations)
        for schedule in schedules
        if schedule is not None
        for stage in schedule.stages
        for server, children in stage.children.items()
    )
    return "full" if rows * num_seeds <= _SMALL_TIMELINE_ROWS else "rounds"


def relocated(error: ConfigError, experiment: Experiment) -> ConfigError:
    """Return an error raised away from the files with the lines of the fields it names."""
    problems = [
        problem if problem.where else experiment.source.problem(tuple(problem.field.split(".")), problem.message)
        for problem in error.problems
    ]
    return ConfigError(problems)
