"""The command line: arguments, progress, exit codes. Everything heavy is imported inside the commands."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from hsgd_emu.errors import ConfigError, HsgdError, Problem

if TYPE_CHECKING:
    from rich.table import Table

    from hsgd_emu.results.summary import CaseSummary
    from hsgd_emu.trials import Progress

app = typer.Typer(
    name="hsgd-emu",
    help="Emulate Hierarchical SGD on a network: which schedule reaches the target accuracy first?",
    epilog="Start here:  hsgd-emu init my_study  &&  hsgd-emu run my_study/runs/demo.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Arguments = ParamSpec("Arguments")

RunFile = Annotated[Path, typer.Argument(help="A run file, as runs/demo.yaml.", show_default=False)]
RunDir = Annotated[Path, typer.Argument(help="The folder of a run, as runs/out/demo.", show_default=False)]


class Device(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"


class Format(StrEnum):
    csv = "csv"
    parquet = "parquet"


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Turn what goes wrong into a message and an exit code: 2 bad input, 1 a failure of ours, 130 Ctrl-C."""

    @functools.wraps(command)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except HsgdError as error:
            _complain(str(error))
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            _complain("interrupted; what was finished is kept, and `--resume` goes on with a run")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Who reads our output has seen enough. Nothing more may be written at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("HSGD_EMU_DEBUG"):
                raise
            _complain(f"a failure of hsgd-emu itself: {type(error).__name__}: {error}")
            _complain("set HSGD_EMU_DEBUG=1 to see where it happened")
            raise typer.Exit(1) from None

    return wrapper


def _complain(text: str) -> None:
    for line in text.splitlines():
        print(f"hsgd-emu: {line}" if not line.startswith(" ") else line, file=sys.stderr)


@app.command(epilog="Example:  hsgd-emu run runs/demo.yaml --set train.iterations=200 --out runs/out/quick")
@guarded
def run(
    file: RunFile,
    out: Annotated[Path | None, typer.Option(help="Folder of the results (default: runs/out/NAME).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
    device: Annotated[Device, typer.Option(help="Where to learn; auto takes CUDA where there is one.")] = Device.auto,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the run file.")
    ] = None,
    timing_only: Annotated[bool, typer.Option("--timing-only", help="Emulate time without learning.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads of torch (default: all cores; 1 for small networks). The last bits depend on it."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of products in the learning; auto is tf32 on CUDA and fp32 on a CPU.")
    ] = Precision.auto,
    engine: Annotated[
        str,
        typer.Option(
            metavar="WAY[:WORKERS]",
            help="How steps are taken: layered, vmap or one_by_one, and how many workers at once, such as layered:5 "
            "(default: chosen by a short trial and remembered). The last bits depend on it.",
        ),
    ] = "auto",
) -> None:
    """Train and emulate every case and seed of a run file; print the time-to-target table; write a report."""
    from hsgd_emu.experiment import load_experiment
    from hsgd_emu.progress import show_progress
    from hsgd_emu.run import Options, run_experiment

    experiment = load_experiment(file, sets or [])
    options = Options(device.value, precision.value, engine, resume, force, timing_only, threads)
    num_trials = len(experiment.cases) * len(experiment.seeds)
    with show_progress(num_trials, experiment.train.iterations) as progress:
        folder = run_experiment(experiment, out, options, progress)
        path = _write_report(folder, progress)
    _print_results(folder, path)


@app.command(epilog="Example:  hsgd-emu retime runs/out/demo --out runs/out/slower --scale far=2 --profile near=wifi")
@guarded
def retime(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any timing in the run file.")
    ] = None,
    scales: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="NAME=FACTOR", help="Multiply every time of a profile, or of `compute`."),
    ] = None,
    profiles: Annotated[
        list[str] | None, typer.Option("--profile", metavar="NAME=FILE", help="Bind another profile to a name.")
    ] = None,
    topology: Annotated[
        str | None, typer.Option(metavar="FILE", help="Another topology: the same nodes with other links or profiles.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run that is there.")] = False,
) -> None:
    """Replay what a finished run has learned on another network, exactly and without training."""
    from hsgd_emu.progress import show_progress
    from hsgd_emu.results.folder import read_run_file, require_run_folder
    from hsgd_emu.study.retime import retime as retime_run

    require_run_folder(run_dir)
    run = read_run_file(run_dir)
    with show_progress(len(run["cases"]) * len(run["seeds"]), run["train"]["iterations"]) as progress:
        folder = retime_run(run_dir, out, sets or [], scales or [], profiles or [], topology, force, progress)
        path = _write_report(folder, progress)
    _print_results(folder, path)


def _write_report(folder: Path, progress: Progress) -> Path:
    progress.say("writing the report")
    from hsgd_emu.report import write_report

    return write_report(folder)


def _print_results(folder: Path, report: Path) -> None:
    _print_table(folder)
    print(f"\nResults: {folder}\nReport:  {report}")


def _print_table(folder: Path) -> None:
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    from hsgd_emu.results.summary import answer, summarise

    summaries = summarise(folder)
    console = Console() if sys.stdout.isatty() else Console(width=1000)
    for details, separator in ((True, " "), (False, " "), (False, "\n")):
        table = _table(summaries, details, separator)
        if Measurement.get(console, console.options, table).maximum < console.width:
            break
    console.print()
    console.print(table)
    console.print()
    console.print(Text(answer(summaries)))


def _table(summaries: Sequence[CaseSummary], details: bool, separator: str) -> Table:
    """Return the time-to-target table; separator: between a median and its spread."""
    from rich.table import Table
    from rich.text import Text

    from hsgd_emu.results.summary import header, render_rows

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, head in enumerate(header(summaries, details)):
        table.add_column(Text(head), justify="left" if place == 0 else "right", overflow="fold")
    for row in render_rows(summaries, details):
        table.add_row(Text(row[0]), *(Text(cell.replace(" (", f"{separator}(")) for cell in row[1:]))
    return table


@app.command(epilog="Example:  hsgd-emu check runs/demo.yaml topologies/two_sites.yaml")
@guarded
def check(
    files: Annotated[list[Path], typer.Argument(help="Run, topology or profile files.", show_default=False)],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the files.")
    ] = None,
) -> None:
    """Check files and the files they name; every mistake is reported at once."""
    from hsgd_emu.check import check_file

    problems: list[Problem] = []
    for file in files:
        try:
            print(f"{file}: {check_file(file, sets or [])}")
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)


@app.command(epilog="Example:  hsgd-emu show topologies/paper.yaml")
@guarded
def show(
    file: Annotated[Path, typer.Argument(help="A topology file or a run file.", show_default=False)],
    message_bytes: Annotated[
        int | None, typer.Option(min=1, help="Size of a model message, for links whose cost grows with it.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the file.")
    ] = None,
) -> None:
    """Show a topology as a tree, its links and what they are expected to cost; for a run file its cases too."""
    from hsgd_emu.show import show_file

    show_file(file, message_bytes, sets or [])


@app.command(epilog="Example:  hsgd-emu export runs/out/demo --format csv --out tables")
@guarded
def export(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    format: Annotated[Format, typer.Option(help="One file per table in this format.")] = Format.csv,
) -> None:
    """Write the tables of a run (curve, timeline, targets, trials, barriers, waits) as CSV or Parquet."""
    from hsgd_emu.results.read import export as export_tables

    for path in export_tables(run_dir, format.value, out):
        print(path)


@app.command(epilog="Example:  hsgd-emu report runs/out/demo --out demo.html")
@guarded
def report(
    run_dir: RunDir,
    out: Annotated[Path | None, typer.Option(help="File to write (default: report.html in the folder).")] = None,
) -> None:
    """Write the report of a run again, as one self-contained HTML file."""
    from hsgd_emu.report import write_report

    print(write_report(run_dir, out))


@app.command(epilog="Example:  hsgd-emu init my_study")
@guarded
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write the examples to.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write the commented example topologies, latency profiles and runs, to start your own from."""
    from hsgd_emu.init import write_examples

    for path in write_examples(folder, force):
        print(path)
    print(f"\nNext:  hsgd-emu show {folder}/topologies/two_sites.yaml")
    print(f"       hsgd-emu run {folder}/runs/demo.yaml")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"hsgd-emu {version_of('hsgd-emu')}")
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
