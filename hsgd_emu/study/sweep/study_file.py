"""A study file: the run that it starts from, its axes with their values, and the scenarios that they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.config.assign import merge_value, set_value
from hsgd_emu.config.kinds import require_kind
from hsgd_emu.config.load import bind_profiles, draft_run, load_topology, raise_problems
from hsgd_emu.config.profiles import read_named
from hsgd_emu.config.reader import Document, Source, put_value, read_file, read_text, relabelled
from hsgd_emu.config.run_schema import RunSpec
from hsgd_emu.config.study_schema import CaseGrid, StudySpec
from hsgd_emu.config.validate import check, unknown_key
from hsgd_emu.config.wording import form, shown
from hsgd_emu.errors import ConfigError, Problem, Problems, listed, nearest
from hsgd_emu.experiment import Experiment, build_experiment, plain, with_profiles
from hsgd_emu.study.changes import COMPUTE
from hsgd_emu.study.sweep.axes import Axis, Scenario, Value, read_axes, read_scenarios, shown_value


@dataclass(frozen=True)
class Study:
    """A checked study file. A scenario gives every axis a value, None where the run's own stays."""

    spec: StudySpec
    source: Source
    experiment: Experiment
    """The run with what holds in every scenario; its cases and targets are the study's."""
    document: Document
    """The same as data, everything resolved: what the axes change."""
    axes: tuple[Axis, ...]
    scenarios: Sequence[Scenario]
    notes: tuple[Problem, ...] = ()
    """What is valid in the files, and yet should not be overlooked."""

    @property
    def is_grid(self) -> bool:
        return self.spec.sample is None and self.spec.scenarios is None


def load_study(path: Path | str, sets: Sequence[str] = ()) -> Study:
    """Return the study of a file; its scenarios are made but not yet tried (see `Settings`).

    sets: KEY=VALUE, as `--set`: of the study file, or else of its run.
    Raises:  ConfigError: everything that is wrong with the study file and its run.
    """
    document = read_file(Path(path))
    require_kind(document, "study")
    for_run = [text.removeprefix("run.") for text in sets if not _is_of_study(text)]
    for text in filter(_is_of_study, sets):
        set_value(document, text)
    data, source = document.data, document.source
    if not isinstance(data, dict):
        raise ConfigError([source.problem((), f"found {shown(data)}; expected a mapping with name, run and axes")])
    problems = Problems()
    spec = check(StudySpec, data, source, problems)
    experiment = _experiment(data, source, spec, for_run, problems)
    if spec is None or experiment is None:
        raise_problems(problems, source)
    assert isinstance(spec, StudySpec)
    assert experiment is not None
    if not experiment.target_levels():
        text = f"is missing, in the run too; expected {form(('targets',))}"
        problems.append(source.problem(("targets",), text))
    if spec.sample is not None and spec.scenarios is not None:
        problems.append(source.problem(("scenarios",), "stands beside `sample`; give one of them"))
    axes = read_axes(spec, source, problems)
    _check_names(axes, experiment, problems)
    raise_problems(problems, source)
    resolved = resolved_document(experiment, source.at("run"))
    scenarios = read_scenarios(spec, axes, source, problems)
    raise_problems(problems, source)
    notes = (*experiment.notes, *problems.notes)
    return Study(spec, source, experiment, resolved, axes, scenarios, notes)


def _is_of_study(assignment: str) -> bool:
    """Return whether an assignment means the study file.

    What studies do not have is the run's, and so is what lies inside `run`, `cases` and `targets`: its own cases
    and targets stand there by then.
    """
    first, inside, _ = assignment.partition("=")[0].strip().partition(".")
    return first in StudySpec.model_fields and not (inside and first in ("run", "cases", "targets"))


def _experiment(
    data: Mapping[str, Any], source: Source, spec: StudySpec | None, sets: Sequence[str], problems: list[Problem]
) -> Experiment | None:
    """Return the run with the study's fixed changes, or None after adding problems."""
    try:
        document = _run_document(data.get("run"), source.at("run"), problems)
        if document is None:
            return None
        # A study shows no published times; they need not fit its own cases and targets.
        if isinstance(document.data, dict):
            document.data.pop("published", None)
        fixed = data.get("set")
        for key, value in fixed.items() if isinstance(fixed, dict) else ():
            merge_value(document, str(key).split("."), value, source.at("set", str(key)).mark)
        if spec is not None and spec.targets is not None:
            put_value(document, ["targets"], data["targets"], source.at("targets").mark)
        if spec is not None and spec.cases is not None:
            cases = _grid(spec.cases, source.at("cases"), problems) or data["cases"]
            put_value(document, ["cases"], cases, source.at("cases").mark)
        for text in sets:
            set_value(document, text)
        return build_experiment(draft_run(document))
    except ConfigError as error:
        problems += error.problems
        return None


def _run_document(run: Any, source: Source, problems: list[Problem]) -> Document | None:
    if isinstance(run, str):
        return read_named("runs", run, source, problems)
    return Document(dict(run), Source(source.mark, source.base)) if isinstance(run, dict) else None


def _grid(cases: Any, source: Source, problems: list[Problem]) -> list[dict[str, Any]]:
    """Return the cases of a grid of periods; nothing where the file lists cases itself."""
    if not isinstance(cases, CaseGrid):
        return []
    found: list[dict[str, Any]] = [{"name": f"P={p}", "period": p} for p in dict.fromkeys(cases.P)]
    pairs = [(g, i) for g in dict.fromkeys(cases.G) for i in dict.fromkeys(cases.I) if i < g and g % i == 0]
    found += [{"name": f"G={g} I={i}", "periods": [g, i]} for g, i in pairs]
    for key, periods, used in (("G", cases.G, {g for g, _ in pairs}), ("I", cases.I, {i for _, i in pairs})):
        alone = [period for period in periods if period not in used]
        if alone:
            text = f"{listed(alone)} goes with no {'I' if key == 'G' else 'G'} here: I divides G and is less"
            problems.append(source.problem((key,), text))
    if not found:
        problems.append(source.problem((), "gives no case; as in {P: [5, 50], G: [50], I: [5, 10]}"))
    return found


def resolved_document(experiment: Experiment, source: Source) -> Document:
    """Return the run as data with every name resolved; mistakes in it are told as standing at `source`."""
    document = read_text(experiment.resolved(), source.mark.where, experiment.base)
    if experiment.data.root is not None:
        document.data["data"]["root"] = experiment.data.root
    return Document(document.data, Source(relabelled(document.source.mark, source.mark.where), experiment.base))


def _check_names(axes: Sequence[Axis], experiment: Experiment, problems: list[Problem]) -> None:
    """Report axes of what the run does not have."""
    draft = experiment.topology_draft
    links = {name for name in draft.links if isinstance(name, str)}
    names = links | {name for name in draft.computes if isinstance(name, str)}
    for axis in axes:
        if axis.kind == "set":
            known: Sequence[str] = list(RunSpec.model_fields)
            if axis.keys[0] not in known:
                problems.append(axis.source.problem(("set",), unknown_key(axis.keys[0], known)))
            elif axis.keys[0] == "targets":
                problems.append(axis.source.problem(("set",), "targets are no axis; list them all under `targets`"))
            names |= _names_of_topologies(axis, problems)
    for axis in axes:
        known = sorted(names | ({COMPUTE} if axis.kind == "scale" and experiment.compute is not None else set()))
        if axis.kind != "set" and axis.key not in known:
            hint = nearest(axis.key, known) or f"; it has {listed(known) or 'none by name'}"
            problems.append(axis.source.problem((axis.kind,), f"the run has no profile '{axis.key}'{hint}"))


def _names_of_topologies(axis: Axis, problems: list[Problem]) -> set[str]:
    if axis.keys != ("topology",):
        return set()
    drafts = [load_topology(v.data, v.source, problems) for v in axis.values if isinstance(v.data, str)]
    return {ref for draft in drafts if draft for ref in draft.refs.values() if isinstance(ref, str)}


def study_data(study: Study) -> dict[str, Any]:
    """Return the study as YAML-ready data with everything written out, so that it stands by itself."""
    spec = study.spec
    touched = {*study.document.data.get("profiles", {}), *(axis.keys[1] for axis in study.axes if len(axis.keys) > 1)}
    listed_ = None
    if spec.scenarios is not None:
        rows = (zip(study.axes, values, strict=True) for values in study.scenarios)
        listed_ = [{axis.name: _written(axis, value, touched) for axis, value in row if value} for row in rows]
    given: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "axes": [axis.written([_written(axis, value, touched) for value in axis.values]) for axis in study.axes],
        "sample": plain(spec.sample),
        "scenarios": listed_,
        "replications": spec.replications,
        "run": {**study.document.data, "data": {**study.document.data["data"], "root": None}},
    }
    given["run"]["data"].pop("root")
    return {key: value for key, value in given.items() if value is not None}


def _written(axis: Axis, value: Value, names: Collection[str]) -> Any:
    """Return a value as data; names: the profiles that are bound by the run or an axis."""
    data = value.data
    if axis.keys == ("topology",) and isinstance(data, str):
        data = _written_topology(value, names)
    if isinstance(data, dict) and shown_value(data) != value.text and axis.keys[0] in ("topology", "profiles"):
        return {**data, "name": value.text}
    return data


def _written_topology(value: Value, names: Collection[str]) -> Any:
    """Return a topology's file as data, with the profiles that only it knows where to find."""
    problems = Problems()
    draft = load_topology(value.data, value.source, problems)
    assert draft is not None
    bind_profiles(draft, problems, {}, value.source, lenient=True)
    return with_profiles(plain(draft.spec), draft, {ref for ref in draft.refs.values() if ref not in names})
