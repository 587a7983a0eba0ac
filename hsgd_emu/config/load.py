"""Read the files of a run into typed models: the only way from YAML to the rest of the program.

Every section is checked by itself, so that one mistake does not hide the others; what a section lacks is None in
the draft, and the caller adds the checks that need several sections before raising all problems at once.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsgd_emu.config.profiles import _shown, find_file, load_profile
from hsgd_emu.config.reader import Document, Source, read_file, set_value
from hsgd_emu.config.schema import (
    CaseSpec,
    ComputeProfile,
    LinkProfile,
    LinkRef,
    ModelSpec,
    NodeSpec,
    RunSpec,
    TopologySpec,
)
from hsgd_emu.config.validate import check
from hsgd_emu.errors import ConfigError, Problem, listed, nearest


@dataclass
class TopologyDraft:
    """A topology as its file gives it, and what each profile reference in it (a name or an inline profile) is
    bound to (None: wrong or not found)."""

    spec: TopologySpec
    source: Source
    links: dict[str | LinkProfile, LinkProfile | None] = field(default_factory=dict)
    computes: dict[str | ComputeProfile, ComputeProfile | None] = field(default_factory=dict)


@dataclass
class RunDraft:
    """A run file read so far: its sections, where they stand, and the problems found."""

    source: Source
    sections: dict[str, Any]
    cases: list[CaseSpec | None]
    topology: TopologyDraft | None
    problems: list[Problem]
    compute: ComputeProfile | None = None

    def raise_problems(self) -> None:
        """Raise all problems found, in the order of the files' lines."""
        raise_problems(self.problems)


def raise_problems(problems: Sequence[Problem]) -> None:
    """Raise ConfigError with the problems ordered by line within each file; nothing where there are none."""
    if problems:
        files = list(dict.fromkeys(_place(p)[0] for p in problems))
        unique = dict.fromkeys(problems)
        raise ConfigError(sorted(unique, key=lambda p: (files.index(_place(p)[0]), _place(p)[1])))


def _place(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdigit() and not problem.where.startswith("--set") else (problem.where, 0)


def load_run(path: Path, sets: Sequence[str] = ()) -> RunDraft:
    """Return the draft of a run file with `--set` assignments applied.

    Raises:  ConfigError: the file cannot be read as YAML at all.
    """
    document = read_file(path)
    for assignment in sets:
        set_value(document, assignment)
    return draft_run(document)


def draft_run(document: Document) -> RunDraft:
    """Return the draft of a run file's data."""
    data, source = document.data, document.source
    if not isinstance(data, dict):
        raise ConfigError([source.problem((), "a run file is a mapping with name, topology, model, train, cases")])
    problems: list[Problem] = []
    hints = typing.get_type_hints(RunSpec, include_extras=True)
    for key in data:
        if key not in hints:
            problems.append(source.problem((key,), f"unknown key '{key}'{nearest(key, hints) or _known(hints)}"))
    sections: dict[str, Any] = {}
    for key, info in RunSpec.model_fields.items():
        if key in data and key not in ("cases", "profiles"):
            sections[key] = check(hints[key], data[key], source.at(key), problems)
        elif info.is_required() and key not in data:
            problems.append(source.problem((key,), "is missing"))
            sections[key] = None
        else:
            sections[key] = info.default
    if isinstance(sections["model"], str):
        sections["model"] = ModelSpec(name=sections["model"])
    draft = RunDraft(source, sections, _cases(data, source, problems), None, problems)
    _bind(draft, data)
    return draft


def _known(hints: dict[str, Any]) -> str:
    return f"; known keys are {listed(hints, 20)}"


def _cases(data: dict[str, Any], source: Source, problems: list[Problem]) -> list[CaseSpec | None]:
    if "cases" not in data:
        return []
    if not isinstance(data["cases"], list) or not data["cases"]:
        problems.append(source.problem(("cases",), "expected a list of cases such as {name: P=5, period: 5}"))
        return []
    cases: list[CaseSpec | None] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(data["cases"]):
        case = check(CaseSpec, item, source.at("cases", number), problems)
        if case is not None:
            if (case.period is None) == (case.periods is None):
                text = "give either period (local SGD) or periods (H-SGD)"
                problems.append(source.problem(("cases", number), text))
                case = None
            elif case.name in seen:
                text = f"'{case.name}' is already the name of cases.{seen[case.name]}"
                problems.append(source.problem(("cases", number, "name"), text))
            else:
                seen[case.name] = number
        cases.append(case)
    return cases


def _bind(draft: RunDraft, data: dict[str, Any]) -> None:
    """Load the topology and bind every profile name it uses."""
    source, problems = draft.source, draft.problems
    ref = draft.sections["topology"]
    if isinstance(ref, str):
        draft.topology = load_topology(ref, source.at("topology"), problems)
    elif ref is not None:
        draft.topology = TopologyDraft(ref, source.at("topology"))
    bindings = data.get("profiles", {})
    if not isinstance(bindings, dict):
        problems.append(source.problem(("profiles",), "expected a mapping of names to profiles"))
        bindings = {}
    if draft.topology is not None:
        bind_profiles(draft.topology, problems, bindings, source.at("profiles"))
    compute = draft.sections["compute"]
    if compute is not None:
        draft.compute = load_profile(ComputeProfile, compute, source.at("compute"), problems)


def load_topology(name: str, source: Source, problems: list[Problem]) -> TopologyDraft | None:
    """Return the topology that `name` stands for, or None after adding problems."""
    try:
        document = read_file(_shown(find_file("topologies", name, source.base)))
    except FileNotFoundError as error:
        problems.append(source.problem((), str(error)))
        return None
    except ConfigError as error:
        problems += error.problems
        return None
    return draft_topology(document, problems)


def draft_topology(document: Document, problems: list[Problem]) -> TopologyDraft | None:
    """Return the draft of a topology file's data, or None after adding problems."""
    spec = check(TopologySpec, document.data, document.source, problems)
    return None if spec is None else TopologyDraft(spec, document.source)


def bind_profiles(
    topology: TopologyDraft,
    problems: list[Problem],
    bindings: dict[str, Any],
    source: Source,
    lenient: bool = False,
) -> None:
    """Bind each profile name of the topology: in `bindings`, or a file of that name.

    lenient: a name that is nowhere is left unbound without a problem (a topology shown by itself).
    """
    uses = list(_uses(topology.spec))
    names = [ref for _, _, ref in uses if isinstance(ref, str)]
    for name in bindings:
        if name not in names:
            hint = nearest(name, names) or f"; it uses {listed(dict.fromkeys(names))}"
            problems.append(source.problem((name,), f"the topology uses no profile '{name}'{hint}"))
    for path, kind, ref in uses:
        where = topology.source.at(*path)
        bound: dict[Any, Any] = topology.links if kind is LinkProfile else topology.computes
        if not isinstance(ref, str):
            bound[ref] = load_profile(kind, ref, where, problems)
        elif ref not in bound:
            if lenient and ref not in bindings and not _exists(ref, where.base):
                continue
            bound[ref] = _bound(kind, ref, where, bindings, source, problems)


def _exists(name: str, base: Path) -> bool:
    try:
        return find_file("latency_profiles", name, base).is_file()
    except FileNotFoundError:
        return False


def _bound(
    kind: Any, name: str, where: Source, bindings: dict[str, Any], source: Source, problems: list[Problem]
) -> Any:
    if name not in bindings:
        found: list[Problem] = []
        profile = load_profile(kind, name, where, found)
        if profile is None and found and found[0].where == where.mark.where:
            found = [where.problem((), f"{found[0].message}; bind it under 'profiles' in the run file")]
        problems += found
        return profile
    value, here = bindings[name], source.at(name)
    if isinstance(value, dict):
        checked = check(kind, value, here, problems)
        return None if checked is None else load_profile(kind, checked, here, problems)
    checked = check(LinkRef, value, here, problems)
    return None if checked is None else load_profile(kind, checked, here, problems)


def _uses(spec: TopologySpec) -> typing.Iterator[tuple[tuple[str | int, ...], Any, Any]]:
    """Yield (path, kind of profile, reference) wherever the topology refers to a profile."""
    for number, level in enumerate(spec.levels or ()):
        yield from _node_uses(level, ("levels", number))
    if spec.root is not None:
        yield from _tree_uses(spec.root.children or (), ("root", "children"))
    for number, link in enumerate(spec.links):
        yield ("links", number, "profile"), LinkProfile, link.profile


def _node_uses(node: Any, path: tuple[str | int, ...]) -> typing.Iterator[tuple[Any, Any, Any]]:
    if node.uplink is not None:
        yield (*path, "uplink"), LinkProfile, node.uplink
    if node.compute is not None:
        yield (*path, "compute"), ComputeProfile, node.compute


def _tree_uses(children: Sequence[NodeSpec], path: tuple[str | int, ...]) -> typing.Iterator[tuple[Any, Any, Any]]:
    for number, node in enumerate(children):
        yield from _node_uses(node, (*path, number))
        yield from _tree_uses(node.children or (), (*path, number, "children"))
