"""The stacked learner equals its readable twin for what a user's own module may do."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hsgd_emu.learning.outputs import Choose

from .twins import Trial, steps_away, synthetic

FLAT, IMAGE = (6,), (3, 8, 8)


class SharedDropout(nn.Module):
    """One dropout layer used at two places: one mask per layer would be wrong."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        self.drop = nn.Dropout(0.4)

    def forward(self, x):
        return self.last(self.drop(self.second(self.drop(self.first(x)))))


class DropoutUnderTwoNames(nn.Module):
    """One dropout layer, used once, but also registered under a name that is not used."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.4)
        self.layers = nn.Sequential(nn.Linear(6, 8), self.drop, nn.Linear(8, 4))

    def forward(self, x):
        return self.layers(x)


class FunctionalDropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return F.dropout(self.layer(x), 0.3, self.training)


class PartlyUsed(nn.Module):
    """A frozen parameter that is used, and a trained one that is not."""

    def __init__(self):
        super().__init__()
        self.frozen, self.spare, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 4)
        for parameter in self.frozen.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.last(torch.tanh(self.frozen(x)))


class Buffers(nn.Module):
    """Buffers of several types: a step counter, a mask, an index, a running sum, and a constant."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps32", torch.zeros(2, dtype=torch.int32))
        self.register_buffer("hidden", torch.tensor([False, True, False, False, False, False]))
        self.register_buffer("order", torch.tensor([5, 4, 3, 2, 1, 0]))
        self.register_buffer("sums", torch.zeros(6))
        self.register_buffer("scale", torch.full((6,), 0.1))

    def forward(self, x):
        if self.training:
            self.steps += 1
            self.steps32 += 2
            self.sums += x.detach().sum(0)
        return self.layer(x.masked_fill(self.hidden, 0.0)[:, self.order] * self.scale)


class TwoOutputs(nn.Module):
    """Logits and something else, as torchvision's networks with auxiliary classifiers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        logits = self.layer(x)
        return logits, logits.sum()


def two_outputs():
    network = TwoOutputs()
    network.register_forward_hook(Choose(0))
    return network


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Branches(nn.Module):
    """Control flow that depends on the data, which vmap cannot batch."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


class SilentRefusal(nn.Module):
    """Refuses to be batched with an error that says nothing."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        if torch._C._functorch.is_batchedtensor(x):
            raise NotImplementedError
        return self.layer(x)


def batch_norm():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def dropouts():
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.Dropout2d(0.5), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(144, 8), nn.Dropout(0.0), nn.Linear(8, 4)),
    )


STACKABLE = {
    "batch_norm": (batch_norm, FLAT),
    "dropouts": (dropouts, IMAGE),
    "partly_used": (PartlyUsed, FLAT),
    "two_outputs": (two_outputs, FLAT),
    "tied": (Tied, FLAT),
    "buffers": (Buffers, FLAT),
    "dropout_under_two_names": (DropoutUnderTwoNames, FLAT),
}
CHAINS = ("batch_norm", "dropouts", "partly_used", "dropout_under_two_names")
UNSTACKABLE = {
    "shared_dropout": SharedDropout,
    "functional_dropout": FunctionalDropout,
    "branches": Branches,
    "silent_refusal": SilentRefusal,
}


@pytest.mark.parametrize(("way", "chunk"), [(None, None), ("vmap", 1), ("vmap", 3), ("one_by_one", None)])
@pytest.mark.parametrize("name", STACKABLE)
def test_modules_that_can_be_stacked(name, way, chunk):
    make, shape = STACKABLE[name]
    trial = Trial(make, synthetic(shape, images=len(shape) == 3), momentum=0.5, weight_decay=0.01)
    learner = trial.assert_twins(way, chunk)
    assert learner.way == (way or ("layered" if name in CHAINS else "vmap")), learner.network.why_not_batched
    assert steps_away(learner, trial.model()) > 1e-3


@pytest.mark.parametrize("name", UNSTACKABLE)
def test_modules_that_cannot_be_stacked_learn_one_by_one(name):
    trial = Trial(UNSTACKABLE[name], synthetic(FLAT), momentum=0.5)
    learner = trial.assert_twins()
    assert learner.way == "one_by_one"
    assert learner.network.why_not_batched


def test_a_parameter_that_is_not_used_stays_as_it_was():
    # torch.optim.SGD leaves parameters without a gradient alone, weight decay and momentum included.
    trial = Trial(PartlyUsed, synthetic(FLAT), momentum=0.5, weight_decay=0.1)
    learner = trial.assert_twins()
    start = trial.model()
    for name in ("spare.weight", "frozen.weight"):
        expected = start.get_parameter(name).double()
        torch.testing.assert_close(learner.model_of(0)[name], expected, rtol=1e-14, atol=0)


def test_batch_norm_statistics_are_each_workers_own_and_then_averaged():
    # One step: running_mean = 0.9 * 0 + 0.1 * batch mean per worker; the global server has the mean over the workers.
    trial = Trial(lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 4)), synthetic(FLAT), iterations=1)
    learner = trial.stacked()
    for worker in range(4):
        learner.local_steps(worker, 0, 1)
    learner.aggregate(4, [0, 1], [0.5, 0.5])
    learner.aggregate(5, [2, 3], [0.5, 0.5])
    learner.aggregate(6, [4, 5], [0.5, 0.5])
    learner.flush()
    means = [trial.dataset.train_x[trial.data.order.batches(w, 0, 1)[0]].astype(float).mean(0) for w in range(4)]
    for worker, mean in enumerate(means):
        torch.testing.assert_close(learner.model_of(worker)["0.running_mean"], torch.from_numpy(0.1 * mean))
    expected = torch.from_numpy(0.1 * sum(means) / 4)
    torch.testing.assert_close(learner.model_of(6)["0.running_mean"], expected)
    assert int(learner.model_of(6)["0.num_batches_tracked"]) == 1


def test_counters_of_a_server_are_the_largest_of_its_childrens():
    # Worker 0 takes one step, worker 1 three; a mask and an index are alike everywhere and stay.
    trial = Trial(Buffers, synthetic(FLAT))
    learner, readable = trial.stacked(), trial.readable()
    for one in (learner, readable):
        one.local_steps(0, 0, 1)
        one.local_steps(1, 0, 3)
        one.aggregate(4, [0, 1], [0.5, 0.5])
    learner.flush()
    found, start = learner.model_of(4), trial.model()
    assert int(found["steps"]) == int(readable.model_of(4).steps) == 3
    assert found["steps32"].tolist() == [6, 6]
    assert torch.equal(found["hidden"], start.hidden)
    assert torch.equal(found["order"], start.order)


def test_the_learner_leaves_torchs_own_generator_as_it_was():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    Trial(SharedDropout, synthetic(FLAT)).assert_twins()
    assert torch.equal(torch.random.get_rng_state(), before)


class NewBuffer(nn.Module):
    """A running mean that is a new tensor after every step."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x - self.mean)


def halve(module, gradients_in, gradients_out):
    return tuple(None if g is None else g / 2 for g in gradients_in)


def hooked():
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    network[2].register_full_backward_hook(halve)
    return network


@pytest.mark.parametrize("make", [NewBuffer, hooked])
def test_what_vmap_would_lose_is_learned_one_by_one(make):
    learner = Trial(make, synthetic(FLAT), momentum=0.5).assert_twins()
    assert learner.way == "one_by_one"
    assert learner.network.why_not_batched


class NothingUsed(nn.Module):
    """What is used is frozen, what could be trained is not used."""

    def __init__(self):
        super().__init__()
        self.used, self.spare = nn.Linear(6, 4), nn.Linear(6, 4)
        for parameter in self.used.parameters():
            parameter.requires_grad_(False)

    def forward(self, x):
        return self.used(x)


def test_a_network_with_nothing_to_learn_stays_as_it_was():
    learner = Trial(NothingUsed, synthetic(FLAT), weight_decay=0.1).stacked("layered")
    before = learner.weights_hash(0)
    learner.local_steps(0, 0, 2)
    assert learner.weights_hash(0) == before
