"""The learner: all workers' parameters stacked, their queued steps taken as few batched computations."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.engine.operations import NOBODY, NOTHING, Held, Version
from hsgd_emu.learning.engines import Precision, Way
from hsgd_emu.learning.evaluation import evaluate, evaluate_workers, of_workers, with_averaged
from hsgd_emu.learning.examine import WHOLE
from hsgd_emu.learning.graphs import Periods
from hsgd_emu.learning.loss_sums import LossSums
from hsgd_emu.learning.network import Network, TrialSetup
from hsgd_emu.learning.rates import has_one_rate, learning_rate
from hsgd_emu.learning.registers import Registers
from hsgd_emu.learning.requests import Combine, Compress, Request, Steps, carry_out, restored, split, stored
from hsgd_emu.learning.samples import ResidentData
from hsgd_emu.learning.stacks import Tensors
from hsgd_emu.learning.steps import Taker
from hsgd_emu.learning.tuning import Choice, can_be, usual_choice
from hsgd_emu.metrics import Metrics, OfWorker


class StackedLearner:
    """Steps (equation (4), or by the run's optimizer) on workers, averages and rules at servers; requests are lazy,
    steps are batched.

    The result does not depend on how requests were batched, beyond floating-point reassociation. Momentum and moments
    are each worker's own unless `train.state` sends them; BatchNorm's running statistics are averaged like weights,
    counters are the largest of the children's. Not modelled: parameters whose gradient is missing in some steps only
    have a step count of their own in torch's Adam, here the worker's.
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
        self.stacks.outers, self.compressors = setup.outers(), setup.compressors()
        self.registers = Registers(self.stacks)
        self.losses = LossSums(num_workers, data.device)
        self.of_workers: dict[int, list[OfWorker]] = {}
        """By iteration, where they are asked for: for whoever writes them down to take out."""
        self.taker = Taker(self.network, self.engine, self.stacks, data, setup.taken)
        self._after = setup.averaged_after
        # Which iterates count is not known when a period is captured.
        captures = data.device.type == "cuda" and self.way == "layered" and graphs and self._after is None
        self.periods = Periods(self.taker) if captures else None
        self._can_run_out = data.device.type == "cuda"
        self._has_one_rate = has_one_rate(setup.train)
        self._last_asked = self._evaluated = 0
        self._fitting: set[tuple[int, int]] = set()
        self._queue: list[Request] = []

    @property
    def way(self) -> Way:
        return self.choice.way

    # --- the port ---------------------------------------------------------------------------------------

    def start(self, version: Version) -> None:
        self.registers.put(version, len(self.setup.worker_names))  # every row has the initial model

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        place, evaluated = self.setup.slots[worker], self._evaluation_of(iteration + num_steps)
        taken, begin, end = self.setup.taken.get(place), iteration, iteration + num_steps
        if taken is not None:
            iteration = taken.before(begin)
            num_steps = taken.before(end) - iteration
        request = Steps(made, place, version, iteration, num_steps, evaluated)
        if self._after is not None:
            at = taken.iterations(iteration, num_steps) if taken is not None else range(begin, end)
            request.holds = [max(0, to - max(since, self._after)) for since, to in pairwise([begin, *at, end])]
        if self.setup.train.correction:
            request.rate_sum = sum(learning_rate(self.setup.train, t) for t in range(begin, end))
        self._queue.append(request)

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        self._queue.append(Combine(made, self.setup.slots[server], begun, list(versions), tuple(weights), held))

    def compress(self, made: Version, node: int, direction: Direction, version: Version, base: Version) -> None:
        self._queue.append(Compress(made, self.setup.slots[node], direction, version, base))

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        self._make(version)
        due = self._evaluation_of(iteration)
        train_losses = self.losses.of_workers(due) if self.setup.evaluates_workers else []
        train_loss = self.losses.mean(due)
        source, batch = self.registers.source(version), WHOLE if self.network.findings.mixes else None
        models, num = [self.stacks.model(source)], 0 if self._after is None else iteration - self._after
        if num > 0:
            models.append(self.stacks.averaged(source, num))
        found = [
            one if self.stacks.is_finite(model) else one.diverged()
            for one, model in zip(
                evaluate(self.engine, models, self.data, self.setup.evaluation_seed, batch), models, strict=True
            )
        ]
        metrics = with_averaged(replace(found[0], train_loss=train_loss), *found[1:])
        if not self.setup.evaluates_workers:
            return metrics
        loss, own = evaluate_workers(self.engine, models[0], self.data, self.setup.evaluation_seed, batch)
        self.of_workers[iteration] = of_workers(self.setup.worker_names, iteration, train_losses, own)
        return replace(metrics, training_set_loss=loss)

    def flush(self) -> None:
        """Carry out every queued request."""
        queue, self._queue = self._queue, []
        self._carry_out(queue)

    def _make(self, version: Version) -> None:
        """Carry out what a version comes of.

        Hubs that mix are ahead of one another by what their links take. What others than those of this version have
        asked for by now waits, so that what goes together, and with it the last bits, does not depend on time.
        """
        if not self.setup.has_hubs:
            self.flush()
            return
        due, self._queue = split(self._queue, version)
        self._carry_out(due)

    def _carry_out(self, queue: list[Request]) -> None:
        carry_out(queue, self._take_steps, self._at_once, self._rates)

    # --- state ------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return as CPU tensors what a trial needs to go on: live versions, and what is each worker's own.

        With hubs also what is still to be carried out: a checkpoint must not decide what goes together.
        """
        if not self.setup.has_hubs:
            self.flush()
        state = {**self.stacks.state(), "versions": self.registers.state()}
        if self.compressors:
            state["sent"] = {key: compressor.state() for key, compressor in self.compressors.items()}
        return {**state, "losses": self.losses.state(), "queue": [stored(request) for request in self._queue]}

    def restore(self, state: Mapping[str, Any], versions: Mapping[int, Version]) -> None:
        """Go on from a stored state; versions: by number, those it has."""
        # Those that only a queued request still needs are known to nobody else.
        known = {NOTHING.number: NOTHING} | dict(versions)

        def version_of(number: int) -> Version:
            return known.setdefault(number, Version(number, b""))

        self._queue = [restored(request, version_of) for request in state.get("queue", ())]
        self.stacks.restore(state)
        for key, compressor in self.compressors.items():
            compressor.restore(state["sent"][key], self.data.device)
        self.registers.restore(state["versions"], {number: version_of(number) for number in state["versions"]})
        self.losses.restore(state["losses"])

    def model_of(self, version: Version) -> Tensors:
        """Return a version's parameters and buffers in the network's order, whole where they were folded."""
        self._make(version)
        return self.network.whole(self.way, self.stacks.model(self.registers.source(version)))

    def weights_hash(self, version: Version) -> str:
        """Return the SHA-256 (hex) of a version: parameters, then buffers, in the module's order."""
        digest = hashlib.sha256()
        for tensor in self.model_of(version).values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    # --- carrying out -----------------------------------------------------------------------------------

    def _evaluation_of(self, iteration: int) -> int:
        """Return which evaluation the losses of a phase that ends after an iteration count for."""
        if not self._last_asked <= iteration <= self._evaluated:
            self._last_asked, self._evaluated = iteration, self.setup.evaluated_at(iteration)
        return self._evaluated

    def _rates(self, request: Steps, num_steps: int) -> Hashable:
        """Return what is equal for steps of equal learning rates: these, or nothing where all are the same."""
        if self._has_one_rate:
            return ()
        return tuple(self.taker.rates_of(request.place, request.iteration, num_steps))

    def _at_once(self, request: Combine | Compress) -> None:
        if isinstance(request, Compress):
            self.registers.compress(request, self.compressors[request.place, request.direction])
            return
        # Sums over many iterations need weights that sum to 1 as exactly as may be.
        dtype = self.data.dtype if self._after is None else torch.float64
        self.registers.combine(request, torch.tensor(request.weights, dtype=dtype, device=self.data.device))

    def _take_steps(self, requests: list[Steps], num_steps: int) -> None:
        self.registers.take(requests)
        if self._after is not None:
            self._hold_received(requests)
        order = self.data.order
        sizes = {order.size(request.place) for request in requests} if num_steps else ()
        for size in sorted(sizes):
            self._take_alike([request for request in requests if order.size(request.place) == size], num_steps)
        done = [request for request in requests if request.num_steps == num_steps]
        if self.setup.train.correction and done:
            self.stacks.end_phase([request.place for request in done], [request.rate_sum for request in done])
        for request in requests:
            made = request.made
            if request.num_steps > num_steps:
                made = request.version = Version(-1 - request.place, b"")  # on the way
                request.holds = [0, *request.holds[num_steps + 1 :]]
            self.registers.put(made, request.place)

    def _hold_received(self, requests: list[Steps]) -> None:
        """Let the models that workers have received count for the iterations before their first step."""
        places = [request.place for request in requests]
        part = self.stacks.part(places)
        part.hold([request.holds[0] for request in requests])
        self.stacks.put(places, part)

    def _take_alike(self, requests: list[Steps], num_steps: int) -> None:
        """Take steps on workers whose batches have one size."""
        workers, begins = [request.place for request in requests], [request.iteration for request in requests]
        losses = self.periods.take(workers, self.choice.chunk, begins, num_steps) if self.periods else None
        if losses is not None:
            self.losses.add(requests, losses, num_steps)
            return
        done = 0
        while done < len(workers):
            chunk = workers[done : done + self.choice.chunk]
            try:
                losses = self._take_chunk(requests[done : done + len(chunk)], num_steps)
            except torch.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self._shrink(len(chunk) // 2)
            else:
                self.losses.add(requests[done : done + len(chunk)], losses, num_steps)
                done += len(chunk)

    def _take_chunk(self, requests: list[Steps], num_steps: int) -> torch.Tensor:
        """Take steps on a chunk; if the device's memory does not suffice, leave its models as they were."""
        chunk, begins = [request.place for request in requests], [request.iteration for request in requests]
        holds: list[tuple[int, ...]] = []
        if self._after is not None:
            holds = list(zip(*(request.holds[1 : num_steps + 1] for request in requests), strict=True))
        key = len(chunk), num_steps
        if not self._can_run_out or key in self._fitting:
            return self.taker.take(chunk, begins, num_steps, holds)
        backup = self.stacks.backup(chunk)
        try:
            losses = self.taker.take(chunk, begins, num_steps, holds)
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
