"""Which networks are chains of layers that can be batched by hand; what is no chain is left to PyTorch."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm
from torchvision import models as torchvision_models

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.learning.chain import find_chain
from hsgd_emu.learning.dropout import with_masked_dropout
from hsgd_emu.learning.layering import layers_of
from hsgd_emu.learning.layers import Layer, MaxPool2d, Pass, Relu
from hsgd_emu.learning.models import cifar_cnn, femnist_cnn, mlp
from hsgd_emu.learning.stacks import Part
from hsgd_emu.learning.updates import Sgd

FLAT, IMAGE = (6,), (3, 8, 8)
CONV = ["Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]


class Written(nn.Module):
    """A network whose forward is given as a function of the network and its input."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.written = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.written(self, x)


def rows(forward):
    return Written(forward, first=nn.Linear(6, 6), last=nn.Linear(6, 4), drop=nn.Dropout(0.5))


def pictures(forward, features=2 * 3 * 3):
    return Written(forward, conv=nn.Conv2d(3, 2, 3), last=nn.Linear(features, 4), pool=nn.MaxPool2d(2))


def chain_of(model, shape, num=2):
    torch.manual_seed(0)
    x = torch.randn(num, *shape, dtype=torch.float64)
    return find_chain(model.double().train(), x)


def kinds(links):
    return [type(layer).__name__ for _, layer in links]


# --- what is a chain ----------------------------------------------------------------------------------


def two_layers():
    return nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])


SEQUENTIAL = {
    "mlp": (partial(mlp, FLAT, (5,), 4), FLAT, ["Flatten", "Linear", "ReLU", "Linear"]),
    "cifar_cnn": (partial(cifar_cnn, 4), (3, 32, 32), [*CONV[:3], *CONV[:4], *["Linear", "ReLU"] * 2, "Linear"]),
    "femnist_cnn": (
        partial(femnist_cnn, 4),
        (1, 28, 28),
        [*CONV[:3], "ChannelNorm", "Conv2d", "ReLU", "ChannelNorm", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear"],
    ),
    "nested": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.Identity()), nn.Sequential(nn.Tanh(), nn.Linear(5, 4))),
        FLAT,
        ["Linear", "Tanh", "Linear"],
    ),
    "module_list": (
        lambda: Written(lambda net, x: net.all[1](torch.sigmoid(net.all[0](x))), all=two_layers()),
        FLAT,
        ["Linear", "Sigmoid", "Linear"],
    ),
}


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_layers_of_a_sequential_in_their_order(name):
    make, shape, expected = SEQUENTIAL[name]
    assert kinds(chain_of(make(), shape)) == expected


ROWS = {
    "F.relu": lambda net, x: net.last(F.relu(net.first(x))),
    "F.relu_in_place": lambda net, x: net.last(F.relu(net.first(x), inplace=True)),
    "torch.relu": lambda net, x: net.last(torch.relu(net.first(x))),
    ".relu()": lambda net, x: net.last(net.first(x).relu()),
}
POOLS = {
    "pool_module": lambda net, x: net.pool(x),
    "pool_positional": lambda net, x: F.max_pool2d(x, 2),
    "pool_stride_positional": lambda net, x: F.max_pool2d(x, 2, 2),
    "pool_keywords": lambda net, x: F.max_pool2d(x, kernel_size=2, stride=(2, 2)),
    "pool_all_keywords": lambda net, x: F.max_pool2d(x, 2, stride=2, padding=0, dilation=1, ceil_mode=False),
    "torch.max_pool2d": lambda net, x: torch.max_pool2d(x, 2),
}
FLATTENS = {
    "torch.flatten": lambda x: torch.flatten(x, 1),
    "torch.flatten_keyword": lambda x: torch.flatten(x, start_dim=1),
    ".flatten": lambda x: x.flatten(1),
    "view_features": lambda x: x.view(-1, 18),
    "view_size": lambda x: x.view(x.size(0), -1),
    "view_shape": lambda x: x.view(x.shape[0], -1),
    "view_tuple": lambda x: x.view((x.size(0), -1)),
    "reshape": lambda x: x.reshape(-1, 18),
    "reshape_shape": lambda x: x.reshape(x.shape[0], -1),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_relu_may_be_written_as_a_function(name):
    links = chain_of(rows(ROWS[name]), FLAT)
    assert kinds(links) == ["Linear", "ReLU", "Linear"]
    assert [name for name, _ in links] == ["first", "", "last"]


@pytest.mark.parametrize("name", POOLS)
def test_a_max_pooling_may_be_written_as_a_function(name):
    net = pictures(lambda net, x: net.last(torch.flatten(POOLS[name](net, F.relu(net.conv(x))), 1)))
    assert kinds(chain_of(net, IMAGE)) == CONV


@pytest.mark.parametrize("name", FLATTENS)
def test_rows_may_be_made_by_any_function(name):
    net = pictures(lambda net, x: net.last(FLATTENS[name](net.pool(net.conv(x)))))
    assert kinds(chain_of(net, IMAGE)) == ["Conv2d", "MaxPool2d", "Flatten", "Linear"]


def test_the_options_of_a_pooling_written_as_a_function_are_kept():
    # 6x6 with windows of 3, steps of 2, padding of 1 and rounding up: ceil((6 + 2 - 3) / 2) + 1 = 4 a side.
    def forward(net, x):
        x = F.max_pool2d(net.conv(x), (3, 3), 2, padding=1, ceil_mode=True)
        return net.last(x.view(x.size(0), -1))

    links = chain_of(pictures(forward, 2 * 4 * 4), IMAGE)
    [pool] = [layer for _, layer in links if isinstance(layer, nn.MaxPool2d)]
    assert (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode) == ((3, 3), 2, 1, 1, True)


def slim(name):
    """A network of torchvision whose linear layers are 6 wide, so that it is made in a moment."""
    with torch.device("meta"):
        network = torchvision_models.get_model(name, weights=None, num_classes=4)
    return slimmed(network)


def slimmed(network):
    wide = [place for place, layer in enumerate(network.classifier) if isinstance(layer, nn.Linear)]
    widths = [network.classifier[wide[0]].in_features, 6, 6, 4]
    for place, (before, after) in zip(wide, itertools.pairwise(widths), strict=True):
        network.classifier[place] = nn.Linear(before, after)
    network.features.to_empty(device="cpu")
    for layer in network.features:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return network


@pytest.mark.parametrize(("name", "num_layers"), [("vgg11", 30), ("vgg11_bn", 38), ("alexnet", 22)])
def test_networks_of_torchvision_are_chains_and_can_be_batched(name, num_layers):
    # vgg11: 8 x (conv, relu), 5 pools, adaptive pool, flatten, 3 linear, 2 x (relu, dropout): 16 + 5 + 2 + 3 + 4 = 30;
    # with BatchNorm 8 more. alexnet: 5 x (conv, relu), 3 pools, 2, 3 linear, 2 relu, 2 dropout = 22.
    network, x = slim(name).train(), torch.randn(2, 3, 64, 64)
    with_masked_dropout(network, x)
    links = find_chain(network, x)
    assert len(links) == num_layers
    assert len(layers_of(links, x)) == num_layers
    assert network.training


def test_finding_a_chain_changes_neither_the_network_nor_torchs_generator():
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Linear(5, 4)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.random.get_rng_state()
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    assert find_chain(network, x) is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert torch.equal(torch.random.get_rng_state(), state)


# --- what is none -------------------------------------------------------------------------------------


def branches(net, x):
    return net.last(x) if x.sum() > 0 else net.last(-x)


def only_in_training(net, x):
    x = net.first(x)
    return net.last(F.relu(x) if net.training else x)


def only_in_evaluation(net, x):
    x = net.first(x)
    return net.last(x if net.training else F.relu(x))


def input_again(net, x):
    net.first(x)
    return net.last(x)


NO_CHAINS = {
    "residual": lambda net, x: net.last(x + net.first(x)),
    "residual_function": lambda net, x: net.last(torch.add(net.first(x), x)),
    "residual_in_place": lambda net, x: net.last(net.first(x).add_(x)),
    "two_outputs": lambda net, x: (net.last(x), net.first(x)),
    "tuple_of_one": lambda net, x: (net.last(x),),
    "not_the_last_result": lambda net, x: (net.last(net.first(x)), net.last(x))[1],
    "input_twice": input_again,
    "result_not_used": lambda net, x: (net.drop(x), net.last(x))[1],
    "last_result_not_used": lambda net, x: (net.last(x), net.drop(x))[0],
    "last_result_dropped": lambda net, x: [y := net.last(x), net.drop(y)][0],
    "two_paths": lambda net, x: net.last(torch.cat([net.first(x)[:, :3], x[:, 3:]], 1)),
    "branches_on_data": branches,
    "training_only": only_in_training,
    "evaluation_only": only_in_evaluation,
    "functional_dropout": lambda net, x: net.last(F.dropout(net.first(x), 0.5, net.training)),
    "dropout_always_on": lambda net, x: net.last(F.dropout(net.first(x), 0.5, True)),
    "noise": lambda net, x: net.last(net.first(x) + torch.randn(6, dtype=torch.float64) * net.training),
    "scaled": lambda net, x: net.last(net.first(x)) * 2,
    "own_weight": lambda net, x: F.linear(x, net.last.weight),
    "view_mixes_the_batch": lambda net, x: net.last(net.first(x).view(6, -1).t()),
    "loop_over_samples": lambda net, x: torch.stack([net.last(one) for one in x]),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_chain_is_refused(name):
    assert chain_of(rows(NO_CHAINS[name]), FLAT) is None


@pytest.mark.parametrize(
    "view",
    [lambda x: x.view(-1, 9), lambda x: x.view(x.size(1), -1), lambda x: x.view(9, -1), lambda x: x.view(1, -1)],
)
def test_a_view_that_mixes_samples_is_refused(view):
    # Three samples of 2 x 3 x 3: six rows of half a sample, two of one and a half, nine of a third, or one of all.
    net = Written(lambda net, x: view(net.pool(net.conv(x))), conv=nn.Conv2d(3, 2, 3), pool=nn.MaxPool2d(2))
    assert chain_of(net, IMAGE, num=3) is None


def doubled_input(module, inputs):
    return (inputs[0] * 2,)


HOOKS = {
    "forward": lambda net: net[2].register_forward_hook(lambda module, inputs, output: output * 2),
    "forward_pre": lambda net: net[2].register_forward_pre_hook(doubled_input),
    "forward_on_the_whole": lambda net: net.register_forward_hook(lambda module, inputs, output: output * 2),
    "forward_pre_on_the_whole": lambda net: net.register_forward_pre_hook(doubled_input),
    "backward": lambda net: net[2].register_full_backward_hook(lambda module, below, above: (below[0] * 2,)),
    "backward_pre": lambda net: net[2].register_full_backward_pre_hook(lambda module, above: (above[0] * 2,)),
    "backward_on_the_whole": lambda net: net.register_full_backward_hook(lambda module, below, above: (below[0] * 2,)),
}


@pytest.mark.parametrize("name", HOOKS)
def test_networks_with_hooks_are_refused(name):
    # A hook may change what is computed, in training only or backward only; layers batched by hand never call it.
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    HOOKS[name](network)
    assert chain_of(network, FLAT) is None


def changed_weights(how):
    first = nn.Linear(6, 5)
    if how == "weight_norm":
        first = parametrizations.weight_norm(first)
    elif how == "old_weight_norm":
        with pytest.warns(FutureWarning):
            first = weight_norm(first)
    else:
        prune.random_unstructured(first, "weight", 0.5)
    return nn.Sequential(first, nn.ReLU(), nn.Linear(5, 4))


@pytest.mark.parametrize("how", ["weight_norm", "old_weight_norm", "pruned"])
def test_layers_whose_weight_is_computed_are_not_batched_by_hand(how):
    x = torch.randn(2, 6, dtype=torch.float64)
    links = find_chain(changed_weights(how).double().train(), x)
    assert links is None or layers_of(links, x) is None


class Counting(nn.Module):
    """Counts its own training steps in a buffer, which a chain of its layers would not."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            self.steps += 1
        return self.last(x)


def test_a_network_that_counts_its_own_steps_is_refused_and_not_counted():
    network = Counting()
    assert chain_of(network, FLAT) is None
    assert int(network.steps) == 0


# --- what is a chain, but of layers that are not batched by hand ---------------------------------------

TIED = nn.Linear(6, 6)
NOT_BATCHED = {
    "used_twice": (nn.Sequential(TIED, nn.Tanh(), TIED, nn.Linear(6, 4)), FLAT),
    "softmax": (nn.Sequential(nn.Linear(6, 4), nn.Softmax(1)), FLAT),
    "layer_norm": (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 4)), FLAT),
    "linear_on_images": (nn.Sequential(nn.Linear(8, 2), nn.Flatten(), nn.Linear(48, 4)), IMAGE),
    "same_padding": (nn.Sequential(nn.Conv2d(3, 1, 3, padding="same"), nn.Flatten(), nn.Linear(64, 4)), IMAGE),
    "reflect": (
        nn.Sequential(nn.Conv2d(3, 1, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(64, 4)),
        IMAGE,
    ),
    "batch_norm_of_no_momentum": (nn.Sequential(nn.BatchNorm1d(6, momentum=None), nn.Linear(6, 4)), FLAT),
    "batch_norm_without_weights": (nn.Sequential(nn.BatchNorm1d(6, affine=False), nn.Linear(6, 4)), FLAT),
    "batch_norm_without_statistics": (
        nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 4)),
        FLAT,
    ),
    "one_row_of_all_samples": (nn.Sequential(nn.Linear(6, 4), nn.Flatten(0)), FLAT),
    "images_at_the_end": (nn.Sequential(nn.Conv2d(3, 2, 8)), IMAGE),
}


@pytest.mark.parametrize("name", NOT_BATCHED)
def test_unknown_layers_are_not_batched_by_hand(name):
    network, shape = NOT_BATCHED[name]
    x = torch.randn(2, *shape, dtype=torch.float64)
    links = find_chain(network.double().train(), x)
    assert links is None or layers_of(links, x) is None


# --- a ReLU before a max pooling -----------------------------------------------------------------------


def backward(layers: list[Layer], x: torch.Tensor, dy: torch.Tensor, num_workers: int) -> tuple[torch.Tensor, ...]:
    """Return the output (W, B, F) of layers without parameters and the gradient of their grouped input."""
    run, sgd = Pass(num_workers, {}, True), Sgd(Part({}, {}, {}, {}, is_view=True), TrainSpec(iterations=1))
    y = x
    with torch.no_grad():
        for layer in layers:
            y = layer.forward(y, run)
        dx = dy
        for layer in reversed(layers):
            dx = layer.backward(dx, run, sgd, need_dx=True)
    return y, dx


# All negative (y = 0: nothing learns); a tie above 0 (the first of them learns); a tie at 0; a tie below 0 with 0.
WINDOWS = torch.tensor([[-3, -1, 2, 5], [-2, -1, 5, 1], [0, 0, -4, 0], [-1, 0, -4, -4]], dtype=torch.float64)
POOLINGS = {
    "plain": nn.MaxPool2d(2),
    "padded": nn.MaxPool2d(3, stride=2, padding=1),
    "overlapping": nn.MaxPool2d(2, stride=1),
    "rounded_up": nn.MaxPool2d(3, stride=2, ceil_mode=True),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_a_relu_goes_behind_a_max_pooling_without_a_change_of_gradients(name):
    # Four images of one channel for each of two workers; the second worker's are the first's with the opposite sign.
    images = torch.stack([WINDOWS, WINDOWS.T, WINDOWS.flip(0), WINDOWS.flip(1)])[None, :, None]
    x_WBCHW = torch.cat([images, -images])
    network = nn.Sequential(nn.ReLU(), POOLINGS[name], nn.Flatten())
    leaf = x_WBCHW.clone().requires_grad_()
    expected = torch.stack([network(one) for one in leaf])
    dy = 1 + torch.arange(expected.numel(), dtype=torch.float64).view(expected.shape)
    expected.backward(dy)

    layers = layers_of([(str(place), layer) for place, layer in enumerate(network)], x_WBCHW[0])
    assert [type(layer) for layer in layers[:2]] == [MaxPool2d, Relu]
    grouped = x_WBCHW.transpose(0, 1).flatten(1, 2)
    y, dx = backward(layers, grouped.clone(), dy, num_workers=2)
    assert torch.equal(y, expected)
    assert torch.equal(dx, leaf.grad.transpose(0, 1).flatten(1, 2))


def test_the_gradient_of_a_window_by_hand():
    # The four windows of 2x2 are (-3 -1 / -2 -1), (2 5 / 5 1), (0 0 / -1 0), (-4 0 / -4 -4): only the second is above
    # 0, and of its two fives the first takes the gradient.
    layers = layers_of([("0", nn.ReLU()), ("1", nn.MaxPool2d(2)), ("2", nn.Flatten())], WINDOWS[None, None])
    y, dx = backward(layers, WINDOWS[None, None].clone(), torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]).double(), 1)
    assert y.tolist() == [[[0, 5, 0, 0]]]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0, 3] = 2
    assert torch.equal(dx[0, 0], expected)
