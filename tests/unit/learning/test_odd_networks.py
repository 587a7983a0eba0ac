"""Every engine is the network's own training, whatever the network does; what cannot be told so is refused or said."""

from __future__ import annotations

import random
import threading
import types
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.evaluation import evaluate
from hsgd_emu.learning.network import Network
from hsgd_emu.learning.tuning import Choice, can_be

from .hand import Hand
from .twins import Trial, assert_close_metrics, assert_close_models, synthetic

WAYS = ("layered", "vmap", "one_by_one")


class Net(nn.Module):
    """Two linear layers; the subclasses do something odd."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 4)
        self.more()

    def more(self):
        pass

    def between(self, h):
        return h

    def forward(self, x):
        return self.b(self.between(torch.relu(self.a(x))))


class Normed(Net):
    def more(self):
        self.norm, self.other = nn.BatchNorm1d(8), nn.BatchNorm1d(8)
        for norm in (self.norm, self.other):
            norm.running_mean.fill_(0.2)
            norm.running_var.fill_(1.7)

    def between(self, h):
        return self.other(torch.tanh(self.norm(h)))


# --- modes and what is frozen -----------------------------------------------------------------------------


class OneNormHeld(Normed):
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class NormsHeldByAList(Normed):
    def more(self):
        super().more()
        self.held = [self.norm, self.other]

    def train(self, mode=True):
        super().train(mode)
        for module in self.held:
            module.eval()
        return self


class AlwaysEvaluating(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(False)


class NormOfAClassThatIsHeld(Net):
    def more(self):
        self.norm = AlwaysEvaluating(8)

    def between(self, h):
        return self.norm(h)


class HeldInForward(Normed):
    def between(self, h):
        self.norm.eval()
        return super().between(h)


class ImagesWithAHeldNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 4)),
        )

    def train(self, mode=True):
        super().train(mode)
        self.layers[1].eval()
        return self

    def forward(self, x):
        return self.layers(x)


class TrainFreezes(OneNormHeld):
    def train(self, mode=True):
        super().train(mode)
        self.a.requires_grad_(False)
        return self


class ForwardFreezes(Normed):
    def forward(self, x):
        self.a.requires_grad_(False)
        return super().forward(x)


class ForwardThaws(Normed):
    def more(self):
        super().more()
        self.a.requires_grad_(False)

    def forward(self, x):
        self.a.requires_grad_(True)
        return super().forward(x)


class HiddenUntilItLearns(Net):
    """What is held is multiplied by zero at the start."""

    def more(self):
        self.gain, self.branch = nn.Parameter(torch.zeros(())), OneNormHeld()

    def forward(self, x):
        return super().forward(x) + self.gain * self.branch(x)


class DropoutHeld(Net):
    def more(self):
        self.drop = nn.Dropout(0.5)

    def between(self, h):
        return self.drop(h)

    def train(self, mode=True):
        super().train(mode)
        self.drop.eval()
        return self


class NoStatistics(Net):
    def more(self):
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def between(self, h):
        return self.norm(h)


class AveragesOfAllBatches(NoStatistics):
    def more(self):
        self.norm = nn.BatchNorm1d(8, momentum=None)


class InstanceNorms(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.b = nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Linear(6, 4)

    def forward(self, x):
        return self.b(self.norm(x.view(len(x), 2, 3)).flatten(1))


class OtherInTraining(Net):
    def more(self):
        self.c = nn.Linear(8, 8)

    def between(self, h):
        return self.c(h) if self.training else h


# --- randomness ---------------------------------------------------------------------------------------------


class DropsAlways(Net):
    def between(self, h):
        return F.dropout(h, 0.5)


class MonteCarloDropout(DropoutHeld):
    def train(self, mode=True):
        nn.Module.train(self, mode)
        self.drop.train()
        return self


class NumpyNoise(Net):
    def between(self, h):
        return h * (1 + 0.1 * float(np.random.randn())) if self.training else h


class PythonSkips(Net):
    def more(self):
        self.c = nn.Linear(8, 8)

    def between(self, h):
        return self.c(h) if not self.training or random.random() < 0.5 else h


class DropsTwiceInTraining(Net):
    def more(self):
        self.drop = nn.Dropout(0.3)

    def between(self, h):
        return self.drop(self.drop(h)) if self.training else self.drop(h)


class DropsByAnotherName(Net):
    def more(self):
        self.drop = nn.Dropout(0.3)
        self.steps = [self.a, self.drop, self.b]

    def forward(self, x):
        for step in self.steps:
            x = step(x)
        return x


# --- state ----------------------------------------------------------------------------------------------------


class KeepsActivations(Net):
    def between(self, h):
        self.features = h
        return h


class KeepsAMask(Net):
    mask = None

    def between(self, h):
        if self.mask is None or self.mask.shape != h.shape:
            self.mask = torch.ones(h.shape, dtype=h.dtype)
        return h * self.mask


class OwnStatistics(Net):
    persistent = True

    def more(self):
        self.register_buffer("mean", torch.zeros(8), persistent=self.persistent)

    def between(self, h):
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * h.detach().mean(0))
        return h - self.mean


class StatisticsNotSent(OwnStatistics):
    persistent = False


class StatisticsReplaced(OwnStatistics):
    def between(self, h):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


class Counts(Net):
    def more(self):
        self.register_buffer("steps", torch.zeros((), dtype=torch.int32))
        self.register_buffer("began", torch.tensor(False))

    def between(self, h):
        if self.training:
            self.steps += 1
            self.began.fill_(True)
        return h / (1 + 0.1 * self.steps)


class CountsInEvaluation(Net):
    def more(self):
        self.register_buffer("seen", torch.zeros(()))

    def between(self, h):
        self.seen += 1
        return h * (1 + 0.01 * self.seen)


class Teacher(nn.Module):
    """A moving average of weights, kept in parameters that are not trained (BYOL, mean teacher)."""

    def __init__(self):
        super().__init__()
        self.a, self.teacher, self.b = nn.Linear(6, 8), nn.Linear(6, 8).requires_grad_(False), nn.Linear(16, 4)

    def follow(self, mine, theirs):
        with torch.no_grad():
            mine.mul_(0.9).add_(0.1 * theirs)

    def forward(self, x):
        if self.training:
            for mine, theirs in zip(self.teacher.parameters(), self.a.parameters(), strict=True):
                self.follow(mine, theirs)
        return self.b(torch.cat([torch.relu(self.a(x)), torch.relu(self.teacher(x))], 1))


class TeacherByData(Teacher):
    def follow(self, mine, theirs):
        mine.data = 0.9 * mine.data + 0.1 * theirs.data


class StartsFromItsFirstBatch(Net):
    def more(self):
        self.scale = nn.Parameter(torch.ones(6))
        self.register_buffer("is_set", torch.tensor(0))

    def forward(self, x):
        if self.training and self.is_set.item() == 0:
            self.scale.data.copy_(1 / (x.std(0) + 0.1))
            self.is_set.fill_(1)
        return super().forward(x * self.scale)


# --- ways to compute --------------------------------------------------------------------------------------


class InPlaceOnItsInput(Net):
    def forward(self, x):
        x.mul_(2).add_(1)
        return super().forward(x)


class ViewOfItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return x[:, :4] * (1 + self.weight)


class OddShapes(nn.Module):
    """Parameters that are transposed, permuted, a single number and none."""

    def __init__(self):
        super().__init__()
        self.turned, self.number = nn.Parameter(torch.randn(4, 6).T), nn.Parameter(torch.tensor(0.5))
        self.permuted, self.none = nn.Parameter(torch.randn(2, 3, 4).permute(2, 0, 1)), nn.Parameter(torch.zeros(0))

    def forward(self, x):
        return (x @ self.turned) * self.number + self.permuted.sum((1, 2))


class SharedModule(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 4), nn.Linear(6, 6)
        self.again, self.c.weight = self.a, self.a.weight

    def forward(self, x):
        return self.b(self.norm(self.c(torch.tanh(self.again(self.norm(self.a(x)))))))


class ClippedGradients(Net):
    def more(self):
        for parameter in self.parameters():
            parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))


def gradient_of_a_known_layer_halved():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    network[0].weight.register_hook(lambda gradient: gradient / 2)
    return network


class HookOnAnActivation(Net):
    def between(self, h):
        if h.requires_grad:
            h.register_hook(lambda gradient: gradient / 2)
        return h


def output_doubled_by_a_hook():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    network[1].register_forward_hook(lambda module, inputs, output: 2 * output)
    return network


def a_layers_own_forward():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    network[0].forward = types.MethodType(lambda self, x: F.linear(x, 2 * self.weight, self.bias), network[0])
    return network


def a_forward_that_means_this_network():
    # A copy of this network would compute with the original's weights.
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    network[0].forward = lambda x: F.linear(x, 2 * network[0].weight, network[0].bias)
    return network


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells, self.b = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 4)

    def forward(self, x):
        return self.b(self.cells(x.view(len(x), 3, 2))[0][:, -1])


class Attention(nn.Module):
    """In evaluation PyTorch takes a faster way through it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)

    def forward(self, x):
        return self.b(self.block(self.a(x.view(len(x), 3, 2))).mean(1))


class ChoosesAnExpert(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts, self.router = nn.ModuleList(nn.Linear(6, 4) for _ in range(3)), nn.Linear(6, 3)

    def forward(self, x):
        return self.experts[int(self.router(x).mean(0).argmax())](x)


class Recomputes(Net):
    def between(self, h):
        return checkpoint(torch.tanh, h, use_reentrant=False)


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class OwnDerivative(Net):
    def between(self, h):
        return Half.apply(h)


class Detached(Net):
    def between(self, h):
        return h.detach()


class HoldsALock(Net):
    def more(self):
        self.lock = threading.Lock()

    def between(self, h):
        with self.lock:
            return h


class BufferWithAGradient(Net):
    def more(self):
        self.register_buffer("scale", torch.ones(8, requires_grad=True))

    def between(self, h):
        return h * self.scale


def scripted():
    return torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)))


def normed(norm):
    return nn.Sequential(norm(nn.Linear(6, 8)), nn.ReLU(), nn.Linear(8, 4))


ODD = {
    one.__name__: one
    for one in (
        *(OneNormHeld, NormsHeldByAList, NormOfAClassThatIsHeld, HeldInForward, ImagesWithAHeldNorm, TrainFreezes),
        *(ForwardFreezes, ForwardThaws, HiddenUntilItLearns, DropoutHeld, NoStatistics, AveragesOfAllBatches),
        *(InstanceNorms, OtherInTraining, DropsAlways, MonteCarloDropout, NumpyNoise, PythonSkips),
        *(DropsTwiceInTraining, DropsByAnotherName, KeepsActivations, KeepsAMask, OwnStatistics, StatisticsNotSent),
        *(StatisticsReplaced, Counts, CountsInEvaluation, Teacher, TeacherByData, StartsFromItsFirstBatch),
        *(InPlaceOnItsInput, ViewOfItsInput, OddShapes, SharedModule, ClippedGradients, HookOnAnActivation),
        *(gradient_of_a_known_layer_halved, output_doubled_by_a_hook, a_layers_own_forward),
        *(a_forward_that_means_this_network, Recurrent, Attention, ChoosesAnExpert, Recomputes),
        *(OwnDerivative, Detached, HoldsALock, BufferWithAGradient, scripted),
    )
}
ODD |= {
    "spectral_norm": partial(normed, parametrizations.spectral_norm),
    "old_spectral_norm": partial(normed, nn.utils.spectral_norm),
    "weight_norm": partial(normed, parametrizations.weight_norm),
    "old_weight_norm": partial(normed, nn.utils.weight_norm),
}


def trial_of(make, **train) -> Trial:
    shape = (3, 8, 8) if make is ImagesWithAHeldNorm else (6,)
    return Trial(make, synthetic(shape), **{"momentum": 0.5, "weight_decay": 0.01} | train)


def network_of(make) -> Network:
    trial = trial_of(make)
    return Network(trial.model(), trial.data, trial.setup)


def ways_of(network: Network) -> list[str]:
    return [way for way in WAYS if can_be(Choice(way, 1), network)]


@pytest.mark.parametrize("name", ODD)
def test_every_engine_is_the_networks_own_training(name):
    trial = trial_of(ODD[name])
    hand = Hand(trial)
    expected = trial.run(hand)
    for way in ways_of(network_of(ODD[name])):
        learner = trial.stacked(way)
        assert learner.way == way
        assert_close_metrics(trial.run(learner), expected, 1e-12)
        for slot, model in hand.models.items():
            # What is not sent is no part of a version: it stays where it is.
            own = {name: learner.stacks.buffers[name][slot] for name in learner.stacks.private}
            assert_close_models(learner.model_of(slot) | own, model, 1e-12)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("OneNormHeld", ["layered", "vmap", "one_by_one"]),  # by its running statistics
        ("ImagesWithAHeldNorm", ["layered", "vmap", "one_by_one"]),
        ("KeepsActivations", ["layered", "vmap", "one_by_one"]),
        ("HiddenUntilItLearns", ["vmap", "one_by_one"]),
        ("Teacher", ["vmap", "one_by_one"]),
        ("gradient_of_a_known_layer_halved", ["one_by_one"]),
        ("HookOnAnActivation", ["one_by_one"]),
        ("StatisticsReplaced", ["one_by_one"]),
        ("PythonSkips", ["one_by_one"]),
        ("NumpyNoise", ["one_by_one"]),
    ],
)
def test_what_cannot_be_batched_exactly_is_not(name, ways):
    network = network_of(ODD[name])
    assert ways_of(network) == ways
    assert bool(network.why_not_batched) == ("vmap" not in ways)


def test_sparse_gradients_are_those_of_pytorch():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.b = nn.Embedding(10, 5, sparse=True), nn.Linear(5, 4)

        def forward(self, x):
            return self.b(self.words(x.abs().mul(3).long().clamp(max=9)).mean(1))

    trial = trial_of(Words, momentum=0.0, weight_decay=0.0)
    hand = Hand(trial)
    assert_close_metrics(trial.run(hand), trial.run(trial.stacked("one_by_one")), 1e-12)


def test_single_precision_tells_modes_apart_as_well():
    trial = Trial(OneNormHeld, synthetic((6,)), dtype="float32")
    found = [trial.run(trial.stacked(way))[-1].test_loss for way in WAYS]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


# --- state that is nowhere ------------------------------------------------------------------------------------


class CountsForItself(Net):
    calls = 0

    def between(self, h):
        self.calls += 1
        return h if self.calls < 100 else -h


class MovingMeanInATensor(Net):
    def more(self):
        self.mean = torch.zeros(8, dtype=torch.float64)

    def between(self, h):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * h.detach().mean(0)
        return h - self.mean


class RemembersLosses(Net):
    def more(self):
        self.seen = {"sums": []}

    def between(self, h):
        self.seen["sums"].append(float(h.detach().sum()))
        return h


class OwnGenerator(Net):
    def more(self):
        self.noise = np.random.default_rng(0)

    def between(self, h):
        return h * self.noise.normal()


class CountsEpochs(Net):
    epoch = 0

    def train(self, mode=True):
        self.epoch += mode
        return super().train(mode)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (CountsForItself, "'calls'"),
        (MovingMeanInATensor, "'mean'"),
        (RemembersLosses, "'seen'"),
        (OwnGenerator, "'noise'"),
        (CountsEpochs, "'epoch'"),
    ],
)
def test_what_a_network_keeps_for_itself_is_refused(make, name):
    # One network is lent to all workers; by hand each has its own counter.
    with pytest.raises(ConfigError, match=f"^model: the network keeps {name} from one forward pass to the next"):
        network_of(make)


_calls = [0]


class CountsElsewhere(Net):
    def between(self, h):
        _calls[0] += 1
        return h * _calls[0]


class StartsOnce(Net):
    is_set = False

    def more(self):
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        if self.training and not self.is_set:
            self.scale.data.copy_(1 / (x.std(0) + 0.1))
            self.is_set = True
        return super().forward(x * self.scale)


class HeldFromTheSecondStepOn(Normed):
    def forward(self, x):
        y = super().forward(x)
        self.norm.eval()
        return y


@pytest.mark.parametrize("make", [CountsElsewhere, StartsOnce, HeldFromTheSecondStepOn])
def test_a_network_that_depends_on_what_it_did_before_is_refused(make):
    with pytest.raises(ConfigError, match=r"^model: what the network computes depends on what it did before"):
        network_of(make)


def test_a_network_that_is_not_finite_at_the_start_is_refused():
    class Log(Net):
        def between(self, h):
            return torch.log(h - 1)

    with pytest.raises(ConfigError, match=r"^model: the network's output for some samples is NaN before"):
        network_of(Log)


def test_a_network_that_cannot_take_a_step_is_refused():
    class NoTraining(Net):
        def between(self, h):
            return h[:, :3] if self.training else h

    with pytest.raises(ConfigError, match=r"^model: the network cannot take a step on 4 samples of shape \(6,\): Runt"):
        network_of(NoTraining)


# --- what is said ---------------------------------------------------------------------------------------------


class Spare(Net):
    def more(self):
        self.spare = nn.Linear(3, 3)


def plain_with_a_spare_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 4))
    network[0].spare = nn.Linear(2, 2)
    return network


@pytest.mark.parametrize(
    ("make", "notes"),
    [
        (Net, []),
        (OneNormHeld, []),
        (Spare, ["the loss does not depend", "spare.weight, spare.bias"]),
        (plain_with_a_spare_layer, ["the loss does not depend", "0.spare.weight, 0.spare.bias"]),
        (Detached, ["the loss does not depend", "a.weight, a.bias"]),
        (DropsAlways, ["draws random numbers in evaluation"]),
        (MonteCarloDropout, ["draws random numbers in evaluation"]),
        (NoStatistics, ["depends on the other samples of its batch"]),
        (partial(nn.Sequential, nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)), ["the other samples"]),
        (CountsInEvaluation, ["changes seen in evaluation"]),
    ],
)
def test_what_must_not_be_overlooked_is_said(make, notes):
    found = network_of(make).findings.notes()
    assert len(found) == bool(notes)
    assert all(note in found[0] for note in notes)


def test_a_parameter_without_a_gradient_stays_to_the_bit():
    # torch.optim.SGD neither decays it nor moves it by momentum; a mean of equal thirds would change its last bit.
    trial = trial_of(Spare, weight_decay=0.5, dtype="float32")
    for way in WAYS[1:]:
        learner = trial.stacked(way)
        trial.run(learner)
        assert torch.equal(learner.model_of(0)["spare.weight"], trial.model().spare.weight)


# --- evaluation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [DropsAlways, MonteCarloDropout])
def test_an_evaluation_draws_the_same_whatever_was_drawn_before(make):
    trial = trial_of(make)
    learner = trial.stacked()
    torch.manual_seed(1)
    first = learner.evaluate(6, 0)
    torch.rand(3)
    state = torch.get_rng_state()
    assert learner.evaluate(6, 0) == first
    assert torch.equal(torch.get_rng_state(), state)
    other = Trial(make, synthetic((6,)), seed=4).stacked().evaluate(6, 0)
    assert other.test_loss != first.test_loss


def test_a_sample_whose_logits_are_not_finite_never_counts_as_right():
    # argmax of NaN is class 0, the label of three of the ten test samples; of infinity, the class that has it.
    trial = Trial(Net, synthetic((6,)))
    for value in (float("nan"), float("inf")):
        learner = trial.stacked("vmap")
        learner.stacks.trained["b.bias"][:, 0] = value
        found = evaluate(learner.engine, [learner.stacks.model(0)], trial.data)[0]
        assert not found.is_finite
        assert found.test_accuracy == 0
    learner.stacks.trained["b.bias"][:, 0] = -float("inf")  # a class that is masked: the others are told apart
    found = evaluate(learner.engine, [learner.stacks.model(0)], trial.data)[0]
    assert found.test_loss == np.inf
    assert found.test_accuracy > 0


# --- checkpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [StatisticsNotSent, Teacher, OwnStatistics])
def test_a_trial_goes_on_from_its_checkpoint_to_the_same_bits(make, tmp_path):
    trial = trial_of(make)
    whole = trial.stacked()
    trial.run(whole)
    half = trial.stacked()
    trial.run(half, end=4)
    torch.save({"state": half.state()}, tmp_path / "state.pt")
    again = trial.stacked()
    again.restore(torch.load(tmp_path / "state.pt", weights_only=True)["state"])
    trial.run(again, begin=4)
    assert again.weights_hash(6) == whole.weights_hash(6)
