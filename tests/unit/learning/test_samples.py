"""Which samples a worker sees when, and how images are cropped, flipped and normalised."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning import samples
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
    # The law, spelled out: blocks of 1024 // shard size shuffles, each block drawn from (seed, "batches", worker,
    # block), one after the other, cut in threes. Here the border of the first block is crossed.
    # Worker 2 holds two samples: a batch of three reaches over one or two shuffles.
    shard = SHARDS[worker]
    num = 1024 // len(shard)
    blocks = [stream(1, "batches", NAMES[worker], block).permuted([shard] * num, axis=1) for block in (0, 1)]
    expected = np.concatenate(blocks).reshape(-1)[: 3 * 400].reshape(400, 3)
    assert order_of().batches(worker, 0, 400).tolist() == expected.tolist()


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
    x = (1 + (at[0] * 37 + at[1] * 89 + at[2] * 4 + at[3]) % 255).astype(np.uint8)
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
    for w, batch in enumerate(indices.tolist()):
        for b, sample in enumerate(batch):
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


# --- groups of channels, and several steps ---------------------------------------------------------------


def float_images(channels=3, mean=(), std=()) -> Dataset:
    x = np.random.default_rng(5).normal(size=(6, channels, 5, 4)).astype(np.float32)
    return Dataset(x, np.arange(6), x[:2], np.arange(2), 6, mean, std)


def vectors() -> Dataset:
    x = np.random.default_rng(8).normal(size=(6, 3)).astype(np.float32)
    return Dataset(x, np.arange(6), x[:2], np.arange(2), 6)


KINDS = {
    "grey": images(channels=1, mean=(0.5,), std=(0.25,)),
    "two_channels": images(channels=2, mean=(0.1, 0.2), std=(0.5, 2.0)),
    "rgb": images(channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)),
    "rgb_plain": images(channels=3),
    "four_channels": images(channels=4),
    "float_images": float_images(3, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)),
    "float_grey_plain": float_images(1),
}
AUGMENTS = {
    "none": Augment(),
    "crop": Augment(crop=2),
    "flip": Augment(flip=True),
    "both": Augment(crop=2, flip=True),
}
WORKERS = ("a", "b", "c")
ITERATIONS = (0, 3, 63, 64, 130)


def one_step(data: ResidentData, workers, iteration: int, grouped: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the samples (W, B, ...), taken out of their groups, and labels (W, B) of one step."""
    [(x, y)] = data.batches(data.draws(workers, iteration, 1), grouped)
    return (x.unflatten(1, (len(workers), -1)).transpose(0, 1) if grouped and data.is_image else x), y


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_images_as_groups_of_channels_hold_the_same_numbers(kind, augment):
    data = resident(KINDS[kind], AUGMENTS[augment], WORKERS)
    channels, height, width = KINDS[kind].train_x.shape[1:]
    for iteration in ITERATIONS:
        draws = data.draws([0, 1, 2], iteration, 1)
        [(x, y)] = data.batches(draws)
        [(grouped, same_y)] = data.batches(draws, grouped=True)
        assert (x.shape, grouped.shape) == ((3, 2, channels, height, width), (2, 3 * channels, height, width))
        # Channel c of worker w is number w x C + c; in memory channels come last.
        for worker in range(3):
            of_worker = grouped[:, worker * channels : (worker + 1) * channels]
            assert torch.equal(of_worker, x[worker])
        assert torch.equal(same_y, y)
        assert grouped.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_test_images_as_blocks_of_pixels_hold_the_same_numbers(channels):
    # Channel (a, b, c) of block (i, j) is channel c of pixel (2 i + a, 2 j + b).
    data = resident(images(num=9, channels=channels, height=6, width=4), Augment(), WORKERS)
    [(test, _)] = data.test_batches(9)
    [(blocks, _)] = data.test_batches(9, blocks=True)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    for a, b in itertools.product(range(2), range(2)):
        assert torch.equal(blocks.view(len(test), 2, 2, channels, 3, 2)[:, a, b], test[..., a::2, b::2])


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_images_equals_those_by_hand(kind, augment, grouped):
    dataset = KINDS[kind]
    data = resident(dataset, AUGMENTS[augment], WORKERS)
    scale = 255 if dataset.train_x.dtype == np.uint8 else 1
    mean, std = (np.reshape(v, (-1, 1, 1)) if v else default for v, default in ((dataset.mean, 0), (dataset.std, 1)))
    for iteration in ITERATIONS:
        x, _ = one_step(data, [0, 1, 2], iteration, grouped)
        indices = data.draws([0, 1, 2], iteration, 1).indices[0].T
        expected = by_hand(dataset, AUGMENTS[augment], data.augmentation, indices, [0, 1, 2], iteration)
        np.testing.assert_allclose(x.numpy(), (expected / scale - mean) / std, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_workers_batches_do_not_depend_on_who_is_drawn_together(kind, grouped):
    # Chunks of 1, 2 and 3 workers, neighbours or not: the same bits.
    data = resident(KINDS[kind], AUGMENTS["both"], WORKERS)
    for iteration in ITERATIONS:
        alone = [one_step(data, [worker], iteration) for worker in range(3)]
        for workers in ([0, 1, 2], [0, 2], [1, 2], [1]):
            x, y = one_step(data, workers, iteration, grouped)
            for row, worker in enumerate(workers):
                assert torch.equal(x[row], alone[worker][0][0])
                assert torch.equal(y[row], alone[worker][1][0])


@pytest.mark.parametrize("kind", ["grey", "rgb", "two_channels", "float_images"])
@pytest.mark.parametrize("begin", [0, 5, 60, 64, 125])
def test_draws_of_several_steps_are_those_of_single_steps(kind, begin):
    # Crops and flips are drawn for 64 iterations at a time: 60..69, 125..134 reach over the end of a block, and a
    # worker's two samples are shuffled anew every step.
    data, other = (resident(KINDS[kind], AUGMENTS["both"], WORKERS) for _ in range(2))
    draws = data.draws([0, 2], begin, 10)
    assert [tensor.shape for tensor in draws.tensors()] == [(10, 2, 2), (10, 2, 2, 2), (10, 2, 2)]
    for grouped in (False, True):
        steps = list(data.batches(draws, grouped))
        assert len(steps) == 10
        for step, found in enumerate(steps):
            single = other.draws([0, 2], begin + step, 1)
            [expected] = other.batches(single, grouped)
            assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
            for several, one in zip(draws.tensors(), single.tensors(), strict=True):
                assert torch.equal(several[step], one[0])


def test_draws_over_more_than_one_block():
    data = resident(KINDS["rgb"], AUGMENTS["both"], WORKERS)
    draws = data.draws([1], 30, 150)  # blocks 0, 1 and 2
    for step in (0, 33, 34, 97, 98, 149):
        single = data.draws([1], 30 + step, 1)
        assert all(torch.equal(a[step], b[0]) for a, b in zip(draws.tensors(), single.tensors(), strict=True))


@pytest.mark.parametrize("at_once", [1, 60, 10**6])
@pytest.mark.parametrize("statistics", [((), ()), ((0.5,), (2.0,))])
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_vectors_and_sequences_are_gathered_as_they_are(shape, statistics, at_once, monkeypatch):
    # Whatever is no image: one mean for all numbers of a sample, no augmentation, no groups of channels; several steps
    # are gathered at once (3 workers x 2 samples x 4 numbers = 24 a step, so of seven steps 1, 2 or all).
    monkeypatch.setattr(samples, "_AT_ONCE", at_once)
    x = np.random.default_rng(6).normal(size=(6, *shape)).astype(np.float32)
    data = resident(Dataset(x, np.arange(6), x[:2], np.arange(2), 6, *statistics), AUGMENTS["both"], WORKERS)
    mean, std = statistics[0] or (0,), statistics[1] or (1,)
    draws = data.draws([0, 1, 2], 5, 7)
    assert len(draws.tensors()) == 1
    for grouped in (False, True):
        steps = list(data.batches(draws, grouped))
        for (found, y), indices in zip(steps, draws.indices.transpose(1, 2), strict=True):
            expected = (x[indices.numpy()].astype(float) - mean[0]) / std[0]
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14)
            assert torch.equal(y, indices)


OVERWRITTEN = {"rgb": images, "float_images": float_images, "vectors": vectors}


def in_float32(dataset: Dataset) -> ResidentData:
    """Two workers with full batches, kept in the type of the samples: there is nothing to convert."""
    order = BatchOrder(1, ["a", "b"], np.array_split(np.arange(6), 2), "full")
    augmentation = Augmentation(1, ["a", "b"], Augment(), order)
    return ResidentData(dataset, order, augmentation, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", OVERWRITTEN)
def test_a_batch_may_be_overwritten(kind, grouped):
    # A first layer may work in place: the same batch, drawn again, has not changed.
    dataset = OVERWRITTEN[kind]()
    data, before = in_float32(dataset), dataset.train_x.copy()
    first, _ = one_step(data, [0, 1], 0, grouped)
    expected = first.clone()
    first.zero_()
    assert torch.equal(one_step(data, [0, 1], 0, grouped)[0], expected)
    np.testing.assert_array_equal(dataset.train_x, before)


@pytest.mark.parametrize("kind", OVERWRITTEN)
def test_the_sample_is_no_part_of_the_training_set(kind):
    # Networks are tried on it, and may overwrite it.
    dataset = OVERWRITTEN[kind]()
    data, before = in_float32(dataset), dataset.train_x.copy()
    data.sample().zero_()
    np.testing.assert_array_equal(dataset.train_x, before)
