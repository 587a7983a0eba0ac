"""What may be added to a run that is there already: cases, seeds, targets, iterations; what is learned of it stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from hsgd_emu.config.run_schema import CosineRate
from hsgd_emu.experiment import Experiment

_NEVER_LEARNED = ("targets", "published", "description")


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
    return list(_changed(experiment, before, yaml.safe_load(experiment.resolved())))


def _changed(experiment: Experiment, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    old: Any
    new: Any
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key == "cases":
            same = all(case in new for case in old)
        elif key == "seeds":
            same = set(old) <= set(new)
        elif key == "train":
            same = _only_longer(experiment, old, new)
        else:
            # Where targets end a trial, they are part of what is learned.
            same = key in _NEVER_LEARNED and not (key == "targets" and experiment.train.until_targets)
        if not same:
            yield key


def _only_longer(experiment: Experiment, old: dict[str, Any], new: dict[str, Any]) -> bool:
    if old | {"iterations": new["iterations"]} != new or old["iterations"] > new["iterations"]:
        return False
    # There the end decides about the way to it.
    return not experiment.train.until_targets and not isinstance(experiment.train.learning_rate, CosineRate)
