"""Which training samples each worker holds.

Every partition first makes as many parts as there are workers; `grouping` then says who gets which: worker i
the i-th (contiguous), or in an order drawn per seed (random). Workers are numbered depth first. Draws come
from the streams (seed, "partition") and (seed, "grouping"), so every case of a seed sees the same partition.

What does not go in equal parts: `shards`, `group_iid`, `group_non_iid`, `dirichlet` and `natural` use every sample.
`iid` and `by_label` make equal parts and drop the last remainder, fewer samples than workers, unless a class would be
missing wholly without them: then the first parts get one more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from hsgd_emu.config.run_schema import DataSpec
from hsgd_emu.errors import ConfigError, Problem
from hsgd_emu.learning.data.dataset import Array
from hsgd_emu.learning.data.spec import check_data_spec
from hsgd_emu.rng import stream

Indices = npt.NDArray[np.int64]
Groups = Sequence[Sequence[int]]
_MANY_DROPPED = 0.05  # a share of the samples above which it is said that they are left out


def partition(
    spec: DataSpec,
    labels: Array,
    writers: Array | None,
    groups: Groups,
    seed: int,
    warn: Callable[[str], None] | None = None,
) -> list[Indices]:
    """Return the indices of the training samples of each worker.

    Args:    labels: (num_train,) int64.  writers: (num_train,) int64 or None.
             groups: worker numbers 0..n-1 (each once), by direct parent server; n is their number.
             warn: told where a remainder is spread that is usually dropped, or one worth mentioning is dropped.
    Returns: n arrays of int64, none empty, no sample twice.
    Raises:  ConfigError: the partition's own figures are missing or misplaced, or the data do not suffice.
    """
    findings = check_data_spec(spec)
    if findings:
        raise ConfigError(Problem("", field, message) for field, message in findings)
    num_workers = sum(map(len, groups))
    assert sorted(worker for group in groups for worker in group) == list(range(num_workers))
    if num_workers > len(labels):
        raise _impossible(f"{num_workers} workers cannot share {len(labels)} training samples; each needs at least one")
    rng = stream(seed, "partition")
    if spec.partition == "group_iid":
        return group_iid(labels, groups, rng)
    if spec.partition == "group_non_iid":
        return group_non_iid(labels, groups)
    parts = _parts(spec, labels, writers, num_workers, rng)
    if warn is not None and spec.partition in ("iid", "by_label"):
        _say_remainder(spec.partition, labels, parts, warn)
    if spec.grouping == "contiguous":
        return parts
    return [parts[part] for part in stream(seed, "grouping").permutation(num_workers)]


def _parts(
    spec: DataSpec, labels: Array, writers: Array | None, num_workers: int, rng: np.random.Generator
) -> list[Indices]:
    if spec.partition == "iid":
        return _equal_parts(rng.permutation(len(labels)), labels, num_workers)
    if spec.partition == "by_label":
        return by_label(labels, num_workers)
    if spec.partition == "shards":
        return shards(labels, num_workers, spec.classes_per_worker or 0, rng)
    if spec.partition == "dirichlet":
        return dirichlet(labels, num_workers, spec.alpha or 0.0, rng)
    return natural(writers, num_workers)


def _say_remainder(name: str, labels: Array, parts: list[Indices], warn: Callable[[str], None]) -> None:
    remainder = len(labels) % len(parts)
    dropped = len(labels) - sum(map(len, parts))
    if remainder and not dropped:
        text = f"{name} usually drops the last {remainder} of {len(labels)} training samples, which here"
        warn(f"{text} hold all of a class: they are spread, one more to each of the first {remainder} parts")
    elif dropped > _MANY_DROPPED * len(labels):
        text = f"{name} in {len(parts)} equal parts leaves {dropped} of {len(labels)} training samples out"
        warn(f"{text}; fewer workers, or a partition that spreads the remainder (shards, dirichlet), use more")


def by_label(labels: Array, num_workers: int) -> list[Indices]:
    """Return n contiguous shards of the samples sorted stably by label; see `_equal_parts` for the remainder."""
    return _equal_parts(_sorted_by_label(labels), labels, num_workers)


def _equal_parts(order: Indices, labels: Array, num_parts: int) -> list[Indices]:
    """Return equal contiguous parts, the last remainder dropped; it is spread (one more sample to the first parts)
    where it holds all samples of a class.
    """
    num_kept = len(order) - len(order) % num_parts
    is_class_lost = len(np.setdiff1d(labels[order[num_kept:]], labels[order[:num_kept]])) > 0
    return np.array_split(order if is_class_lost else order[:num_kept], num_parts)


def shards(labels: Array, num_workers: int, per_worker: int, rng: np.random.Generator) -> list[Indices]:
    """Return `per_worker` shards at random for each worker, out of n * per_worker ones sorted by label.

    McMahan et al. 2017, section 3 (there 2 shards each for 100 workers). Where the samples do not go in equal shards,
    some have one more: as many of each worker's as makes the workers' numbers of samples equal, or one more for the
    first workers. A worker may draw two shards of one class, so classes_per_worker is a most; a shard across a
    boundary may add one class.
    """
    num_shards = num_workers * per_worker
    if num_shards > len(labels):
        message = f"{num_workers} workers x {per_worker} shards need {num_shards} samples; there are {len(labels)}"
        most = len(labels) // num_workers
        raise ConfigError.of("", "data.classes_per_worker", f"{message}, so at most {most} is right")
    drawn = rng.permutation(num_shards).reshape(num_workers, per_worker)
    size, remainder = divmod(len(labels), num_shards)
    sizes = np.full(num_shards, size)
    sizes[drawn.T.ravel()[:remainder]] += 1  # every worker's first shard, then every worker's second, ...
    cut = np.split(_sorted_by_label(labels), np.cumsum(sizes)[:-1])
    return [np.concatenate([cut[shard] for shard in own]) for own in drawn]


def dirichlet(labels: Array, num_workers: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Return shares drawn per class: its samples, shuffled, are cut at Dirichlet(alpha) proportions.

    Label skew as in Hsu et al. 2019, drawn per class over the workers rather than per worker over the
    classes, so that every sample is used exactly once; sizes differ between workers. A worker left without
    any sample takes one from the worker that then holds most (the lowest number among equals).
    """
    shares: list[list[Indices]] = [[] for _ in range(num_workers)]
    for label in np.unique(labels):
        samples = rng.permutation(np.flatnonzero(labels == label))
        ends = np.rint(np.cumsum(_proportions(num_workers, alpha, rng)) * len(samples)).astype(np.int64)
        for share, piece in zip(shares, np.split(samples, ends[:-1]), strict=True):
            share.append(piece)
    return _without_empty([np.concatenate(share) for share in shares])


def _proportions(num_workers: int, alpha: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return one draw of the symmetric Dirichlet(alpha), finite for an alpha as small as 1e-6.

    In logarithms, since gamma draws of a small shape underflow to 0: in law, Gamma(a) is
    Gamma(a + 1) * U^(1 / a).
    """
    logs = np.log(rng.standard_gamma(alpha + 1, num_workers)) + np.log1p(-rng.random(num_workers)) / alpha
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _without_empty(parts: list[Indices]) -> list[Indices]:
    sizes = np.array([len(part) for part in parts])
    for empty in np.flatnonzero(sizes == 0):
        largest = int(sizes.argmax())
        parts[empty], parts[largest] = parts[largest][-1:], parts[largest][:-1]
        sizes[empty], sizes[largest] = 1, sizes[largest] - 1
    return parts


def natural(writers: Array | None, num_workers: int) -> list[Indices]:
    """Return whole writers for each worker: contiguous blocks of writers, the first ones larger if uneven."""
    if writers is None:
        raise _impossible("natural needs the writer of each sample, and the data set has none; leaf has")
    present = np.unique(writers)
    if len(present) < num_workers:
        raise _impossible(f"natural gives each worker whole writers; {len(present)} cannot serve {num_workers} workers")
    order = np.argsort(writers, kind="stable").astype(np.int64)
    firsts = [block[0] for block in np.array_split(present, num_workers)]
    return [np.sort(part) for part in np.split(order, np.searchsorted(writers[order], firsts[1:]))]


def group_iid(labels: Array, groups: Groups, rng: np.random.Generator) -> list[Indices]:
    """Return an IID part for each group, within which worker i of n_g holds the classes c with c mod n_g = i.

    H-SGD paper, Figure 3c: upward divergence near zero, downward divergence large. With 10 classes and n_g =
    5, worker i holds the classes i and i + 5. Parts are proportional to the groups' sizes, rounded.
    """

    def classes(part: Indices, group_size: int) -> list[Indices]:
        return [part[labels[part] % group_size == position] for position in range(group_size)]

    parts = _within_groups(rng.permutation(len(labels)), groups, classes)
    for group in groups:
        if any(len(parts[worker]) == 0 for worker in group):
            raise _impossible(
                f"group_iid left a worker of a group of {len(group)} without samples; the data have "
                f"{len(np.unique(labels))} classes and {len(labels)} samples; use smaller groups or more data"
            )
    return parts


def group_non_iid(labels: Array, groups: Groups) -> list[Indices]:
    """Return neighbouring labels for each group, within which each worker holds neighbouring labels again.

    H-SGD paper, Figure 3c: upward divergence large. The samples sorted stably by label are cut into parts
    proportional to the groups' sizes, rounded, and each part into shards for the workers of the group, of which the
    first have one more sample where they cannot be equal.
    """
    return _within_groups(_sorted_by_label(labels), groups, np.array_split)


def _within_groups(order: Indices, groups: Groups, split: Callable[[Indices, int], list[Indices]]) -> list[Indices]:
    """Cut the order into a part for each group and each part into the workers' own.

    A group whose workers are the k-th to the l-th takes the samples from k/n to l/n of the order, both rounded up.
    """
    num_workers = sum(map(len, groups))
    parts: list[Indices] = [order[:0]] * num_workers
    start = before = 0
    for group in groups:
        before += len(group)
        end = -(-len(order) * before // num_workers)
        for worker, part in zip(group, split(order[start:end], len(group)), strict=True):
            parts[worker] = part
        start = end
    return parts


def _sorted_by_label(labels: Array) -> Indices:
    return np.argsort(labels, kind="stable").astype(np.int64)


def _impossible(message: str) -> ConfigError:
    return ConfigError.of("", "data.partition", message)
