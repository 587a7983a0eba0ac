"""Run a study: learn what its scenarios lack, time every trial in every scenario, and write who is first where."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hsgd_emu.config.writer import to_yaml
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.learning.facts import SAW, differences
from hsgd_emu.results.folder import STUDY_DATABASE, check_free, check_inputs, read_environment, read_study_file
from hsgd_emu.results.origin import origin, versions
from hsgd_emu.study.clock import ClockName
from hsgd_emu.study.sweep.outcome import crossover_row, crossovers, rows_of
from hsgd_emu.study.sweep.prepared import Prepared, StudyPlan, prepare
from hsgd_emu.study.sweep.race import Race
from hsgd_emu.study.sweep.store import StudyStore, connect_to_read, is_study_folder
from hsgd_emu.study.sweep.study_file import load_study, study_data
from hsgd_emu.study.training.executors import ExecutorName, TrainingProgress, train
from hsgd_emu.study.training.library import DEFAULT_FOLDER

_LIBRARIES = ("hsgd-emu", "numpy", "scipy", "simpy", "networkx", "torch", "torchvision", "scikit-learn", "pandas")
_DIVERGED, _LAST = "diverged", "crossovers"
"""The part that is written as soon as all is learned, and the one that is written last."""


class StudyProgress(TrainingProgress):
    """Told how a study goes, and does nothing with it."""

    def planned(self, plan: StudyPlan) -> None:
        """Every scenario is tried, and nothing else is done yet."""

    def timed(self, num: int, num_scenarios: int) -> None:
        """So many scenarios are timed and written."""


def run_study(
    path: Path | str,
    out: Path | str | None = None,
    sets: Sequence[str] = (),
    *,
    dry_run: bool = False,
    force: bool = False,
    executor: ExecutorName = "local",
    jobs: int | None = None,
    ray_address: str | None = None,
    clock: ClockName = "auto",
    device: str = "auto",
    precision: str = "auto",
    library: Path | str = DEFAULT_FOLDER,
    progress: StudyProgress | None = None,
    trust_code: bool = False,
) -> Path:
    """Run the study of a file and return its folder (default: runs/out/NAME); one that was killed just goes on.

    Args:    sets: KEY=VALUE, of the study file or else of its run.  dry_run: only tell `progress` the plan, with how
             long it takes.  force: replace another study that is in the folder.  library: of learned trials.
             executor, jobs, ray_address: see `executors.train`.  trust_code: with dry_run, run the code of the study's
             own models and data (without dry_run it is run in any case).
    Raises:  ConfigError: the study is wrong, or the folder holds something else.
    """
    progress = progress or StudyProgress()
    study = load_study(path, sets)
    folder, data = Path(out) if out else Path("runs/out") / study.spec.name, study_data(study)
    _check_folder(folder, data, force, study.experiment.files() | study.source.files())
    for note in study.notes:
        progress.warn(f"note: {note}")
    progress.say("trying every scenario")
    prepared = prepare(study, device, precision, library, trust_code or not dry_run)
    if dry_run:
        progress.planned(prepared.plan(jobs, clock))
        return folder
    if is_study_folder(folder) and not force:
        _check_same_learning(folder, prepared)
        if is_finished(folder):
            StudyStore.finish_writing(folder)
            return folder
    with _opened(folder, data, prepared, force) as store:
        progress.planned(prepared.plan(jobs))
        learned = train(prepared.wanted, prepared.library, executor, jobs, progress, ray_address)
        diverged = [(key, one.diverged_at) for key, one in learned.items() if one.diverged_at is not None]
        if _DIVERGED not in store.done():
            store.write_part(_DIVERGED, {_DIVERGED: diverged})
        trials = {n: {key: one.key for key, one in of.items()} for n, of in prepared.trials.items()}
        _time(Race(prepared.settings, trials, learned, study.spec.replications, clock), store, progress)
        store.finish()
    return folder


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds a study of which nothing is left to do."""
    if not is_study_folder(folder):
        return False
    with contextlib.closing(connect_to_read(folder)) as connection:
        return connection.execute("SELECT 1 FROM parts WHERE part = ?", (_LAST,)).fetchone() is not None


def plan_of_study(
    path: Path | str,
    sets: Sequence[str] = (),
    *,
    jobs: int | None = None,
    clock: ClockName = "auto",
    device: str = "auto",
    precision: str = "auto",
    library: Path | str = DEFAULT_FOLDER,
    trust_code: bool = False,
) -> StudyPlan:
    """Return what the study of a file would do, and about how long it would take on this machine.

    trust_code: run the code of its own models and data, without which some of that is not known.
    """
    return prepare(load_study(path, sets), device, precision, library, trust_code).plan(jobs, clock)


def _time(race: Race, store: StudyStore, progress: StudyProgress) -> None:
    """Time all scenarios that are not written yet, part by part, then look for crossovers."""
    scenarios = race.scenarios.study.scenarios
    done = store.done()
    for begin in range(0, len(scenarios), race.most_scenarios):
        numbers = range(begin, min(len(scenarios), begin + race.most_scenarios))
        name = f"scenarios {numbers[0]} to {numbers[-1]}"
        if name not in done:
            groups = race.run([scenarios[number] for number in numbers])
            store.write_part(name, rows_of(numbers, groups, race.levels))
        race.settings.forget()
        progress.timed(numbers[-1] + 1, len(scenarios))
    progress.say("looking for crossovers")
    found = store.connection.execute('SELECT scenario, metric, target, "case" FROM best')
    best_of = {(scenario, metric, target): case for scenario, metric, target, case in found}
    store.write_part(_LAST, {_LAST: map(crossover_row, crossovers(race, best_of))})


# --- the folder ---------------------------------------------------------------------------------------


def _check_folder(folder: Path, data: dict[str, Any], force: bool, inputs: set[Path]) -> None:
    """Raise ConfigError where the folder holds anything but this very study. inputs: files that are read."""
    import yaml

    if is_study_folder(folder) and not force:
        before = read_study_file(folder)
        now = yaml.safe_load(to_yaml(data))
        keys = [key for key in dict.fromkeys([*before, *now]) if key != "description"]
        differ = [key for key in keys if before.get(key) != now.get(key)]
        if differ:
            text = f"the study there differs in {listed(differ)}; --force replaces it, --out writes elsewhere"
            raise ConfigError.of(str(folder), "", text)
        return
    check_free(folder, STUDY_DATABASE, force, "--force replaces it, --out writes elsewhere")
    check_inputs(folder, inputs)


def _opened(folder: Path, data: dict[str, Any], prepared: Prepared, force: bool) -> StudyStore:
    """Return the store of this study, begun or gone on with."""
    if is_study_folder(folder) and not force:
        return StudyStore.open(folder)
    environment = versions(_LIBRARIES) | asdict(prepared.resources) | {SAW: _saw(prepared)}
    environment |= {"python": sys.version.split()[0], "platform": platform.platform()} | origin()
    rows = {"scenarios": _scenario_rows(prepared), "trials": _trial_rows(prepared)}
    return StudyStore.create(folder, to_yaml(data), environment, rows)


def _check_same_learning(folder: Path, prepared: Prepared) -> None:
    """Raise ConfigError where the study's trials would not learn the same again, naming what has changed."""
    with contextlib.closing(connect_to_read(folder)) as connection:
        found = {key for (key,) in connection.execute("SELECT DISTINCT trial FROM trials")}
    if found == {one.key for one in prepared.wanted}:
        return
    before, now = read_environment(folder), asdict(prepared.resources)
    differ = [f"{name} is {now[name]} and not {before.get(name)}" for name in now if before.get(name) != now[name]]
    if SAW in before:
        differ += differences(before[SAW], _saw(prepared))
    else:
        differ.append("by a version that did not record the data and the code it saw")
    text = f"was begun otherwise: {listed(differ)}; --force begins it anew (what is learned is kept)"
    raise ConfigError.of(str(folder), "", text)


def _saw(prepared: Prepared) -> dict[str, str]:
    """Return the facts of all trials: by what they tell of, every version or hash of it."""
    found: dict[str, set[str]] = {}
    for one in prepared.wanted:
        for name, value in one.facts:
            found.setdefault(name, set()).add(value)
    return {name: " ".join(sorted(values)) for name, values in sorted(found.items())}


def _scenario_rows(prepared: Prepared) -> Iterator[tuple[Any, ...]]:
    study = prepared.study
    own = [axis.own(study.document.data, study.experiment) for axis in study.axes]
    for number, values in enumerate(study.scenarios):
        for axis, value, mine in zip(study.axes, values, own, strict=True):
            shown = value or mine
            yield number, axis.name, shown.text, shown.number


def _trial_rows(prepared: Prepared) -> Iterator[tuple[Any, ...]]:
    for number, base in enumerate(prepared.base_of):
        for key, one in prepared.trials[base].items():
            yield number, key.case, key.seed, one.key
