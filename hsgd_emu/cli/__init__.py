"""The command line. Everything heavy is imported inside the commands."""

from __future__ import annotations

from hsgd_emu.cli import looks, runs, studies, watching
from hsgd_emu.cli.app import app

__all__ = ["app", "looks", "main", "runs", "studies", "watching"]


def main() -> None:
    """Run the command line."""
    app()
