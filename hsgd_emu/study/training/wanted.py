"""A trial that a study wants to have learned: all that decides its learning and nothing else, and the hash of it.

That is the hash of its operations, and of what is at their root: data, partition, model, training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from hsgd_emu.config.load import draft_run
from hsgd_emu.config.reader import Document, Mark, Source
from hsgd_emu.config.says import ENDS, LEARNED, SCHEDULED
from hsgd_emu.engine.messages import UNKNOWN_BYTES
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, build_experiment, relocated
from hsgd_emu.learning.material import Material
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.run import timing_message_bytes
from hsgd_emu.topology.tree import Topology

CASE = "trial"
"""What the case of every wanted trial is called: its own name must not matter."""
_TIMING = {
    "name": CASE,
    # Steps so much longer than links that no round begins before the one before it is over.
    "profiles": {"link": {"rtt_s": 0.001}},
    "compute": {"step_s": 1.0},
    "timeline": "none",
}
"""The same for all: every link and every step at one constant cost."""
_CLOCK = ("topology", "profiles", "compute", "message_bytes")
"""What a trial is timed by where its learning depends on that."""


@dataclass(frozen=True)
class Resources:
    """What the last bits of learning depend on beside the run file; as in a run's environment.json."""

    device: str
    device_name: str
    precision: str
    threads: int = 1
    engine: str = "usual"


@dataclass(frozen=True)
class Wanted:
    """One trial to be learned. Two with the same key learn the same, to the bit; plain strings and numbers only."""

    key: str
    label: str
    """For people: "G=50 I=5, seed 1"."""
    run_yaml: str
    """A run file of this case and seed alone (JSON, so YAML too), its timing made canonical."""
    base: str
    """Folder of the user's own modules."""
    data_root: str | None
    iterations: int
    """T of the run file."""
    until: int
    """To be learned at least up to here."""
    seed: int
    resources: Resources
    facts: Facts
    """Versions and hashes that the key covers; another machine can compare its own."""
    kind: str
    """Hash of what an iteration costs this host: alike for trials that differ in schedule, seed or length."""
    evaluated_every: int
    """Iterations between two evaluations, on average."""

    @property
    def trial(self) -> TrialKey:
        """The trial as its own run folder names it."""
        return TrialKey(CASE, self.seed)


def resources(device: str = "auto", precision: str = "auto", dtype: str = "float32") -> Resources:
    """Return the resources that --device and --precision name on this machine, for `train.dtype`.

    Data and the user's own modules are looked at anew after this call.
    Raises:  ConfigError: not to be had here.
    """
    from hsgd_emu.learning import world as worlds

    _materials.clear()
    chosen = worlds.choose_device(device)
    return Resources(chosen.type, worlds.device_name(chosen), worlds.choose_precision(precision, chosen, dtype))


def wanted(
    experiment: Experiment,
    case: str,
    seed: int,
    resources: Resources,
    until: int | None = None,
    look: bool = True,
    facts: Mapping[str, str] | None = None,
) -> Wanted:
    """Return the trial of a case and seed, to be learned up to iteration `until` (default: all of it).

    until: the next global aggregation at or after it is meant.  look: load the data set (once per data section) and
    build an own model, running its code, which the key covers; without, the key tells the trials of one file apart and
    is not to be stored under.  facts: what a process that has loaded them already saw.
    Raises:  ConfigError: the data cannot be loaded, or the model cannot be built.
    """
    experiment = experiment.alone(case)
    (schedule,) = experiment.schedules
    alike, own = _TIMING | learned(experiment), scheduled(experiment, schedule, seed)
    run = alike | own | {key: alike.get(key, {}) | own[key] for key in ("train", "evaluation")}
    num_bytes = experiment.message_bytes or UNKNOWN_BYTES
    if experiment.plan(schedule, {}, num_bytes, seed).depends_on_time:
        num_bytes = experiment.message_bytes or timing_message_bytes(experiment)
        run = {key: section for key, section in run.items() if key not in _CLOCK}
        run |= {key: section for key, section in yaml.safe_load(experiment.resolved()).items() if key in _CLOCK}
    work = alike | {"train": alike["train"] | {"participation": schedule.participation}}
    try:
        saw = tuple(facts.items()) if facts else tuple(_material(experiment).facts([seed]).items()) if look else ()
    except ConfigError as error:
        raise relocated(error, experiment) from error
    iterations = experiment.train.iterations
    last = iterations if until is None else min(iterations, schedule.next_end(until))
    operations = experiment.operations_hash(schedule, seed, num_bytes)
    identity = {"resources": asdict(resources), "facts": dict(saw)}
    return Wanted(
        key=_hash(identity | {"run": alike, "seed": seed, "operations": operations}),
        label=f"{case}, seed {seed}",
        run_yaml=json.dumps(run, sort_keys=True, ensure_ascii=False),
        base=str(experiment.base.absolute()),
        data_root=experiment.data.root,
        iterations=iterations,
        until=last,
        seed=seed,
        resources=resources,
        facts=saw,
        kind=_hash(identity | {"run": work}),
        evaluated_every=max(schedule.end_of(1), experiment.evaluation.every_iterations),
    )


def experiment_of(wanted: Wanted) -> Experiment:
    """Return the experiment of one case and seed that learns what is wanted."""
    run = json.loads(wanted.run_yaml)
    if wanted.data_root is not None:
        run["data"]["root"] = wanted.data_root
    return build_experiment(draft_run(Document(run, Source(Mark(wanted.label), Path(wanted.base)))))


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def learned(experiment: Experiment) -> dict[str, Any]:
    """Return all that decides what a step, an average or an evaluation does: the tree's names, and sections.

    Which of them there are is `scheduled`.
    """
    found = experiment.sections(LEARNED, but=SCHEDULED | ENDS)
    return found | {"topology": {"root": _node(experiment.topology, 0)}}


def scheduled(experiment: Experiment, schedule: Schedule, seed: int) -> dict[str, Any]:
    """Return all that decides which steps, averages and evaluations the trial of one case and seed has.

    Not until_targets: whatever a study asks of it, a trial is learned as far as that.
    """
    found = replace(experiment, seeds=(seed,)).sections(SCHEDULED)
    resolved = ("period", "periods", "phases", "participation")
    case = {key: value for key, value in found["cases"][0].items() if key not in resolved}
    train = found["train"] | {"participation": schedule.participation}
    return found | {"train": train, "cases": [case | {"name": CASE} | schedule.by_name(experiment.topology)]}


def _node(topology: Topology, index: int) -> dict[str, Any]:
    """Return a node and all below it, each under its own name."""
    node = topology.nodes[index]
    found: dict[str, Any] = {"name": node.name}
    if node.parent is not None:
        found["uplink"] = "link"
    if node.children:
        found["children"] = [_node(topology, child) for child in node.children]
    return found


Facts = tuple[tuple[str, str], ...]


_materials: dict[tuple[str, str, str, Path], Material] = {}


def _material(experiment: Experiment) -> Material:
    """Return data and own code as they were first looked at since `resources`."""
    data = experiment.data.model_copy(update={"partition": "iid", "classes_per_worker": None, "alpha": None})
    model = repr(experiment.model) if ":" in experiment.model.name else ""
    asked = repr(data), model, repr(experiment.own_rules), experiment.base
    if asked not in _materials:
        _materials[asked] = Material(data, experiment.model, experiment.base, rules=experiment.own_rules)
        _materials[asked].shrink()
    return _materials[asked]
