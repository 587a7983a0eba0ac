"""What each key of a run file decides: said once, at its field in the schema.

What a section says holds for all that is inside, except what says otherwise: a new key of `train` is learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache

from pydantic import BaseModel


class Word(Enum):
    """What a key decides, one of the first three, and what else is to be known of it."""

    LEARNED = auto()
    """What a trial learns: with another value it is another trial."""
    TIMED = auto()
    """When things happen, and how much of that is kept; nothing that is learned."""
    SHOWN = auto()
    """Neither."""

    SCHEDULED = auto()
    """Which steps, averages and evaluations a trial has, and not what one of them does."""
    ENDS = auto()
    """Where a trial ends early, and that only with train.until_targets."""
    GROWS = auto()
    """A run that is there already may get more of it."""
    NAMES = auto()
    """What is there already is found by it."""
    LOCAL = auto()
    """This machine's and no property of the run: run.yaml lacks it."""
    COMMON = auto()
    """The same in all cases of a run, which share their start, partition and batches."""


Says = frozenset[Word]
LEARNED, TIMED, SHOWN, SCHEDULED, ENDS, GROWS, NAMES, LOCAL, COMMON = (frozenset({word}) for word in Word)
KINDS = LEARNED | TIMED | SHOWN
NOTHING: Says = frozenset()


@lru_cache(maxsize=256)
def said(model: type[BaseModel], around: Says = NOTHING) -> Mapping[str, Says]:
    """Return by field what the keys of a model say, where what is around it says `around`."""
    infos = model.model_fields.items()
    own = {name: next((one for one in info.metadata if isinstance(one, frozenset)), NOTHING) for name, info in infos}
    return {name: says if says & KINDS else says | around for name, says in own.items()}
