"""What a run tells of where it comes from: the command without its place, and the commit."""

import subprocess

import pytest

from hsgd_emu.results import origin
from hsgd_emu.results.origin import command_alone, command_line, commit, making_commands


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/hsgd-emu", "run", "a.yaml"], "hsgd-emu run a.yaml"),
        (
            ["hsgd-emu", "run", "a.yaml", "--out", "x y", "--force", "--set", "a=[1, 2]"],
            "hsgd-emu run a.yaml --out 'x y' --set 'a=[1, 2]'",
        ),
        (["hsgd-emu", "retime", "a", "--out=b", "--scale", "far=2"], "hsgd-emu retime a --out=b --scale far=2"),
        (["hsgd-emu", "study", "a.yaml", "--library", "b", "--jobs", "2"], "hsgd-emu study a.yaml"),
        (["hsgd-emu", "run", "a.yaml", "--resume", "--tensorboard"], "hsgd-emu run a.yaml"),
        (
            ["hsgd-emu", "run", "a.yaml", "--minutes=5", "--jobs", "2", "--timing-only"],
            "hsgd-emu run a.yaml --timing-only",
        ),
        (["/lib/hsgd_emu/cli/__main__.py", "run", "a.yaml"], "hsgd-emu run a.yaml"),
        (["/usr/bin/pytest", "-q"], ""),
        (["my_script.py"], ""),
        ([], ""),
    ],
)
def test_the_command_of_a_process(argv, command):
    assert command_line(argv) == command


LEARNED = {"device": "cpu", "precision": "fp32", "threads": 2, "engine": "layered:5"}
AS_LEARNED = "--device cpu --precision fp32 --threads 2 --engine layered:5"


def test_the_commands_that_make_a_run_come_in_order_and_say_how_it_was_learned():
    begun = {**LEARNED, "command": "hsgd-emu run a.yaml --out 'x y' --engine=auto --device auto --set 'b=$c'"}
    run = f"hsgd-emu run a.yaml --out 'x y' --set 'b=$c' {AS_LEARNED}"
    assert making_commands(begun) == [run]
    once = {
        **LEARNED,
        "parent": {"command": begun["command"]},
        "retimed_with": {"command": "hsgd-emu retime a --out b"},
    }
    assert making_commands(once) == [run, "hsgd-emu retime a --out b"]
    parent = {"command": "hsgd-emu retime a --out b", "parent": {"command": begun["command"]}}
    twice = {**LEARNED, "parent": parent, "retimed_with": {"command": "hsgd-emu retime b --out c"}}
    assert making_commands(twice) == [run, "hsgd-emu retime a --out b", "hsgd-emu retime b --out c"]


def test_without_the_command_of_a_parent_there_is_no_way_to_tell():
    assert making_commands(LEARNED) == []
    assert making_commands({**LEARNED, "retimed_with": {"command": "hsgd-emu retime a --out b"}, "parent": {}}) == []
    parent = {"command": "hsgd-emu retime a --out b", "parent": {"name": "made from a notebook"}}
    assert making_commands({**LEARNED, "parent": parent, "retimed_with": {"command": "hsgd-emu retime b"}}) == []


def test_the_command_that_makes_a_run_from_its_own_file():
    assert command_alone("run", LEARNED, {}) == f"hsgd-emu run run.yaml {AS_LEARNED}"
    assert command_alone("study", LEARNED, {}) == "hsgd-emu study study.yaml --device cpu --precision fp32"
    timed = {"device": "none", "timing_only": True, "message_bytes": 600}
    assert command_alone("run", timed, {"message_bytes": 600}) == "hsgd-emu run run.yaml --timing-only"
    unknown = "hsgd-emu run run.yaml --timing-only --set message_bytes=600"
    assert command_alone("run", timed, {"message_bytes": None}) == unknown


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the package's module in it, committed."""
    module = tmp_path / "hsgd_emu" / "results" / "origin.py"
    module.parent.mkdir(parents=True)
    module.write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "-m", "one")
    monkeypatch.setattr(origin, "__file__", str(module))
    commit.cache_clear()
    yield tmp_path
    commit.cache_clear()


def git(folder, *arguments):
    return subprocess.run(["git", "-C", folder, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    assert commit() == head[:12]
    commit.cache_clear()
    (checkout / "notes.txt").write_text("no file of the package\n")
    git(checkout, "add", ".")
    assert commit() == head[:12]
    commit.cache_clear()
    (checkout / "hsgd_emu" / "results" / "origin.py").write_text("2\n")
    assert commit() == f"{head[:12]}-dirty"


def test_a_package_below_somebody_elses_repository_is_not_of_its_commit(checkout, monkeypatch):
    other = checkout / "lib" / "hsgd_emu" / "results" / "origin.py"
    other.parent.mkdir(parents=True)
    other.write_text("1\n")
    monkeypatch.setattr(origin, "__file__", str(other))
    monkeypatch.setattr(origin, "_installed", lambda: "")
    assert commit() == ""
