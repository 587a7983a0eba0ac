"""Given a file or folder of another kind, a command says in one line what it is and what is done with it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from hsgd_emu.cli import app
from hsgd_emu.config.hints import hint

RUN = """
name: small
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {rtt_s: 0.1}}
compute: {step_s: 0.004}
model: softmax_regression
train: {iterations: 10}
cases: [{name: P=5, period: 5}]
targets: {test_accuracy: [0.1]}
"""
STUDY = "name: s\nrun: run.yaml\naxes: [{name: far, rtt_s: far, values: [0.1, 0.2]}]\n"
TARGET = ["--target", "test_accuracy=0.1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "run.yaml").write_text(RUN, encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "topology.yaml").write_text("levels: [{name: worker, count: 2, uplink: far}]\n", encoding="utf-8")
    (folder / "profile.yaml").write_text("rtt_s: 0.1\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli("run", "run.yaml", "--out", "r", "--timing-only", "--set", "message_bytes=1000").exit_code == 0
        (folder / "s").mkdir()
        (folder / "s/study.sqlite").touch()
        (folder / "s/study.yaml").write_text(STUDY, encoding="utf-8")
    return folder


def cli(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "study.yaml"], ["is a study", "`hsgd-emu study study.yaml`"]),
        (["run", "topology.yaml"], ["is a topology", "`hsgd-emu show topology.yaml`"]),
        (["run", "profile.yaml"], ["is a profile", "`hsgd-emu check profile.yaml`"]),
        (["run", "r"], ["folder of a run", "r/run.yaml"]),
        (["plan", "study.yaml", *TARGET], ["is a study", "`hsgd-emu study study.yaml`"]),
        (["plan", "s", *TARGET], ["folder of a study", "s/study.yaml"]),
        (["study", "run.yaml"], ["is a run", "`hsgd-emu run run.yaml`"]),
        (["study", "topology.yaml", "--dry-run"], ["is a topology"]),
        (["study", "r"], ["folder of a run", "r/run.yaml"]),
        (["show", "study.yaml"], ["is a study", "`hsgd-emu study study.yaml`"]),
        (["show", "profile.yaml"], ["is a profile", "`hsgd-emu check profile.yaml`"]),
        (["show", "s"], ["folder of a study", "s/study.yaml"]),
        (["check", "r"], ["folder of a run", "r/run.yaml"]),
        (["report", "run.yaml"], ["is a file", "runs/out/NAME"]),
        (["report", "r/run.yaml"], ["is a file", "right would be r"]),
        (["watch", "study.yaml", "--once"], ["is a file"]),
        (["retime", "s", "--out", "x"], ["folder of a study"]),
        (["sensitivity", "run.yaml"], ["is a file", "runs/out/NAME"]),
        (["fit", "s"], ["folder of a study"]),
        (["trace", "run.yaml"], ["is a file"]),
        (["export", "run.yaml", "--out", "x"], ["is a file"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_a_file_of_another_kind_is_named_in_one_line(place, monkeypatch, args, words):
    monkeypatch.chdir(place)
    done = cli(*args)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("word", "here"),
    [
        ("optim", "train.optimizer"),
        ("LR", "train.learning_rate"),
        ("lr-schedule", "milestones"),
        ("num_epochs", "n / train.batch_size iterations"),
        ("comm_round", "train.iterations"),
        ("local_steps", "cases: [{name: P=5, period: 5}"),
        ("E", "cases: [{name: P=5, period: 5}"),
        ("bs", "train.batch_size"),
        ("iterations", "train.iterations"),
        ("alpha", "data.alpha"),
        ("num_workers", "topology: {levels:"),
        ("clients", "topology: {levels:"),
        ("client_fraction", "train.participation"),
        ("latency", "{rtt_s: 0.05}"),
        ("bandwidth_mbps", "bandwidth_bps"),
        ("random_seed", "seeds: [1, 2, 3]"),
        ("device", "--device"),
        ("prox_mu", "train.proximal"),
        ("server_lr", "servers, by server, as in {root: {optimizer: momentum"),
        ("compression_ratio", "{worker: {method: top_k, fraction: 0.05}}"),
        ("eval_every", "evaluation.every_iterations"),
        ("output_dir", "--out"),
    ],
)
def test_words_of_other_tools_are_known(word, here):
    assert here in hint(word)
    assert hint("colour") == ""
