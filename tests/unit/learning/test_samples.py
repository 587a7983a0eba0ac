"""Which samples a worker sees when, and how images are cropped, flipped and normalised."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.data.dataset import Dataset
from hsgd_emu.learning.samples import Augmentation, BatchOrder, ResidentData
from hsgd_emu.rng import stream

from .twins import shards_of

NAMES = ["a", "b", "c"]
SHARDS = shards_of([7, 5, 2])


def order_of(batch_size=3, seed=1, names=NAMES, shards=SHARDS):
    return BatchOrder(seed, names, shards, batch_size)


# --- batch order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", [0, 1, 2])
def test_batches_are_the_pieces_of_shuffle_after_shuffle(worker):
    # The law, spelled out: blocks of 4096 // shard size shuffles, each block drawn from (seed, "batches", worker,
    # block), one after the other, cut in threes. Here the border of the first block is crossed.
    # Worker 2 holds two samples: a batch of three reaches over one or two shuffles.
    shard = SHARDS[worker]
    num = 4096 // len(shard)
    blocks = [stream(1, "batches", NAMES[worker], block).permuted([shard] * num, axis=1) for block in (0, 1)]
    expected = np.concatenate(blocks).reshape(-1)[: 3 * 1400].reshape(1400, 3)
    assert order_of().batches(worker, 0, 1400).tolist() == expected.tolist()


def test_every_batch_is_full_and_every_shuffle_has_each_sample_once():
    for worker, shard in enumerate(SHARDS):
        seen = order_of().batches(worker, 0, 70)
        assert seen.shape == (70, 3)
        for shuffle in seen.reshape(-1)[: 210 // len(shard) * len(shard)].reshape(-1, len(shard)):
            assert sorted(shuffle) == sorted(shard)


def test_batches_do_not_depend_on_what_was_asked_before():
    whole = order_of().batches(0, 0, 30)
    order = order_of()
    for begin, num in [(20, 10), (3, 1), (0, 7), (29, 1), (7, 13)]:
        assert order.batches(0, begin, num).tolist() == whole[begin : begin + num].tolist()


def test_batches_do_not_depend_on_other_workers():
    # By name, not by number: the same worker in another topology.
    alone = BatchOrder(1, ["b"], [SHARDS[1]], 3)
    assert alone.batches(0, 0, 20).tolist() == order_of().batches(1, 0, 20).tolist()


def test_workers_and_seeds_have_orders_of_their_own():
    same = [SHARDS[0]] * 3
    drawn = [order_of(shards=same).batches(w, 0, 10).tolist() for w in range(3)] + [
        order_of(shards=same, seed=2).batches(0, 0, 10).tolist()
    ]
    assert all(drawn[i] != drawn[j] for i in range(4) for j in range(i))


def test_full_is_the_whole_shard_in_its_own_order():
    order = order_of("full")
    assert [order.size(worker) for worker in range(3)] == [7, 5, 2]
    assert order.batches(1, 17, 2).tolist() == [SHARDS[1].tolist()] * 2


# --- images -------------------------------------------------------------------------------------------


def images(num=6, channels=3, height=5, width=4, mean=(), std=()) -> Dataset:
    """Images whose every pixel tells where it stands: sample, channel, row and column; never 0, which is padding."""
    at = np.indices((num, channels, height, width))
    x = (1 + at[0] * 40 + at[1] * 60 % 40 + at[2] * 4 + at[3]).astype(np.uint8)
    return Dataset(x, np.arange(num), x[:2], np.arange(2), num, mean, std)


def resident(dataset, augment=None, names=("a", "b"), batch_size=2, seed=1):
    shards = np.array_split(np.arange(len(dataset.train_y)), len(names))
    order = BatchOrder(seed, names, shards, batch_size)
    augmentation = Augmentation(seed, names, augment or Augment(), order)
    return ResidentData(dataset, order, augmentation, torch.device("cpu"), torch.float64)


def test_bytes_become_fractions_and_are_normalised_per_channel():
    dataset = images(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    data = resident(dataset)
    draws = data.draws([0, 1], 0, 1)
    indices = draws.indices[0].T
    ((x, y),) = data.batches(draws)
    assert x.shape == (2, 2, 3, 5, 4)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (dataset.mean, dataset.std))
    expected = (dataset.train_x[indices.numpy()] / 255 - mean) / std
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-14)
    assert y.tolist() == indices.tolist()  # the label of sample i is i


def by_hand(dataset, augment, augmentation, indices, workers, iteration):
    """Pad with black, cut at the drawn offset, mirror where drawn: one image after the other."""
    offsets, flips = (drawn[0].swapaxes(0, 1) for drawn in augmentation.draws(workers, iteration, 1))
    out = []
    for w, samples in enumerate(indices.tolist()):
        for b, sample in enumerate(samples):
            image, c = dataset.train_x[sample], augment.crop
            padded = np.pad(image, ((0, 0), (c, c), (c, c)))
            row, column = offsets[w, b]
            cut = padded[:, row : row + image.shape[1], column : column + image.shape[2]]
            out.append(cut[:, :, ::-1] if flips[w, b] else cut)
    return np.stack(out).reshape(*indices.shape, *dataset.train_x.shape[1:])


@pytest.mark.parametrize("augment", [Augment(crop=2), Augment(flip=True), Augment(crop=2, flip=True)])
def test_crops_and_flips_equal_those_by_hand(augment):
    dataset = images(mean=(0.5,), std=(0.25,))
    data = resident(dataset, augment)
    for iteration in (0, 1, 63, 64, 200):
        draws = data.draws([0, 1], iteration, 1)
        ((x, _),) = data.batches(draws)
        expected = by_hand(dataset, augment, data.augmentation, draws.indices[0].T, [0, 1], iteration)
        # Padding is black before the normalisation: it becomes (0 - 0.5) / 0.25 = -2.
        np.testing.assert_allclose(x.numpy(), (expected / 255 - 0.5) / 0.25, rtol=1e-14)


def test_padding_is_black_and_test_images_are_never_touched():
    dataset = images(mean=(0.5,), std=(0.25,))
    data = resident(dataset, Augment(crop=4, flip=True))
    x = torch.stack([x for x, _ in data.batches(data.draws([0, 1], 0, 20))])
    assert float(x.min()) == -2.0
    np.testing.assert_array_equal(data.test_x.numpy(), dataset.test_x)


def test_offsets_and_flips_are_uniform():
    # 5 offsets each way and two sides, 64 * 16 * 2 draws: each of 25 cells expects 82, sd 8.9; flips 1024, sd 22.6.
    order = BatchOrder(1, NAMES, shards_of([8, 8, 8]), 2)
    augmentation = Augmentation(1, NAMES, Augment(crop=2, flip=True), order)
    offsets, flips = augmentation.draws([0], 0, 1024)
    offsets = offsets.reshape(-1, 2)
    counts = Counter(map(tuple, offsets.tolist()))
    assert sorted(counts) == [(row, column) for row in range(5) for column in range(5)]
    assert max(abs(count - 2048 / 25) for count in counts.values()) < 5 * 8.9
    assert abs(int(flips.sum()) - 1024) < 5 * 22.6


def test_augmentation_is_drawn_per_worker_and_iteration_whoever_else_is_asked():
    order = BatchOrder(1, NAMES, shards_of([8, 8, 8]), 4)
    augmentation = Augmentation(1, NAMES, Augment(crop=3, flip=True), order)
    together, alone = augmentation.draws([0, 2], 70, 3), augmentation.draws([2], 70, 3)
    for one, other in zip(together, alone, strict=True):
        assert one[:, :, 1].tolist() == other[:, :, 0].tolist()
    again = Augmentation(1, NAMES, Augment(crop=3, flip=True), order)
    assert again.draws([2], 70, 3)[0].tolist() == alone[0].tolist()
    different = [augmentation.draws([0], 70, 3), augmentation.draws([2], 71, 3), augmentation.draws([2], 70 + 64, 3)]
    assert all(one[0].tolist() != alone[0].tolist() for one in different)


def test_full_batches_are_not_augmented():
    # The whole shard each step has no randomness (DESIGN, section 6).
    dataset = images()
    data = resident(dataset, Augment(crop=2, flip=True), batch_size="full")
    ((x, _),) = data.batches(data.draws([0, 1], 5, 1))
    np.testing.assert_allclose(x.flatten(0, 1).numpy(), dataset.train_x / 255, rtol=1e-14)
