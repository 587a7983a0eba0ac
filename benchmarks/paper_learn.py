"""Learns the parts in their order until the time is over: the process that `paper.py run` starts and watches over.

A trial that the end of the time meets is stopped after a global aggregation, as `Options.stop_at` stops one: with a
checkpoint, and with what it has cost written down. The next command goes on with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from paper_pack import PaperError
from paper_plan import Pace, Part, Trial, plan_lines
from paper_run import DONE, NOT_DONE

import hsgd_emu.run as runs
from hsgd_emu.atomic import write_atomically
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.results.folder import CHECKPOINTS, is_run_folder
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.tables import connect_to_read, trial_rows
from hsgd_emu.trials import Progress

if TYPE_CHECKING:
    from workloads import Driver

EVERY_S = 60.0
PERIODS, EVALUATIONS = (3, 3, 0.5), 3  # periods: step by step, captured, replayed, then timed


class Watch(Progress):
    """Prints a line a minute, and stops the trial at work when its time is over, after a global aggregation."""

    def __init__(self, end_s: float, every_s: float = EVERY_S) -> None:
        """end_s: of `time.time()`."""
        self.end_s, self.every_s = end_s, every_s
        self.part, self.accuracy = "", ""
        self.parent = os.getppid()
        self.stopping = False
        self._said_s = self._begun_s = time.time()
        self._begun = self._last = self._iterations = 0

    @property
    def left_s(self) -> float:
        return self.end_s - time.time()

    def is_over(self) -> bool:
        """Tell whether the time is over, or nobody waits for this process any more."""
        self.stopping = self.stopping or self.left_s <= 0 or os.getppid() != self.parent
        return self.stopping

    def say(self, text: str) -> None:
        print(f"{self.part}: {text}", flush=True)

    def warn(self, text: str) -> None:
        self.say(text)

    def begin(self, key: TrialKey, iterations: int, done: int) -> None:
        self._iterations, self._begun, self._begun_s, self.accuracy = iterations, -1, time.time(), ""
        self._line(f"{key.case}, seed {key.seed}: {'begins' if not done else f'goes on after {done:,} iterations'}")

    def round(self, key: TrialKey, record: RoundRecord) -> None:
        if record.metrics is not None and record.metrics.test_accuracy is not None:
            self.accuracy = f", accuracy {100 * record.metrics.test_accuracy:.1f}%"
        if self._begun < 0:
            self._begun, self._begun_s = record.iteration, time.time()
        self._last = record.iteration
        if time.time() - self._said_s >= self.every_s:
            self._line(f"{key.case}, seed {key.seed}: {self._far()}{self._ms()}")
        # After its last round a trial is finished, not stopped.
        if self.stopping and record.iteration < self._iterations:
            self._line(f"{key.case}, seed {key.seed}: stops at {self._far()}")

    def _far(self) -> str:
        return f"iteration {self._last:,}{self.accuracy}"

    def _ms(self) -> str:
        num = self._last - self._begun
        return f", {1000 * (time.time() - self._begun_s) / num:.2f} ms an iteration" if num else ""

    def _line(self, text: str) -> None:
        self._said_s = time.time()
        print(f"{self.part}, {text}, {max(0.0, self.left_s) / 60:.1f} minutes left", flush=True)


def learn(parts: list[Part], work: Path, device: str, end_s: float, images: Path | None) -> int:
    """Learn all that is left of the parts below `work` and return the exit code; images: a folder to wait for."""
    watch = Watch(end_s)
    _start_device(device)
    wait_for(images, watch)
    experiments = [load_experiment(part.file, part.assignments()) for part in parts]
    folders = [work / "runs" / part.name for part in parts]
    trials = [t for part, one, at in zip(parts, experiments, folders, strict=True) for t in trials_of(part, one, at)]
    if any(trial.iterations for trial in trials):
        watch.part = parts[0].name
        pace = known_pace(experiments[0], device, work / f"pace_{experiments[0].model.name}.json", watch)
        print("\n".join(plan_lines(trials, pace, watch.left_s)), flush=True)
    for part, experiment, folder in zip(parts, experiments, folders, strict=True):
        if all(not trial.iterations for trial in trials if trial.part == part.name):
            continue
        watch.part = part.name
        runs.run_experiment(experiment, folder, runs.Options(device, resume=True), watch)
        if watch.stopping:
            return NOT_DONE
    return DONE


def _start_device(device: str) -> None:
    """Import torch and wake the device, while the images are still being unpacked."""
    import torch

    from hsgd_emu.learning.world import choose_device

    torch.zeros(1, device=choose_device(device))


def wait_for(folder: Path | None, watch: Watch) -> None:
    """Wait until a folder is there.

    Raises:  PaperError: the time was over before.
    """
    while folder is not None and not folder.is_dir():
        if watch.is_over():
            raise PaperError("the time was over before the images were unpacked")
        time.sleep(0.1)


def trials_of(part: Part, experiment: Experiment, folder: Path) -> list[Trial]:
    """Return the trials of a part in the order they are learned, with what is left of each."""
    known = {}
    if is_run_folder(folder):
        with contextlib.closing(connect_to_read(folder)) as connection:
            # Without checkpoints, as on a new machine, an unfinished trial begins anew.
            goes_on = (folder / CHECKPOINTS).is_dir()
            known = {(row.case, row.seed): (row.status, row.iteration * goes_on) for row in trial_rows(connection)}
    budget, every = experiment.train.iterations, experiment.evaluation.every_iterations
    found = []
    for seed in experiment.seeds:
        for schedule in experiment.schedules:
            status, iteration = known.get((schedule.name, seed), ("waiting", 0))
            left = 0 if status == "finished" else max(budget - iteration, schedule.end_of(1))
            found.append(Trial(part.name, schedule.name, seed, left, schedule.end_of(1), every))
    return found


# --- the pace ---------------------------------------------------------------------------------------


def known_pace(experiment: Experiment, device: str, file: Path, watch: Watch) -> Pace:
    """Return the pace of this machine, from a short trial where none was made on it before."""
    if file.is_file():
        return Pace(**json.loads(file.read_text(encoding="utf-8")))
    watch.say("a short trial")
    pace = measured_pace(experiment, device, watch)
    write_atomically(file, json.dumps(vars(pace)))
    return pace


def measured_pace(experiment: Experiment, device_name: str, watch: Watch) -> Pace:
    """Return what an iteration and an evaluation cost, as the run will take them (the way it chooses is remembered)."""
    import workloads

    from hsgd_emu.learning import world as worlds

    device = worlds.choose_device(device_name)
    precision = worlds.choose_precision("auto", device, experiment.train.dtype)
    groups, names = experiment.topology.groups(), experiment.worker_names
    world = worlds.World(
        *(experiment.data, experiment.model, experiment.train, names, groups, experiment.base, device, precision),
        watch.say,
    )
    threads = 1
    worlds.make_deterministic(device, threads, precision)
    world.choose(experiment.seeds[0])
    learner = world.learner(experiment.seeds[0], workloads.slots_of(len(names)))
    driver = workloads.Driver(learner, len(names), workloads.LOCAL_PERIOD, device)
    round_s = statistics.median(driver.rounds_wall_s(*PERIODS))
    evaluated_s = statistics.median(_evaluated_s(driver) for _ in range(EVALUATIONS))
    del driver, learner, world
    workloads.release(device)
    return Pace(round_s / workloads.LOCAL_PERIOD, max(0.0, evaluated_s - round_s))


def _evaluated_s(driver: Driver) -> float:
    begun = time.perf_counter()
    driver.round(True)
    return time.perf_counter() - begun


def main(text: str) -> int:
    """Do what the JSON of `paper.py run` asks for, and return the exit code."""
    from hsgd_emu.errors import HsgdError

    asked = json.loads(text)
    parts = [Part(name, sets) for name, sets in asked["parts"]]
    images = Path(asked["images"]) if asked["images"] else None
    try:
        return learn(parts, Path(asked["work"]), asked["device"], asked["end_s"], images)
    except (HsgdError, PaperError) as error:
        print(error, file=sys.stderr, flush=True)
        return 2
