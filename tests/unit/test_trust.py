"""Who looks at a received file runs no code of it: only `run`, `study`, `plan` do, and what is given --trust-code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hsgd_emu
from hsgd_emu.cli import app
from hsgd_emu.study.sweep.prepared import prepare
from hsgd_emu.study.sweep.study_file import load_study

MODULE = """
from pathlib import Path
import numpy as np
from torch import nn

Path(__file__).with_name("RAN").touch()


def net(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def rows(input_shape, num_classes):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, num_classes)

        def forward(self, x):
            return self.linear(x.view(-1, 16))

    return Net()


def data(num=80):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(num, 64)).astype("float32"), np.arange(num) % 4
    return x[:60], y[:60], x[60:], y[60:]
"""
RUN = """
name: received
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {latency_s: 0.1, bandwidth_bps: 1.0e+6, model: raw}}
compute: {step_s: 0.004}
data: {dataset: digits}
model: "received:net"
train: {batch_size: 8, learning_rate: 0.05, iterations: 10}
cases: [{name: P=5, period: 5}, {name: P=2, period: 2}]
targets: {test_accuracy: [0.1]}
"""
STUDY = """
name: received_study
run: run.yaml
axes: [{name: far, rtt_s: far, values: [0.1, 0.2]}]
"""


@pytest.fixture
def received(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("received.py").write_text(MODULE, encoding="utf-8")
    Path("run.yaml").write_text(RUN, encoding="utf-8")
    Path("study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path


def cli(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def ran() -> bool:
    """Return whether the received code was run, and forget it."""
    found = Path("RAN").exists()
    Path("RAN").unlink(missing_ok=True)
    return found


OWN = {"model": [], "data": ["--set", "model=softmax_regression", "--set", "data.dataset=received:data"]}
OWN["both"] = ["--set", "data.dataset=received:data"]


@pytest.mark.parametrize("own", OWN)
def test_looking_at_a_run_file_runs_none_of_its_code(received, own):
    sets, sized = OWN[own], ["--set", "message_bytes=5000"]
    checked = cli("check", "run.yaml", *sets)
    assert checked.exit_code == 0
    assert "received:" in checked.stdout
    assert "--trust-code" in checked.stdout
    shown = cli("show", "run.yaml", *sets)
    assert shown.exit_code == 0
    assert "--message-bytes N" in shown.stdout
    assert "all iterations take" not in shown.stdout
    assert "all iterations take" in cli("show", "run.yaml", *sets, *sized).stdout
    assert "all iterations take" in cli("show", "run.yaml", *sets, "--message-bytes", 5000).stdout
    refused = cli("run", "run.yaml", *sets, "--timing-only", "--out", "t")
    assert refused.exit_code == 2
    assert "message_bytes" in refused.stderr
    assert "--trust-code" in refused.stderr
    assert not Path("t").exists()
    assert cli("run", "run.yaml", *sets, *sized, "--timing-only", "--out", "t").exit_code == 0
    assert cli("run", "run.yaml", *sets, *sized, "--timing-only", "--resume", "--out", "t").exit_code == 0
    for command in (["report", "t"], ["trace", "t"], ["watch", "t", "--once"], ["export", "t", "--out", "e"]):
        assert cli(*command).exit_code == 0, command
    assert not ran()


def test_looking_at_a_run_whose_servers_have_a_rule_of_its_own_runs_none_of_it(received):
    sets = ["--set", "model=softmax_regression", "--set", "servers={root: {optimizer: 'received:net'}}"]
    checked = cli("check", "run.yaml", *sets)
    assert checked.exit_code == 0
    assert "run.yaml:" in checked.stdout
    assert "servers: the code of received:net was not run" in checked.stdout
    assert "all iterations take" in cli("show", "run.yaml", *sets).stdout
    assert cli("run", "run.yaml", *sets, "--timing-only", "--out", "t").exit_code == 0
    assert cli("study", "study.yaml", "--dry-run", *sets, "--library", "library").exit_code == 0
    assert not ran()
    tried = cli("check", "run.yaml", *sets, "--trust-code")
    assert tried.exit_code == 2
    assert "servers: the own rule 'received:net' does not work: TypeError" in tried.stderr


@pytest.mark.parametrize("own", OWN)
def test_looking_at_a_study_runs_none_of_its_code(received, own):
    sets = OWN[own]
    checked = cli("check", "study.yaml", *sets)
    assert checked.exit_code == 0
    assert "--trust-code" in checked.stdout
    planned = cli("study", "study.yaml", "--dry-run", *sets, "--library", "library")
    assert planned.exit_code == 0, planned.stderr
    assert "2 of them learn something different" in planned.stdout
    assert "--trust-code" in planned.stdout
    hsgd_emu.load("run.yaml", sets[1::2])
    assert not ran()


def test_what_is_asked_of_a_finished_run_runs_none_of_its_code(received):
    assert cli("run", "run.yaml", "--out", "r").exit_code == 0
    assert ran()
    Path("measured.csv").write_text("case,time_s,iterations\nP=5,0.5,10\nP=2,1.2,10\n", encoding="utf-8")
    for command in (
        ["retime", "r", "--out", "slow", "--scale", "far=2"],
        ["retime", "r", "--out", "other", "--set", "profiles.far.bandwidth_bps=5e5"],
        ["sensitivity", "r"],
        ["fit", "r", "--table", "measured.csv"],
        ["report", "r", "slow"],
        ["show", "r/run.yaml"],
        ["check", "r/run.yaml"],
        ["export", "r", "--out", "tables"],
        ["trace", "r"],
        ["watch", "r", "--once"],
    ):
        done = cli(*command)
        assert done.exit_code == 0, (command, done.stderr)
    hsgd_emu.read("r").summary()
    hsgd_emu.read("slow").summary()
    assert not ran()


def test_trusted_code_tells_the_size_and_whether_model_and_data_fit(received):
    plan = prepare(load_study("study.yaml"), library="library").plan()
    assert any("0 are in the library" in line for line in plan.lines())
    assert cli("run", "run.yaml", "--timing-only", "--trust-code", "--out", "t").exit_code == 0
    assert ran()
    # 64 inputs, 10 classes, a bias each: 650 float32 of a lazy layer that a sample had to go through first.
    assert json.loads(Path("t/environment.json").read_text())["message_bytes"] == 2600
    hsgd_emu.run("run.yaml", "u", timing_only=True, trust_code=True)
    assert "2,600 bytes" in cli("show", "run.yaml", "--trust-code").stdout
    assert cli("check", "run.yaml", "study.yaml", "--trust-code").exit_code == 0
    for file in ("run.yaml", "study.yaml"):
        done = cli("check", file, "--trust-code", "--set", "model=received:rows")
        assert done.exit_code == 2
        assert "rows" in done.stderr
    done = cli("check", "run.yaml", "--trust-code", "--set", "data.dataset=received:missing")
    assert done.exit_code == 2
    assert "received:missing" in done.stderr


def test_data_that_only_loading_tells_of_are_not_asked_for_by_check(received):
    sets = ["--set", "model=mlp", "--set", "data.dataset=npz", "--set", "data.root=nowhere"]
    for file in ("run.yaml", "study.yaml"):
        assert cli("check", file, *sets).exit_code == 0
        assert cli("check", file, *sets, "--trust-code").exit_code == 2
