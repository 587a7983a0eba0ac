"""The loop everyone writes: what the learner is measured against.

For each worker of the group a deep copy of the group's model, torch.optim.SGD, a DataLoader over the worker's subset
with per-image PIL and torchvision transforms; then the state dicts are averaged key by key. Nothing in it is slower
than it has to be: images are decoded beforehand, no loss is read back from the device within a period, and a loader
is begun once per period however small the subset is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms
from workloads import BATCH_SIZE, LEARNING_RATE, synchronise

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.data import Dataset
from hsgd_emu.metrics import Metrics

TEST_BATCH = 128
Array = np.ndarray[Any, np.dtype[Any]]
Samples = TorchDataset[Any]
State = dict[str, torch.Tensor]


class PilImages(TorchDataset[Any]):
    """Decoded images and a transform, as torchvision's data sets."""

    def __init__(self, x: Array, y: Array, transform: Any) -> None:
        """x: (N, C, H, W) bytes with 1 or 3 channels; y: (N,)."""
        arrays = x[:, 0] if x.shape[1] == 1 else x.transpose(0, 2, 3, 1)
        self.images = [Image.fromarray(np.ascontiguousarray(array)) for array in arrays]
        self.labels, self.transform = y.tolist(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(self.images[index]), self.labels[index]


def samples_of(dataset: Dataset, augment: Augment, digit_images: bool = False) -> tuple[Samples, Samples]:
    """Return (training, test) samples; the test samples are not augmented.

    digit_images: whether vectors of 64 pixels in 0..1 are to be read as 8x8 images too, one by one.
    """
    if digit_images and dataset.train_x.shape[1:] == (64,):
        x, test_x = (
            (pixels * 255).astype(np.uint8).reshape(-1, 1, 8, 8) for pixels in (dataset.train_x, dataset.test_x)
        )
        dataset = replace(dataset, train_x=x, test_x=test_x, mean=(0.0,), std=(1.0,))
    if dataset.train_x.dtype != np.uint8:
        return _tensors(dataset, dataset.train_x, dataset.train_y), _tensors(dataset, dataset.test_x, dataset.test_y)
    size = dataset.train_x.shape[-1]
    to_tensor = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    random = [transforms.RandomCrop(size, padding=augment.crop)] if augment.crop else []
    random += [transforms.RandomHorizontalFlip()] if augment.flip else []
    train = PilImages(dataset.train_x, dataset.train_y, transforms.Compose([*random, *to_tensor]))
    return train, PilImages(dataset.test_x, dataset.test_y, transforms.Compose(to_tensor))


def _tensors(dataset: Dataset, x: Array, y: Array) -> Samples:
    """Return what is no image (digits), or float images already (LEAF), normalised beforehand."""
    scaled = (x - dataset.mean[0]) / dataset.std[0] if dataset.mean else x
    return TensorDataset(torch.from_numpy(scaled.astype(np.float32)), torch.from_numpy(y))


class Conventional:
    """One group of workers below a global server, worker after worker."""

    def __init__(
        self,
        model: nn.Module,
        samples: tuple[Samples, Samples],
        shards: Sequence[Array],
        num_steps: int,
        device: torch.device,
    ) -> None:
        """shards: of each worker, the numbers of its training samples; num_steps: local steps per round."""
        train, test = samples
        self.model, self.num_steps, self.device = model.to(device), num_steps, device
        subsets = [Subset(train, shard.tolist()) for shard in shards]
        # Shuffled without replacement, and again when the subset is used up: every batch is full, as the learner's.
        order = [RandomSampler(subset, num_samples=BATCH_SIZE * num_steps) for subset in subsets]
        self.loaders = [
            DataLoader(subset, batch_size=BATCH_SIZE, sampler=sampler, num_workers=0)
            for subset, sampler in zip(subsets, order, strict=True)
        ]
        self.test_loader = DataLoader(test, batch_size=TEST_BATCH, num_workers=0)
        self.losses: list[torch.Tensor] = []

    def round(self, evaluated: bool) -> Metrics | None:
        """Take one round; return the figures if it is evaluated."""
        with _as_torch_comes():
            self.losses.clear()
            states = [self._local_steps(loader) for loader in self.loaders]
            average = {key: sum(state[key] for state in states) / len(states) for key in states[0]}
            self.model.load_state_dict(average)
            metrics = self._evaluate() if evaluated else None
            synchronise(self.device)
        return metrics

    def _local_steps(self, loader: DataLoader[Any]) -> State:
        """Train a copy of the model on one worker's subset and return its weights."""
        model = copy.deepcopy(self.model)
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
        model.train()
        for x, y in loader:
            x, y = x.to(self.device), y.to(self.device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]  # PyTorch ships it without types
            optimizer.step()
            self.losses.append(loss.detach())
        return model.state_dict()

    @torch.no_grad()
    def _evaluate(self) -> Metrics:
        self.model.eval()
        loss, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        num_tested = 0
        for x, y in self.test_loader:
            x, y = x.to(self.device), y.to(self.device)
            logits = self.model(x)
            loss += F.cross_entropy(logits, y, reduction="sum")
            correct += (logits.argmax(1) == y).sum()
            num_tested += len(y)
        train_loss = torch.stack(self.losses).mean().item()
        figures = {"test_loss": loss.item() / num_tested, "test_accuracy": correct.item() / num_tested}
        return Metrics(train_loss=train_loss, **figures)


@contextmanager
def _as_torch_comes() -> Iterator[None]:
    """Lift what the product pins for the sake of equal bits, which would slow this loop on a GPU.

    The precision stays what the product set, TF32 or not, so that all variants do the same arithmetic.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic = cudnn
