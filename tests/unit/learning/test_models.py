"""Models by name, their sizes, and what a person is told about one that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hsgd_emu.config.run_schema import ModelSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.models import build_model, message_bytes
from hsgd_emu.learning.names import OWN_MODELS, check_model_spec, torchvision_models, torchvision_version

OWN = """
import torch
from torch import nn

def linear(input_shape, num_classes, scale=1.0):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], int(scale * num_classes)))

def fails(input_shape, num_classes):
    raise KeyError("weights.pt")

def leaves(input_shape, num_classes):
    raise SystemExit(3)

def no_module(input_shape, num_classes):
    return [1, 2]

def fixed(input_shape, num_classes):
    return linear(input_shape, num_classes).requires_grad_(False)

class Dict(nn.Linear):
    def forward(self, x):
        return {"hidden": x, "logits": super().forward(x)}

def dictionary(input_shape, num_classes):
    return Dict(input_shape[0], num_classes)

number = 3
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "own_models.py").write_text(OWN)
    return tmp_path


def build(name: str, shape=(64,), num_classes=10, base=Path(), seed=1, **options):
    return build_model(ModelSpec(name=name, **options), shape, num_classes, seed, base)


def refusal(*args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        build(*args, **kwargs)
    [problem] = caught.value.problems
    assert problem.where == ""  # the run adds file and line
    return str(problem)


# --- names ---------------------------------------------------------------------------------------------


def test_names_read_from_torchvisions_files_are_those_it_registers():
    from torchvision import models

    assert list(torchvision_models()) == sorted(models.list_models(module=models))


def found(**spec) -> list[tuple[str, str]]:
    return check_model_spec(ModelSpec(**spec))


@pytest.mark.parametrize("name", [*OWN_MODELS, "resnet18", "vit_b_16", "module:factory"])
def test_known_names_are_accepted(name):
    assert found(name=name) == []


def test_unknown_names_get_the_nearest():
    assert found(name="resnet3") == [("model", "no model 'resnet3'; did you mean 'resnet34'?")]
    assert found(name="softmax-regression") == [
        ("model", "no model 'softmax-regression'; did you mean 'softmax_regression'?")
    ]
    [(field, message)] = found(name="zzz")
    assert field == "model"
    assert "softmax_regression, mlp, cifar_cnn, femnist_cnn, vgg11, torchvision's" in message


def test_settings_of_other_models_are_refused():
    assert found(name="cifar_cnn", hidden=(3,)) == [("model.hidden", "only mlp has hidden layers, not 'cifar_cnn'")]
    assert found(name="mlp", options={"a": 1}) == [("model.options", "'mlp' takes no options")]


# --- building -------------------------------------------------------------------------------------------


def test_the_first_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = build("mlp").state_dict()
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again, other = build("mlp").state_dict(), build("mlp", seed=2).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["1.weight"], other["1.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_softmax_regression_starts_at_zero():
    assert all(not p.any() for p in build("softmax_regression").parameters())


@pytest.mark.parametrize(
    ("name", "shape", "options", "num_parameters"),
    [
        ("softmax_regression", (64,), {}, 64 * 10 + 10),
        ("mlp", (64,), {}, 64 * 200 + 200 + 200 * 10 + 10),
        ("mlp", (1, 8, 8), {"hidden": (5, 3)}, 64 * 5 + 5 + 5 * 3 + 3 + 3 * 10 + 10),
        # 3*6*25+6 + 6*16*25+16 + 400*120+120 + 120*84+84 + 84*10+10
        ("cifar_cnn", (3, 32, 32), {}, 62_006),
        # 25*32+32 + 32*32*25+32 + 1568*256+256 + 256*62+62
        ("femnist_cnn", (1, 28, 28), {"num_outputs": 62}, 832 + 25_632 + 401_664 + 15_934),
        ("resnet18", (3, 32, 32), {}, 11_689_512 - 990 * 513),  # torchvision's, with 10 outputs instead of 1000
    ],
)
def test_sizes(name, shape, options, num_parameters):
    model = build(name, shape, **options)
    assert sum(p.numel() for p in model.parameters()) == num_parameters
    floats = [b for b in model.buffers() if b.is_floating_point()]
    counters = [b for b in model.buffers() if not b.is_floating_point()]
    expected = 4 * (num_parameters + sum(b.numel() for b in floats)) + 8 * len(counters)
    assert message_bytes(ModelSpec(name=name, **options), shape, 10, Path()) == expected


def test_vgg11_has_the_papers_thousand_outputs():
    # torchvision documents 132,863,336 parameters; a message is four bytes each.
    assert message_bytes(ModelSpec(name="vgg11"), (3, 32, 32), 10, Path()) == 4 * 132_863_336


def test_a_factory_gets_the_shape_the_classes_and_its_options(base):
    model = build("own_models:linear", base=base, options={"scale": 2})
    assert model[1].weight.shape == (20, 64)


# --- what does not fit ------------------------------------------------------------------------------------


def test_too_few_outputs():
    expected = "model.num_outputs: 9 outputs for 10 classes; 10 or more are needed"
    assert refusal("mlp", num_outputs=9) == expected
    with pytest.raises(ConfigError, match=expected):
        message_bytes(ModelSpec(name="mlp", num_outputs=9), (64,), 10, Path())


def test_a_model_for_other_data():
    message = refusal("cifar_cnn", (64,))
    assert message.startswith("model: 'cifar_cnn' does not work on samples of shape (64,): RuntimeError: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("own_models:fails", "KeyError: 'weights.pt'"),
        ("own_models:leaves", "SystemExit: 3"),
        ("own_models:no_module", "TypeError: the factory returned a list, not a torch.nn.Module"),
        ("own_models:absent", "AttributeError: module 'own_models' has no attribute 'absent'"),
        ("own_models:number", "TypeError: 'own_models:number' is a int, not a function"),
        ("no_such_module:linear", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("own_models:fixed", "ValueError: it has no parameters to train"),
        (
            "own_models:dictionary",
            "its outputs are hidden (4, 64), logits (4, 10); say which one holds the logits, as in model: {name: ..., "
            "output: logits}",
        ),
    ],
)
def test_a_factory_that_fails(base, name, why):
    sought = f" (modules are sought in {base} first)"
    assert refusal(name, base=base) == f"model: '{name}' does not work on samples of shape (64,): {why}{sought}"


def test_a_factory_with_too_few_outputs_or_wrong_options(base):
    message = refusal("own_models:linear", base=base, options={"scale": 0.5})
    assert "its output of 4 samples has shape (4, 5); (4, 10 or more) is needed" in message
    assert "unexpected keyword argument 'size'" in refusal("own_models:linear", base=base, options={"size": 1})


def test_a_failing_factory_is_explained_where_only_its_size_is_asked(base):
    with pytest.raises(ConfigError, match=r"KeyError: 'weights\.pt'"):
        message_bytes(ModelSpec(name="own_models:fails"), (64,), 10, base)
    with pytest.raises(ConfigError, match="unexpected keyword argument"):
        message_bytes(ModelSpec(name="resnet18", options={"size": 1}), (3, 32, 32), 10, base)


def test_batchnorm_on_batches_of_one_sample_is_refused_before_the_run(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def norm(input_shape, num_classes):\n"
        "    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))\n"
    )
    (tmp_path / "one.yaml").write_text(
        "name: one\n"
        "topology: {levels: [{name: worker, count: 2, uplink: near}]}\n"
        "profiles: {near: {rtt_s: 1}}\n"
        "compute: {step_s: 1}\n"
        "model: nets:norm\n"
        "train: {batch_size: 1, iterations: 2}\n"
        "cases: [{name: a, period: 2}]\n"
    )
    from hsgd_emu.errors import ConfigError
    from hsgd_emu.run import run

    with pytest.raises(ConfigError, match=r"one\.yaml:6: train\.batch_size: the network cannot be trained"):
        run(tmp_path / "one.yaml", tmp_path / "out")


def test_torchvisions_version_is_its_own():
    import torchvision

    assert torchvision_version() == torchvision.__version__
