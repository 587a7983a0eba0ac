"""A run and the library: trials that were learned before are found there, and what the run learns is put there."""

from __future__ import annotations

import os
from pathlib import Path

from hsgd_emu.errors import HsgdError
from hsgd_emu.results.folder import remove_run
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.store import RunStore
from hsgd_emu.study.training.library import DEFAULT_FOLDER, Library
from hsgd_emu.study.training.wanted import Resources, Wanted, experiment_of, wanted
from hsgd_emu.trials import Progress, Recorded, Session, run_trials, trial_keys

NONE = "none"
"""As `--library`: neither look for trials nor keep any."""


class Shelf:
    """The trials of one run in the library."""

    def __init__(self, library: Library, session: Session) -> None:
        self.library, self.session = library, session
        self.wanted = {key: _wanted(session, key) for key in trial_keys(session.experiment)}

    def find(self) -> dict[TrialKey, Recorded]:
        """Return the trials that were learned before."""
        found = {}
        try:
            for key, wanted in self.wanted.items():
                learned = self.library.find(wanted)
                if learned is not None and learned.finished and learned.weights_hash is not None:
                    found[key] = Recorded(learned.metrics, learned.weights_hash, learned.workers)
        except HsgdError as error:
            self.session.progress.warn(f"the library of learned trials is not used: {error}")
            return {}
        if found:
            text = f"{len(found)} of {len(self.wanted)} trials were learned before: found in {self.library.folder}"
            self.session.progress.warn(f"{text} (--library none learns them anew)")
        return found

    def keep(self, store: RunStore) -> None:
        """Put what the run has learned into the library, unless what it depends on changed meanwhile."""
        world = self.session.world
        assert world is not None
        if world.material.changed():
            return
        try:
            for key, wanted in self.wanted.items():
                state = store.trial_state(key)
                if state.status == "finished" and state.weights_hash and self.library.find(wanted) is None:
                    metrics = {row.iteration: row.metrics for row in store.curve_rows(key)}
                    recorded = Recorded(metrics, state.weights_hash, store.worker_rows(key))
                    self._put(wanted, recorded, state.wall_s or 0.0, world.message_bytes())
        except (OSError, HsgdError) as error:
            self.session.progress.warn(f"learned trials could not be put into the library: {error}")

    def _put(self, wanted: Wanted, recorded: Recorded, wall_s: float, num_bytes: int) -> None:
        """Write a trial as the library's own are: on its canonical network."""
        lock = self.library.try_lock(wanted)
        if lock is None:  # a study learns it just now
            return
        try:
            experiment, folder = experiment_of(wanted), self.library.folder_of(wanted)
            environment = self.session.environment | {"timing_only": False, "message_bytes": num_bytes}
            learned = {wanted.trial: recorded}
            session = Session.of(experiment, Progress(), num_bytes, environment, recorded=learned)
            remove_run(folder)
            with RunStore.create(folder, experiment.resolved(), environment, [wanted.trial], []) as store:
                store.pause_trial(wanted.trial, wall_s)
                run_trials(session, store)
            self.library.remember(wanted)
        finally:
            os.close(lock)


def shelf_of(session: Session, folder: Path | str | None = None) -> Shelf | None:
    """Return the shelf of a run in a library (default: runs/out/trials), or None where it has none.

    Not modelled: runs that end with their targets, whose trials are shorter than those of the library.
    """
    if str(folder) == NONE or session.experiment.train.until_targets:
        return None
    return Shelf(Library(folder or DEFAULT_FOLDER), session)


def _wanted(session: Session, key: TrialKey) -> Wanted:
    world, environment = session.world, session.environment
    assert world is not None
    given = Resources(
        environment["device"],
        environment["device_name"],
        environment["precision"],
        environment["threads"],
        "usual" if world.choice == world.usual else environment["engine"],
    )
    return wanted(session.experiment, key.case, key.seed, given, facts=world.material.facts([key.seed]))
