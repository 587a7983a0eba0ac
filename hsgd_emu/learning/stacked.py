"""The learner: all workers' parameters stacked, their queued steps taken as few batched computations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from hsgd_emu.engine.operations import Version
from hsgd_emu.learning.engines import Precision, Way
from hsgd_emu.learning.evaluation import evaluate
from hsgd_emu.learning.examine import WHOLE
from hsgd_emu.learning.graphs import Periods
from hsgd_emu.learning.network import Network, TrialSetup
from hsgd_emu.learning.rates import rates_key
from hsgd_emu.learning.registers import Registers
from hsgd_emu.learning.requests import Combine, Request, Steps, carry_out
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.stacks import Tensors
from hsgd_emu.learning.steps import Taker
from hsgd_emu.learning.tuning import Choice, can_be, usual_choice
from hsgd_emu.metrics import Metrics


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
        self.registers = Registers(self.stacks)
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

    def start(self, version: Version) -> None:
        self.registers.put(version, len(self.setup.worker_names))  # every row has the initial model

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        self._queue.append(Steps(made, self.setup.slots[worker], version, iteration, num_steps))

    def combine(
        self, made: Version, server: int, begun: Version, versions: Sequence[Version], weights: Sequence[float]
    ) -> None:
        self._queue.append(Combine(made, self.setup.slots[server], begun, list(versions), tuple(weights)))

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        self.flush()
        train_loss = float(self.loss_sums.sum()) / self.num_losses if self.num_losses else None
        self.loss_sums.zero_()
        self.num_losses = 0
        source, batch = self.registers.source(version), WHOLE if self.network.findings.mixes else None
        model = self.stacks.model(source)
        found = evaluate(self.engine, [model], self.data, self.setup.evaluation_seed, batch)[0]
        return replace(found if self.stacks.is_finite(source) else found.diverged(), train_loss=train_loss)

    def flush(self) -> None:
        """Carry out every queued request."""
        queue, self._queue = self._queue, []
        carry_out(queue, self._take_steps, self._combine, partial(rates_key, self.setup.train))

    # --- state ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return as CPU tensors what a trial needs to go on: live versions, and what is each worker's own."""
        self.flush()
        state = {**self.stacks.state(), "versions": self.registers.state()}
        return {**state, "loss_sums": self.loss_sums.cpu().clone(), "num_losses": self.num_losses}

    def restore(self, state: Mapping[str, Any], versions: Mapping[int, Version]) -> None:
        """Go on from a stored state; versions: by number, those it has."""
        self._queue.clear()
        self.stacks.restore(state)
        self.registers.restore(state["versions"], versions)
        self.loss_sums.copy_(state["loss_sums"])
        self.num_losses = state["num_losses"]

    def model_of(self, version: Version) -> Tensors:
        """Return a version's parameters and buffers in the network's order, whole where they were folded."""
        self.flush()
        return self.network.whole(self.way, self.stacks.model(self.registers.source(version)))

    def weights_hash(self, version: Version) -> str:
        """Return the SHA-256 (hex) of a version: parameters, then buffers, in the module's order."""
        digest = hashlib.sha256()
        for tensor in self.model_of(version).values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # --- carrying out -----------------------------------------------------------------------------------

    def _combine(self, request: Combine) -> None:
        self.registers.combine(request, torch.tensor(request.weights, dtype=self.data.dtype, device=self.data.device))

    def _take_steps(self, requests: list[Steps], num_steps: int) -> None:
        self.registers.take(requests)
        order = self.data.order
        for size in sorted({order.size(request.place) for request in requests}):
            alike = [request for request in requests if order.size(request.place) == size]
            begins = [request.iteration for request in alike]
            self._take_alike([request.place for request in alike], begins, num_steps)
        self.num_losses += len(requests) * num_steps
        for request in requests:
            made = request.made
            if request.num_steps > num_steps:
                made = request.version = Version(-1 - request.place, b"")  # on the way
            self.registers.put(made, request.place)

    def _take_alike(self, workers: list[int], begins: list[int], num_steps: int) -> None:
        """Take steps on workers whose batches have one size."""
        losses = self.periods.take(workers, self.choice.chunk, begins, num_steps) if self.periods else None
        if losses is not None:
            self.loss_sums[workers] += losses
            return
        done = 0
        while done < len(workers):
            chunk = workers[done : done + self.choice.chunk]
            try:
                self.loss_sums[chunk] += self._take_chunk(chunk, begins[done : done + len(chunk)], num_steps)
            except torch.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self._shrink(len(chunk) // 2)
            else:
                done += len(chunk)

    def _take_chunk(self, chunk: list[int], begins: list[int], num_steps: int) -> torch.Tensor:
        """Take steps on a chunk; if the device's memory does not suffice, leave its models as they were."""
        key = len(chunk), num_steps
        if not self._can_run_out or key in self._fitting:
            return self.taker.take(chunk, begins, num_steps)
        backup = self.stacks.backup(chunk)
        try:
            losses = self.taker.take(chunk, begins, num_steps)
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
