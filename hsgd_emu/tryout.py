"""Whether model and data fit each other, tried before anything runs: the user's own code only where it is trusted."""

from __future__ import annotations

from collections.abc import Iterable

from hsgd_emu.errors import ConfigError, Problem, listed
from hsgd_emu.experiment import Experiment, relocated


def check_learning(experiments: Iterable[Experiment], notes: list[Problem], trust_code: bool) -> None:
    """Load the data and try the model of each experiment; without trust_code only note what own code is left unread.

    Raises:  ConfigError: data or model cannot be had, or do not fit each other.
    """
    tried = set()
    for experiment in experiments:
        learning = (repr(experiment.data), repr(experiment.model), repr(experiment.train), experiment.seeds)
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
            key = "model" if experiment.model.name in experiment.own_code else "data"
            note = experiment.source.problem((key,), text)
            notes += [] if note in notes else [note]


def _try(experiment: Experiment, notes: list[Problem]) -> None:
    """Load the data, spread them for every seed, and take a trial step; what a person should know goes to the notes."""
    from hsgd_emu.learning import world as worlds

    def note(text: str) -> None:
        notes.append(experiment.source.problem((), text))

    world = worlds.World(
        experiment.data,
        experiment.model,
        experiment.train,
        experiment.worker_names,
        experiment.topology.groups(),
        experiment.base,
        worlds.choose_device("cpu"),
        warn=note,
    )
    world.check(experiment.seeds)
    world.choose(experiment.seeds[0], "usual")
