"""Check one file of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hsgd_emu.config.assign import set_value
from hsgd_emu.config.kinds import PUBLISHED, kind_of
from hsgd_emu.config.load import TopologyDraft, bind_profiles, draft_run, draft_topology, raise_problems
from hsgd_emu.config.profiles import kind_of_profile, profile_of
from hsgd_emu.config.reader import Document, read_file
from hsgd_emu.config.run_schema import PublishedSpec
from hsgd_emu.config.schema import ComputeProfile
from hsgd_emu.config.validate import check
from hsgd_emu.errors import ConfigError, Problem, Problems
from hsgd_emu.experiment import Experiment, build_experiment
from hsgd_emu.topology.tree import Topology, build_topology


def open_file(path: Path, sets: Sequence[str]) -> tuple[str, Document]:
    """Return the kind and the data of a file, `--set` assignments applied.

    Raises:  ConfigError: it cannot be read, or is of no kind.
    """
    document = read_file(path)
    for assignment in sets:
        set_value(document, assignment)
    kind = kind_of(document.data)
    if kind is None:
        text = (
            "no run (topology, train, cases), study (run, axes), topology (levels or root), profile (rtt_s, step_s) "
            "or published times (times)"
        )
        raise ConfigError([document.source.problem((), text)])
    return kind, document


def check_file(
    path: Path, sets: Sequence[str] = (), notes: list[Problem] | None = None, trust_code: bool = False
) -> str:
    """Return in one line what a valid file is; what should not be overlooked in it is added to `notes`.

    trust_code: load the data and build the model of a run or study too, running its own code, and try one batch.
    Raises:  ConfigError: every mistake in it and in the files it names.
    """
    notes = [] if notes is None else notes
    if kind_of(read_file(path).data) == "study":
        from hsgd_emu.study.sweep.prepared import check_study

        return check_study(path, sets, notes, trust_code)
    kind, document = open_file(path, sets)
    if kind == "run":
        from hsgd_emu.run import check_learning

        experiment = build_experiment(draft_run(document))
        notes += experiment.notes
        check_learning([experiment], notes, trust_code)
        mixing = "".join(f"; {text}" for text in experiment.mixing_in_words())
        return f"a run of {_counted(experiment)} on {described(experiment.topology)}{mixing}"
    if kind == "topology":
        problems = Problems()
        text = described(open_topology(document, problems)[1])
        notes += problems.notes
        return f"a topology of {text}"
    problems = Problems()
    if kind == PUBLISHED:
        published = check(PublishedSpec, document.data, document.source, problems)
        raise_problems(problems)
        assert published is not None
        return f"published times of {published.source}: {len(published.times)}"
    kind_of_it = kind_of_profile(document.data)
    profile_of(kind_of_it, document, problems)
    raise_problems(problems)
    notes += problems.notes
    return "a compute profile" if kind_of_it is ComputeProfile else "a link profile"


def open_topology(document: Document, problems: Problems) -> tuple[TopologyDraft, Topology]:
    """Return the topology of a file by itself; profile names that are no files are left to the run file.

    problems: empty; notes are added.

    Raises:  ConfigError: every mistake in it and in the profiles it names.
    """
    draft = draft_topology(document, problems)
    if draft is not None:
        bind_profiles(draft, problems, {}, document.source, lenient=True)
    topology = build_topology(draft, problems) if draft is not None else None
    raise_problems(problems)
    assert draft is not None
    assert topology is not None
    return draft, topology


def _counted(experiment: Experiment) -> str:
    cases, seeds = len(experiment.cases), len(experiment.seeds)
    return f"{cases} case{'s' * (cases > 1)} x {seeds} seed{'s' * (seeds > 1)}"


def described(topology: Topology) -> str:
    workers, servers, levels = len(topology.workers), len(topology.servers), topology.num_levels
    return f"{workers} workers, {servers} server{'s' * (servers > 1)}, {levels} level{'s' * (levels > 1)}"
