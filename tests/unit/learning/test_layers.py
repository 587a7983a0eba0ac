"""Each layer batched by hand takes the steps that PyTorch takes; all ways to take steps agree."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from hsgd_emu.config.run_schema import Augment, TrainSpec
from hsgd_emu.learning.chain import find_chain
from hsgd_emu.learning.dropout import MaskedDropout, with_masked_dropout
from hsgd_emu.learning.engines import Layered, Step
from hsgd_emu.learning.layering import layers_of
from hsgd_emu.learning.models import ChannelNorm, cifar_cnn, femnist_cnn, mlp
from hsgd_emu.learning.stacks import MOMENTUM, Part, of
from hsgd_emu.learning.updates import Sgd

from .twins import Trial, assert_close_models, synthetic

RELATIVE = 1e-12
"""Float64 has 1e-16; only the order of summation differs."""
RELATIVE_LOSS = 1e-11
"""A loss near 0 is a difference of larger numbers."""
ROW, IMAGE = (5,), (2, 7, 6)
RATE, BATCH, CLASSES = 0.1, 4, 3


# --- the same steps, by hand and by PyTorch ------------------------------------------------------------


class Workers:
    """Workers with different weights (frozen ones alike), each with a plain copy of the network and torch's SGD."""

    def __init__(
        self, network: nn.Module, shape: Sequence[int], num_workers: int, momentum: float, decay: float
    ) -> None:
        self.shape, self.momentum, self.decay = shape, momentum, decay
        self.network = network.double().train()
        sample = torch.randn(2, *shape, dtype=torch.float64)
        with_masked_dropout(self.network, sample)
        layers = layers_of(find_chain(self.network, sample), sample)
        self.engine = Layered(layers)
        self.network.train()
        self.copies = [self._copy() for _ in range(num_workers)]
        self.optimisers = [
            torch.optim.SGD([p for p in one.parameters() if p.requires_grad], RATE, momentum, weight_decay=decay)
            for one in self.copies
        ]
        self.part = self._part()
        self.sgd = Sgd(self.part, TrainSpec(iterations=1, momentum=momentum, weight_decay=decay))

    def _copy(self) -> nn.Module:
        one = copy.deepcopy(self.network)
        for tensor in [p for p in one.parameters() if p.requires_grad] + [b for b in one.buffers() if b.dim() == 1]:
            tensor.data += 0.2 * torch.rand_like(tensor)
        return one

    def _part(self) -> Part:
        trained, fixed, buffers = {}, {}, {}
        for name, first in self.copies[0].named_parameters():
            all_ = torch.stack([one.get_parameter(name).detach() for one in self.copies])
            if first.requires_grad:
                trained[name] = all_
            else:  # as in the stacks: one for all
                fixed[name] = first.detach().expand(len(self.copies), *first.shape)
        for name, _ in self.copies[0].named_buffers():
            if not name.endswith(".mask"):
                buffers[name] = torch.stack([one.get_buffer(name) for one in self.copies])
        kept = {of(MOMENTUM, n): torch.zeros_like(stack) for n, stack in trained.items() if self.momentum}
        return Part(trained, fixed, buffers, kept, True)

    def step(self) -> None:
        """Take one step both ways."""
        num = len(self.copies)
        x = torch.randn(num, BATCH, *self.shape, dtype=torch.float64)
        y = torch.randint(CLASSES, (num, BATCH))
        masks = self._masks(x)
        grouped = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last) if x.dim() == 5 else x
        losses = self.engine.step(self.part, self.sgd, Step(grouped.clone(), y, masks, RATE, 0))
        expected = [self._plain_step(worker, x[worker], y[worker], masks) for worker in range(num)]
        torch.testing.assert_close(losses, torch.stack(expected), rtol=RELATIVE_LOSS, atol=0)

    def _masks(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        masks = {}
        for name, layer in self.network.named_modules():
            if isinstance(layer, MaskedDropout):
                shape = self._input_shape(name, x[0])
                shape = shape[: len(shape) - layer.feature_dims] + (1,) * layer.feature_dims
                masks[f"{name}.mask"] = (torch.rand(len(x), *shape) < 0.6).double() / 0.6
        return masks

    def _input_shape(self, name: str, x: torch.Tensor) -> tuple[int, ...]:
        one, shapes = copy.deepcopy(self.network).eval(), []
        one.get_submodule(name).register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
        one(x.clone())
        return shapes[0]

    def _plain_step(
        self, worker: int, x: torch.Tensor, y: torch.Tensor, masks: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        network, optimiser = self.copies[worker], self.optimisers[worker]
        for name, mask in masks.items():
            network.get_submodule(name.removesuffix(".mask")).mask = mask[worker]
        loss = F.cross_entropy(network(x.clone()), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    def assert_same(self, relative: float = RELATIVE) -> None:
        """Hold weights, buffers and momenta to PyTorch's, and the logits in evaluation mode."""
        for worker, (network, optimiser) in enumerate(zip(self.copies, self.optimisers, strict=True)):
            model = {
                name: t[worker] for name, t in {**self.part.trained, **self.part.fixed, **self.part.buffers}.items()
            }
            assert_close_models(model, network, relative)
            for name, stack in self.sgd.momenta.items():
                expected = optimiser.state[network.get_parameter(name)]["momentum_buffer"]
                assert float((stack[worker] - expected).abs().max()) <= relative * max(
                    float(expected.abs().max()), 1e-3
                )
            x = torch.randn(3, *self.shape, dtype=torch.float64)
            expected = network.eval()(x.clone()).detach()
            network.train()
            found = self.engine.logits(model, x)
            assert float((found - expected).abs().max()) <= relative * max(float(expected.abs().max()), 1e-3)


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float) -> None:
    # A bias below a BatchNorm has no gradient but what rounding leaves, hence the floor.
    assert float((found - expected).abs().max()) <= relative * max(float(expected.abs().max()), 0.1)


def assert_steps_equal(network, shape, num_workers=3, momentum=0.0, decay=0.0, steps=5, relative=RELATIVE) -> None:
    workers = Workers(network, shape, num_workers, momentum, decay)
    start = {name: stack.clone() for name, stack in workers.part.trained.items()}
    for _ in range(steps):
        workers.step()
    workers.assert_same(relative)
    assert any(not torch.equal(stack, workers.part.trained[name]) for name, stack in start.items())


def fresh(*layers: nn.Module) -> nn.Sequential:
    """Return copies of layers with weights drawn anew, so that no test depends on those before it."""
    network = copy.deepcopy(nn.Sequential(*layers))
    for layer in network:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    return network


def rows(*layers):
    """A linear layer, these layers on rows of 6, and another linear layer."""
    return lambda: fresh(nn.Linear(5, 6), *layers, nn.Linear(6, CLASSES))


def pictures(*layers, conv=None):
    """A convolution to 4 x 5 x 4, these layers on images, and a linear layer on what they leave."""

    def make():
        network = fresh(conv or nn.Conv2d(2, 4, 3), *layers, nn.Flatten())
        size = network.eval()(torch.zeros(2, *IMAGE)).shape[1]
        return network.append(nn.Linear(size, CLASSES))

    return make


LAYERS = {
    "linear": (rows(), ROW),
    "linear_without_bias": (rows(nn.Linear(6, 6, bias=False), nn.Tanh()), ROW),
    "linear_alone": (lambda: nn.Sequential(nn.Linear(5, CLASSES)), ROW),
    "conv": (pictures(), IMAGE),
    "conv_stride": (pictures(conv=nn.Conv2d(2, 4, 3, stride=2)), IMAGE),
    "conv_oblong": (pictures(conv=nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(0, 1))), IMAGE),
    "conv_padding": (pictures(nn.Conv2d(4, 3, 3, padding=1)), IMAGE),
    "conv_dilation": (pictures(nn.Conv2d(4, 3, 2, dilation=(2, 3))), IMAGE),
    "conv_own_groups": (pictures(nn.Conv2d(4, 6, 3, groups=2), nn.Conv2d(6, 6, 1, groups=6)), IMAGE),
    "conv_without_bias": (pictures(nn.Conv2d(4, 3, 3, bias=False)), IMAGE),
    "relu_on_rows": (rows(nn.ReLU()), ROW),
    "relu_on_images": (pictures(nn.ReLU(), nn.Conv2d(4, 3, 2), nn.ReLU(inplace=True)), IMAGE),
    "relu_twice": (rows(nn.Tanh(), nn.ReLU(), nn.ReLU()), ROW),
    "relu_first": (lambda: nn.Sequential(nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, CLASSES)), ROW),
    "relu_last": (lambda: nn.Sequential(nn.Linear(5, CLASSES), nn.ReLU()), ROW),
    "max_pool": (pictures(nn.MaxPool2d(2)), IMAGE),
    "max_pool_after_relu": (pictures(nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()), IMAGE),
    "max_pool_padding": (pictures(nn.MaxPool2d(3, stride=2, padding=1)), IMAGE),
    "max_pool_stride": (pictures(nn.ReLU(), nn.MaxPool2d((3, 2), stride=1)), IMAGE),
    "max_pool_ceil_mode": (pictures(nn.MaxPool2d(2, ceil_mode=True), nn.ReLU()), IMAGE),
    "max_pool_dilation": (pictures(nn.MaxPool2d(2, stride=1, dilation=(2, 3))), IMAGE),
    "max_pool_first": (lambda: nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, CLASSES)), IMAGE),
    "flatten_rows": (rows(nn.Flatten(), nn.ReLU()), ROW),
    "flatten_then_relu": (pictures(nn.Flatten(), nn.ReLU()), IMAGE),
    "dropout_on_rows": (rows(nn.Dropout(0.4), nn.ReLU()), ROW),
    "dropout_on_images": (pictures(nn.Dropout(0.4)), IMAGE),
    "dropout_on_channels": (pictures(nn.Dropout2d(0.4), nn.ReLU()), IMAGE),
    "dropout_first": (lambda: nn.Sequential(nn.Dropout2d(0.4), nn.Conv2d(2, CLASSES, (7, 6)), nn.Flatten()), IMAGE),
    "channel_norm": (pictures(ChannelNorm(4, 0.5, 0.75, 1.0)), IMAGE),
    "channel_norm_odd": (pictures(ChannelNorm(3, 0.5, 0.75, 2.0), nn.ReLU()), IMAGE),
    "channel_norm_other_power": (pictures(ChannelNorm(2, 0.3, 0.5, 1.0), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    "response_norm": (pictures(nn.LocalResponseNorm(4, 0.5, 0.75, 1.0)), IMAGE),
    "response_norm_odd": (pictures(nn.LocalResponseNorm(3, 0.5, 1.2, 2.0)), IMAGE),
    "response_norm_wider_than_channels": (pictures(nn.LocalResponseNorm(9, 0.5, 0.75, 1.0)), IMAGE),
    "batch_norm_1d": (rows(nn.BatchNorm1d(6), nn.ReLU()), ROW),
    "batch_norm_1d_first": (lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, CLASSES)), ROW),
    "batch_norm_2d": (pictures(nn.BatchNorm2d(4, eps=1e-2, momentum=0.3), nn.ReLU(), nn.MaxPool2d(2)), IMAGE),
    "batch_norm_after_flatten": (pictures(nn.Flatten(), nn.BatchNorm1d(80), nn.Tanh()), IMAGE),
    "avg_pool": (pictures(nn.AvgPool2d(2)), IMAGE),
    "avg_pool_padding": (pictures(nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)), IMAGE),
    "adaptive_avg_pool": (pictures(nn.AdaptiveAvgPool2d((3, 2))), IMAGE),
    "global_avg_pool_of_a_relu": (pictures(nn.ReLU(), nn.AdaptiveAvgPool2d(1)), IMAGE),
    "global_max_pool_of_a_relu": (pictures(nn.ReLU(), nn.AdaptiveMaxPool2d(1)), IMAGE),
    "avg_pool_of_a_relu": (pictures(nn.ReLU(), nn.AvgPool2d((5, 4))), IMAGE),
    "adaptive_avg_pool_enlarging": (pictures(nn.AdaptiveAvgPool2d((10, 4))), IMAGE),
    "adaptive_max_pool": (pictures(nn.AdaptiveMaxPool2d((2, 3))), IMAGE),
    "tanh": (rows(nn.Tanh()), ROW),
    "tanh_on_images": (pictures(nn.Tanh(), nn.Conv2d(4, 2, 2)), IMAGE),
    "sigmoid": (rows(nn.Sigmoid()), ROW),
    "gelu": (rows(nn.GELU()), ROW),
    "gelu_on_images": (pictures(nn.GELU(approximate="tanh")), IMAGE),
    "leaky_relu": (rows(nn.LeakyReLU(0.2)), ROW),
    "elu": (rows(nn.ELU()), ROW),
    "softplus": (rows(nn.Softplus()), ROW),
}
SETTINGS = {"plain": (0.0, 0.0), "momentum": (0.9, 0.0), "decay": (0.0, 0.05), "both": (0.9, 0.05)}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", LAYERS)
def test_five_steps_of_three_workers_equal_autograd(name, setting):
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    assert_steps_equal(make(), shape, 3, *SETTINGS[setting])


@pytest.mark.parametrize("name", LAYERS)
def test_five_steps_of_one_worker_equal_autograd(name):
    make, shape = LAYERS[name]
    torch.manual_seed(2)
    assert_steps_equal(make(), shape, 1, 0.9, 0.05)


IN_PLACE = [nn.LeakyReLU(0.2, inplace=True), nn.SiLU(True), nn.ReLU6(True), nn.Hardswish(True), nn.ELU(inplace=True)]


@pytest.mark.parametrize("layer", IN_PLACE, ids=str)
def test_activations_may_overwrite_their_input(layer):
    torch.manual_seed(4)
    assert_steps_equal(rows(layer)(), ROW)
    assert_steps_equal(pictures(nn.BatchNorm2d(4), layer, nn.AvgPool2d(2), layer, nn.Dropout(0.4), layer)(), IMAGE)


# --- frozen parameters ---------------------------------------------------------------------------------


def deep():
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, CLASSES)),
    )


FROZEN = {
    "first": ["0.weight", "0.bias"],
    "first_and_its_batch_norm": ["0.weight", "0.bias", "1.weight", "1.bias"],
    "weight_of_a_batch_norm": ["1.weight"],
    "middle": ["4.weight", "4.bias", "7.weight", "7.bias"],
    "biases": ["0.bias", "1.bias", "4.bias", "7.bias", "9.bias"],
    "weights": ["0.weight", "1.weight", "4.weight", "7.weight", "9.weight"],
    "last": ["9.weight", "9.bias"],
    "all_but_the_last": [f"{place}.{kind}" for place in (0, 1, 4, 7) for kind in ("weight", "bias")],
    "all_but_one_bias": [f"{place}.weight" for place in (0, 1, 4, 7, 9)] + ["0.bias", "1.bias", "4.bias", "9.bias"],
}


@pytest.mark.parametrize("setting", ["plain", "both"])
@pytest.mark.parametrize("name", FROZEN)
def test_frozen_parameters_stay_and_the_others_learn(name, setting):
    torch.manual_seed(3)
    network = deep()
    for parameter in FROZEN[name]:
        network.get_parameter(parameter).requires_grad_(False)
    assert_steps_equal(network, IMAGE, 3, *SETTINGS[setting])


# --- any chain -----------------------------------------------------------------------------------------

# A larger eps than usual, as a BatchNorm of four nearly equal numbers magnifies the last bits.
ON_ROWS = [
    lambda f: [nn.Linear(f, 4)],
    lambda f: [nn.Linear(f, 3, bias=False)],
    lambda f: [nn.BatchNorm1d(f, eps=0.1)],
    lambda f: [nn.Dropout(0.4)],
    lambda f: [nn.ReLU()],
    lambda f: [nn.Tanh()],
    lambda f: [nn.GELU()],
    lambda f: [nn.Flatten()],
]
ON_IMAGES = [
    lambda c, side: [nn.Conv2d(c, 4, 2, padding=1)],
    lambda c, side: [nn.Conv2d(c, 2, 1, stride=2, bias=False)],
    lambda c, side: [nn.Conv2d(c, 2 * c, min(side, 3), padding=1, groups=c)],
    lambda c, side: [nn.MaxPool2d(min(side, 2), stride=1)],
    lambda c, side: [nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)],
    lambda c, side: [nn.AvgPool2d(min(side, 2))],
    lambda c, side: [nn.AdaptiveAvgPool2d((2, 4))],
    lambda c, side: [nn.BatchNorm2d(c, eps=0.1)],
    lambda c, side: [nn.Dropout2d(0.4)],
    lambda c, side: [nn.Dropout(0.4)],
    lambda c, side: [nn.LocalResponseNorm(3, 0.5)],
    lambda c, side: [ChannelNorm(2, 0.5, 0.75, 1.0)],
    lambda c, side: [nn.ReLU()],
    lambda c, side: [nn.ReLU(), nn.MaxPool2d(min(side, 2))],
    lambda c, side: [nn.Sigmoid()],
    lambda c, side: [nn.Flatten()],
]


@st.composite
def chains(draw: st.DrawFn) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Draw one to five layers, with a linear layer behind them; the shape follows what each of them leaves."""
    torch.manual_seed(draw(st.integers(0, 9)))
    shape = draw(st.sampled_from([(5,), (2, 5, 4), (1, 3, 3)]))
    network, x = nn.Sequential().double(), torch.randn(2, *shape, dtype=torch.float64)
    y = x
    for _ in range(draw(st.integers(1, 5))):
        if y.dim() == 2:
            layers = draw(st.sampled_from(ON_ROWS))(y.shape[1])
        else:
            layers = draw(st.sampled_from(ON_IMAGES))(y.shape[1], min(y.shape[2:]))
        for layer in layers:
            network.append(layer.double())
            y = layer.eval()(y)
    if y.dim() == 4:
        network.append(nn.Flatten())
        y = y.flatten(1)
    return network.append(nn.Linear(y.shape[1], CLASSES)), shape


@settings(max_examples=150, derandomize=True, deadline=None)
@given(chains(), st.integers(1, 3), st.sampled_from(list(SETTINGS)))
def test_random_chains_equal_autograd(chain, num_workers, setting):
    network, shape = chain
    assert_steps_equal(network, shape, num_workers, *SETTINGS[setting], steps=3)


# --- all ways ------------------------------------------------------------------------------------------


def norm_and_dropout():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4)),
    )


NETWORKS = {
    "mlp": (partial(mlp, (7,), (9, 5), 4), (7,), {}),
    "mlp_momentum": (partial(mlp, (7,), (9, 5), 4), (7,), {"momentum": 0.9, "weight_decay": 0.01}),
    "cifar_cnn": (partial(cifar_cnn, 4), (3, 32, 32), {"augment": Augment(crop=4, flip=True)}),
    "femnist_cnn": (partial(femnist_cnn, 4), (1, 28, 28), {"momentum": 0.5}),
    "norm_and_dropout": (norm_and_dropout, (3, 8, 8), {"momentum": 0.9, "augment": Augment(crop=1, flip=True)}),
}
WAYS = [("layered", 1), ("layered", 3), ("layered", 4), ("vmap", 3), ("vmap", 4), ("one_by_one", 1)]


@pytest.mark.parametrize("name", NETWORKS)
def test_all_ways_and_chunks_give_the_same_weights(name):
    make, shape, options = NETWORKS[name]
    trial = Trial(make, synthetic(shape, images=len(shape) == 3), learning_rate=0.05, **options)
    readable = trial.readable()
    learners = {(way, chunk): trial.stacked(way, chunk) for way, chunk in WAYS}
    for learner in (readable, *learners.values()):
        for worker in range(4):
            learner.local_steps(worker, 0, 5)
    for (way, chunk), learner in learners.items():
        assert (learner.way, learner.choice.chunk) == (way, chunk)
        for worker in range(4):
            assert_close_models(learner.model_of(worker), readable.model_of(worker), RELATIVE)
        expected = sum(loss for _, loss in readable.losses)
        assert float(learner.losses.sums[0].sum()) == pytest.approx(expected, rel=RELATIVE)
    start = trial.model().double()
    assert not torch.equal(next(readable.model_of(0).parameters()), next(start.parameters()))
