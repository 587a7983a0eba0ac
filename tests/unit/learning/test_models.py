"""Models by name, their sizes, and what a person is told about one that does not fit."""

from __future__ import annotations

import copy
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hsgd_emu.config.run_schema import DataSpec, ModelSpec, TrainSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.models import build_model, model_bytes, sized_for
from hsgd_emu.learning.names import OWN_MODELS, check_model_spec, torchvision_models, torchvision_version
from hsgd_emu.learning.world import World

OWN = """
import random
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
import numpy as np
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

class Two(nn.Linear):
    # (features, logits), packed in some way
    def __init__(self, pack, width, num_classes):
        super().__init__(width, num_classes)
        self.pack = pack
    def forward(self, x):
        return self.pack(x, super().forward(x), self.training)

def two(input_shape, num_classes, way="tuple"):
    return Two(WAYS[way], input_shape[0], num_classes)

Named = namedtuple("Named", ["hidden", "logits"])

@dataclass
class Record:
    hidden: object
    logits: object
    loss: object = None

class Thing:
    def __init__(self, hidden, logits):
        self.hidden, self.logits = hidden, logits

WAYS = {
    "tuple": lambda x, y, training: (x, y),
    "list": lambda x, y, training: [x, y],
    "dict": lambda x, y, training: {"hidden": x, "logits": y},
    "ordered": lambda x, y, training: OrderedDict(loss=None, logits=y, hidden=x),
    "named": lambda x, y, training: Named(x, y),
    "record": lambda x, y, training: Record(x, y),
    "thing": lambda x, y, training: Thing(x, y),
    "one": lambda x, y, training: (y,),
    "with_none": lambda x, y, training: {"loss": None, "logits": y},
    "auxiliary": lambda x, y, training: (y, -y) if training else y,
    "other_in_evaluation": lambda x, y, training: (x, y) if training else y,
    "none": lambda x, y, training: [],
    "plain": lambda x, y, training: y,
    "column": lambda x, y, training: y[..., None],
    "flat": lambda x, y, training: y[:, 0],
    "turned": lambda x, y, training: y.T,
    "classes": lambda x, y, training: y.argmax(1, keepdim=True).expand(-1, 10),
    "complex": lambda x, y, training: y.to(torch.complex64),
    "squeezed": lambda x, y, training: y.squeeze(),
    "rows": lambda x, y, training: y.repeat(3, 1),
    "first_half": lambda x, y, training: y[: max(1, len(y) // 2)],
    "training_rows": lambda x, y, training: y.repeat(2, 1) if training else y,
}

def drawn(input_shape, num_classes):
    model = linear(input_shape, num_classes)
    with torch.no_grad():
        model[1].weight[0] = torch.from_numpy(np.random.randn(input_shape[0]))
        model[1].bias[0] = random.random()
        model[1].bias[1] = AT_IMPORT
    return model

AT_IMPORT = random.random() + np.random.randn()

def seeds_itself(input_shape, num_classes):
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    return linear(input_shape, num_classes)

def lazy(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(num_classes))

class LazyHead(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm, self.head, self.aux = nn.BatchNorm1d(64), nn.LazyLinear(num_classes), nn.LazyLinear(num_classes)
    def forward(self, x):
        x = self.norm(x)
        return self.head(x) + self.aux(x) if self.training else self.head(x)

def lazy_in_training(input_shape, num_classes):
    return LazyHead(num_classes)

def never_used(input_shape, num_classes):
    model = linear(input_shape, num_classes)
    model[0].spare = nn.LazyLinear(3)
    return model

def complex_weights(input_shape, num_classes):
    model = linear(input_shape, num_classes)
    model.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    return model
"""


def size_of(spec: ModelSpec, shape: tuple[int, ...], num_classes: int, base: Path) -> int:
    return model_bytes(sized_for(spec, shape, num_classes, base))


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
    assert size_of(ModelSpec(name=name, **options), shape, 10, Path()) == expected


def test_vgg11_has_the_papers_thousand_outputs():
    # torchvision documents 132,863,336 parameters; a message is four bytes each.
    assert size_of(ModelSpec(name="vgg11"), (3, 32, 32), 10, Path()) == 4 * 132_863_336


def test_a_factory_gets_the_shape_the_classes_and_its_options(base):
    model = build("own_models:linear", base=base, options={"scale": 2})
    assert model[1].weight.shape == (20, 64)


# --- what does not fit ------------------------------------------------------------------------------------


def test_too_few_outputs():
    expected = "model.num_outputs: 9 outputs for 10 classes; 10 or more are needed"
    assert refusal("mlp", num_outputs=9) == expected
    with pytest.raises(ConfigError, match=expected):
        size_of(ModelSpec(name="mlp", num_outputs=9), (64,), 10, Path())


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
        size_of(ModelSpec(name="own_models:fails"), (64,), 10, base)
    with pytest.raises(ConfigError, match="unexpected keyword argument"):
        size_of(ModelSpec(name="resnet18", options={"size": 1}), (3, 32, 32), 10, base)


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


# --- outputs -------------------------------------------------------------------------------------------


def two(base, way, **spec):
    return build("own_models:two", base=base, options={"way": way}, **spec)


@pytest.mark.parametrize(
    ("way", "found", "example"),
    [
        ("tuple", "0 (4, 64), 1 (4, 10)", 1),
        ("list", "0 (4, 64), 1 (4, 10)", 1),
        ("dict", "hidden (4, 64), logits (4, 10)", "logits"),
        ("ordered", "logits (4, 10), hidden (4, 64)", "hidden"),
        ("named", "hidden (4, 64), logits (4, 10)", "logits"),
        ("record", "hidden (4, 64), logits (4, 10)", "logits"),
        ("thing", "hidden (4, 64), logits (4, 10)", "logits"),
        ("auxiliary", "0 (4, 10), 1 (4, 10)", 1),
    ],
)
def test_several_outputs_are_refused_until_one_is_chosen(base, way, found, example):
    message = refusal("own_models:two", base=base, options={"way": way})
    expected = f"its outputs are {found}; say which one holds the logits, as in model: {{name: ..., output: {example}}}"
    assert expected in message


@pytest.mark.parametrize(
    ("way", "output"),
    [
        *(("tuple", 1), ("tuple", -1), ("list", 1), ("dict", "logits"), ("dict", 1), ("ordered", "logits")),
        *(("ordered", 1), ("named", "logits"), ("named", 1), ("record", "logits"), ("thing", "logits")),
        *(("auxiliary", 0), ("one", None), ("with_none", None)),
    ],
)
def test_the_chosen_output_is_what_the_network_returns(base, way, output):
    model = two(base, way, output=output)
    x = torch.rand(2, 64)
    for network in (model.train(), model.eval(), copy.deepcopy(model)):
        assert torch.equal(network(x), torch.nn.functional.linear(x, model.weight, model.bias))


@pytest.mark.parametrize(
    ("way", "output", "why"),
    [
        ("tuple", 2, "its outputs are 0 (4, 64), 1 (4, 10); there is no output 2"),
        ("dict", "logit", "its outputs are hidden (4, 64), logits (4, 10); there is no output 'logit'"),
        ("ordered", "loss", "there is no output 'loss'"),
        ("tuple", 0, "its output of 4 samples has shape (4, 64); (4, 70 or more) is needed"),
        ("other_in_evaluation", 1, "sometimes its outputs are 0 (4, 64), 1 (4, 10), sometimes it has a single one"),
        ("none", None, "its output is a list; a tensor is needed"),
        ("plain", 0, "it has a single output, none that is called 0; leave model.output out"),
    ],
)
def test_an_output_that_is_not_there(base, way, output, why):
    num_classes = 70 if "70" in why else 10
    options = {"way": way}
    if num_classes == 70:
        with pytest.raises(ConfigError, match=re.escape(why)):
            build("own_models:two", num_classes=70, base=base, options=options, output=output, num_outputs=70)
    else:
        assert why in refusal("own_models:two", base=base, options=options, output=output)


def test_our_own_models_have_one_output():
    assert found(name="mlp", output=1) == [("model.output", "'mlp' has one output only")]
    assert found(name="googlenet", output="logits") == []


@pytest.mark.parametrize(
    ("way", "why"),
    [
        ("column", "its output of 4 samples has shape (4, 10, 1); (4, 10 or more) is needed"),
        ("flat", "its output of 4 samples has shape (4,); (4, 10 or more) is needed"),
        ("turned", "its output of 4 samples has shape (10, 4); (4, 10 or more) is needed"),
        ("rows", "its output of 4 samples has shape (12, 10); (4, 10 or more) is needed"),
        ("first_half", "its output of 4 samples has shape (2, 10); (4, 10 or more) is needed"),
        ("training_rows", "its output of 4 samples has shape (8, 10); (4, 10 or more) is needed"),
        ("squeezed", "its output of 1 sample has shape (10,); (1, 10 or more) is needed"),
        ("classes", "its output is torch.int64; logits are floating-point numbers"),
        ("complex", "its output is torch.complex64; logits are floating-point numbers"),
    ],
)
def test_what_is_no_row_of_logits_for_each_sample(base, way, why):
    assert why in refusal("own_models:two", base=base, options={"way": way})


def test_auxiliary_classifiers_of_torchvision_are_chosen_too():
    options = {"aux_logits": True, "init_weights": False}
    message = refusal("googlenet", (3, 32, 32), options=options)
    assert "its outputs are logits (4, 10), aux_logits2 (4, 10), aux_logits1 (4, 10); say which" in message
    model = build("googlenet", (3, 32, 32), options=options, output="logits")
    assert model.train()(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    from hsgd_emu.learning.examine import examine

    unused = examine(model, torch.rand(2, 3, 32, 32), torch.tensor([0, 1])).without_gradient
    assert {name.partition(".")[0] for name in unused} == {"aux1", "aux2"}


def test_complex_weights_are_refused(base):
    assert "its parameter 'phase' is complex" in refusal("own_models:complex_weights", base=base)


# --- factories --------------------------------------------------------------------------------------------


def numbers(model) -> list[float]:
    return torch.cat([tensor.detach().double().flatten() for tensor in model.state_dict().values()]).tolist()


def test_what_a_factory_draws_follows_the_seed(base):
    np.random.seed(1), random.seed(1)
    one = numbers(build("own_models:drawn", base=base))
    np.random.seed(2), random.seed(2)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    again, other = numbers(build("own_models:drawn", base=base)), numbers(build("own_models:drawn", base=base, seed=2))
    assert one == again
    differ = [a != b for a, b in zip(one, other, strict=True)]
    assert sum(differ) == len(one) - 1  # what is drawn when the module is imported is alike for all seeds
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_factory_that_seeds_leaves_no_trace(base):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    build("own_models:seeds_itself", base=base)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_lazy_modules_get_their_shapes_and_seeded_weights(base):
    model = build("own_models:lazy", base=base)
    assert [type(module) for module in model][1:3] == [nn.Linear, nn.BatchNorm1d]
    assert model[1].weight.shape == (32, 64)
    assert numbers(model) == numbers(build("own_models:lazy", base=base))
    assert numbers(model) != numbers(build("own_models:lazy", base=base, seed=2))
    assert int(model[2].num_batches_tracked) == 0
    size = 4 * sum(p.numel() for p in model.parameters()) + 4 * 2 * 32 + 8
    assert size_of(ModelSpec(name="own_models:lazy"), (64,), 10, base) == size


def test_lazy_modules_of_training_alone_change_nothing_else(base):
    model = build("own_models:lazy_in_training", base=base)
    assert model.aux.weight.shape == (10, 64)
    assert not model.norm.running_mean.any()
    assert int(model.norm.num_batches_tracked) == 0


def test_lazy_parameters_that_are_never_used_are_named(base):
    message = refusal("own_models:never_used", base=base)
    assert "it never uses its lazy parameters 0.spare.weight, 0.spare.bias, which so have no shape" in message


# --- batches of one sample --------------------------------------------------------------------------------


NORMED = """
from torch import nn
def norm(input_shape, num_classes):
    return nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))
class Spread(nn.Linear):
    def forward(self, x):
        x = x - x.mean(0) if not self.training else (x - x.mean(0)) / x.std(0)
        return super().forward(x.nan_to_num(nan=1.0) if len(x) > 1 else x)
def spread(input_shape, num_classes):
    return Spread(64, num_classes)
"""


@pytest.mark.parametrize("model", ["norm", "spread"])
def test_a_worker_with_one_sample_is_told_for_every_seed(tmp_path, model):
    (tmp_path / "normed.py").write_text(NORMED)
    data = DataSpec(dataset="digits", partition="dirichlet", alpha=0.05)
    train = TrainSpec(batch_size="full", learning_rate=0.1, iterations=2)
    names = [f"worker-{number}" for number in range(20)]
    spec = ModelSpec(name=f"normed:{model}")
    world = World(data, spec, train, names, [range(20)], tmp_path, torch.device("cpu"))
    assert 1 not in world.num_samples(10)
    with_one = [name for name, num in zip(names, world.num_samples(1), strict=True) if num == 1]
    world.check([10])
    with pytest.raises(ConfigError, match="cannot be trained on batches of one sample") as caught:
        world.check([10, 1])
    assert f"workers that have only one are, with seed 1: {', '.join(with_one)}" in str(caught.value)
    linear = World(data, ModelSpec(name="mlp"), train, names, [range(20)], tmp_path, torch.device("cpu"))
    linear.check([10, 1])
