"""A run's file with other timing: another topology, other profiles, `--set`, and profiles made slower or faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.config.assign import set_value
from hsgd_emu.config.kinds import require_kind
from hsgd_emu.config.load import draft_run, draft_topology, load_topology, raise_problems
from hsgd_emu.config.reader import Document, Mark, Source, put_value, read_file
from hsgd_emu.errors import ConfigError, Problem, listed, nearest
from hsgd_emu.experiment import Experiment, build_experiment
from hsgd_emu.timing.transfers import scaled
from hsgd_emu.units import plain_number

COMPUTE = "compute"
"""What `--scale` calls the compute profile of the run file, unless the topology has a profile of this name."""


@dataclass(frozen=True)
class Changes:
    """What is to change in a run file, as on the command line; applied in this order."""

    topology: str | None = None
    """A name under topologies/, or a path. Profiles that the run binds stay bound where it uses their names."""
    profiles: Sequence[str] = ()
    """NAME=FILE: binds a profile name of the topology."""
    sets: Sequence[str] = ()
    """KEY=VALUE."""
    scales: Sequence[str] = ()
    """NAME=FACTOR: multiplies every time of a profile."""
    tries: Sequence[str] = ()
    """KEY=VALUE, told by `--try`."""


def changed_experiment(path: Path, changes: Changes) -> Experiment:
    """Return the experiment of a run file with changes applied.

    Raises:  ConfigError: everything that is wrong with the changed file.
    """
    document = read_file(path)
    require_kind(document, "run")
    if changes.topology is not None:
        source = Source(Mark(f"--topology {changes.topology}"), document.source.base)
        put_topology(document, changes.topology, source)
    for text in changes.profiles:
        name, file = _pair(text, "--profile", "NAME=FILE, as in far=latency_profiles/lte.yaml")
        put_value(document, ("profiles", name), file, Mark(f"--profile {text}"))
    for text in changes.sets:
        set_value(document, text)
    for text in changes.tries:
        set_value(document, text, "--try")
    experiment = build_experiment(draft_run(document))
    if not changes.scales:
        return experiment
    _put_scaled(document, experiment, changes.scales)
    return build_experiment(draft_run(document))


def _pair(text: str, option: str, right: str) -> tuple[str, str]:
    name, _, value = (part.strip() for part in text.partition("="))
    if not name or not value:
        raise ConfigError.of(f"{option} {text}", "", f"expected {right}")
    return name, value


def put_topology(document: Document, topology: Any, source: Source) -> None:
    """Put another topology in, a name or data given at `source`; what the run binds for names it lacks is dropped."""
    problems: list[Problem] = []
    if isinstance(topology, str):
        draft = load_topology(topology, source, problems)
    else:
        draft = draft_topology(Document(topology, source), problems)
    raise_problems(problems)
    assert draft is not None
    bound, used = document.data.get("profiles", {}), draft.refs.values()
    document.data["profiles"] = {key: value for key, value in bound.items() if key in used}
    put_value(document, ("topology",), topology, source.mark)


def _put_scaled(document: Document, experiment: Experiment, scales: Sequence[str]) -> None:
    """Put scaled profiles in, written out in full; several factors of one profile multiply."""
    draft = experiment.topology_draft
    bound = [*draft.links.items(), *draft.computes.items()]
    found: dict[str, Any] = {COMPUTE: experiment.compute} if experiment.compute is not None else {}
    own = {name: profile for name, profile in bound if isinstance(name, str)}
    found |= own
    for text in scales:
        name, factor = _pair(text, "--scale", "NAME=FACTOR, as in near=0.5")
        label = f"--scale {text}"
        if name not in found:
            hint = nearest(name, found) or f"; it has {listed(found)}" if found else "; all of its profiles are inline"
            raise ConfigError.of(label, "", f"the run has no profile '{name}'{hint}")
        if not 0 < plain_number(factor) < math.inf:
            raise ConfigError.of(label, "", f"found '{factor}'; expected a factor above 0, such as 0.5 or 2")
        found[name] = scaled(found[name], plain_number(factor))
        path = ("profiles", name) if name in own else (COMPUTE,)
        put_value(document, path, found[name].model_dump(mode="json", exclude_none=True), Mark(label))
