"""Keys of `train` that do not go together are told where they stand; those that change nothing change no identity."""

from __future__ import annotations

import pytest

from hsgd_emu.config.run_schema import copies_sent
from hsgd_emu.errors import ConfigError
from hsgd_emu.experiment import Experiment, load_experiment

RUN = """\
name: r
topology: {levels: [{name: worker, count: 2, uplink: far}]}
profiles: {far: {rtt_s: 0.1}}
compute: {step_s: 0.004}
model: softmax_regression
train: {iterations: 10%s}
cases:
  - {name: a, period: 5%s}
  - {name: b, period: 5}
"""


def loaded(tmp_path, train: str = "", case: str = "") -> Experiment:
    (tmp_path / "r.yaml").write_text(RUN % (train and f", {train}", case and f", train: {{{case}}}"))
    return load_experiment(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("train", "case", "lines"),
    [
        (
            "optimizer: adam, momentum: 0.9",
            "",
            ["6: train.momentum: found 0.9 with optimizer adam; momentum is of sgd"],
        ),
        (
            "momentum: 0.9",
            "optimizer: adamw",
            ["8: cases.0.train.optimizer: found adamw with momentum 0.9; momentum is"],
        ),
        ("optimizer: adam", "momentum: 0.5", ["8: cases.0.train.momentum: found 0.5 with optimizer adam; momentum is"]),
        (
            "betas: [0.9, 0.99]",
            "",
            ["6: train.betas: is of the optimizers adam and adamw, and the optimizer here is sgd"],
        ),
        ("", "epsilon: 0.1, betas: [0, 0]", ["8: cases.0.train.betas: is of", "8: cases.0.train.epsilon: is of"]),
        ("betas: [0.9, 1]", "clip_norm: 0", ["6: train.betas.1: found 1;", "8: cases.0.train.clip_norm: found 0;"]),
        ("", "loss: squared", ["8: cases.0.train.loss: "]),
        ("state: kept", "", ["6: train.state: found 'kept'; expected one of keep, reset, average"]),
    ],
)
def test_what_does_not_go_together_is_told_where_it_stands(tmp_path, train, case, lines):
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, train, case)
    found = str(error.value).splitlines()
    assert len(found) == len(lines)
    for line, start in zip(found, lines, strict=True):
        assert line.partition("r.yaml:")[2].startswith(start)


@pytest.mark.parametrize(
    ("train", "case"),
    [
        ("betas: [0.8, 0.9]", "optimizer: adam"),  # of the run, for the case that has Adam
        ("optimizer: adam, betas: [0.8, 0.9]", "optimizer: sgd, momentum: 0.9"),
        ("momentum: 0.9", "optimizer: adam, momentum: 0"),
    ],
)
def test_a_case_may_have_another_optimizer(tmp_path, train, case):
    assert loaded(tmp_path, train, case).alone("a").train.optimizer in (None, "adam")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("proximal: 0, loss: cross_entropy, optimizer: sgd, state: keep", ""),
        ("state: average", ""),  # there is nothing to keep
        ("momentum: 0.9, state: keep", "momentum: 0.9"),
        ("optimizer: adam, betas: [0.9, 0.999], epsilon: 1e-8", "optimizer: adam"),
    ],
)
def test_keys_that_change_nothing_are_no_other_training(tmp_path, given, meant):
    assert loaded(tmp_path, given).alone("b").train == loaded(tmp_path, meant).alone("b").train


@pytest.mark.parametrize(
    ("train", "copies"),
    [
        ("momentum: 0.9", 1),
        ("momentum: 0.9, state: reset", 1),
        ("momentum: 0.9, state: average", 2),
        ("state: average", 1),
        ("optimizer: adam, state: average", 3),
    ],
)
def test_a_state_that_is_averaged_makes_messages_larger(tmp_path, train, copies):
    experiment = loaded(tmp_path, train)
    assert copies_sent(experiment.alone("a").train) == copies == experiment.sends("a").copies
