"""The commands that show a run in other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hsgd_emu.cli.app import Force, RunDir, app, guarded
from hsgd_emu.errors import ConfigError
from hsgd_emu.terminal import say


@app.command(epilog="Example:  hsgd-emu trace runs/out/demo --rounds 2")
@guarded
def trace(
    run_dir: RunDir,
    out: Annotated[Path | None, typer.Option(help="File to write (default: trace.json in the folder).")] = None,
    cases: Annotated[
        list[str] | None, typer.Option("--case", metavar="NAME", help="Only this case; can be given again.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", metavar="NUMBER", help="Only this seed; can be given again.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Only this many rounds, from the first on.")
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
