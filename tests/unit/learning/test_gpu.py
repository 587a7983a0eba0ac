"""On CUDA: the same trial as on the CPU, and the same bits twice."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torchvision import models as torchvision_models

from hsgd_emu.config.run_schema import Augment
from hsgd_emu.learning.models import cifar_cnn, mlp
from hsgd_emu.learning.world import make_deterministic

from .test_stacked_modules import SharedDropout, batch_norm
from .twins import Trial, assert_close_metrics, synthetic

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]

NETWORKS = {
    "mlp": (partial(mlp, (6,), (8,), 4), (6,), {}),
    "cifar_cnn": (partial(cifar_cnn, 4), (3, 32, 32), {"augment": Augment(crop=4, flip=True)}),
    "batch_norm": (batch_norm, (6,), {}),
}
DROPOUTS = {"shared_dropout": (SharedDropout, (6,), {})}


@pytest.fixture(autouse=True)
def deterministic():
    make_deterministic(torch.device("cuda"), 1)
    yield
    torch.use_deterministic_algorithms(False)


def trial(name: str, device: str, **train) -> Trial:
    make, shape, options = (NETWORKS | DROPOUTS)[name]
    return Trial(make, synthetic(shape, images=len(shape) == 3), device=device, momentum=0.5, **options, **train)


@pytest.mark.parametrize("way", ["layered", "vmap", "one_by_one"])
@pytest.mark.parametrize("name", NETWORKS)
def test_cuda_equals_the_cpu(name, way):
    cpu, cuda = trial(name, "cpu"), trial(name, "cuda")
    expected, learner = cpu.run(cpu.stacked(way)), cuda.stacked(way)
    assert next(iter(learner.stacks.trained.values())).is_cuda
    assert_close_metrics(cuda.run(learner), expected)


@pytest.mark.parametrize("name", [*NETWORKS, *DROPOUTS])
def test_cuda_twins(name):
    # Dropout masks come from the device's own generator, so they are compared on one device.
    trial(name, "cuda").assert_twins()


def test_torchvisions_vgg11_is_batched_on_cuda():
    data = synthetic((3, 32, 32), 8, images=True)
    make = partial(torchvision_models.vgg11, num_classes=1000)
    large = Trial(make, data, sizes=(2,) * 4, batch_size=2, iterations=2, learning_rate=0.01, device="cuda")
    learner = large.assert_twins(chunk=3, local=1, global_=2, evaluate_every=2)
    assert learner.way == "layered"


@pytest.mark.parametrize("name", [*NETWORKS, *DROPOUTS])
def test_cuda_gives_the_same_bits_twice(name):
    one, other = (trial(name, "cuda", dtype="float32") for _ in range(2))
    learners = one.stacked(), other.stacked()
    assert one.run(learners[0]) == other.run(learners[1])
    assert learners[0].weights_hash(one.root) == learners[1].weights_hash(other.root)


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_captured_periods_equal_steps_taken_one_by_one(name, chunk):
    # Four periods of two steps: the first is taken step by step, the others are captured and replayed.
    one, other = trial(name, "cuda"), trial(name, "cuda")
    captured, eager = one.stacked("layered", chunk), other.stacked("layered", chunk)
    eager.periods = None
    assert_close_metrics(one.run(captured), other.run(eager))
    assert captured.periods is not None
    assert any(period is not None for period in captured.periods._known.values())
