"""Re-time a run: replay what its trials have learned through the engine, on another network, without training.

Exact where a trial's operations are the same under the new timing, which is held to their hash, and always is with
synchronous schedules: the result is that of a fresh run under the new timing, to the bit, wherever that run would have
learned to the same bits (same seeds, device and versions).
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hsgd_emu.config.says import NAMES
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.experiment import Experiment, load_experiment, relocated
from hsgd_emu.metrics import Metrics
from hsgd_emu.results.folder import (
    DATABASE_FILE,
    RUN_FILE,
    check_free,
    check_inputs,
    read_environment,
    read_run_text,
    recorded_message_bytes,
    recorded_shape,
    remove_run,
    require_run_folder,
)
from hsgd_emu.results.origin import origin, versions
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.tables import connect_to_read, curve_rows, trial_rows, worker_rows
from hsgd_emu.study.changes import Changes, changed_experiment
from hsgd_emu.topology.tree import Topology
from hsgd_emu.trials import Progress, Recorded, Session, run_trials, trial_keys

_CLOCK = ("hsgd-emu", "numpy", "simpy", "networkx")
"""What the times depend on; what the learning depends on is the parent's."""


def retime(
    folder: Path | str,
    out: Path | str,
    sets: Sequence[str] = (),
    scales: Sequence[str] = (),
    profiles: Sequence[str] = (),
    topology: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the run in `folder`, as it would have gone under other timing, to `out` and return that folder.

    Args:    sets: KEY=VALUE.  scales: NAME=FACTOR.  profiles: NAME=FILE.  topology: a name or path; see `Changes`.
             force: replace a run that is in `out`.
    Raises:  ConfigError: a change is wrong or changes what is learned, or the run cannot be re-timed.
    """
    folder, out, progress = Path(folder), Path(out), progress or Progress()
    require_run_folder(folder)
    parent = load_experiment(folder / RUN_FILE)
    recorded = read_recorded(folder, parent)
    changes = Changes(topology, profiles, sets, scales)
    experiment = changed_experiment(folder / RUN_FILE, changes).of_shape(recorded_shape(folder))
    check_same_learning(parent, experiment)
    size = recorded_message_bytes(folder)
    num_bytes = experiment.message_bytes or size
    check_same_operations(folder, parent, experiment, parent.message_bytes or size, num_bytes)
    for note in experiment.notes:
        progress.warn(f"note: {note}")
    if out.resolve() == folder.resolve():
        raise ConfigError.of(str(out), "", "is the run to be re-timed itself; --out must be another folder")
    check_free(out, DATABASE_FILE, force, "--force replaces it, --out writes elsewhere")
    check_inputs(out, experiment.files())
    before = read_environment(folder)
    environment = _environment(before, folder, parent.name, num_bytes, recorded)
    try:
        session = Session.of(experiment, progress, num_bytes, environment, recorded=recorded)
        keys, levels = trial_keys(experiment), experiment.target_levels()
        remove_run(out)
        with RunStore.create(out, experiment.resolved(), environment, keys, levels) as store:
            run_trials(session, store)
    except ConfigError as error:
        raise relocated(error, experiment) from error
    return out


def read_recorded(folder: Path, experiment: Experiment) -> dict[TrialKey, Recorded]:
    """Return what each trial of a finished run has learned.

    Raises:  ConfigError: a trial is not finished, or nothing was learned.
    """
    metrics: dict[TrialKey, dict[int, Metrics]] = {}
    with contextlib.closing(connect_to_read(folder)) as connection:
        trials = trial_rows(connection)
        for key, row in curve_rows(connection):
            metrics.setdefault(key, {})[row.iteration] = row.metrics
        workers = worker_rows(connection)
    if read_environment(folder).get("timing_only"):
        text = "was run with --timing-only and learned nothing; `hsgd-emu run` it with the other timing instead"
        raise ConfigError.of(str(folder), "", text)
    unfinished = [f"{trial.case}, seed {trial.seed}" for trial in trials if trial.status != "finished"]
    if unfinished:
        text = f"not finished: {listed(unfinished, 4)}; `hsgd-emu run FILE --resume` finishes the run"
        raise ConfigError.of(str(folder), "", text)
    hashes = {trial.key: trial.weights_hash for trial in trials if trial.weights_hash is not None}
    return {key: Recorded(metrics[key], hashes[key], workers.get(key, {})) for key in trial_keys(experiment)}


def check_same_learning(parent: Experiment, experiment: Experiment) -> None:
    """Raise ConfigError naming every change that would lead to other weights."""
    before, now = _learning(parent), _learning(experiment)
    text = "changes what is learned, and re-timing keeps that; `hsgd-emu run` such a run anew"
    problems = [experiment.source.problem(path, text) for path in _differences(before, now)]
    other = _other_tree(parent.topology, experiment.topology)
    if other is not None:
        problems.append(experiment.source.problem(("topology",), f"{other}: this {text}"))
    elif not problems and parent.schedules != experiment.schedules:
        # The same nodes under other class names: periods given by class mean other servers.
        problems.append(experiment.source.problem(("cases",), f"mean other periods on this topology: this {text}"))
    elif not problems and _skipping(parent) != _skipping(experiment):
        text_here = f"means other workers on this topology: this {text}"
        problems.append(experiment.source.problem(("train", "step_probability"), text_here))
    if parent.message_bytes is not None and experiment.message_bytes is None:
        # How large the model's own would be was never recorded.
        text = f"the run was made with {parent.message_bytes}, so the model's own size is not known; give a number"
        problems.append(experiment.source.problem(("message_bytes",), text))
    if problems:
        raise ConfigError(problems)


def _skipping(experiment: Experiment) -> list[Mapping[int, float]]:
    return [experiment.effects(case.name).step_probability for case in experiment.cases]


def check_same_operations(folder: Path, before: Experiment, now: Experiment, bytes_before: int, bytes_now: int) -> None:
    """Raise ConfigError where a trial of a run would have other operations, for they depend on when models arrive."""
    other = [
        f"{schedule.name}, seed {seed}"
        for schedule in before.schedules
        for seed in before.seeds
        if before.operations_hash(schedule, seed, bytes_before) != now.operations_hash(schedule, seed, bytes_now)
    ]
    if other:
        text = "what is learned depends on when models arrive, and with other times other models are averaged in"
        raise ConfigError.of(str(folder), "", f"cannot be re-timed: {text} {listed(other, 4)}")


def _learning(experiment: Experiment) -> dict[str, Any]:
    """Return all of a run file that decides what is learned, beside the tree, and what a trial is found by."""
    found = experiment.sections(experiment.decisive | NAMES)
    del found["name"]  # of the run: the new one may have another
    return found


def _differences(before: Any, now: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of the values that differ, as deep as both have the same form; lists inside sections whole."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), (*path, key))
    elif len(path) == 1 and isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(old, new, (*path, number))
    elif before != now:
        yield path


def _other_tree(before: Topology, now: Topology) -> str | None:
    """Return how the tree of the topology differs from the one that was trained on, or None."""
    if len(before.nodes) != len(now.nodes):
        return f"has {len(now.nodes)} nodes, and the run {len(before.nodes)}"
    for old, new in zip(before.nodes, now.nodes, strict=True):
        if old.name != new.name:
            return f"has '{new.name}' where the run has '{old.name}'"
        if old.parent != new.parent:
            return f"has '{new.name}' below '{now.nodes[new.parent or 0].name}', and the run elsewhere"
    return None


def _environment(
    before: dict[str, Any], folder: Path, name: str, message_bytes: int, recorded: dict[TrialKey, Recorded]
) -> dict[str, Any]:
    """Return where the learning comes from, as the parent has it, and what the times were made with."""
    weights: dict[str, dict[str, str]] = {}
    for key, trial in recorded.items():
        weights.setdefault(key.case, {})[str(key.seed)] = trial.weights_hash
    sha256 = hashlib.sha256(read_run_text(folder).encode()).hexdigest()
    parent: dict[str, Any] = {"name": name, "run_sha256": sha256, "weights": weights}
    command = before.get("retimed_with", before).get("command")
    if command:
        parent["command"] = command
    if "parent" in before:
        parent["parent"] = {key: value for key, value in before["parent"].items() if key != "weights"}
    clock = {"python": sys.version.split()[0]} | versions(_CLOCK)
    now = {"message_bytes": message_bytes, "parent": parent, "retimed_with": clock | origin()}
    return {key: value for key, value in before.items() if key != "command"} | now
