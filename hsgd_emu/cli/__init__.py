"""The command line. Everything heavy is imported inside the commands."""

from __future__ import annotations

from hsgd_emu.cli import runs, studies
from hsgd_emu.cli.app import app

__all__ = ["app", "main", "runs", "studies"]


def main() -> None:
    """Run the command line."""
    app()
