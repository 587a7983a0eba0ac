"""Look on while a run or a study is written: `hsgd-emu watch`. Only reads, and never holds what the writer needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from hsgd_emu.study.sweep.store import is_study_folder
from hsgd_emu.watch.board import RunBoard
from hsgd_emu.watch.drawing import draw_run, last_words
from hsgd_emu.watch.study import StudyBoard, draw_study, study_last_words

EVERY_S = 0.5
"""Of the host's clock, between two looks."""


def watch(folder: Path, console: Console, live: bool, every_s: float = EVERY_S) -> None:
    """Show the run or study in `folder` until it is finished or nobody writes it any more, then say which.

    Args:    live: else one snapshot of all its trials, and no waiting.
    Raises:  ConfigError: the folder holds neither.
    """
    look = _look_at(folder)
    if not live:
        draw, _, words = look()
        console.print(draw(console.width, None))
    else:
        # In the terminal's own scroll-back, so that the last picture stays.
        with Live(console=console, auto_refresh=False) as picture:
            while True:
                draw, over, words = look()
                picture.update(draw(console.width, console.height), refresh=True)
                if over:
                    break
                time.sleep(every_s)
    for line in words:
        console.print(Text(line))


Draw = Callable[[int, int | None], RenderableType]
"""Of a width and a height; no height: as many rows as there are."""


def _look_at(folder: Path) -> Callable[[], tuple[Draw, bool, list[str]]]:
    """Return a function that reads the folder: how to draw it, whether no more will come, and what to say then."""
    if is_study_folder(folder):
        studies = StudyBoard(folder)

        def look() -> tuple[Draw, bool, list[str]]:
            now = studies.read()
            return (lambda width, height: draw_study(now)), now.over, study_last_words(folder, now)

    else:
        runs = RunBoard(folder)

        def look() -> tuple[Draw, bool, list[str]]:
            now = runs.read()
            return (lambda width, height: draw_run(now, width, height)), now.over, last_words(folder, now)

    return look
