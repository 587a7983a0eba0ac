"""Which kind of file some data are, told by their keys."""

from __future__ import annotations

from typing import Any

from hsgd_emu.config.reader import Document
from hsgd_emu.config.run_schema import PublishedSpec, RunSpec
from hsgd_emu.config.schema import ComputeProfile, LinkProfile, TopologySpec
from hsgd_emu.config.study_schema import StudySpec
from hsgd_emu.errors import ConfigError

_ANYWHERE = {"name", "description", "source"}
PUBLISHED = "table of published times"
_KEYS = {
    "topology": set(TopologySpec.model_fields) - _ANYWHERE,
    "profile": {*LinkProfile.model_fields, *ComputeProfile.model_fields} - _ANYWHERE - {"model"},
    "study": set(StudySpec.model_fields) - _ANYWHERE - {"targets", "cases"},
    PUBLISHED: set(PublishedSpec.model_fields) - _ANYWHERE,
    "run": set(RunSpec.model_fields) - _ANYWHERE,
}
_USES = {
    "topology": "`hsgd-emu show {file}` shows it, and a run file names it under `topology`",
    "profile": "`hsgd-emu check {file}` checks it, and a run file binds it under `profiles`, or as `compute`",
    "study": "`hsgd-emu study {file}` runs it, `hsgd-emu check {file}` checks it",
    PUBLISHED: "a run file names it under `published`, and `hsgd-emu fit RUN_DIR --table {file}` fits to it",
    "run": "`hsgd-emu run {file}` runs it, `hsgd-emu show {file}` shows its network",
}


def kind_of(data: Any) -> str | None:
    """Return whichever kind of file has the keys of this data, as `run` or `topology`; None for no kind."""
    if not isinstance(data, dict):
        return None
    fits = {kind: len(keys & set(data)) for kind, keys in _KEYS.items()}
    best = max(fits, key=lambda kind: fits[kind])
    return best if fits[best] else None


def require_kind(document: Document, *kinds: str) -> None:
    """Raise ConfigError where a file is of another kind, with what is done with such a file."""
    found = kind_of(document.data)
    if found is None or found in kinds:
        return
    where = document.source.mark.where
    file = where.rpartition(":")[0] or where
    text = f"this is a {found}, and a {' or a '.join(kinds)} is needed; {_USES[found].format(file=file)}"
    raise ConfigError.of(file, "", text)
