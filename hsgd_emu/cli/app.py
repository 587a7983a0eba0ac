"""The application: options that several commands share, progress, exit codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec

import typer
from typer import Argument, Option

from hsgd_emu.errors import ConfigError, HsgdError

if TYPE_CHECKING:
    from rich.console import Console

    from hsgd_emu.results.wording import TextTable

app = typer.Typer(
    name="hsgd-emu",
    help="Emulate Hierarchical SGD on a network: which schedule reaches the target accuracy first?",
    epilog="Start here:  hsgd-emu init my_study && hsgd-emu run my_study/runs/demo.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Arguments = ParamSpec("Arguments")
Texts = list[str] | None
_PIPE_COLUMNS = 120

RunFile = Annotated[Path, Argument(help="A run file, as runs/demo.yaml.", show_default=False)]
RunDir = Annotated[Path, Argument(help="The folder of a run, as runs/out/demo.", show_default=False)]
Sets = Annotated[
    Texts, Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the run file, or of a file it names.")
]
TrustCode = Annotated[
    bool,
    Option(
        "--trust-code",
        help="Run the file's own code (`module:factory` of its model or data), as run, study and plan always do.",
    ),
]
Force = Annotated[bool, Option("--force", help="Overwrite files that hsgd-emu did not write.")]
Out = Annotated[Path | None, Option(help="Folder of the results (default: runs/out/NAME).")]


Device = StrEnum("Device", "auto cpu cuda")
Precision = StrEnum("Precision", "auto fp32 tf32 bf16")


def guarded(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Turn what goes wrong into a message and an exit code: 2 bad input, 1 a failure of ours, 130 Ctrl-C."""

    @functools.wraps(command)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except HsgdError as error:
            _give_up(error, kwargs.values())
        except KeyboardInterrupt:
            _complain("interrupted; what was finished is kept, and `--resume` goes on with a run")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Who reads our output has seen enough. Nothing more may be written at exit.
            _silence()
            raise typer.Exit(0) from None
        except typer.Exit:
            raise
        except Exception as error:
            if os.environ.get("HSGD_EMU_DEBUG"):
                raise
            _give_up(error, kwargs.values())

    return wrapper


def _give_up(error: Exception, arguments: Iterable[object]) -> NoReturn:
    """Say what went wrong and exit."""
    if isinstance(error, OSError) and error.filename is None:
        _silence()  # it may be our output that cannot be written
    code, text = 1, explained(error)
    if isinstance(error, HsgdError):
        code, text = error.exit_code, str(error)
    if code != ConfigError.exit_code and (complaint := complaint_about(arguments)) is not None:
        code, text = complaint.exit_code, str(complaint)
    if text is None:
        text = f"a failure of hsgd-emu itself: {type(error).__name__}: {error}\n"
        text += "set HSGD_EMU_DEBUG=1 to see where it happened"
    _complain(text)
    raise typer.Exit(code) from None


def _silence() -> None:
    """Let nothing more be written to standard output, at exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(forms: Sequence[Sequence[TextTable]]) -> None:
    """Print the first of several forms of a table (one or more tables each) that fits in the width, else the last."""
    from rich.measure import Measurement

    from hsgd_emu.terminal import say

    console = _console()
    unbounded = console.options.update(width=10_000)

    def fits(form: Sequence[TextTable]) -> bool:
        return all(Measurement.get(console, unbounded, table).maximum <= console.width for table in form)

    for table in next(filter(fits, forms), forms[-1]):
        if sys.stdout.isatty():
            console.print()
            console.print(table)
            continue
        with console.capture() as drawn:
            console.print(table)
        say("\n" + "\n".join(line.rstrip() for line in drawn.get().splitlines()))
    say("")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines, wrapped where there is a terminal."""
    from rich.text import Text

    from hsgd_emu.terminal import say

    for line in lines:
        if sys.stdout.isatty():
            _console().print(Text(line))
        else:
            say(line)


def _console() -> Console:
    """Return where tables are drawn: as wide as the terminal, in a pipe as COLUMNS says or 120 columns."""
    from hsgd_emu.terminal import Terminal

    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return Terminal()
    return Terminal(width=_PIPE_COLUMNS)


def _complain(text: str) -> None:
    from hsgd_emu.terminal import say

    for line in text.splitlines():
        say(f"hsgd-emu: {line}" if not line.startswith(" ") else line, file=sys.stderr)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"hsgd-emu {version_of('hsgd-emu')}")
        raise typer.Exit


_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says it, in a RuntimeError."""


def explained(error: Exception) -> str | None:
    """Return what the system refused, with the path; None where it is no fault of the system."""
    # Loaded already where there is such an error.
    import sqlite3

    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY):
        return "memory is used up; what was finished is kept. Fewer --jobs, a smaller model or batch need less"
    if isinstance(error, OSError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return f"{where}{error.strerror or error}; what was finished is kept"
    if isinstance(error, sqlite3.OperationalError):
        return f"a database could not be read or written ({error}); is the disk full, or the folder gone?"
    return None


def complaint_about(arguments: Iterable[Any]) -> ConfigError | None:
    """Return what is wrong with a folder among the arguments of a command that failed; None: nothing."""
    from hsgd_emu.results.verify import complaint
    from hsgd_emu.study.sweep.verify import study_complaint

    paths = [path for value in arguments for path in (value if isinstance(value, list) else [value])]
    found = (complaint(path) or study_complaint(path) for path in paths if isinstance(path, Path))
    return next((one for one in found if one is not None), None)
