"""The commands about one run, and about files."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from hsgd_emu.cli.app import (
    Device,
    Force,
    Out,
    Precision,
    RunDir,
    RunFile,
    Sets,
    Texts,
    TrustCode,
    app,
    guarded,
    print_lines,
    print_table,
)
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.terminal import say

if TYPE_CHECKING:
    from hsgd_emu.study.training.shelf import Shelf
    from hsgd_emu.trials import Progress, Session

Format = StrEnum("Format", "csv parquet tensorboard")
ReportFormat = StrEnum("ReportFormat", "html png svg")


@app.command(epilog="Example:  hsgd-emu run runs/demo.yaml --set train.iterations=200 --out quick")
@guarded
def run(
    file: RunFile,
    out: Out = None,
    resume: Annotated[bool, Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, Option("--force", help="Replace the run that is there.")] = False,
    device: Annotated[Device, Option(help="Where to learn; auto takes CUDA where there is one.")] = Device.auto,
    sets: Sets = None,
    timing_only: Annotated[bool, Option("--timing-only", help="Emulate time without learning.")] = False,
    threads: Annotated[
        int | None,
        Option(
            min=1,
            help="Threads of torch for each trial (default: one; more may be faster where nothing else runs). The last "
            "bits depend on it.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        Option(
            min=1,
            help="Trials learned side by side, each in a process (default: as many as there are cores, once that pays; "
            "on CUDA one). No result depends on it.",
        ),
    ] = None,
    precision: Annotated[
        Precision, Option(help="Of products in the learning; auto is tf32 on CUDA and fp32 on a CPU.")
    ] = Precision.auto,
    engine: Annotated[
        str,
        Option(
            metavar="WAY[:WORKERS]",
            help="How steps are taken: layered, vmap or one_by_one, and how many workers at once, such as layered:5; "
            "or usual, by rule (default: chosen by a short trial and remembered). The last bits depend on it.",
        ),
    ] = "auto",
    minutes: Annotated[
        float | None,
        Option(min=0, help="Stop after so long, at a global aggregation; --resume goes on to the same bits."),
    ] = None,
    tensorboard: Annotated[
        bool,
        Option(
            "--tensorboard",
            help="Write TensorBoard scalars to RUN_DIR/tensorboard as the run goes: Step shows iterations, Relative "
            "emulated time; below by_time/ Step is emulated milliseconds. With --resume too, to go on with them.",
        ),
    ] = False,
    library: Annotated[
        Path | None,
        Option(
            help="Folder of learned trials, shared with studies (default: runs/out/trials): what is there is not "
            "learned again, and what is learned is put there. none: neither.",
            show_default=False,
        ),
    ] = None,
    trust_code: Annotated[
        bool,
        Option(
            "--trust-code",
            help="With --timing-only: run the file's own model or data (`module:factory`) to learn how large a message "
            "is, where message_bytes does not say it.",
        ),
    ] = False,
) -> None:
    """Train and emulate every case and seed of a run file; print the time-to-target table; write a report."""
    from hsgd_emu.experiment import load_experiment
    from hsgd_emu.progress import show_progress
    from hsgd_emu.run import Options, run_experiment

    experiment = load_experiment(file, sets or [])
    options = Options(
        *(device.value, precision.value, engine, resume, force, timing_only, threads), jobs=jobs, trust_code=trust_code
    )
    num_trials = len(experiment.cases) * len(experiment.seeds)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(show_progress(num_trials, experiment.train.iterations))
        progress.end_s = math.inf if minutes is None else time.monotonic() + 60 * minutes
        if tensorboard:
            from hsgd_emu.cli.tensorboard import with_tensorboard

            progress = stack.enter_context(with_tensorboard(progress, experiment, out))
        folder = run_experiment(experiment, out, options, progress, shelf_of=lambda session: _shelf(session, library))
        path = write_report_of(folder, progress)
    print_results(folder, path)
    if not timing_only:
        print_lines([_how_learned(folder, jobs)])
    if progress.is_over():
        say("Stopped, for its time was over; the same command with --resume goes on where trials are unfinished.")


def _how_learned(folder: Path, jobs: int | None) -> str:
    from hsgd_emu.results.folder import read_environment

    threads = read_environment(folder)["threads"]
    each = "one thread" if threads == 1 else f"{threads} threads"
    beside = "side by side where that pays" if jobs is None else f"{jobs} side by side" if jobs > 1 else "one by one"
    return f"Learned: {each} for each trial, {beside} (--threads, --jobs)"


def _shelf(session: Session, library: Path | None) -> Shelf | None:
    from hsgd_emu.study.training.shelf import shelf_of

    return shelf_of(session, library)


def write_report_of(folder: Path, progress: Progress) -> Path:
    progress.say("writing the report")
    from hsgd_emu.report import write_report

    return write_report(folder)


def print_results(folder: Path, report: Path) -> None:
    from hsgd_emu.results.summary import published_line, summarise
    from hsgd_emu.results.wording import answer, tables

    summaries = summarise(folder)
    print_table(tables(summaries))
    print_lines([*published_line(folder, summaries), answer(summaries)])
    say(f"\nResults: {folder}\nReport:  {report}")


@app.command(epilog="Example:  hsgd-emu check runs/demo.yaml topologies/two_sites.yaml")
@guarded
def check(
    files: Annotated[list[Path], Argument(help="Run, study, topology or profile files.", show_default=False)],
    sets: Annotated[Texts, Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the files.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Check files and the files they name; every mistake is reported at once.

    Data are not loaded and no model is built, except with --trust-code, which tries whether they fit.
    """
    from hsgd_emu.check import check_file

    problems: list[Problem] = []
    for file in files:
        try:
            notes: list[Problem] = []
            say(f"{file}: {check_file(file, sets or [], notes, trust_code)}")
            for note in notes:
                say(f"note: {note}")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


@app.command(epilog="Example:  hsgd-emu show topologies/paper.yaml")
@guarded
def show(
    file: Annotated[Path, Argument(help="A topology file or a run file.", show_default=False)],
    message_bytes: Annotated[
        str | None,
        Option(
            metavar="BYTES",
            help="Size of a model message, for links whose cost grows with it: a number, or as in 60KiB, 2.6GB.",
        ),
    ] = None,
    sets: Annotated[Texts, Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the file.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Show a topology as a tree, its links and what they are expected to cost; for a run file its cases too."""
    from hsgd_emu.config.load import read_bytes
    from hsgd_emu.show import show_file

    num_bytes = None if message_bytes is None else read_bytes("--message-bytes", message_bytes)
    show_file(file, num_bytes, sets or [], trust_code)


@app.command(epilog="Example:  hsgd-emu export runs/out/demo --format csv --out tables")
@guarded
def export(
    run_dir: RunDir,
    out: Annotated[Path, Option(help="Folder to write to.")],
    format: Annotated[
        Format,
        Option(
            help="csv and parquet: one file per table. tensorboard: the scalars of a run, one folder per trial; Step "
            "shows iterations, Relative emulated time; below by_time/ Step is emulated milliseconds."
        ),
    ] = Format.csv,
    force: Force = False,
) -> None:
    """Write tables of a run (curve, timeline, targets, trials, barriers, waits, workers) or study, CSV or Parquet."""
    from hsgd_emu.results.read import export as export_run
    from hsgd_emu.study.sweep.store import export_study, is_study_folder

    if format is Format.tensorboard:
        from hsgd_emu.results.tensorboard import export_events

        for path in export_events(run_dir, out):
            say(path)
        return
    export_tables = export_study if is_study_folder(run_dir) else export_run
    for path in export_tables(run_dir, format.value, out, force):
        say(path)


@app.command(epilog="Example:  hsgd-emu report runs/out/demo --out demo.html")
@guarded
def report(
    run_dirs: Annotated[
        list[Path], Argument(metavar="RUN_DIR", help="Folders of runs, or of one study.", show_default=False)
    ],
    out: Annotated[
        Path | None, Option(help="File to write (default: report.html in the first folder); a folder for images.")
    ] = None,
    format: Annotated[ReportFormat, Option(help="A page, or its figures as images.")] = ReportFormat.html,
    figures: Annotated[
        Texts, Option("--figure", metavar="NAME", help="Only this figure, as `curves` (default: each of them once).")
    ] = None,
    force: Force = False,
) -> None:
    """Write the report again as one self-contained HTML file; several runs are compared on one page.

    Or write its figures as PNG or SVG (needs hsgd-emu\\[images] and Chrome or Chromium).
    """
    if format is ReportFormat.html:
        from hsgd_emu.report import write_report

        if figures:
            raise ConfigError.of("--figure", "", "is for images; give --format png or svg as well")
        say(write_report(run_dirs, out, force))
        return
    from hsgd_emu.report.images import write_images

    for path in write_images(run_dirs, format.value, out or run_dirs[0] / "figures", figures or [], force):
        say(path)


@app.command(epilog="Example:  hsgd-emu init my_study")
@guarded
def init(
    folder: Annotated[Path, Argument(help="Folder to write the examples to.", show_default=False)],
    force: Annotated[bool, Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write the commented example topologies, latency profiles and runs, to start your own from."""
    from hsgd_emu.init import write_examples

    for path in write_examples(folder, force):
        say(path)
    say(f"\nNext:  hsgd-emu show {folder}/topologies/two_sites.yaml")
    say(f"       hsgd-emu run {folder}/runs/demo.yaml")


@app.command(epilog="Example:  hsgd-emu trace runs/out/demo --rounds 2")
@guarded
def trace(
    run_dir: RunDir,
    out: Annotated[Path | None, Option(help="File to write (default: trace.json in the folder).")] = None,
    cases: Annotated[Texts, Option("--case", metavar="NAME", help="Only this case; can be given again.")] = None,
    seeds: Annotated[
        list[int] | None, Option("--seed", metavar="NUMBER", help="Only this seed; can be given again.")
    ] = None,
    rounds: Annotated[
        int | None, Option(min=1, metavar="NUMBER", help="Only this many rounds, from the first on.")
    ] = None,
    force: Force = False,
) -> None:
    """Write the timeline of a run as a trace, to look at it in Perfetto or chrome://tracing."""
    from hsgd_emu.results.trace import write_trace
    from hsgd_emu.study.sweep.store import is_study_folder

    if is_study_folder(run_dir):
        text = "is a study, and only a run has a timeline; `hsgd-emu run` its run file, then trace that run's folder"
        raise ConfigError.of(str(run_dir), "", text)
    for line in write_trace(run_dir, out, cases or [], seeds or [], rounds, force).lines():
        say(line)


@app.command(epilog="Example:  hsgd-emu watch runs/out/demo --once")
@guarded
def watch(
    run_dir: RunDir,
    once: Annotated[bool, Option("--once", help="One picture of all trials as they are now (as in a pipe).")] = False,
) -> None:
    """Show a run live: every trial's progress and accuracy, the targets reached, the time left; or how far a study is.

    Only reads. Ends by itself when the run is finished, or when nobody writes it any more.
    """
    from hsgd_emu.terminal import Terminal
    from hsgd_emu.watch import watch as watch_folder

    terminal = sys.stdout.isatty()
    try:
        watch_folder(run_dir, Terminal() if terminal else Terminal(width=1000), live=terminal and not once)
    except KeyboardInterrupt:
        print("hsgd-emu: no longer watching; the run itself is as it was", file=sys.stderr)
        raise typer.Exit(130) from None
