"""The learner: all workers' parameters stacked, their queued steps taken as few batched computations."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hsgd_emu.engine.port import Metrics
from hsgd_emu.learning.engines import Precision, Way
from hsgd_emu.learning.evaluation import evaluate
from hsgd_emu.learning.examine import WHOLE
from hsgd_emu.learning.graphs import Periods
from hsgd_emu.learning.network import Network, TrialSetup
from hsgd_emu.learning.requests import Average, HandDown, Request, Steps, carry_out
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.stacks import Tensors
from hsgd_emu.learning.steps import Taker
from hsgd_emu.learning.tuning import Choice, can_be, usual_choice


class StackedLearner:
    """Plain SGD (equation (4)) on every worker, averages at servers; requests are lazy, steps are batched.

    The result does not depend on how requests were batched, beyond floating-point reassociation. Momentum is each
    worker's own and is not averaged; BatchNorm's running statistics are averaged like weights, counters are the
    largest of the children's. Not modelled: other optimisers, outer optimisers at servers.
    """

    def __init__(
        self,
        model: nn.Module,
        data: ResidentData,
        setup: TrialSetup,
        choice: Choice | None = None,
        precision: Precision = "fp32",
        graphs: bool = True,
    ) -> None:
        """choice: how steps are taken (default: the usual one for the network and device); graphs: capture local
        periods on CUDA."""
        self.data, self.setup = data, setup
        self.network = Network(model, data, setup, precision)
        num_workers = len(setup.worker_names)
        self.choice = choice if choice and can_be(choice, self.network) else usual_choice(self.network)
        self.engine = self.network.engine(self.choice.way)
        self.stacks = self.network.stacks(self.choice.way, len(setup.slots), num_workers)
        self.loss_sums = torch.zeros(num_workers, dtype=torch.float64, device=data.device)
        self.num_losses = 0
        self.taker = Taker(self.network, self.engine, self.stacks, data)
        captures = data.device.type == "cuda" and self.way == "layered" and graphs
        self.periods = Periods(self.taker) if captures else None
        self._can_run_out = data.device.type == "cuda"
        self._fitting: set[tuple[int, int]] = set()
        self._queue: list[Request] = []

    @property
    def way(self) -> Way:
        return self.choice.way

    # --- the port ---------------------------------------------------------------------------------------

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        self._queue.append(Steps(self.setup.slots[worker], iteration, num_steps))

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float]) -> None:
        slots = tuple(self.setup.slots[child] for child in children)
        self._queue.append(Average(self.setup.slots[server], slots, tuple(weights)))

    def hand_down(self, server: int, child: int) -> None:
        self._queue.append(HandDown(self.setup.slots[server], self.setup.slots[child]))

    def evaluate(self, server: int, iteration: int) -> Metrics:
        self.flush()
        train_loss = float(self.loss_sums.sum()) / self.num_losses if self.num_losses else None
        self.loss_sums.zero_()
        self.num_losses = 0
        slot, batch = self.setup.slots[server], WHOLE if self.network.findings.mixes else None
        model = self.stacks.model(slot)
        loss, accuracy = evaluate(self.engine, [model], self.data, self.setup.evaluation_seed, batch)[0]
        return Metrics(train_loss, loss if self.stacks.is_finite(slot) else math.nan, accuracy)

    def flush(self) -> None:
        """Carry out every queued request."""
        queue, self._queue = self._queue, []
        carry_out(queue, self._take_steps, self._average, self._hand_down)

    # --- state ------------------------------------------------------------------------------------------

    def state(self, server: int) -> dict[str, Any]:
        """Return what a trial needs to go on from a global aggregation at `server`, as CPU tensors."""
        self.flush()
        state: dict[str, Any] = self.stacks.state(self.setup.slots[server])
        return {**state, "loss_sums": self.loss_sums.cpu().clone(), "num_losses": self.num_losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set every node to a stored global model."""
        self._queue.clear()
        self.stacks.restore(state)
        self.loss_sums.copy_(state["loss_sums"])
        self.num_losses = state["num_losses"]

    def model_of(self, server: int) -> Tensors:
        """Return a node's parameters and buffers in the network's order, whole where they were folded."""
        self.flush()
        return self.network.whole(self.way, self.stacks.model(self.setup.slots[server]))

    def weights_hash(self, server: int) -> str:
        """Return the SHA-256 (hex) of a server's model: parameters, then buffers, in the module's order."""
        digest = hashlib.sha256()
        for tensor in self.model_of(server).values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # --- carrying out -----------------------------------------------------------------------------------

    def _average(self, request: Average) -> None:
        weights = torch.tensor(request.weights, dtype=self.data.dtype, device=self.data.device)
        self.stacks.average(request.server, request.children, weights)

    def _hand_down(self, requests: list[HandDown]) -> None:
        for server in dict.fromkeys(request.server for request in requests):
            self.stacks.hand_down(server, sorted(r.child for r in requests if r.server == server))

    def _take_steps(self, workers: list[int], iteration: int, num_steps: int) -> None:
        order = self.data.order
        for size in sorted({order.size(worker) for worker in workers}):
            self._take_alike([worker for worker in workers if order.size(worker) == size], iteration, num_steps)
        self.num_losses += len(workers) * num_steps

    def _take_alike(self, workers: list[int], iteration: int, num_steps: int) -> None:
        """Take steps on workers whose batches have one size."""
        losses = self.periods.take(workers, self.choice.chunk, iteration, num_steps) if self.periods else None
        if losses is not None:
            self.loss_sums[workers] += losses
            return
        waiting = workers
        while waiting:
            chunk = waiting[: self.choice.chunk]
            try:
                self.loss_sums[chunk] += self._take_chunk(chunk, iteration, num_steps)
            except torch.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self._shrink(len(chunk) // 2)
            else:
                waiting = waiting[len(chunk) :]

    def _take_chunk(self, chunk: list[int], iteration: int, num_steps: int) -> torch.Tensor:
        """Take steps on a chunk; if the device's memory does not suffice, leave its models as they were."""
        key = len(chunk), num_steps
        if not self._can_run_out or key in self._fitting:
            return self.taker.take(chunk, iteration, num_steps)
        backup = self.stacks.backup(chunk)
        try:
            losses = self.taker.take(chunk, iteration, num_steps)
            losses.sum().item()  # waits for the device, which may say only now that its memory is full
        except torch.OutOfMemoryError:
            self.stacks.put(chunk, backup)
            raise
        self._fitting.add(key)
        return losses

    def _shrink(self, chunk: int) -> None:
        """Go on with smaller chunks."""
        self.choice = replace(self.choice, chunk=chunk)
        if self.periods:
            self.periods.forget()
        if self.data.device.type == "cuda":
            torch.cuda.empty_cache()
