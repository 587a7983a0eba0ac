"""What may be added to a run that is there already: cases, seeds, targets, iterations; what is learned of it stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from pydantic import BaseModel

from hsgd_emu.config.run_schema import CosineRate, RunSpec
from hsgd_emu.config.says import GROWS, NAMES, SHOWN, said
from hsgd_emu.experiment import Experiment


def as_recorded(experiment: Experiment, before: Mapping[str, Any]) -> Experiment:
    """Return an experiment that keeps as much of its timeline as the run there, unless its file says how much.

    The usual choice goes by the number of rows, so that it could change when something is added.
    """
    keep = before.get("timeline")
    return (
        replace(experiment, timeline=keep) if keep and "timeline" not in experiment.source.mark.inside else experiment
    )


def other_than_added(experiment: Experiment, before: Mapping[str, Any]) -> list[str]:
    """Return the sections of the run there (its run.yaml) that an experiment changes rather than adds to."""
    now = yaml.safe_load(experiment.resolved())
    free = {key for key, says in said(RunSpec).items() if says & SHOWN and not says & (NAMES | experiment.decisive)}
    stays = {key: _stays(experiment, key, before.get(key), now.get(key)) for key in RunSpec.model_fields}
    return [key for key, same in stays.items() if not same and key not in free]


def _stays(experiment: Experiment, key: str, old: Any, new: Any) -> bool:
    """Return whether all of a section is in the new one, beyond which there is only what may grow."""
    says, spec = said(RunSpec)[key], getattr(experiment, key, None)
    if old == new or says & GROWS:
        return old == new or all(one in new for one in old)
    words = said(type(spec), says) if isinstance(spec, BaseModel) and old and new else {}
    return bool(words) and all(
        old.get(name) == new.get(name) or (word & GROWS and _only_longer(experiment, old[name], new[name]))
        for name, word in words.items()
    )


def _only_longer(experiment: Experiment, old: int, new: int) -> bool:
    # There the end decides about the way to it.
    rates = [experiment.effects(case.name).train.learning_rate for case in experiment.cases]
    cut = any(schedule.stages[-1].rounds.last is not None for schedule in experiment.schedules)
    by_its_end = experiment.train.until_targets or cut or any(isinstance(rate, CosineRate) for rate in rates)
    return old <= new and not by_its_end
