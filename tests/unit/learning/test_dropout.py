"""Dropout masks are a function of (seed, worker, iteration), and follow PyTorch's law."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hsgd_emu.learning.dropout import DropoutMasks, MaskedDropout, with_masked_dropout

NAMES = ["a", "b", "c", "d"]


def masks_of(model, x, seed=1, names=NAMES):
    layers = with_masked_dropout(model, x)
    return DropoutMasks(model, layers, seed, names, x)


def flat_model(p=0.25, width=1000):
    return nn.Sequential(nn.Linear(5, width), nn.Dropout(p), nn.Linear(width, 2))


X = torch.zeros(8, 5)


def drawn(masks, workers, iteration):
    return masks.draw(len(X), workers, iteration)


def test_masks_do_not_depend_on_who_is_drawn_together():
    masks = masks_of(flat_model(), X)
    together = drawn(masks, [0, 1, 3], 7)["1.mask"]
    for row, worker in enumerate([0, 1, 3]):
        assert torch.equal(together[row], drawn(masks, [worker], 7)["1.mask"][0])


def test_masks_differ_between_workers_iterations_and_seeds():
    masks, other = masks_of(flat_model(), X), masks_of(flat_model(), X, seed=2)
    all_ = [drawn(masks, [0], 7), drawn(masks, [1], 7), drawn(masks, [0], 8), drawn(other, [0], 7)]
    all_ = [one["1.mask"] for one in all_]
    assert not any(torch.equal(all_[i], all_[j]) for i in range(4) for j in range(i))


def test_masks_belong_to_a_worker_by_name():
    other = masks_of(flat_model(), X, names=["c", "a"])
    assert torch.equal(drawn(other, [0], 7)["1.mask"], drawn(masks_of(flat_model(), X), [2], 7)["1.mask"])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_mask_drops_a_share_p_and_keeps_the_expectation(p):
    # 8 * 1000 draws of keep / (1 - p): the kept share is 1 - p within 5 standard deviations of a binomial.
    mask = drawn(masks_of(flat_model(p), X), [0], 0)["1.mask"]
    assert mask.shape == (1, 8, 1000)
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-7)
    kept = float((mask > 0).double().mean())
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / mask.numel()) ** 0.5


def test_p_of_one_drops_everything_as_in_pytorch():
    assert not drawn(masks_of(flat_model(1.0), X), [0], 0)["1.mask"].any()


def test_p_of_zero_needs_no_mask():
    model = flat_model(0.0)
    assert masks_of(model, X).names == []
    assert isinstance(model[1], nn.Identity)


@pytest.mark.parametrize(
    ("layer", "shape", "shared"),
    [(nn.Dropout1d(0.5), (6, 9), 1), (nn.Dropout2d(0.5), (6, 4, 5), 2), (nn.Dropout3d(0.5), (6, 2, 3, 4), 3)],
)
def test_channel_dropout_drops_whole_channels(layer, shape, shared):
    x = torch.ones(8, *shape)
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2))
    masks = masks_of(model, x)
    mask = drawn(masks, [0], 0)["0.mask"]
    assert mask.shape == (1, 8, 6, *(1,) * shared)


def test_two_layers_have_masks_of_their_own():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 5), nn.Dropout(0.5))
    masks = drawn(masks_of(model, X), [0], 0)
    assert list(masks) == ["0.mask", "2.mask"]
    assert not torch.equal(masks["0.mask"], masks["2.mask"])


def test_masked_dropout_is_dropout_in_training_and_nothing_in_evaluation():
    layer = MaskedDropout(0.5, 0)
    layer.mask = torch.tensor([0.0, 2.0])
    x = torch.tensor([[3.0, 5.0]])
    assert layer.train()(x).tolist() == [[0.0, 10.0]]
    assert layer.eval()(x).tolist() == [[3.0, 5.0]]


def test_a_layer_used_twice_or_never_is_left_alone():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(self.drop(x))

    model = Twice()
    assert with_masked_dropout(model, X) == []
    assert isinstance(model.drop, nn.Dropout)


def test_a_layer_under_two_names_is_replaced_under_both():
    drop = nn.Dropout(0.5)
    model = nn.ModuleDict({"spare": drop, "net": nn.Sequential(nn.Linear(5, 5), drop)})
    model.forward = model["net"].forward
    assert with_masked_dropout(model, X) == ["spare"]
    assert model["net"][1] is model["spare"]


def test_finding_the_layers_changes_nothing_else():
    model = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    with_masked_dropout(model, torch.ones(4, 5))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
