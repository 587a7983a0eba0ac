"""The command line as a user meets it: exit codes, streams, no traceback, quick start."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from hsgd_emu.cli import app

ROOT = Path(__file__).parents[2]
SMALL = """
name: small
topology: {levels: [{name: site, count: 2, uplink: far}, {name: worker, count: 2, uplink: near}]}
profiles: {near: {rtt_s: 0.5}, far: {rtt_s: 4}}
compute: {step_s: 1}
data: {dataset: digits, partition: by_label}
model: softmax_regression
train: {iterations: 20}
cases: [{name: H-SGD, periods: [10, 5]}, {name: local, period: 10}]
targets: {test_accuracy: [0.1]}
"""


def command(*args: str, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    """The program as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "hsgd_emu.cli", *args], cwd=cwd, capture_output=True, text=True, timeout=120, **kwargs
    )


@pytest.fixture
def here(folder, monkeypatch):
    """The same without a process of its own, which takes seconds to start."""
    monkeypatch.chdir(folder)

    def command(*args: str) -> subprocess.CompletedProcess:
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            app(args)
        return subprocess.CompletedProcess(args, int(ended.value.code or 0), out.getvalue(), errors.getvalue())

    return command


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL, encoding="utf-8")
    return tmp_path


def test_run_prints_table_and_answer_and_is_quiet_on_stderr_in_a_pipe(folder):
    done = command("run", "small.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "H-SGD" in done.stdout
    assert "Report:  runs/out/small/report.html" in done.stdout
    assert "Learned: one thread for each trial" in done.stdout
    assert sorted(p.name for p in (folder / "runs/out/small").iterdir()) == [
        "checkpoints", "environment.json", "lock", "report.html", "run.sqlite", "run.yaml",
    ]  # fmt: skip
    environment = json.loads((folder / "runs/out/small/environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["threads"] >= 1
    assert (environment["precision"], environment["engine"]) == ("fp32", "layered:4")
    assert str(folder) not in (folder / "runs/out/small/run.yaml").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--precision", "tf32", "--device", "cpu"], "only CUDA devices have it"),
        (["--precision", "bf16", "--set", "train.dtype=float64"], "less precise than train.dtype: float64"),
        (["--engine", "fast"], "this network can be trained by layered, vmap, one_by_one"),
        (["--engine", "layered:0"], "with a number of workers such as layered:5"),
    ],
)
def test_what_cannot_be_learned_as_asked_is_bad_input(folder, here, options, said):
    done = here("run", "small.yaml", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_notes_follow_what_a_file_is_and_are_warned_of_once_by_run(folder, here):
    (folder / "small.yaml").write_text(SMALL.replace("far: {rtt_s: 4}", "far: {rtt_s: 0}"), encoding="utf-8")
    note = "note: small.yaml:4: profiles.far.rtt_s: an RTT of exactly 0 s; is a value missing?"
    done = here("check", "small.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["small.yaml: a run of 2 cases x 1 seed on 4 workers, 3 servers, 2 levels", note]
    assert note in here("show", "small.yaml").stdout
    assert here("run", "small.yaml", "--timing-only").stderr == f"hsgd-emu: {note}\n"


def test_timing_of_the_documented_example(folder, here):
    # docs/time.md: 5 + 0.25 | 5.5 + 5 + 0.25 | + 2 up + 2 down + 0.25 = 15.0 s; the second round begins at 15.
    assert here("run", "small.yaml", "--timing-only").returncode == 0
    assert here("export", "runs/out/small", "--out", "tables").returncode == 0
    rows = [line.split(",") for line in (folder / "tables/curve.csv").read_text().splitlines()]
    times = {(row[0], row[3]): (row[4], row[5]) for row in rows[1:]}
    assert times["H-SGD", "10"] == ("15.0", "12.75")
    assert times["H-SGD", "20"] == ("30.0", "27.75")
    # Local SGD has no direct link here: 10 + up (0.25 + 2) = 12.25, and the same down.
    assert times["local", "10"] == ("14.5", "12.25")


def test_a_finished_run_is_not_overwritten_without_force(folder, here):
    assert here("run", "small.yaml", "--timing-only").returncode == 0
    before = (folder / "runs/out/small/run.sqlite").read_bytes()
    done = here("run", "small.yaml", "--timing-only")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (folder / "runs/out/small/run.sqlite").read_bytes() == before
    assert here("run", "small.yaml", "--timing-only", "--force").returncode == 0
    assert here("run", "small.yaml", "--timing-only", "--resume").returncode == 0


def test_resume_refuses_another_run_file_and_a_folder_of_someone_else(folder, here):
    assert here("run", "small.yaml", "--timing-only").returncode == 0
    done = here("run", "small.yaml", "--timing-only", "--resume", "--set", "compute.step_s=2")
    assert done.returncode == 2
    assert "differs in compute" in done.stderr
    (folder / "mine").mkdir()
    (folder / "mine/thesis.txt").write_text("precious")
    done = here("run", "small.yaml", "--out", "mine", "--force")
    assert done.returncode == 2
    assert (folder / "mine/thesis.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["run", "nowhere.yaml"], "no such file"),
        (["run", "small.yaml", "--set", "train.iteration=5"], "did you mean 'iterations'"),
        (["run", "small.yaml", "--device", "cuda"], "CUDA"),
        (["export", "nowhere", "--out", "x"], "nowhere"),
        (["show", "small.yaml", "--set", "topology=tow_sites"], "did you mean 'two_sites'"),
        (["report", "nowhere"], "nowhere"),
        (["run"], "Missing argument"),
        (["init", "small.yaml"], "cannot be written"),
    ],
)
def test_bad_input_is_exit_2_without_traceback(folder, here, args, text):
    if "cuda" in args:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("CUDA is here")
    done = here(*args)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_of_ours_is_exit_1_without_traceback(folder):
    env = {**os.environ, "PYTHONPATH": str(folder)}
    (folder / "sitecustomize.py").write_text(
        "import hsgd_emu.engine.emulate as module\n"
        "def broken(*args, **kwargs): raise ZeroDivisionError('boom')\n"
        "module.emulate = broken\n"
    )
    done = command("run", "small.yaml", "--timing-only", cwd=folder, env=env)
    assert done.returncode == 1
    assert "a failure of hsgd-emu itself: ZeroDivisionError: boom" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_exit_130_and_the_run_can_go_on(folder):
    args = [sys.executable, "-m", "hsgd_emu.cli", "run", "small.yaml", "--timing-only", "--set"]
    process = subprocess.Popen(
        [*args, "train.iterations=2000000"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # Of those started in the background of a shell, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not (folder / "runs/out/small/run.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in errors
    assert "Traceback" not in errors


def test_help_and_check_import_neither_torch_nor_pandas(folder):
    script = (
        "import sys\nfrom hsgd_emu.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as e: code = e.code\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'plotly', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), code)"
    )
    for args in (["--help"], ["check", "small.yaml"], ["show", "small.yaml"]):
        done = subprocess.run([sys.executable, "-c", script, *args], cwd=folder, capture_output=True, text=True)
        assert "HEAVY [] 0" in done.stdout, done.stdout + done.stderr


def test_the_shipped_files_are_valid():
    files = sorted(str(p) for kind in ("topologies", "latency_profiles", "runs") for p in (ROOT / kind).glob("*.yaml"))
    done = command("check", *files, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(files)


def test_the_api_verb_can_be_called_more_than_once(folder, monkeypatch):
    import hsgd_emu

    monkeypatch.chdir(folder)
    for _ in range(2):
        results = hsgd_emu.run("small.yaml", timing_only=True, force=True)
        assert list(results.curve.time_s.tail(1)) == [29.0]


def test_paths_after_set_are_relative_to_the_current_folder(folder, here):
    (folder / "sub").mkdir()
    (folder / "small.yaml").rename(folder / "sub/small.yaml")
    (folder / "slow.yaml").write_text("step_s: 2\n")
    done = here("run", "sub/small.yaml", "--timing-only", "--set", "compute=slow.yaml", "--out", "out")
    assert done.returncode == 0, done.stderr
    done = here("run", "sub/small.yaml", "--set", "data.root=mydata", "--set", "data.dataset=npz")
    assert done.returncode == 2
    assert str(folder / "mydata") in done.stderr
