"""A linear layer that sees every feature several times learns folded exactly as it learns whole."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import vgg

from hsgd_emu.config.run_schema import DataSpec, ModelSpec, TrainSpec
from hsgd_emu.config.server_schema import CompressionSpec, ServerSpec
from hsgd_emu.engine.compression import Sender
from hsgd_emu.engine.messages import ModelShape
from hsgd_emu.engine.operations import Operations
from hsgd_emu.learning.chain import find_chain
from hsgd_emu.learning.checkpoint import Checkpoints
from hsgd_emu.learning.fold import Fold, find_fold
from hsgd_emu.learning.models import model_bytes, sized_model
from hsgd_emu.learning.world import World

from .test_chain import slim, slimmed
from .twins import Notes, Trial, assert_close_metrics, assert_close_models, in_turns, steps_away, synthetic

RELATIVE = 1e-12
IMAGE = (3, 8, 8)


def enlarging(pool=nn.AdaptiveAvgPool2d, size=(4, 6), between=()):
    """5 features of 2 x 2, enlarged to 4 x 6: each is seen 2 x 3 = 6 times by Linear(120, 7)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 5, 3, stride=4), nn.ReLU(), pool(size), *between, nn.Flatten()),
        *(nn.Linear(5 * size[0] * size[1], 7), nn.ReLU(), nn.Linear(7, 4)),
    )


def trial_of(make=enlarging, num_train=24, **train) -> Trial:
    return Trial(make, synthetic(IMAGE, num_train, images=True), **train)


def fold_in(network, shape, num=2):
    x = torch.randn(num, *shape)
    network.train()
    found = find_fold(find_chain(network, x), x)
    return found and found[1]


# --- where it is found ---------------------------------------------------------------------------------


def test_it_is_found_in_torchvisions_vgg11_on_small_images():
    # 32 x 32 is halved five times: 1 x 1, enlarged to 7 x 7 before a linear layer of 25088 = 512 x 49 columns.
    fold = fold_in(slim("vgg11"), (3, 32, 32))
    assert (fold.weight, fold.inner, fold.outer, fold.factor) == ("classifier.0.weight", (1, 1), (7, 7), 49)
    assert (fold.full.shape, fold.folded().shape) == ((6, 25088), (6, 512))


def test_it_is_found_by_structure_not_by_name():
    # alexnet reduces 64 x 64 to 1 x 1 and enlarges that to 6 x 6; a dropout stands before its linear layer.
    assert fold_in(slim("alexnet"), (3, 64, 64)) is None
    for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d):
        fold = fold_in(enlarging(pool), IMAGE)
        assert (fold.weight, fold.inner, fold.outer, fold.factor) == ("4.weight", (2, 2), (4, 6), 6)


NOT_FOLDED = {
    "not_enlarged": partial(enlarging, size=(2, 2)),
    "smaller": partial(enlarging, size=(1, 1)),
    "smaller_one_way": partial(enlarging, size=(4, 1)),
    "no_whole_multiple": partial(enlarging, size=(3, 3)),
    "no_whole_multiple_one_way": partial(enlarging, size=(4, 5)),
    "dropout_between": partial(enlarging, between=(nn.Dropout(0.5),)),
    "activation_between": partial(enlarging, between=(nn.Tanh(),)),
    "no_linear_layer": lambda: nn.Sequential(nn.Conv2d(3, 1, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    "batch_norm_first": lambda: nn.Sequential(
        *(nn.Conv2d(3, 5, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.BatchNorm1d(20), nn.Linear(20, 4)),
    ),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_where_it_would_not_be_exact_nothing_is_folded(name):
    trial = trial_of(NOT_FOLDED[name], learning_rate=0.05)
    learner = trial.assert_twins("layered")
    assert learner.network.fold is None


def test_images_as_large_as_the_network_was_made_for_are_not_folded():
    # Nothing is enlarged where the features are 7 x 7 already, as vgg11's are on 224 x 224.
    network = nn.Sequential(
        *(nn.Conv2d(3, 2, 3, padding=1), nn.MaxPool2d(32), nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten()),
        nn.Linear(98, 4),
    )
    assert fold_in(network, (3, 224, 224)) is None
    assert fold_in(network, (3, 32, 32)).factor == 49


# --- what is exact -------------------------------------------------------------------------------------


def test_columns_that_see_the_same_feature_are_summed_by_hand():
    # One output, one channel, 1 x 2 enlarged to 2 x 4: columns (0 1 2 3 / 4 5 6 7); feature 0 is seen by 0 1 4 5.
    full = torch.arange(8, dtype=torch.float64)[None]
    fold = Fold("w", (1, 2), (2, 4), full)
    assert fold.folded().tolist() == [[0 + 1 + 4 + 5, 2 + 3 + 6 + 7]]
    # The sum of feature 1 grows by 4: each of its four columns by 1. With half of the start left: 0.5 x column + 1,
    # and 0.5 x 18 + 4 = 13.
    assert fold.restored(fold.folded() + torch.tensor([[0.0, 4.0]])).tolist() == [[0, 1, 3, 4, 4, 5, 7, 8]]
    assert fold.restored(torch.tensor([[5.0, 13.0]]), 0.5).tolist() == [[0, 0.5, 2, 2.5, 2, 2.5, 4, 4.5]]


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("make", [enlarging, partial(enlarging, nn.AdaptiveMaxPool2d)])
def test_restored_weights_are_those_at_the_start_before_any_step(make, decay):
    trial = trial_of(make, weight_decay=decay)
    learner, start = trial.stacked("layered"), trial.model().double()
    assert learner.network.fold.factor == 6
    for slot in (0, 3, trial.root):
        found = learner.model_of(slot)
        assert [(name, t.shape) for name, t in found.items()] == [(n, p.shape) for n, p in start.named_parameters()]
        assert all(torch.equal(found[name], p) for name, p in start.named_parameters())


def test_only_the_one_weight_is_folded():
    learner = trial_of(weight_decay=0.1).stacked("layered")
    start = dict(learner.network.model.named_parameters())
    shapes = {name: stack.shape[1:] for name, stack in learner.stacks.trained.items()}
    assert shapes.pop("4.weight") == (7, 20)
    assert shapes.pop("4.weight.kept") == (1,)
    assert shapes == {name: p.shape for name, p in start.items() if name != "4.weight"}


SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "decay": {"weight_decay": 0.1},
    "both": {"momentum": 0.9, "weight_decay": 0.05},
}


def assert_equals_whole(trial: Trial, way="layered", chunk=None, relative=RELATIVE, **schedule):
    """Hold folded training to whole training, with averages and models handed down: every node's full model."""
    folded, whole = trial.stacked(way, chunk), trial.readable()
    assert folded.network.fold is not None
    found, expected = trial.run(folded, **schedule), trial.run(whole, **schedule)
    assert_close_metrics(found, expected, relative)
    for slot in trial.setup.slots:
        model = whole.model_of(slot)
        assert_close_models(folded.model_of(slot), model, relative)
    assert steps_away(folded, trial.model()) > 1e-3
    return folded


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d])
def test_folded_training_is_whole_training(pool, setting, chunk):
    assert_equals_whole(trial_of(partial(enlarging, pool), **SETTINGS[setting]), chunk=chunk)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov"])
def test_servers_with_momentum_step_folded_as_whole(optimizer):
    rule = ServerSpec(optimizer=optimizer, momentum=0.8, learning_rate=0.9)
    own = {"servers": {4: rule, 6: rule}, **SETTINGS["both"]}
    assert_equals_whole(trial_of(partial(enlarging, nn.AdaptiveAvgPool2d), **own))


@pytest.mark.parametrize(
    "own",
    [
        {"servers": {6: ServerSpec(optimizer="adam", learning_rate=0.1)}},
        {"senders": {(0, "up"): Sender("worker-0", CompressionSpec(method="random_k", fraction=0.3))}},
    ],
)
def test_what_looks_at_each_parameter_sees_all_of_them(own):
    learner = trial_of(partial(enlarging, nn.AdaptiveAvgPool2d), **own).assert_twins("layered")
    assert learner.network.fold is None


FROZEN = {"weight": ["4.weight"], "bias": ["4.bias"], "all_below": ["0.weight", "0.bias", "4.weight", "4.bias"]}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", FROZEN)
def test_a_folded_layer_may_be_frozen(name, setting):
    def make():
        network = enlarging()
        for parameter in FROZEN[name]:
            network.get_parameter(parameter).requires_grad_(False)
        return network

    learner = assert_equals_whole(trial_of(make, **SETTINGS[setting]))
    start = trial_of(make).model().double()
    for parameter in FROZEN[name]:
        assert torch.equal(learner.model_of(0)[parameter], start.get_parameter(parameter))


@pytest.mark.parametrize("setting", ["decay", "both"])
def test_workers_that_rest_keep_more_of_their_start(setting):
    # Each step of weight decay 0.1 at rate 0.1 leaves 1 - 0.1 x 0.1 = 0.99 of the start, only of those who take it.
    trial = trial_of(**SETTINGS[setting])
    assert_equals_whole(trial, members=in_turns)
    learner = trial.stacked("layered")
    for worker, num_steps in enumerate([0, 1, 2, 5]):
        learner.local_steps(worker, 0, num_steps) if num_steps else None
    learner.aggregate(trial.root, [1, 3], [0.25, 0.75])
    learner.flush()
    kept = learner.stacks.trained["4.weight.kept"][:, 0]
    if setting == "decay":
        expected = [1.0, 0.99, 0.99**2, 0.99**5]
        assert kept[:4].tolist() == pytest.approx(expected, rel=1e-14)
        assert float(kept[trial.root]) == pytest.approx(0.25 * expected[1] + 0.75 * expected[3], rel=1e-14)
    assert len(set(kept[:4].tolist())) == 4


def thin_vgg():
    """torchvision's VGG with eight convolutions as in vgg11, most of them of 8 channels."""
    widths = [8, "M", 8, "M", 8, 8, "M", 8, 8, "M", 8, 512, "M"]
    with torch.device("meta"):
        network = vgg.VGG(vgg.make_layers(widths), num_classes=4, init_weights=False)
    network = slimmed(network)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):  # as torchvision does, so that the deep layers see something
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return network


@pytest.mark.parametrize("setting", ["plain", "both"])
def test_torchvisions_vgg_learns_folded_as_whole(setting):
    data = synthetic((3, 32, 32), 8, images=True)
    trial = Trial(thin_vgg, data, (2, 2, 2, 2), batch_size=2, iterations=4, learning_rate=0.05, **SETTINGS[setting])
    learner = assert_equals_whole(trial)
    assert (learner.network.fold.factor, len(learner.network.masks.names)) == (49, 2)


@pytest.mark.parametrize("setting", ["momentum", "both"])
def test_in_float32_it_is_whole_training_but_for_rounding(setting):
    # 2^-24 = 6e-8 per operation; eight steps with 49 times the gradient in sums of six.
    assert_equals_whole(trial_of(**SETTINGS[setting], dtype="float32", learning_rate=0.05), relative=2e-4)


# --- what it must not change ---------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_restored_learner_goes_on_bit_for_bit(setting, tmp_path):
    trial = trial_of(**SETTINGS[setting])
    whole, half, resumed = (trial.stacked("layered") for _ in range(3))
    expected, found = trial.run(whole), trial.run(half, end=4)
    checkpoints = Checkpoints(tmp_path, "trial", Notes())
    checkpoints.save(4, half.state())
    resumed.restore(checkpoints.load(4))
    found += trial.run(resumed, begin=4)
    assert found == expected
    for slot in range(trial.root + 1):
        assert resumed.weights_hash(slot) == whole.weights_hash(slot)


MODULE = """
import numpy as np
import torch


def data():
    x, y = np.arange(12 * 3 * 64, dtype=np.uint8).reshape(12, 3, 8, 8), np.arange(12) % 4
    return x, y, x[:4], y[:4]


def network(input_shape, num_classes):
    layers = torch.nn.Conv2d(3, 5, 8), torch.nn.AdaptiveAvgPool2d(7), torch.nn.Flatten()
    return torch.nn.Sequential(*layers, torch.nn.Linear(5 * 49, num_classes))
"""


def test_messages_are_as_large_as_the_full_model(tmp_path):
    # (5 x 3 x 64 + 5) + (4 x 245 + 4) numbers of four bytes, though the workers train 4 x 5 of the 4 x 245.
    (tmp_path / "own_folded_module.py").write_text(MODULE)
    data, model = DataSpec(dataset="own_folded_module:data"), ModelSpec(name="own_folded_module:network")
    train = TrainSpec(batch_size=2, learning_rate=0.1, iterations=2)
    world = World(data, model, train, ["a", "b"], [[0, 1]], tmp_path, torch.device("cpu"))
    full = 4 * (5 * 3 * 64 + 5 + 4 * 245 + 4)
    assert world.message_bytes() == full
    assert model_bytes(sized_model(data, model, tmp_path)) == full
    assert world.model_shape() == ModelShape((5 * 3 * 64, 5, 4 * 245, 4), 0)
    assert ModelShape.of_text(world.model_shape().text) == world.model_shape()
    learner = world.learner(0, {0: 0, 1: 1, 2: 2})
    start = Operations(learner).start()
    assert learner.stacks.trained["3.weight"].shape == (3, 4, 5)
    assert sum(tensor.numel() for tensor in learner.model_of(start).values()) * 4 == full


def test_a_pooling_used_twice_is_not_left_out_where_it_shrinks():
    pool = nn.AdaptiveAvgPool2d(2)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), pool, nn.Conv2d(4, 4, 2), pool, nn.Flatten(), nn.Linear(16, 4)
    trial_of(lambda: nn.Sequential(*layers)).assert_twins()


def test_evaluation_sees_the_same_function():
    trial = trial_of(weight_decay=0.1)
    learner = trial.stacked("layered")
    trial.run(learner, end=4)
    model, network = learner.model_of(trial.root), trial.model().double().eval()
    network.load_state_dict(model)
    x = torch.from_numpy((trial.dataset.test_x / 255 - 0.5) / 0.25)
    logits = learner.engine.logits(learner.stacks.model(trial.root), x)
    np.testing.assert_allclose(logits.numpy(), network(x).detach().numpy(), rtol=1e-12, atol=1e-14)
