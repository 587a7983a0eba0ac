"""No file of a user's, however spoilt, gives anything but a run that works or messages that say what is wrong."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from spoilt import FILES, SMALL, SPECIAL, extreme_files, garbled_files, make_special, set_arguments, spoilt_files
from typer.testing import CliRunner

from hsgd_emu.check import check_file
from hsgd_emu.cli import app
from hsgd_emu.config.profiles import examples_root
from hsgd_emu.config.writer import to_yaml
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment

MOST_S = 10.0
"""Far above what any of these small files takes, far below what an exponential blow-up would."""


def fuzz(num: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    fixture = HealthCheck.function_scoped_fixture
    return settings(
        max_examples=num,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[fixture, HealthCheck.too_slow, HealthCheck.large_base_example],
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(files: dict[str, bytes], folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    make_special(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def loaded(path: Path, sets: list[str]) -> Experiment | None:
    """Return the experiment, or None after seeing that all messages can be read."""
    began = time.monotonic()
    try:
        experiment = load_experiment(path, sets)
    except ConfigError as error:
        experiment = None
        assert_readable(error)
    assert time.monotonic() - began < MOST_S
    return experiment


def assert_readable(error: ConfigError) -> None:
    """Each message says where, stands on one line that any terminal can print, and stands once."""
    assert error.problems
    assert all(problem.where and str(problem).isprintable() for problem in error.problems)
    assert len(set(error.problems)) == len(error.problems)


def assert_resolved_is_itself(experiment: Experiment, folder: Path) -> None:
    """What is written out with every name resolved says the same again, away from all the files it came from."""
    text = experiment.resolved()
    lay_out({"run.yaml": text.encode()}, folder)
    assert load_experiment("run.yaml").resolved() == text


def as_bytes(files: dict[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


@pytest.mark.parametrize("files", [FILES, SMALL], ids=["rich", "small"])
def test_files_are_valid_before_they_are_spoilt(files: dict[str, str], folder: Path) -> None:
    lay_out(as_bytes(files), folder)
    assert_resolved_is_itself(load_experiment("run.yaml"), folder)


@pytest.mark.parametrize("path", sorted((examples_root() / "runs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_runs_resolve_to_themselves(path: Path, folder: Path) -> None:
    if path.stat().st_size:
        assert_resolved_is_itself(load_experiment(path), folder)


@fuzz(300)
@given(files=spoilt_files())
def test_spoilt_data_is_explained(files: dict[str, bytes], folder: Path) -> None:
    lay_out(files, folder)
    experiment = loaded(Path("run.yaml"), [])
    event("valid" if experiment else "refused")
    if experiment is not None:
        assert_resolved_is_itself(experiment, folder)


@fuzz(300)
@given(files=garbled_files())
def test_garbled_text_is_explained(files: dict[str, bytes], folder: Path) -> None:
    lay_out(files, folder)
    experiment = loaded(Path("run.yaml"), [])
    event("valid" if experiment else "refused")
    if experiment is not None:
        assert_resolved_is_itself(experiment, folder)


NUMBERS = st.floats(0, 1e9) | st.integers(0, 10**9)
SECONDS = st.floats(0, 9e7) | st.integers(0, 9 * 10**7)
"""Of which the clock holds a hundred."""
TEXTS = st.text(max_size=30) | st.sampled_from(["1e-3", "0o17", "10:30", "no", "~", "1_000", "- a", "0x1F", ".5", "="])


@fuzz(200)
@given(name=TEXTS, description=TEXTS, seconds=SECONDS, option=TEXTS | NUMBERS | st.none() | st.booleans())
def test_texts_and_numbers_are_written_as_they_were_read(
    name: str, description: str, seconds: float, option: object, folder: Path
) -> None:
    data = yaml.safe_load(SMALL["run.yaml"])
    data |= {"description": description, "compute": {"step_s": seconds}}
    data["model"] = {"name": "a:b", "options": {"x": option}}
    data["cases"][0]["name"] = name
    lay_out({"run.yaml": to_yaml(data).encode()}, folder)
    experiment = loaded(Path("run.yaml"), [])
    is_label = 0 < len(name) <= 100 and name.strip() == name and name.isprintable() and name != "H"
    assert (experiment is not None) == is_label
    if experiment is not None:
        assert (experiment.description, experiment.cases[0].name) == (description, name)
        assert (experiment.compute.step_s, experiment.model.options["x"]) == (seconds, option)
        assert_resolved_is_itself(experiment, folder)


@fuzz(200)
@given(files=st.sampled_from([FILES, SMALL]), sets=st.lists(set_arguments(), min_size=1, max_size=3))
@example(files=SMALL, sets=["name='1e-3'"])
def test_settings_are_explained(files: dict[str, str], sets: list[str], folder: Path) -> None:
    lay_out(as_bytes(files), folder)
    experiment = loaded(Path("run.yaml"), sets)
    if experiment is not None:
        assert_resolved_is_itself(experiment, folder)


@fuzz(100)
@given(files=st.one_of(spoilt_files(), garbled_files()))
def test_every_file_by_itself_is_explained(files: dict[str, bytes], folder: Path) -> None:
    lay_out(files, folder)
    for name in files:
        try:
            check_file(Path(name))
        except ConfigError as error:
            assert_readable(error)


@fuzz(40)
@given(files=st.one_of(spoilt_files(), garbled_files()), text=st.binary(max_size=20))
def test_check_command_ends_well(files: dict[str, bytes], text: bytes, folder: Path) -> None:
    lay_out({**files, "noise.yaml": text}, folder)
    names = [name for name in files if name.endswith(".yaml")]
    result = CliRunner().invoke(app, ["check", *names, "noise.yaml", f"missing{os.sep}file.yaml"])
    assert result.exit_code in (0, 2)
    assert "Traceback" not in result.output
    assert "hsgd-emu itself" not in result.output


@fuzz(40)
@given(files=spoilt_files(), text=set_arguments())
def test_show_command_ends_well(files: dict[str, bytes], text: str, folder: Path) -> None:
    lay_out(files, folder)
    for name in (name for name in files if name.endswith(".yaml")):
        arguments = ["show", name, *(["--set", text] if "\udcff" not in text else [])]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code in (0, 2), result.output
        assert "hsgd-emu itself" not in result.output


@fuzz(80)
@given(files=extreme_files())
def test_extreme_numbers_are_explained(files: dict[str, bytes], folder: Path) -> None:
    lay_out(files, folder)
    experiment = loaded(Path("run.yaml"), [])
    event("valid" if experiment else "refused")
    if experiment is not None:
        assert_resolved_is_itself(experiment, folder)


@fuzz(25)
@given(files=extreme_files())
def test_every_command_ends_well_with_extreme_numbers(files: dict[str, bytes], folder: Path) -> None:
    lay_out(files, folder)
    for arguments in (["check"], ["show"], ["run", "--timing-only", "--force", "--out", "out"]):
        began = time.process_time()
        result = CliRunner().invoke(app, [*arguments, "run.yaml"])
        assert result.exit_code in (0, 2), (arguments, result.output)
        assert "hsgd-emu itself" not in result.output
        assert time.process_time() - began < 20, files


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize(
    "arguments",
    [
        "check {}",
        "show {}",
        "run {} --timing-only",
        "study {} --dry-run",
        "plan {} --target test_accuracy=0.5",
        "check run.yaml --set topology=./{}",
        "check run.yaml --set profiles.near=./{}",
        "check run.yaml --set compute=./{}",
        "check run.yaml --set published={}",
        "check run.yaml --set profiles.far.rtt_s={{csv: {}, column: n}}",
    ],
)
def test_what_is_no_file_is_refused_wherever_a_file_is_named(name: str, arguments: str, folder: Path) -> None:
    lay_out(as_bytes(SMALL), folder)
    command = [part.replace("~", " ") for part in arguments.replace(": ", ":~").replace(", ", ",~").split()]
    began = time.process_time()
    result = CliRunner().invoke(app, [part.format(name) for part in command])
    assert result.exit_code == 2, result.output
    assert f"{name}: " in result.output
    assert time.process_time() - began < 5
