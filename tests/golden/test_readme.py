"""The README's examples are executed as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hsgd_emu.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    return subprocess.run(["bash", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the examples in it, made by the README's first commands."""
    place = tmp_path_factory.mktemp("newcomer")
    done = shell(" && ".join(line[2:] for line in blocks("console")[0].splitlines()), place)
    assert done.returncode == 0, done.stderr
    return place / "my_study", done.stdout


def test_the_five_minutes_end_with_an_answer_a_report_and_tables(folder):
    study, out = folder
    assert "near_server-0" in out
    assert "5 cases x 3 seeds on 10 workers" in out
    assert re.search(r"^To \d+% test accuracy, .* takes ", out, re.MULTILINE)
    assert (study / "runs/out/short/report.html").is_file()
    assert (study / "tables/curve.csv").read_text().startswith("case,seed,round,iteration,time_s,aggregated_s")


def test_init_writes_the_same_files_as_the_repository(folder):
    study, _ = folder
    for kind in ("topologies", "latency_profiles", "runs", "runs/paper", "runs/studies"):
        shipped = sorted(p.name for p in (ROOT / kind).iterdir() if p.is_file())
        assert sorted(p.name for p in (study / kind).iterdir() if p.is_file()) == shipped
        for name in shipped:
            assert (study / kind / name).read_bytes() == (ROOT / kind / name).read_bytes()


def test_own_question_has_the_answer_that_the_readme_gives(tmp_path):
    (tmp_path / "my_question.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    done = shell("hsgd-emu run my_question.yaml", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not reached" not in done.stdout
    promised = re.search(r"`hsgd-emu run my_question.yaml` answers: \*(.*?)\*", README, re.DOTALL)[1]
    number = re.compile(r"\d+\.\d+")
    told = next(line for line in done.stdout.splitlines() if line.startswith("To 80%"))
    assert number.sub("#", told) == number.sub("#", " ".join(promised.split()))
    # Other processors may round otherwise, and so end a round sooner or later.
    values = [[float(value) for value in number.findall(text)] for text in (told, promised)]
    assert values[0] == pytest.approx(values[1], rel=0.15)


def test_python_example_runs(folder):
    study, _ = folder
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=study, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "10 workers, ['P=5', 'P=10', 'P=50', 'G=50 I=5', 'G=50 I=10']" in done.stdout
    assert "upload" in done.stdout


def test_the_example_of_every_help_runs(folder):
    study, _ = folder
    first = "hsgd-emu run runs/demo.yaml --set train.iterations=400 --set seeds=[1]"
    # What a user measured, for `fit`.
    rows = ["case,time_s,iterations", "P=5,11.7,250", "P=10,9.1,350", "G=50 I=5,4.3,300", "G=50 I=10,4.7,400"]
    (study / "measured.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    examples = [command.epilog.removeprefix("Example:  ") for command in app.registered_commands]
    assert all(example.startswith("hsgd-emu ") for example in examples)
    quick = {"hsgd-emu plan": " --periods 10,50 --set seeds=[1] --set train.iterations=400"}
    for example in [first, *examples]:
        example += next((more for start, more in quick.items() if example.startswith(start)), "")
        done = shell(example, study)
        assert done.returncode == 0, f"{example}: {done.stderr}"
