"""Who holds which samples: every convention by hand on a few labels, and what must hold for all."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.data import partition
from hsgd_emu.rng import stream

LABELS = np.array([2, 0, 1, 0, 2, 1, 0, 1, 2, 0])  # sorted stably: 1 3 6 9 | 2 5 7 | 0 4 8


def parts_of(groups, seed=1, labels=LABELS, writers=None, **spec):
    if spec["partition"] == "natural":
        spec["dataset"] = "leaf"
    return [list(part) for part in partition(DataSpec(**spec), labels, writers, groups, seed)]


def refusal(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        parts_of(*args, **kwargs)
    [problem] = caught.value.problems
    return problem


def test_by_label_cuts_the_stable_order_and_drops_the_remainder():
    # 10 samples, 3 workers: shards of 10 // 3 = 3; the last of the order, 8, is dropped.
    assert parts_of([[0, 1, 2]], partition="by_label") == [[1, 3, 6], [9, 2, 5], [7, 0, 4]]


def test_by_label_goes_by_worker_numbers_not_by_groups():
    assert parts_of([[2], [0, 1]], partition="by_label") == parts_of([[0, 1, 2]], partition="by_label")


def test_by_label_of_the_digits_gives_almost_one_class_each():
    from hsgd_emu.learning.data.builtin import load_digits

    labels = load_digits().train_y
    parts = partition(DataSpec(partition="by_label"), labels, None, [range(10)], seed=1)
    assert [len(part) for part in parts] == [143] * 10  # 1437 // 10
    assert [int(np.median(labels[part])) for part in parts] == list(range(10))


def warned(groups, labels, **spec):
    """Return the parts and what was said of them."""
    said = []
    parts = partition(DataSpec(**spec), np.array(labels), None, groups, 1, said.append)
    return [list(part) for part in parts], said


def test_by_label_spreads_the_remainder_where_it_holds_all_of_a_class():
    # 8 samples, 3 workers: shards of 2 would leave out 6 and 7, all of the classes 2 and 3; 3 + 3 + 2 keeps them.
    parts, said = warned([[0, 1, 2]], [0, 0, 0, 1, 1, 1, 2, 3], partition="by_label")
    assert parts == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert ["one more to each of the first 2 parts" in text for text in said] == [True]


def test_by_label_drops_a_remainder_whose_classes_others_hold_too():
    # 8 samples, 3 workers: 6 and 7 are of class 2, as is 5.
    parts, said = warned([[0, 1, 2]], [0, 0, 0, 1, 1, 2, 2, 2], partition="by_label")
    assert parts == [[0, 1], [2, 3], [4, 5]]
    assert ["leaves 2 of 8 training samples out" in text for text in said] == [True]


@pytest.mark.parametrize("partition", ["by_label", "iid"])
def test_a_small_dropped_remainder_is_not_spoken_of(partition):
    _, said = warned([range(10)], np.repeat(np.arange(10), 21), partition=partition, grouping="random")
    assert said == []
    parts, said = warned([range(10)], np.repeat(np.arange(10), 21)[:-1], partition=partition)  # 209: 9 are dropped
    assert (sum(map(len, parts)), said) == (200, [])


def test_iid_keeps_a_class_of_one_sample_whatever_the_seed():
    labels = np.array([0] * 10 + [1])
    for seed in range(20):
        parts = parts_of([range(4)], labels=labels, partition="iid", seed=seed)
        assert 10 in {index for part in parts for index in part}
        assert sorted(map(len, parts)) in ([2, 2, 2, 2], [2, 3, 3, 3])


def test_iid_is_one_permutation_cut_alike():
    parts = parts_of([[0, 1], [2]], partition="iid")
    assert [len(part) for part in parts] == [3, 3, 3]
    assert len({index for part in parts for index in part}) == 9
    assert parts != parts_of([[0, 1], [2]], partition="iid", seed=2)


def test_shards_gives_each_worker_k_whole_shards_of_the_sorted_order():
    # 8 samples, 2 workers x 2: shards of 2, namely (1 3) (6 2) (5 7) (0 4).
    labels = LABELS[:8]
    parts = parts_of([[0, 1]], labels=labels, partition="shards", classes_per_worker=2)
    shards = sorted(tuple(part[start : start + 2]) for part in parts for start in (0, 2))
    assert shards == [(0, 4), (1, 3), (5, 7), (6, 2)]
    drawn = {str(parts_of([[0, 1]], partition="shards", classes_per_worker=2, seed=s)) for s in range(8)}
    assert len(drawn) > 1


def test_shards_spreads_the_remainder_evenly_over_shards_and_workers():
    # 10 samples, 2 workers x 2: shards of 2, the first that each worker draws of 3; cut from the order without a gap.
    order = [1, 3, 6, 9, 2, 5, 7, 0, 4, 8]
    for seed in range(5):
        parts = parts_of([[0, 1]], partition="shards", classes_per_worker=2, seed=seed)
        assert [len(part) for part in parts] == [5, 5]
        shards = [tuple(piece) for part in parts for piece in (part[:3], part[3:])]
        assert [index for shard in sorted(shards, key=lambda shard: order.index(shard[0])) for index in shard] == order


def test_shards_of_the_digits_for_100_workers_use_them_all():
    # 1437 samples, 800 shards: 637 of two and 163 of one; every worker holds 14 or 15, and no class is gone.
    from hsgd_emu.learning.data.builtin import load_digits

    labels = load_digits().train_y
    parts = partition(DataSpec(partition="shards", classes_per_worker=8), labels, None, [range(100)], seed=1)
    assert sorted(np.concatenate(parts)) == list(range(1437))
    assert {len(part) for part in parts} == {14, 15}


def test_more_shards_than_samples_says_the_most_that_fit():
    problem = refusal([[0, 1, 2]], partition="shards", classes_per_worker=4)  # 3 x 4 > 10
    assert problem.field == "data.classes_per_worker"
    assert "at most 3" in problem.message


def test_dirichlet_uses_every_sample_once_and_leaves_nobody_empty():
    labels = np.repeat(np.arange(10), 20)
    for alpha in (1e-6, 1e-3, 0.1, 1.0, 1e6):
        parts = parts_of([range(12)], labels=labels, partition="dirichlet", alpha=alpha)
        assert sorted(index for part in parts for index in part) == list(range(200))
        assert min(map(len, parts)) >= 1


def test_dirichlet_with_as_many_samples_as_workers_gives_one_each():
    # The tightest case: at alpha 1e-3 nearly all first go to three workers, then each empty one takes one.
    assert sorted(map(len, parts_of([range(10)], partition="dirichlet", alpha=1e-3))) == [1] * 10


def test_dirichlet_is_even_for_large_alpha_and_one_worker_per_class_for_small():
    labels = np.repeat(np.arange(4), 1000)
    even = parts_of([range(4)], labels=labels, partition="dirichlet", alpha=1e6)
    # Proportions have mean 1/4 and std sqrt(.25 * .75 / (4e6 + 1)) = 2.2e-4: 250 +- 1 of each class.
    counts = np.array([np.bincount(labels[part], minlength=4) for part in even])
    assert abs(counts - 250).max() <= 2
    # As alpha goes to 0 the draws go to the corners: one worker holds (almost) all of a class.
    skewed = parts_of([range(4)], labels=labels, partition="dirichlet", alpha=1e-4)
    counts = np.array([np.bincount(labels[part], minlength=4) for part in skewed])
    assert counts.max(axis=0).min() >= 990


def test_dirichlet_proportions_have_the_mean_and_variance_of_the_law():
    # Symmetric Dirichlet(a) over n: mean 1/n, variance (1/n)(1 - 1/n) / (n a + 1), here 0.0938.
    # 4000 draws: 5 sigma of the mean is 5 * sqrt(0.0938 / 4000) = 0.024.
    from hsgd_emu.learning.data.partitions import _proportions

    rng = np.random.default_rng(0)
    draws = np.array([_proportions(4, 0.25, rng) for _ in range(4000)])
    assert abs(draws.mean(axis=0) - 0.25).max() < 0.024
    assert abs(draws.var(axis=0) - 0.25 * 0.75 / 2).max() < 0.01


def test_natural_deals_writers_in_order_as_evenly_as_possible():
    # Writers 3 5 7 8 9 over two workers: 3 5 7 and 8 9; samples keep the training order.
    writers = np.array([9, 3, 5, 3, 8, 7, 7, 9, 5, 3])
    assert parts_of([[0], [1]], writers=writers, partition="natural") == [[1, 2, 3, 5, 6, 8, 9], [0, 4, 7]]


def test_natural_needs_writers_and_enough_of_them():
    assert "none" in refusal([[0, 1]], partition="natural").message
    problem = refusal([[0, 1, 2]], writers=LABELS % 2, partition="natural")
    assert (problem.field, "2 cannot serve 3 workers" in problem.message) == ("data.partition", True)


def test_group_iid_gives_worker_i_of_five_the_classes_i_and_i_plus_5():
    # The paper's Figure 3c: 10 classes, 2 groups of 5. 1000 samples, halves of 500.
    labels = np.tile(np.arange(10), 100)
    groups = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    parts = parts_of(groups, labels=labels, partition="group_iid")
    for group in groups:
        assert [set(labels[parts[worker]]) for worker in group] == [{i, i + 5} for i in range(5)]
        assert sum(len(parts[worker]) for worker in group) == 500
        # Near-IID between groups: of 500 drawn from 1000, hypergeometric std of a class's count is 4.7.
        counts = np.bincount(np.concatenate([labels[parts[worker]] for worker in group]))
        assert abs(counts - 50).max() < 5 * 4.75


def test_group_iid_refuses_groups_larger_than_the_number_of_classes():
    problem = refusal([[0, 1, 2, 3]], partition="group_iid")  # classes 0 1 2: worker 3 would hold none
    assert problem.field == "data.partition"
    assert "3 classes" in problem.message


def test_group_non_iid_gives_each_group_its_share_of_the_sorted_order():
    # 10 samples, groups of 1 and 2: the first 10/3, rounded up, for worker 2, the other 6 for the workers 0 and 1.
    assert parts_of([[2], [0, 1]], partition="group_non_iid") == [[2, 5, 7], [0, 4, 8], [1, 3, 6, 9]]
    # Groups of 2 and 2: halves of 5, whose first worker gets one more.
    parts = parts_of([[0, 1], [2, 3]], partition="group_non_iid")
    assert parts == [[1, 3, 6], [9, 2], [5, 7, 0], [4, 8]]


def test_group_non_iid_with_groups_in_worker_order_is_by_label():
    groups = [[0, 1], [2], [3, 4]]
    assert parts_of(groups, partition="group_non_iid") == parts_of(groups, partition="by_label")


def test_random_grouping_hands_the_same_parts_out_in_an_order_of_its_own():
    groups = [[0, 1, 2], [3, 4]]
    plain = parts_of(groups, partition="by_label")
    orders = [parts_of(groups, partition="by_label", grouping="random", seed=seed) for seed in range(8)]
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert any(order != plain for order in orders)
    assert len({str(order) for order in orders}) > 1


def test_random_grouping_leaves_the_parts_of_the_seed_as_they_were():
    # Two streams: what the parts are must not depend on how they are handed out.
    plain = parts_of([range(5)], partition="dirichlet", alpha=0.5)
    mixed = parts_of([range(5)], partition="dirichlet", alpha=0.5, grouping="random")
    order = stream(1, "grouping").permutation(5)
    assert mixed == [plain[part] for part in order]


def test_more_workers_than_samples_is_refused():
    problem = refusal([range(11)], partition="iid")
    assert problem.field == "data.partition"
    assert "11 workers cannot share 10" in problem.message


def test_missing_figures_are_refused_here_too():
    assert refusal([[0]], partition="dirichlet").field == "data.alpha"
    assert refusal([[0]], partition="iid", classes_per_worker=1).field == "data.classes_per_worker"


SPECS = st.sampled_from(
    [
        {"partition": "iid"},
        {"partition": "by_label"},
        {"partition": "by_label", "grouping": "random"},
        {"partition": "shards", "classes_per_worker": 2},
        {"partition": "dirichlet", "alpha": 1e-3},
        {"partition": "dirichlet", "alpha": 0.7, "grouping": "random"},
        {"partition": "natural"},
        {"partition": "group_iid"},
        {"partition": "group_non_iid"},
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    spec=SPECS,
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    seed=st.integers(0, 2**40),
)
def test_shards_are_disjoint_not_empty_and_the_same_again(spec, labels, sizes, seed):
    labels = np.array(labels, np.int64)
    starts = np.cumsum([0, *sizes])
    groups = [list(range(start, end)) for start, end in pairwise(starts)]
    writers = np.arange(len(labels)) // 2
    try:
        parts = parts_of(groups, labels=labels, writers=writers, seed=seed, **spec)
    except ConfigError:  # too few samples, classes or writers: said, not crashed
        return
    indices = [index for part in parts for index in part]
    assert len(parts) == sum(sizes)
    assert min(map(len, parts)) >= 1
    assert len(set(indices)) == len(indices)
    assert set(indices) <= set(range(len(labels)))
    assert set(labels[indices]) == set(labels)  # no class is gone
    if spec["partition"] not in ("iid", "by_label"):
        assert len(indices) == len(labels)
    else:
        assert len(indices) in (len(labels), len(labels) - len(labels) % sum(sizes))
    if spec["partition"] in ("iid", "by_label", "shards", "group_non_iid"):
        assert np.ptp([len(part) for part in parts]) <= 1
    if spec["partition"] in ("group_iid", "group_non_iid"):
        held = [sum(len(parts[worker]) for worker in group) for group in groups]
        assert all(abs(n - len(labels) * len(g) / sum(sizes)) < 1 for n, g in zip(held, groups, strict=True))
    assert parts == parts_of(groups, labels=labels, writers=writers, seed=seed, **spec)


def test_the_index_arrays_are_int64():
    for spec in ({"partition": "iid"}, {"partition": "group_iid"}, {"partition": "dirichlet", "alpha": 0.1}):
        parts = partition(DataSpec(**spec), LABELS, None, [[0, 1]], 1)
        assert all(part.dtype == np.int64 for part in parts)
