"""The composition root: one run file -> its trials, written as they go."""

from __future__ import annotations

import platform
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from hsgd_emu.beside import Helped, Orders
from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.experiment import Experiment, load_experiment, relocated
from hsgd_emu.growth import as_recorded, other_than_added
from hsgd_emu.learning.facts import SAW, Facts, differences, require_alike
from hsgd_emu.results.folder import (
    DATABASE_FILE,
    MODEL_SHAPE,
    check_free,
    check_inputs,
    is_run_folder,
    read_environment,
    read_run_file,
    remove_run,
    write_environment,
)
from hsgd_emu.results.origin import origin, versions
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.spawning import num_cores
from hsgd_emu.trials import Progress, Recorded, Session, Team, run_trials, trial_keys

if TYPE_CHECKING:
    from hsgd_emu.learning.world import World

_DECISIVE = ("device", "precision", "threads", "engine")
_LIBRARIES = ("hsgd-emu", "numpy", "simpy", "networkx", "scikit-learn", "pandas", "plotly")


class Shelf(Protocol):
    """Where trials that were learned before are found, whatever run or study learned them."""

    def find(self) -> Mapping[TrialKey, Recorded]:
        """Return those of this run that are there."""
        ...

    def keep(self, store: RunStore) -> None:
        """Put there what this run has learned."""
        ...


@dataclass(frozen=True)
class Options:
    """How to run, beside what the run file says.

    resume: go on with an unfinished run; force: replace what is there; threads: of torch for each trial (default: one:
    many small steps on several threads are many times slower on a busy machine); jobs: trials learned side by side
    (default: as many as cores allow, once it pays; one on CUDA);
    precision: of products, fp32, tf32 or bf16 (default: tf32 on CUDA, else fp32); engine: how steps are taken, such as
    "layered:5", or "usual": by rule (default: chosen by a short trial); stop_at: trials stop after the first global
    aggregation at or after this iteration, unfinished, and resume goes on with them as if they had never stopped;
    trust_code: with timing_only, run a `module:factory` of the run file to learn how large a message is.
    """

    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    resume: bool = False
    force: bool = False
    timing_only: bool = False
    threads: int | None = None
    stop_at: int | None = None
    jobs: int | None = None
    trust_code: bool = False


def run_experiment(
    experiment: Experiment,
    out: Path | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    expected: Facts | None = None,
    shelf_of: Callable[[Session], Shelf | None] | None = None,
) -> Path:
    """Run every trial of an experiment and return its folder (default: runs/out/<name>).

    expected: the facts under which others will find what is learned (see `Material.facts`).  shelf_of: where
    trials that were learned before are found.
    Raises:  ConfigError: the folder holds a run and neither resume nor force is set; data or model do not fit, or are
             not what is expected, or what the run in the folder was begun with.
    """
    options, progress = options or Options(), progress or Progress()
    folder = folder_of(experiment, out)
    experiment = _check_folder(folder, experiment, options)
    before = read_environment(folder) if options.resume and is_run_folder(folder) else None
    if before is not None:
        options = _as_begun(options, before)
    for note in experiment.notes if expected is None else ():  # a trial for others: they have been told of the run's
        progress.note(str(note))
    try:
        session = session_of(experiment, options, progress, lambda saw: _check_saw(folder, saw, expected, before))
        environment = _environment(session, options.timing_only)
        session.is_for_others = expected is not None
        keys, targets = trial_keys(experiment), experiment.target_levels()
        if before is not None:
            _check_same_environment(folder, before, environment, progress)
            store = RunStore.open(folder)
        else:
            remove_run(folder)
            store = RunStore.create(folder, experiment.resolved(), environment, keys, targets)
        with store:
            if before is not None:
                at_least = 0 if experiment.train.until_targets else experiment.train.iterations
                store.grow(experiment.resolved(), keys, targets, at_least)
                _note_growth(folder, environment)
            shelf = shelf_of(session) if shelf_of and session.world else None
            session.recorded = shelf.find() if shelf else {}
            run_trials(session, store, options.stop_at, _team(session, options))
            if shelf:
                shelf.keep(store)
    except ConfigError as error:
        raise relocated(error, experiment) from error
    return folder


def _note_growth(folder: Path, now: dict[str, Any]) -> None:
    """Note the command that goes on with a run, and what it sees: it may have added to it, so that the one that began
    it makes less, and saw less.
    """
    before = read_environment(folder)
    after = {key: value for key, value in before.items() if key != "command"}
    after |= {"command": now["command"]} if "command" in now else {}
    after |= {SAW: before[SAW] | now[SAW]} if SAW in now else {}
    if after != before:
        write_environment(folder, after)


def folder_of(experiment: Experiment, out: Path | None) -> Path:
    """Return where a run is written to: `out`, or its place below runs/out."""
    return out or Path("runs/out") / experiment.name


def _team(session: Session, options: Options) -> Callable[[deque[TrialKey], RunStore], Team] | None:
    """Return what makes the team of a run that learns, or None where this process is to be alone."""
    device, threads = session.environment["device"], session.environment.get("threads", 1)
    jobs = options.jobs or (1 if device == "cuda" else max(1, num_cores() // threads))
    if session.world is None or jobs == 1:
        return None
    given = replace(
        options,
        device=device,
        precision=session.environment["precision"],
        threads=threads,
        engine=session.environment["engine"],
        jobs=jobs,
    )

    def team(waiting: deque[TrialKey], store: RunStore) -> Team:
        orders = Orders(session.experiment, given, store.folder, session.progress.end_s, session.environment[SAW])
        return Helped(session.progress, waiting, store, orders, jobs - 1, now=options.jobs is not None)

    return team


def _as_begun(options: Options, before: dict[str, Any]) -> Options:
    """Return options with what the last bits depend on as the run was begun with, where nothing else is asked for."""
    return replace(
        options,
        threads=options.threads or before.get("threads"),
        precision=before.get("precision", "auto") if options.precision == "auto" else options.precision,
        engine=before.get("engine", "auto") if options.engine == "auto" else options.engine,
    )


def run(
    path: Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    device: str = "auto",
    resume: bool = False,
    force: bool = False,
    timing_only: bool = False,
    threads: int | None = None,
    precision: str = "auto",
    engine: str = "auto",
    jobs: int | None = None,
    trust_code: bool = False,
    shelf_of: Callable[[Session], Shelf | None] | None = None,
) -> Any:
    """Run a run file and return its results (see `hsgd_emu.read`).

    sets: KEY=VALUE assignments as `--set` on the command line.  trust_code: see `Options`; a run that learns runs the
    code of the file's own model and data in any case.
    Raises:  ConfigError: bad input; RunError: a failure of ours.
    """
    from hsgd_emu.results.read import read_run

    experiment = load_experiment(path, sets)
    options = Options(
        *(device, precision, engine, resume, force, timing_only, threads), jobs=jobs, trust_code=trust_code
    )
    return read_run(run_experiment(experiment, Path(out) if out else None, options, shelf_of=shelf_of))


def _check_folder(folder: Path, experiment: Experiment, options: Options) -> Experiment:
    """Return the experiment as it is run in a folder where that is possible."""
    if options.resume and options.force:
        raise ConfigError.of("--resume --force", "", "either go on with a run or replace it")
    if options.resume and is_run_folder(folder):
        return _check_same_run(folder, experiment, options)
    advice = "--resume goes on with it, --force replaces it, --out writes elsewhere"
    check_free(folder, DATABASE_FILE, options.force, advice)
    check_inputs(folder, experiment.files())
    return experiment


def _check_same_run(folder: Path, experiment: Experiment, options: Options) -> Experiment:
    """Return the experiment as it goes on with the run there."""
    before = read_run_file(folder)
    experiment = as_recorded(experiment, before)
    differ = other_than_added(experiment, before)
    if differ:
        text = (
            f"the run there differs in {listed(differ)}; --resume needs the same run file and --set, to which cases, "
            "seeds, targets and iterations may be added (neither targets nor iterations with train.until_targets, no "
            "iterations with a cosine learning rate)"
        )
        raise ConfigError.of(str(folder), "", text)
    was_timing_only = bool(read_environment(folder).get("timing_only"))
    if was_timing_only != options.timing_only:
        raise ConfigError.of(str(folder), "", f"that run was {'' if was_timing_only else 'not '}--timing-only")
    return experiment


def _check_saw(folder: Path, saw: Facts, expected: Facts | None, before: dict[str, Any] | None) -> None:
    """Raise ConfigError where data, own code or versions are not what others expect, or what a run was begun with."""
    if expected is not None:
        require_alike(expected, saw, "where the study was started")
    if before is not None and SAW not in before:
        text = "begun by a version that did not record the data and the code it saw: they cannot be compared"
        raise _begun_otherwise(folder, text)
    differ = [] if before is None else differences(before[SAW], saw)
    if differ:
        raise _begun_otherwise(folder, f"begun otherwise: {listed(differ)}")


def _begun_otherwise(folder: Path, how: str) -> ConfigError:
    text = f"the run there cannot be gone on with, for it was {how}; --force begins it anew, --out writes elsewhere"
    return ConfigError.of(str(folder), "", text)


def _check_same_environment(folder: Path, before: dict[str, Any], now: dict[str, Any], progress: Progress) -> None:
    """Raise ConfigError where going on would not be what was begun; warn where the last bits may differ."""
    decisive = ("message_bytes", "hsgd-emu", "numpy") if now["timing_only"] else _DECISIVE
    differ = [f"{n} is {now.get(n)} and not {before.get(n)}" for n in decisive if before.get(n) != now.get(n)]
    if differ:
        raise _begun_otherwise(folder, f"begun otherwise: {listed(differ)}")
    keys = (key for key in dict.fromkeys([*before, *now]) if key not in ("command", SAW))
    others = [key for key in keys if before.get(key) != now.get(key)]
    if others:
        progress.warn(f"this is not where the run was begun ({listed(others)} differ): the last bits may differ")


def _environment(session: Session, timing_only: bool) -> dict[str, Any]:
    found: dict[str, Any] = dict(versions(_LIBRARIES))
    found |= {"python": sys.version.split()[0], "platform": platform.platform(), "processor": _processor()}
    found |= {"timing_only": timing_only, "message_bytes": session.message_bytes}
    if session.experiment.compresses:
        found |= {MODEL_SHAPE: session.experiment.known_shape().text}
    return found | session.environment | origin()


def _processor() -> str:
    """Return the processor's name (Linux tells it in a file; elsewhere platform knows)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def session_of(
    experiment: Experiment, options: Options, progress: Progress, check: Callable[[Facts], None] | None = None
) -> Session:
    """Return the session of a run that learns, or only takes time.

    check: told what it sees as soon as that is known; all but models where these cannot be made.
    """
    if options.timing_only:
        num_bytes = known_message_bytes(experiment, options.trust_code)
        if num_bytes is None:
            whose = listed(experiment.own_data_and_model)
            text = (
                f"is missing: only the code of {whose} could tell how large a message is, and "
                "--timing-only does not run it; set message_bytes, as in --set message_bytes=100000, or give "
                "--trust-code"
            )
            raise ConfigError.of("", "message_bytes", text)
        return Session.of(experiment, progress, num_bytes, {"device": "none"})
    from hsgd_emu.learning import world as worlds

    device = worlds.choose_device(options.device)
    precision = worlds.choose_precision(options.precision, device, experiment.train.dtype)
    world = _world(experiment, device, precision, progress.say, progress.note)
    check = check or (lambda saw: None)
    try:
        saw = world.material.facts(experiment.seeds)
    except ConfigError:
        check(world.material.loaded())  # that code has changed says more than what came of it
        raise
    check(saw)
    threads = options.threads or 1
    worlds.make_deterministic(device, threads, precision)
    if device.type == "cuda" and (options.jobs or 1) > 1:
        worlds.limit_memory(1 / (options.jobs or 1))
    world.check(experiment.seeds)
    progress.say("choosing how to learn")
    engine = world.choose(experiment.seeds[0], options.engine)
    environment = worlds.environment(device, threads, precision, engine) | {SAW: saw}
    experiment = experiment.of_shape(world.model_shape() if experiment.compresses else None)
    return Session.of(experiment, progress, experiment.message_bytes or world.message_bytes(), environment, world)


def _world(
    experiment: Experiment, device: Any, precision: Any, say: Callable[[str], None], warn: Callable[[str], None]
) -> World:
    from hsgd_emu.learning.world import World

    names, groups = experiment.worker_names, experiment.topology.groups()
    specs = experiment.data, experiment.model, experiment.train
    return World(*specs, names, groups, experiment.base, device, precision, say, warn, experiment.own_rules)


def known_message_bytes(experiment: Experiment, trust_code: bool) -> int | None:
    """Return the size of a message: as the run file says, else the model's; None where only own code could tell it.

    trust_code: that code may be run.
    """
    knows = trust_code or not experiment.own_data_and_model
    if experiment.message_bytes is not None:
        return experiment.message_bytes if knows or not experiment.compresses else None
    return timing_message_bytes(experiment) if knows else None


def timing_message_bytes(experiment: Experiment) -> int:
    """Return the size of a message without training; see `sized_model`."""
    from hsgd_emu.learning.models import model_bytes, sized_model

    return model_bytes(sized_model(experiment.data, experiment.model, experiment.base))


# --- whether model and data fit each other ------------------------------------------------------------


def check_learning(experiments: Iterable[Experiment], notes: list[Problem], trust_code: bool) -> None:
    """Load the data and try the model of each experiment; without trust_code only note what own code is left unread.

    Raises:  ConfigError: data or model cannot be had, or do not fit each other.
    """
    tried = set()
    for experiment in experiments:
        sections = (experiment.data, experiment.model, experiment.train, experiment.own_rules)
        learning = (*map(repr, sections), experiment.seeds)
        if learning in tried:
            continue
        tried.add(learning)
        if trust_code:
            try:
                _try(experiment, notes)
            except ConfigError as error:
                raise relocated(error, experiment) from error
        elif experiment.own_code:
            text = f"the code of {listed(experiment.own_code)} was not run, so not looked at is whether model and data"
            text += " fit; --trust-code runs it and tries"
            known = {experiment.data.dataset: "data", experiment.model.name: "model"}
            keys = [known.get(name, "servers") for name in experiment.own_code]
            key = next(one for one in ("model", "data", "servers") if one in keys)
            note = experiment.source.problem((key,), text)
            notes += [] if note in notes else [note]


def _try(experiment: Experiment, notes: list[Problem]) -> None:
    """Load the data, spread them for every seed, and take a trial step; what a person should know goes to the notes."""
    from hsgd_emu.learning import world as worlds

    def note(text: str) -> None:
        notes.append(experiment.source.problem((), text))

    world = _world(experiment, worlds.choose_device("cpu"), "fp32", lambda text: None, note)
    world.check(experiment.seeds)
    world.material.try_rules()
    world.choose(experiment.seeds[0], "usual")


class _Verb(ModuleType):
    """Importing this module binds it to `hsgd_emu.run`, which users call: so the module can be called, as a verb."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("hsgd_emu.verbs").run(*arguments, **options)


sys.modules[__name__].__class__ = _Verb
