"""The help of every command: nothing lost to markup, a newcomer's order, examples that fit in a line of 80 columns."""

import inspect
import re
import typing

import pytest
from typer.testing import CliRunner

from hsgd_emu.cli import app

COMMANDS = {command.callback.__name__: command for command in app.registered_commands}


def shown(*args: str) -> str:
    done = CliRunner().invoke(app, list(args), env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert done.exit_code == 0
    return done.stdout


def words(text: str) -> list[str]:
    return re.sub(r"[│╭╮╰╯─]", " ", text).split()


def texts_of(command) -> list[str]:
    """Every help text that was written for a command, as it was meant."""
    hints = typing.get_type_hints(command.callback, include_extras=True)
    helps = [part.help for hint in hints.values() for part in getattr(hint, "__metadata__", ()) if part.help]
    return [inspect.getdoc(command.callback), *helps, command.epilog]


def test_commands_stand_in_the_order_in_which_a_newcomer_needs_them():
    listed = re.findall(r"^│ (\w+) ", shown("--help").partition("Commands")[2], re.MULTILINE)
    assert listed == [
        *("init", "check", "show", "run", "report", "watch", "export", "trace"),
        *("retime", "study", "plan", "sensitivity", "fit"),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_word_that_was_written(name):
    page = shown(name, "--help")
    assert shown(name, "-h") == page
    assert max(map(len, page.splitlines())) <= 80
    there = words(page)
    for text in texts_of(COMMANDS[name]):
        for word in text.replace("\\[", "[").split():
            assert word in there, f"{name}: '{word}' of '{text}' is lost"


def test_extras_keep_their_brackets():
    assert "hsgd-emu[images]" in shown("report", "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_can_be_copied_from_80_columns(name):
    example = COMMANDS[name].epilog
    assert example.startswith(f"Example:  hsgd-emu {name} ")
    assert example in [line.strip() for line in shown(name, "--help").splitlines()]
