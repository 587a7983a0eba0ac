"""What PyTorch's own model averagers learn, four processes over gloo, is what a run file of the same schedule learns.

Full batches, softmax regression from zero and shards by label leave nothing random: PyTorch's side has no code of ours.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.algorithms.model_averaging.hierarchical_model_averager import HierarchicalModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer
from torch.nn import functional as F

from hsgd_emu.run import run

WORKERS, ITERATIONS, RATE = 4, 49, 0.5
RUN = f"""
name: averagers
topology:
  levels: [{{name: site, count: 2, uplink: {{rtt_s: 0.2}}}}, {{name: worker, count: 2, uplink: {{rtt_s: 0.02}}}}]
compute: {{step_s: 0.004}}
data: {{dataset: digits, partition: by_label}}
model: softmax_regression
train: {{batch_size: full, learning_rate: {RATE}, iterations: {ITERATIONS}, dtype: float64}}
cases:
  - {{name: periodic, period: 7}}
  - {{name: hierarchical, phases: [{{iterations: 1, period: 1}}, {{periods: [16, 4]}}]}}
  - {{name: "hierarchical, counted from 1", phases: [{{iterations: 48, periods: [16, 4]}}, {{period: 1}}]}}
  - {{name: post-local, phases: [{{iterations: 9, period: 1}}, {{period: 10}}]}}
"""


def averaged_by(averager: Any, model: nn.Module) -> tuple[nn.Module, Callable[[], None]]:
    """Return a network, and a step of its own after which an averager of PyTorch does what it does."""
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> None:
        optimiser.step()
        averager.average_parameters(model.parameters())

    return model, step


def periodic(model: nn.Module) -> tuple[nn.Module, Callable[[], None]]:
    return averaged_by(PeriodicModelAverager(period=7, warmup_steps=6), model)


def hierarchical(model: nn.Module, counted: int = 0) -> tuple[nn.Module, Callable[[], None]]:
    averager = HierarchicalModelAverager(OrderedDict([(4, 2), (16, 4)]))
    averager.step = counted
    return averaged_by(averager, model)


def post_local(model: nn.Module) -> tuple[nn.Module, Callable[[], None]]:
    """Average gradients in eight iterations, then models: after the ninth, and after every tenth from there."""
    parallel = nn.parallel.DistributedDataParallel(model)
    state = PostLocalSGDState(None, None, start_localSGD_iter=8, post_local_gradient_allreduce=False)
    parallel.register_comm_hook(state, post_localSGD_hook)
    averager = PeriodicModelAverager(period=10, warmup_steps=8)
    return parallel, PostLocalSGDOptimizer(torch.optim.SGD(parallel.parameters(), lr=RATE), averager).step


WAYS: dict[str, Callable[[nn.Module], tuple[nn.Module, Callable[[], None]]]] = {
    "periodic": periodic,
    "hierarchical": hierarchical,
    "hierarchical, counted from 1": partial(hierarchical, counted=1),
    "post-local": post_local,
}


def one_of_four(rank: int, folder: str) -> None:
    """Learn as worker `rank`, by each averager; the first writes its test loss after every step to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    digits = sklearn.datasets.load_digits()
    x, y = torch.tensor(digits.data / 16), torch.tensor(digits.target)
    own = np.argsort(digits.target[:1437], kind="stable")[rank * 359 : (rank + 1) * 359]
    losses = dict[str, list[float]]()
    for name, way in WAYS.items():
        model = nn.Linear(64, 10).double()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        (called, step), losses[name] = way(model), []
        for _ in range(ITERATIONS):
            called.zero_grad()
            F.cross_entropy(called(x[own]), y[own]).backward()
            step()
            losses[name].append(F.cross_entropy(model(x[1437:]), y[1437:]).item())
    if rank == 0:
        Path(folder, "losses.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The run's curve, and PyTorch's test losses after each step."""
    folder = tmp_path_factory.mktemp("averagers")
    mp.spawn(one_of_four, (str(folder),), nprocs=WORKERS)
    (folder / "run.yaml").write_text(RUN)
    curve = run(folder / "run.yaml", folder / "out", device="cpu", threads=1).curve
    return curve, json.loads((folder / "losses.json").read_text())


@pytest.mark.parametrize("name", WAYS)
def test_pytorch_learns_the_same(both, name):
    curve, losses = both
    rows = curve[(curve.case == name) & (curve.iteration > 0)]
    if name == "hierarchical, counted from 1":
        rows = rows[:-1]  # our run ends with an average, where PyTorch's has taken one step more alone
    assert len(rows) >= 3
    assert list(rows.test_loss) == pytest.approx([losses[name][t - 1] for t in rows.iteration], rel=0, abs=1e-10)
