"""Read the files of a run into typed models: the only way from YAML to the rest of the program.

Every section is checked by itself, so that one mistake does not hide the others; what a section lacks is None in
the draft, and the caller adds the checks that need several sections before raising all problems at once.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsgd_emu.config.assign import set_value
from hsgd_emu.config.kinds import require_kind
from hsgd_emu.config.profiles import check_cost, has_profile, kind_of_profile, load_profile, read_named
from hsgd_emu.config.published import load_published
from hsgd_emu.config.reader import MAX_DIGITS, Document, Mark, Path_, Source, read_file
from hsgd_emu.config.run_schema import OF_ALL_CASES, CaseSpec, ModelSpec, RunSpec
from hsgd_emu.config.schema import Bytes, ComputeProfile, CostValue, LinkProfile, NodeSpec, Ref, TopologySpec
from hsgd_emu.config.validate import check, missing, unknown_key
from hsgd_emu.config.wording import COMPUTE, LINK, form, shown
from hsgd_emu.errors import ConfigError, Problem, Problems, listed, nearest


@dataclass
class TopologyDraft:
    """A topology as its file gives it, and what each profile in it is bound to (None: wrong or not found)."""

    spec: TopologySpec
    source: Source
    refs: dict[Path_, Ref] = field(init=False)
    """By place in the file; inline profiles that are equal have one number."""
    links: dict[Ref, LinkProfile | None] = field(default_factory=dict)
    computes: dict[Ref, ComputeProfile | None] = field(default_factory=dict)
    aggregations: dict[Path_, CostValue | None] = field(default_factory=dict)
    """The costs of aggregations by place in the file, with CSV samples read in."""

    def __post_init__(self) -> None:
        number: dict[Any, int] = {}
        self.refs = {
            path: given if isinstance(given, str) else number.setdefault(given, len(number))
            for path, _, given in profile_uses(self.spec)
        }


@dataclass
class RunDraft:
    """A run file read so far: its sections, where they stand, and the problems found."""

    source: Source
    sections: dict[str, Any]
    cases: list[CaseSpec | None]
    topology: TopologyDraft | None
    problems: Problems
    compute: ComputeProfile | None = None
    published_source: Source | None = None
    """Where the published times stand: in the run file, or in their own."""

    def raise_problems(self) -> None:
        """Raise all problems found, those of the run file first, in the order of the lines."""
        raise_problems(self.problems, first=self.source)


def raise_problems(problems: Sequence[Problem], first: Source | None = None) -> None:
    """Raise ConfigError with the problems ordered by line within each file; nothing where there are none."""
    if problems:
        files = [first.mark.where.rpartition(":")[0]] if first is not None else []
        files = list(dict.fromkeys([*files, *(_place(p)[0] for p in problems)]))
        unique = dict.fromkeys(problems)
        raise ConfigError(sorted(unique, key=lambda p: (files.index(_place(p)[0]), _place(p)[1])))


def _place(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.where.rpartition(":")
    return (file, int(line)) if line.isdigit() and not problem.where.startswith("--") else (problem.where, 0)


def load_run(path: Path, sets: Sequence[str] = ()) -> RunDraft:
    """Return the draft of a run file with `--set` assignments applied.

    Raises:  ConfigError: the file cannot be read as YAML at all.
    """
    document = read_file(path)
    require_kind(document, "run")
    for assignment in sets:
        set_value(document, assignment)
    return draft_run(document)


def draft_run(document: Document) -> RunDraft:
    """Return the draft of a run file's data."""
    data, source = document.data, document.source
    if not isinstance(data, dict):
        text = "a mapping with name, topology, model, train and cases"
        raise ConfigError([source.problem((), f"found {shown(data)}; expected {text}")])
    problems = Problems()
    hints = typing.get_type_hints(RunSpec, include_extras=True)
    unknown = [key for key in data if key not in hints]
    problems += [source.problem((key,), unknown_key(key, hints)) for key in unknown]
    sections: dict[str, Any] = {}
    for key, info in RunSpec.model_fields.items():
        if key in data and key not in ("cases", "profiles"):
            sections[key] = check(hints[key], data[key], source.at(key), problems)
        elif info.is_required() and key not in data:
            if not any(nearest(other, [key]) for other in unknown):
                problems.append(source.problem((key,), missing((key,))))
            sections[key] = None
        else:
            sections[key] = info.get_default(call_default_factory=True)
    if isinstance(sections["model"], str):
        sections["model"] = ModelSpec(name=sections["model"])
    draft = RunDraft(source, sections, _cases(data, source, problems), None, problems)
    if sections["published"] is not None:
        found = load_published(sections["published"], source.at("published"), problems)
        sections["published"], draft.published_source = found
    _bind(draft, data)
    return draft


def _cases(data: dict[str, Any], source: Source, problems: list[Problem]) -> list[CaseSpec | None]:
    if "cases" not in data:
        return []
    if not isinstance(data["cases"], list) or not data["cases"]:
        problems.append(source.problem(("cases",), f"found {shown(data['cases'])}; expected {form(('cases',))}"))
        return []
    cases: list[CaseSpec | None] = []
    seen: dict[str, int] = {}
    for number, item in enumerate(data["cases"]):
        place = source.at("cases", number)
        case = check(CaseSpec, _of_one_case(item, place, problems), place, problems)
        if case is not None:
            if case.name in seen:
                text = f"'{case.name}' is already the name of cases.{seen[case.name]}"
                problems.append(source.problem(("cases", number, "name"), text))
            else:
                seen[case.name] = number
        cases.append(case)
    return cases


def _of_one_case(item: Any, source: Source, problems: list[Problem]) -> Any:
    """Return a case without what its `train` says that is the same in all cases, after adding that as problems."""
    given = item.get("period") if isinstance(item, dict) else None
    if isinstance(given, list):
        text = f"found {shown(given)}; `periods: {given}` gives each level of servers its period"
        problems.append(source.problem(("period",), f"{text}, `period: {{rounds: {given}}}` rounds of these lengths"))
        item = {**item, "period": 1}
    own = item.get("train") if isinstance(item, dict) else None
    if not isinstance(own, dict):
        return item
    for key in [key for key in own if key in OF_ALL_CASES]:
        text = "is the same in all cases, which share their batches: it stands in the run's own train"
        problems.append(source.problem(("train", key), text))
    if "participation" in own and item.get("participation") is not None:
        problems.append(source.problem(("train", "participation"), "stands beside the case's own participation"))
    return {**item, "train": {key: value for key, value in own.items() if key not in OF_ALL_CASES}}


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
        problems.append(source.problem(("profiles",), f"found {shown(bindings)}; expected {form(('profiles',))}"))
        bindings = {}
    if draft.topology is not None:
        bind_profiles(draft.topology, problems, bindings, source.at("profiles"))
    else:
        for name, value in bindings.items():  # which use them is not known: what kind of profile they are, they tell
            if isinstance(value, dict):
                bind_value(kind_of_profile(value), value, source.at("profiles", name), problems)
    compute = draft.sections["compute"]
    if compute is not None:
        draft.compute = load_profile(ComputeProfile, compute, source.at("compute"), problems)


def read_bytes(option: str, text: str) -> int:
    """Return the bytes that an option of the command line gives, a number or with a unit.

    Raises:  ConfigError: it gives none.
    """
    problems = Problems()
    given = int(text) if text.isascii() and text.isdigit() and len(text) < MAX_DIGITS else text
    found: int | None = check(Bytes, given, Source(Mark(f"{option} {text}"), Path(), ("message_bytes",)), problems)
    raise_problems([Problem(problem.where, "", problem.message) for problem in problems])
    assert found is not None
    return found


def load_topology(name: str, source: Source, problems: list[Problem]) -> TopologyDraft | None:
    """Return the topology that `name` stands for, or None after adding problems."""
    document = read_named("topologies", name, source, problems)
    return None if document is None else draft_topology(document, problems)


def draft_topology(document: Document, problems: list[Problem]) -> TopologyDraft | None:
    """Return the draft of a topology file's data, or None after adding problems."""
    spec = check(TopologySpec, document.data, document.source, problems)
    return None if spec is None else TopologyDraft(spec, document.source)


def bind_profiles(
    topology: TopologyDraft,
    problems: Problems,
    bindings: dict[str, Any],
    source: Source,
    lenient: bool = False,
) -> None:
    """Bind each profile name of the topology: in `bindings`, or a file of that name.

    lenient: a name that is nowhere is left unbound without a problem (a topology shown by itself).
    """
    uses = list(profile_uses(topology.spec))
    names = [ref for _, _, ref in uses if isinstance(ref, str)]
    for name in bindings:
        if name not in names:
            hint = nearest(name, names) or f"; it uses {listed(dict.fromkeys(names))}"
            problems.append(source.problem((name,), f"the topology uses no profile '{name}'{hint}"))
    for path, kind, given in uses:
        where, ref = topology.source.at(*path), topology.refs[path]
        bound: dict[Any, Any] = topology.links if kind is LinkProfile else topology.computes
        if isinstance(ref, int):
            bound[ref] = load_profile(kind, given, where, problems)
        elif ref not in bound:
            if lenient and ref not in bindings and not has_profile(ref, where.base):
                continue
            bound[ref] = _bound(kind, ref, where, bindings, source, problems)
    for path, node in _nodes(topology.spec):
        if node.aggregation_s is not None:
            path = (*path, "aggregation_s")
            topology.aggregations[path] = check_cost(node.aggregation_s, topology.source.at(*path), problems)


def _bound(kind: Any, name: str, where: Source, bindings: dict[str, Any], source: Source, problems: Problems) -> Any:
    if name not in bindings:
        found = Problems()
        profile = load_profile(kind, name, where, found)
        text = found[0].message if found else ""
        if text.startswith("no ") and found[0].where == where.mark.where:
            found[:] = [where.problem((), f"{text}{' Or' if text.endswith('?') else '; or'} bind it under 'profiles'")]
        problems += found
        for note in found.notes:
            problems.note(note)
        return profile
    return bind_value(kind, bindings[name], source.at(name), problems)


def bind_value(kind: Any, value: Any, source: Source, problems: Problems) -> Any:
    """Return the profile that a value under `profiles` stands for, or None after adding problems."""
    if not isinstance(value, dict | str):
        right = COMPUTE if kind is ComputeProfile else LINK
        problems.append(source.problem((), f"found {shown(value)}; expected {right}"))
        return None
    checked = check(kind, value, source, problems) if isinstance(value, dict) else value
    return None if checked is None else load_profile(kind, checked, source, problems)


def profile_uses(spec: TopologySpec) -> Iterator[tuple[Path_, Any, Any]]:
    """Yield (path, kind of profile, reference) wherever the topology refers to a profile."""
    for path, node in _nodes(spec):
        if getattr(node, "uplink", None) is not None:
            yield (*path, "uplink"), LinkProfile, node.uplink
        if getattr(node, "compute", None) is not None:
            yield (*path, "compute"), ComputeProfile, node.compute
    for number, link in enumerate(spec.links):
        yield ("links", number, "profile"), LinkProfile, link.profile


def _nodes(spec: TopologySpec) -> Iterator[tuple[Path_, Any]]:
    """Yield (path, node or level) of everything that a topology file describes."""
    for number, level in enumerate(spec.levels or ()):
        yield ("levels", number), level
    if spec.root is not None:
        yield ("root",), spec.root
        yield from _below(spec.root.children or (), ("root", "children"))


def _below(children: Sequence[NodeSpec], path: Path_) -> Iterator[tuple[Path_, Any]]:
    for number, node in enumerate(children):
        yield (*path, number), node
        yield from _below(node.children or (), (*path, number, "children"))
