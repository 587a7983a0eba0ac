"""What holds for a case: its own sections over the run's, found once for all that is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from hsgd_emu.config.run_schema import WHOLE_SECTIONS, CaseSpec, TrainSpec, copies_sent, normal, train_of
from hsgd_emu.config.server_schema import Direction, ServerSpec
from hsgd_emu.engine.compression import Sender, compressed_bytes, senders
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.engine.servers import compression_by_name, servers_by_name
from hsgd_emu.engine.skipped import by_own_names, probabilities
from hsgd_emu.topology.tree import Topology


@dataclass(frozen=True)
class Effects:
    """Of one case, on a topology."""

    train: TrainSpec
    """Without keys that change nothing; workers that skip steps under their own names."""
    sections: Mapping[str, Any]
    """Those of WHOLE_SECTIONS; servers and senders under their own names."""
    servers: Mapping[int, ServerSpec]
    """By node: what a server does with its average, where that is not just sent on."""
    senders: Mapping[tuple[int, Direction], Sender]
    """By node and direction: who compresses what it sends."""
    step_probability: Mapping[int, float]
    """By worker that may skip steps: with which probability it takes one."""
    copies: int
    """Of the model's size in each message."""
    coded: Mapping[tuple[int, Direction], Callable[[tuple[int, ...]], int]]
    """By sender and direction: the bytes of a compressed model (see `Sends`)."""


_MOST_KNOWN = 256
_KNOWN: dict[tuple[int, ...], tuple[Effects, tuple[Any, ...]]] = {}
"""By the identities of what effects are found from, which is kept with them: a study asks thousands of times."""


def effects_of(
    case: CaseSpec, train: TrainSpec, schedule: Schedule, topology: Topology, of_run: tuple[Any, ...]
) -> Effects:
    """Return what holds for a case; train: the run's; of_run: its WHOLE_SECTIONS."""
    parts = case, train, schedule, topology, *of_run
    key = tuple(map(id, parts))
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = _found(case, train, schedule, topology, of_run), parts
    return _KNOWN[key][0]


def _found(
    case: CaseSpec, train: TrainSpec, schedule: Schedule, topology: Topology, of_run: tuple[Any, ...]
) -> Effects:
    train = train_of(train, case)
    sections = dict(zip(WHOLE_SECTIONS, of_run, strict=True))
    sections |= {key: own for key in WHOLE_SECTIONS if (own := getattr(case, key)) is not None}
    sections["servers"] = servers_by_name(sections["servers"] or {}, schedule, topology)
    sections["compression"] = compression_by_name(sections["compression"] or {}, schedule, topology)
    who = senders(sections["compression"] or {}, topology)
    own_names = by_own_names(train.step_probability, topology)
    return Effects(
        train=normal(train.model_copy(update={"step_probability": own_names})),
        sections=sections,
        servers=topology.by_node(sections["servers"] or {}),
        senders=who,
        step_probability=probabilities(train.step_probability, topology),
        copies=copies_sent(train),
        coded={key: partial(compressed_bytes, sender.spec) for key, sender in who.items()},
    )
