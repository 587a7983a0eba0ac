"""The command line. Everything heavy is imported inside the commands."""

from __future__ import annotations

from typer.models import CommandInfo

from hsgd_emu.cli import runs, studies
from hsgd_emu.cli.app import app

__all__ = ["app", "main", "runs", "studies"]

_FIRST = ("init", "check", "show", "run", "report", "watch", "export", "trace", "retime")
"""The commands as a newcomer meets them; the others follow as they are defined."""


def _place(command: CommandInfo) -> int:
    name = getattr(command.callback, "__name__", "")
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


app.registered_commands.sort(key=_place)


def main() -> None:
    """Run the command line."""
    app()
