"""What came back, at home: Table 2 beside the paper's, what it cost, the fitted RTTs, reports, the paper's claims."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from paper_claims import Curve, all_claims
from paper_run import returned, seed

from hsgd_emu.errors import ConfigError, HsgdError
from hsgd_emu.experiment import Experiment, load_experiment
from hsgd_emu.results.folder import RUN_FILE, read_environment
from hsgd_emu.results.rows import TrialKey
from hsgd_emu.results.summary import published_line, summarise
from hsgd_emu.results.tables import connect_to_read, curve_rows, trial_rows
from hsgd_emu.results.wording import CaseSummary, answer, header, render_rows

Key = tuple[tuple[int, ...], int, str]
"""Periods, groups, partition: what makes two trials of one seed the same."""


def report(places: Sequence[Path], out: Path) -> int:
    """Put the runs that came back below `out`, print what they show, and return the exit code."""
    folders = put(places, out)
    experiments = {folder: load_experiment(folder / RUN_FILE) for folder in folders}
    for folder in folders:
        if experiments[folder].published is not None or folder.name.startswith("table2"):
            print("\n".join(table_lines(folder)), end="\n\n")
    for model in dict.fromkeys(one.model.name for one in experiments.values()):
        alike = {folder: one for folder, one in experiments.items() if one.model.name == model}
        print("\n".join(claim_lines(model, alike)), end="\n\n")
    for folder in folders:
        print(write_report_of(folder))
    return 0


def put(places: Sequence[Path], out: Path) -> list[Path]:
    """Return the run folders below `out`, those that came back put there where they are further than what is there."""
    with tempfile.TemporaryDirectory() as place:
        for folder in returned([*places, *_runs_in(out)], Path(place)):
            if folder.resolve() != (out / folder.name).resolve():
                (out / folder.name / "run.sqlite").unlink(missing_ok=True)
                seed(folder, out / folder.name)
    return _runs_in(out)


def _runs_in(out: Path) -> list[Path]:
    return sorted(database.parent for database in out.glob("*/run.sqlite"))


def write_report_of(folder: Path) -> str:
    """Write a run's report and return where it is, or why there is none."""
    from hsgd_emu.report import write_report

    try:
        return f"report: {write_report(folder)}"
    except HsgdError as error:
        return f"no report of {folder}: {error}"


# --- Table 2 ----------------------------------------------------------------------------------------


def table_lines(folder: Path) -> list[str]:
    """Return the time-to-target table with the published times, what it cost the host, and the fitted constants."""
    summaries = summarise(folder)
    rows = [header(summaries), *render_rows(summaries)]
    lines = [f"## {folder.name}", "", *markdown(rows), "", *published_line(folder, summaries), answer(summaries), ""]
    return [*lines, *cost_lines(folder, summaries), "", *fit_lines(folder)]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows, the head first, as a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (rows[0], ["---", *["--:"] * (len(rows[0]) - 1)], *rows[1:])]


def cost_lines(folder: Path, summaries: Sequence[CaseSummary]) -> list[str]:
    """Return what the trials cost the host: all that have begun, medians over a case's seeds."""
    found = read_environment(folder)
    words = [str(found[key]) for key in ("device_name", "precision", "engine") if found.get(key)]
    words += [f"torch {found['torch']}"] if found.get("torch") else []
    rows = [["case", "finished", "iterations", "host seconds", "ms an iteration"]]
    with contextlib.closing(connect_to_read(folder)) as connection:
        trials = [trial for trial in trial_rows(connection) if trial.iteration and trial.wall_s]
    for summary in summaries:
        own = [(one.iteration, one.wall_s) for one in trials if one.case == summary.case and one.wall_s]
        cells = ["-", "-", "-"]
        if own:
            pace = statistics.median(1000 * wall_s / iteration for iteration, wall_s in own)
            both = [statistics.median(column) for column in zip(*own, strict=True)]
            cells = [f"{both[0]:,.0f}", f"{both[1]:,.1f}", f"{pace:.2f}"]
        rows.append([summary.case, f"{summary.num_finished} of {summary.num_seeds}", *cells])
    return [f"On the host ({', '.join(words)}), evaluations included:", "", *markdown(rows)]


def fit_lines(folder: Path) -> list[str]:
    """Return the constants that explain the published times, or why there are none."""
    from hsgd_emu.study.fitting.fit import fit

    try:
        return ["Fitted to the published times:", *fit(folder).lines()]
    except ConfigError as error:
        return [f"No fit: {error}"]


# --- the claims -------------------------------------------------------------------------------------


def claim_lines(model: str, experiments: dict[Path, Experiment]) -> list[str]:
    """Return what our runs of one model say to the paper's claims."""
    table2 = next((folder for folder in experiments if folder.name.startswith("table2")), None)
    claims = all_claims(summarise(table2) if table2 else [], curves_of(experiments))
    return [f"## The paper's claims, {model}", "", *(line for claim in claims for line in claim.lines())]


def curves_of(experiments: dict[Path, Experiment]) -> list[Curve]:
    """Return the curves of some runs of one model; a trial that two runs have is taken where it is longer."""
    found: dict[Key, dict[int, dict[int, float]]] = {}
    for folder, experiment in experiments.items():
        for key, number, curve in _trials(folder, experiment):
            known = found.setdefault(key, {}).get(number, {})
            found[key][number] = max(known, curve, key=len)
    return [Curve(*key, accuracy) for key, accuracy in found.items()]


def _trials(folder: Path, experiment: Experiment) -> Iterator[tuple[Key, int, dict[int, float]]]:
    """Yield the trials that have been evaluated, finished or not."""
    with contextlib.closing(connect_to_read(folder)) as connection:
        rows = list(curve_rows(connection))
    for case in experiment.cases:
        periods = (case.period,) if case.period is not None else case.periods
        if not isinstance(periods, tuple) or (case.participation or experiment.train.participation) < 1:
            continue
        kept = tuple(period for period in periods if isinstance(period, int))
        num_groups = 1 if len(kept) == 1 else len(experiment.topology.groups())
        for number in experiment.seeds:
            trial = TrialKey(case.name, number)
            curve = {
                row.iteration: row.metrics.test_accuracy
                for key, row in rows
                if key == trial and row.metrics.test_accuracy is not None
            }
            if curve:
                yield (kept, num_groups, experiment.data.partition), number, curve
