"""The command that looks on."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hsgd_emu.cli.app import RunDir, app, guarded


@app.command(epilog="Example:  hsgd-emu watch runs/out/demo --once")
@guarded
def watch(
    run_dir: RunDir,
    once: Annotated[
        bool, typer.Option("--once", help="One picture of all trials as they are now (as in a pipe).")
    ] = False,
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
