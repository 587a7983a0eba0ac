"""The composition root: one run file -> its trials, written as they go."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.plan import Network, Plan
from hsgd_emu.engine.port import Learner, Metrics
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import ConfigError, listed
from hsgd_emu.experiment import Experiment, load_experiment, relocated
from hsgd_emu.learning.silent import RecordedLearner, ResumingLearner, SilentLearner
from hsgd_emu.results.folder import CHECKPOINTS, is_run_folder, read_environment, read_run_text, remove_run
from hsgd_emu.results.rows import BarrierRow, CurveRow, TimelineRow, TrialKey, WaitRow
from hsgd_emu.results.store import RunStore
from hsgd_emu.topology.routes import Hop
from hsgd_emu.units import to_s

if TYPE_CHECKING:
    from hsgd_emu.learning.stacked import StackedLearner
    from hsgd_emu.learning.world import World

_LIBRARIES = ("hsgd-emu", "numpy", "simpy", "networkx", "scikit-learn", "pandas", "plotly")


class Progress:
    """Told how a run goes, and does nothing with it; the command line's draws it."""

    def say(self, text: str) -> None:
        """Something takes a while."""

    def warn(self, text: str) -> None:
        """Something that must not be overlooked."""

    def begin(self, key: TrialKey, num_rounds: int, done: int) -> None:
        """A trial begins, or goes on after `done` rounds."""

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        """A global aggregation is written."""

    def end(self, key: TrialKey) -> None:
        """A trial is finished, now or before."""


@dataclass(frozen=True)
class Options:
    """How to run, beside what the run file says.

    resume: go on with an unfinished run; force: replace what is there; threads: of torch (default: all cores);
    precision: of products, fp32, tf32 or bf16 (default: tf32 on CUDA, else fp32); engine: how steps are taken, such as
    "layered:5" (default: chosen by a short trial).
    """

    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    resume: bool = False
    force: bool = False
    timing_only: bool = False
    threads: int | None = None


def run_experiment(
    experiment: Experiment,
    out: Path | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Path:
    """Run every trial of an experiment and return its folder (default: runs/out/<name>).

    Raises:  ConfigError: the folder holds a run and neither resume nor force is set; data or model do not fit.
    """
    options, progress = options or Options(), progress or Progress()
    folder = out or Path("runs/out") / experiment.name
    _check_folder(folder, experiment, options)
    if options.resume and is_run_folder(folder):
        options = _as_begun(options, read_environment(folder))
    try:
        session = _Session.start(experiment, options, progress)
        keys = [TrialKey(case.name, seed) for case in experiment.cases for seed in experiment.seeds]
        environment = _environment(experiment, session, options)
        if is_run_folder(folder) and options.resume:
            _check_same_environment(folder, environment, progress)
            store = RunStore.open(folder)
        else:
            remove_run(folder)
            store = RunStore.create(folder, experiment.resolved(), environment, keys, experiment.target_levels())
        with store:
            # Seed by seed, so that what the cases of a seed share is made once.
            for key in sorted(keys, key=lambda key: experiment.seeds.index(key.seed)):
                if store.trial_state(key).status != "finished":
                    _Trial(session, store, key, keys.index(key)).run()
                progress.end(key)
            store.finish_run()
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    except ConfigError as error:
        raise relocated(error, experiment) from error
    return folder


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
) -> Any:
    """Run a run file and return its results (see `hsgd_emu.read`).

    sets: KEY=VALUE assignments as `--set` on the command line.
    Raises:  ConfigError: bad input; RunError: a failure of ours.
    """
    from hsgd_emu.results.read import read_run

    experiment = load_experiment(path, sets)
    options = Options(device, precision, engine, resume, force, timing_only, threads)
    return read_run(run_experiment(experiment, Path(out) if out else None, options))


def _check_folder(folder: Path, experiment: Experiment, options: Options) -> None:
    if options.resume and options.force:
        raise ConfigError.of("--resume --force", "", "either go on with a run or replace it")
    if not is_run_folder(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not _is_remains(folder):
            raise ConfigError.of(str(folder), "", "exists and holds no run; choose another folder with --out")
        return
    if options.resume:
        _check_same_run(folder, experiment, options)
    elif not options.force:
        text = "holds a run already; --resume goes on with it, --force replaces it, --out writes elsewhere"
        raise ConfigError.of(str(folder), "", text)


def _is_remains(folder: Path) -> bool:
    """Return whether a folder is what a run killed at its very start leaves behind."""
    return all(e.name.startswith(("lock", "run.yaml", "environment.json", "run.sqlite")) for e in folder.iterdir())


def _check_same_run(folder: Path, experiment: Experiment, options: Options) -> None:
    import yaml

    before, now = (yaml.safe_load(text) for text in (read_run_text(folder), experiment.resolved()))
    differ = [key for key in dict.fromkeys([*before, *now]) if before.get(key) != now.get(key)]
    if differ:
        text = f"the run there differs in {listed(differ)}; --resume needs the same run file and --set"
        raise ConfigError.of(str(folder), "", text)
    was_timing_only = bool(read_environment(folder).get("timing_only"))
    if was_timing_only != options.timing_only:
        raise ConfigError.of(str(folder), "", f"that run was {'' if was_timing_only else 'not '}--timing-only")


def _check_same_environment(folder: Path, now: dict[str, Any], progress: Progress) -> None:
    before = read_environment(folder)
    if before.get("device") != now.get("device"):
        text = f"the run there was begun on {before.get('device')}, now it is {now.get('device')}; use --device"
        raise ConfigError.of(str(folder), "", text)
    ways = [str(environment.get("engine")).partition(":")[0] for environment in (before, now)]
    if ways[0] != ways[1]:
        text = f"the run there was begun with --engine {before.get('engine')}, whose checkpoints others cannot read"
        raise ConfigError.of(str(folder), "", text)
    differ = [k for k in dict.fromkeys([*before, *now]) if before.get(k) != now.get(k)]
    if differ:
        progress.warn(f"this is not where the run was begun ({listed(differ)} differ): the last bits may differ")


def _environment(experiment: Experiment, session: _Session, options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {name: version(name) for name in _LIBRARIES}
    found |= {"python": sys.version.split()[0], "platform": platform.platform(), "processor": _processor()}
    found |= {"timing_only": options.timing_only, "message_bytes": session.message_bytes}
    return found | session.environment


def _processor() -> str:
    """Return the processor's name (Linux tells it in a file; elsewhere platform knows)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def default_threads() -> int:
    """Return how many threads torch may use: the cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Session:
    """What all trials of a run share."""

    experiment: Experiment
    progress: Progress
    world: World | None
    message_bytes: int
    network: Network
    cases: dict[str, tuple[Schedule, dict[int, tuple[Hop, ...]]]]
    """By name: the schedule, and every node's route to the server that aggregates it."""
    environment: dict[str, Any]

    @classmethod
    def start(cls, experiment: Experiment, options: Options, progress: Progress) -> _Session:
        if options.timing_only:
            world, environment = None, {"device": "none"}
            num_bytes = experiment.message_bytes or timing_message_bytes(experiment)
        else:
            from hsgd_emu.learning import world as worlds

            device = worlds.choose_device(options.device)
            precision = worlds.choose_precision(options.precision, device, experiment.train.dtype)
            world = _world(experiment, device, precision, progress.say)
            model_bytes, threads_pay = world.measure()
            threads = options.threads or (default_threads() if threads_pay else 1)
            worlds.make_deterministic(device, threads, precision)
            progress.say("choosing how to learn")
            engine = world.choose(experiment.seeds[0], options.engine)
            environment = worlds.environment(device, threads, precision, engine)
            num_bytes = experiment.message_bytes or model_bytes
        try:
            network = experiment.network(num_bytes)
            for transfer in network.transfers.values():
                transfer.expected_ns()
        except ValueError as error:
            raise ConfigError.of("", "profiles", str(error)) from None
        cases = {s.name: (s, experiment.routes(s, network)) for s in experiment.schedules}
        return cls(experiment, progress, world, num_bytes, network, cases, environment)

    def plan(self, key: TrialKey) -> Plan:
        schedule, routes = self.cases[key.case]
        samples = self.world.num_samples(key.seed) if self.world else None
        return self.experiment.plan(schedule, self.network, routes, self.message_bytes, key.seed, samples)


def _world(experiment: Experiment, device: Any, precision: Any, say: Callable[[str], None] | None) -> World:
    from hsgd_emu.learning.world import World

    groups = experiment.topology.groups()
    return World(
        experiment.data,
        experiment.model,
        experiment.train,
        experiment.worker_names,
        groups,
        experiment.base,
        device,
        precision,
        say,
    )


def timing_message_bytes(experiment: Experiment) -> int:
    """Return the size of a message without training; the data are loaded only where their shape is not known."""
    from hsgd_emu.learning.data import load_dataset
    from hsgd_emu.learning.models import message_bytes
    from hsgd_emu.learning.world import SHAPES

    if experiment.data.dataset in SHAPES:
        shape, num_classes = SHAPES[experiment.data.dataset]
    else:
        dataset = load_dataset(experiment.data, experiment.base)
        shape, num_classes = dataset.train_x.shape[1:], dataset.num_classes
    return message_bytes(experiment.model, shape, num_classes, experiment.base)


class _Trial:
    """One case and seed: drives the engine, checkpoints and commits every round."""

    def __init__(self, session: _Session, store: RunStore, key: TrialKey, number: int) -> None:
        self.session, self.store, self.key, self.number = session, store, key, number
        self.plan = session.plan(key)
        self.names = [node.name for node in session.experiment.topology.nodes]
        self.done = store.trial_state(key).iteration
        self.begun = 0
        self.real: StackedLearner | None = None

    def run(self) -> None:
        begin = time.perf_counter()
        learner = SilentLearner() if self.session.world is None else self._learner(self.session.world)
        period = self.plan.schedule.global_period
        self.session.progress.begin(self.key, self.plan.num_rounds, self.done // period)
        keep = self.session.experiment.timeline
        timeline_hash = emulate(self.plan, learner, self._commit, keep, self._checkpoint)
        weights_hash = self.real.weights_hash(0) if self.real else None
        engine = self.real.choice.text() if self.real else "silent"
        self.store.finish_trial(self.key, weights_hash, timeline_hash, engine, time.perf_counter() - begin)
        if self.real:
            self.checkpoints.remove()

    def _learner(self, world: World) -> Learner:
        from hsgd_emu.learning.checkpoint import Checkpoints

        self.checkpoints = Checkpoints(self.store.folder / CHECKPOINTS, self.number)
        servers = self.plan.schedule.children
        slots = {node: slot for slot, node in enumerate([*self.plan.workers, *servers])}
        self.real = world.learner(self.key.seed, slots)
        if not self.done:
            return self.real
        state = self.checkpoints.load(self.done)
        if state is None:
            self.session.progress.warn(f"{self.key.case}, seed {self.key.seed}: no whole checkpoint, from the start")
            self.store.restart_trial(self.key)
            self.done = 0
            return self.real
        self.begun = state["iteration"]
        self.real.restore(state)
        metrics = {
            row.iteration: Metrics(row.train_loss, row.test_loss, row.test_accuracy)
            for row in self.store.curve_rows(self.key)
        }
        return ResumingLearner(RecordedLearner(metrics), self.begun, self.real)

    def _checkpoint(self, iteration: int) -> None:
        if self.real is not None and iteration > self.begun and self.checkpoints.is_due():
            self.checkpoints.save(iteration, self.real.state(0))

    def _commit(self, record: RoundRecord) -> None:
        if record.iteration <= self.done:
            return
        name = self.names
        timeline = [
            TimelineRow(
                name[row.node],
                row.kind,
                to_s(row.start_ns),
                to_s(row.end_ns),
                row.iteration,
                row.bytes,
                name[row.peer] if row.peer >= 0 else "",
            )
            for row in record.activities
        ]
        barriers = [
            BarrierRow(name[b.server], b.iteration, to_s(b.ready_ns), name[b.waited_for], b.link, to_s(b.slack_ns))
            for b in record.barriers
        ]
        keep = self.session.experiment.timeline
        waits = [WaitRow(name[n], to_s(w)) for n, w in record.waits_ns.items() if keep != "none"]
        self.store.commit_round(self.key, record.iteration, _curve_row(record), timeline, barriers, waits)
        self.session.progress.round(self.key, record)


def _curve_row(record: RoundRecord) -> CurveRow | None:
    metrics, split = record.metrics, record.split
    if metrics is None:
        return None
    return CurveRow(
        record.round,
        record.iteration,
        to_s(record.time_ns),
        to_s(record.aggregated_ns),
        to_s(split.compute_ns),
        to_s(split.communication_ns),
        to_s(split.aggregation_ns),
        metrics.train_loss,
        metrics.test_loss,
        metrics.test_accuracy,
    )


class _Verb(ModuleType):
    """Importing this module binds it to `hsgd_emu.run`, which users call: so the module can be called."""

    __call__ = staticmethod(run)


sys.modules[__name__].__class__ = _Verb
