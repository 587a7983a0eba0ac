"""The learner: all workers' parameters in one matrix, their queued steps taken as one batched computation.

Row s of `rows` (S, P) holds the whole model of node s: parameters and floating-point buffers, so an average is
one matrix product. Steps work on views of the rows with a leading worker axis W.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from hsgd_emu.config.run_schema import TrainSpec
from hsgd_emu.engine.port import Metrics
from hsgd_emu.learning.dropout import DropoutMasks, with_masked_dropout
from hsgd_emu.learning.models import has_convolutions, in_short, logits_of
from hsgd_emu.learning.rates import learning_rate
from hsgd_emu.learning.requests import Average, HandDown, Request, Steps, carry_out
from hsgd_emu.learning.samples import ResidentData

EVALUATION_BATCH = 1000
_STACK_BYTES = 16 * 2**20
"""On a CPU, larger models than this learn one worker after the other: batching them loses (docs/performance.md)."""
_CHUNK_BYTES = 2**28
_CHUNK_IMAGES = 20
Way = Literal["stacked", "one_by_one"]
Tensors = dict[str, torch.Tensor]
"""By the name of a parameter or buffer, with a leading worker axis."""


@dataclass(frozen=True)
class TrialSetup:
    """What a learner needs of a trial besides its model and data.

    slots: by node index of the topology, its row: workers 0..n-1 (depth first), then the aggregating servers.
    """

    seed: int
    worker_names: Sequence[str]
    slots: Mapping[int, int]
    train: TrainSpec


class Layout:
    """Where each parameter and buffer lies in a row."""

    def __init__(self, model: nn.Module) -> None:
        masks = {f"{name}.mask" for name, m in model.named_modules() if hasattr(m, "feature_dims")}
        self.trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        fixed = [(n, p) for n, p in model.named_parameters() if not p.requires_grad]
        buffers = [(n, b) for n, b in model.named_buffers() if n not in masks]
        floats = [(n, b) for n, b in buffers if b.is_floating_point()]
        self.entries = [(n, t.shape, t.numel()) for n, t in [*self.trained, *fixed, *floats]]
        self.counters = [(n, b.shape, b.numel()) for n, b in buffers if not b.is_floating_point()]
        self.types = {n: b.dtype for n, b in buffers}
        self.num_trained, self.num_parameters = len(self.trained), len(self.trained) + len(fixed)
        self.size = sum(numel for _, _, numel in self.entries)
        self.num_counts = sum(numel for _, _, numel in self.counters)

    @staticmethod
    def views(rows: torch.Tensor, entries: Sequence[tuple[str, torch.Size, int]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (name, (W, *shape) view) of every entry of some rows (W, size)."""
        start = 0
        for name, shape, numel in entries:
            yield name, rows[:, start : start + numel].view(len(rows), *shape)
            start += numel


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
        way: Way | None = None,
        chunk: int | None = None,
    ) -> None:
        """way: how steps are taken (default: chosen by trying); chunk: most workers in one batch."""
        self.data, self.setup, self.train = data, setup, setup.train
        self.device, self.dtype = data.device, data.dtype
        model = model.to(self.device, self.dtype).train()
        dropouts = with_masked_dropout(model, data.sample())
        self.model = model
        self.masks = DropoutMasks(model, dropouts, setup.seed, setup.worker_names, self.dtype)
        self.layout = Layout(model)
        self._fill_rows()
        self.way, self.reason = (way, "as asked") if way else self._choose()
        self.chunk = 1 if self.way == "one_by_one" else chunk or self._chunk()
        self._queue: list[Request] = []

    def _fill_rows(self) -> None:
        num_workers = len(self.setup.worker_names)
        start = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        with torch.no_grad():
            row = torch.cat([start[name].flatten() for name, _, _ in self.layout.entries])
            self.rows = row.repeat(len(self.setup.slots), 1)
            counts = [start[name].flatten().to(torch.int64) for name, _, _ in self.layout.counters]
            self.counts = (torch.cat(counts) if counts else row.new_zeros(0, dtype=torch.int64)).repeat(
                len(self.setup.slots), 1
            )
        num_trained = sum(numel for _, _, numel in self.layout.entries[: self.layout.num_trained])
        has_momentum = self.train.momentum > 0
        self.momentum = row.new_zeros(num_workers if has_momentum else 0, num_trained)
        self.loss_sums = torch.zeros(num_workers, dtype=torch.float64, device=self.device)
        self.num_losses = 0

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
        test_loss, test_accuracy = evaluate(self.model, self._tensors_of(self.setup.slots[server]), self.data)
        return Metrics(train_loss, test_loss, test_accuracy)

    def flush(self) -> None:
        """Carry out every queued request."""
        queue, self._queue = self._queue, []
        carry_out(queue, self._take_steps, self._average, self._hand_down)

    # --- state ------------------------------------------------------------------------------------------

    def state(self, server: int) -> dict[str, Any]:
        """Return what a trial needs to go on from a global aggregation at `server`, as CPU tensors."""
        self.flush()
        slot = self.setup.slots[server]
        tensors = {
            "row": self.rows[slot],
            "counts": self.counts[slot],
            "momentum": self.momentum,
            "loss_sums": self.loss_sums,
        }
        state: dict[str, Any] = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        return {**state, "num_losses": self.num_losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set every node to a stored global model."""
        self._queue.clear()
        self.rows.copy_(state["row"].expand_as(self.rows))
        self.counts.copy_(state["counts"].expand_as(self.counts))
        self.momentum.copy_(state["momentum"])
        self.loss_sums.copy_(state["loss_sums"])
        self.num_losses = state["num_losses"]

    def weights_hash(self, server: int) -> str:
        """Return the SHA-256 (hex) of a server's model: parameters, then buffers, in the module's order."""
        self.flush()
        digest = hashlib.sha256()
        for tensor in self._tensors_of(self.setup.slots[server]).values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _tensors_of(self, slot: int) -> dict[str, torch.Tensor]:
        floats = self.layout.views(self.rows[slot : slot + 1], self.layout.entries)
        counters = self.layout.views(self.counts[slot : slot + 1], self.layout.counters)
        typed = ((name, view.to(self.layout.types[name])) for name, view in counters)
        return {name: view[0] for name, view in [*floats, *typed]}

    # --- carrying out -----------------------------------------------------------------------------------

    def _average(self, request: Average) -> None:
        weights = torch.tensor(request.weights, dtype=self.dtype, device=self.device)
        children, _ = _select(self.rows, request.children)
        self.rows[request.server] = weights @ children
        if self.layout.num_counts:
            self.counts[request.server] = _select(self.counts, request.children)[0].amax(0)

    def _hand_down(self, requests: list[HandDown]) -> None:
        for server in dict.fromkeys(request.server for request in requests):
            children = sorted(request.child for request in requests if request.server == server)
            for matrix in (self.rows, self.counts):
                _put(matrix, children, matrix[server].clone())

    def _take_steps(self, workers: list[int], iteration: int, num_steps: int) -> None:
        order = self.data.order
        for size in sorted({order.size(worker) for worker in workers}):
            alike = [worker for worker in workers if order.size(worker) == size]
            for start in range(0, len(alike), self.chunk):
                self._take_chunk(alike[start : start + self.chunk], iteration, num_steps)
        self.num_losses += len(workers) * num_steps

    def _take_chunk(self, workers: list[int], iteration: int, num_steps: int) -> None:
        """Take steps on workers whose batches have one size, on views of their rows (or copies put back)."""
        rows, is_view = _select(self.rows, workers)
        counts, _ = _select(self.counts, workers)
        trained, fixed, buffers = self._split(rows, counts)
        updated = self._own_copies(buffers)
        momenta: list[torch.Tensor] = []
        if self.train.momentum:
            momentum, _ = _select(self.momentum, workers)
            entries = self.layout.entries[: self.layout.num_trained]
            momenta = [view for _, view in self.layout.views(momentum, entries)]
        leaves = {name: view.detach().requires_grad_() for name, view in trained.items()}
        losses_W = torch.zeros(len(workers), dtype=torch.float64, device=self.device)
        indices = self.data.indices(workers, iteration, num_steps)
        for step in range(num_steps):
            losses_W += self._step(workers, iteration + step, indices[step], leaves, fixed | updated, momenta)
        for name, view in buffers.items():
            view.copy_(updated[name])
        self.loss_sums[workers] += losses_W
        if not is_view:
            _put(self.rows, workers, rows)
            _put(self.counts, workers, counts)
            if self.train.momentum:
                _put(self.momentum, workers, momentum)

    def _split(self, rows: torch.Tensor, counts: torch.Tensor) -> tuple[Tensors, Tensors, Tensors]:
        """Return views of the trained parameters, of the fixed ones, and of the buffers."""
        views = list(self.layout.views(rows, self.layout.entries))
        trained, all_ = self.layout.num_trained, self.layout.num_parameters
        counters = self.layout.views(counts, self.layout.counters)
        return dict(views[:trained]), dict(views[trained:all_]), dict([*views[all_:], *counters])

    def _own_copies(self, buffers: Tensors) -> Tensors:
        """Return contiguous copies, each of its own type, for the network to update in place.

        vmap's BatchNorm works on a copy of what is not contiguous: its running statistics would be lost.
        """
        copies = ((name, view.clone(memory_format=torch.contiguous_format)) for name, view in buffers.items())
        return {name: copy.to(self.layout.types[name]) for name, copy in copies}

    def _step(
        self,
        workers: list[int],
        iteration: int,
        indices_WB: torch.Tensor,
        leaves: Tensors,
        fixed: Tensors,
        momenta: list[torch.Tensor],
    ) -> torch.Tensor:
        """Take one SGD step and return each worker's mini-batch loss before it (W,)."""
        x, y = self.data.batch(indices_WB, workers, iteration)
        tensors = leaves | fixed | self.masks.draw(x, workers, iteration)
        logits = self._forward(tensors, x, self.masks.seed(workers[0], iteration))
        losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        with torch.no_grad():
            self._update(list(leaves.values()), gradients, momenta, learning_rate(self.train, iteration))
        return losses.detach().double()

    def _update(
        self,
        weights: list[torch.Tensor],
        maybe_gradients: Sequence[torch.Tensor | None],
        momenta: list[torch.Tensor],
        rate: float,
    ) -> None:
        # As torch.optim.SGD: a parameter that the loss does not depend on stays as it is, weight decay or not.
        used = [number for number, gradient in enumerate(maybe_gradients) if gradient is not None]
        gradients = [gradient for gradient in maybe_gradients if gradient is not None]
        weights = [weights[number] for number in used]
        momenta = [momenta[number] for number in used] if momenta else []
        if self.train.weight_decay:
            torch._foreach_add_(gradients, weights, alpha=self.train.weight_decay)
        if momenta:
            torch._foreach_mul_(momenta, self.train.momentum)
            torch._foreach_add_(momenta, gradients)
            gradients = momenta
        torch._foreach_add_(weights, gradients, alpha=-rate)

    def _forward(self, tensors: dict[str, torch.Tensor], x: torch.Tensor, seed: int) -> torch.Tensor:
        """Return logits (W, B, C)."""
        if self.way == "stacked":
            forward: Callable[..., torch.Tensor] = vmap(self._one, randomness="error")
            return forward(tensors, x)
        # Randomness inside the network other than dropout layers comes from torch's global generator.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            return self._one({name: tensor[0] for name, tensor in tensors.items()}, x[0])[None]

    def _one(self, tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return logits_of(functional_call(self.model, tensors, (x,)))

    # --- choosing how -----------------------------------------------------------------------------------

    def _choose(self) -> tuple[Way, str]:
        """Return how to take steps, and why."""
        if self.device.type == "cpu" and self.layout.size * self.rows.element_size() > _STACK_BYTES:
            return "one_by_one", "batching large models does not pay on a CPU"
        workers = range(len(self.setup.worker_names))[:2]
        trained, fixed, buffers = self._split(self.rows[: len(workers)], self.counts[: len(workers)])
        tensors = trained | fixed | self._own_copies(buffers)
        sample = self.data.sample()
        x = sample.expand(len(workers), *sample.shape)
        try:
            with torch.no_grad():
                tensors |= self.masks.draw(x, workers, 0)
                vmap(self._one, randomness="error")(tensors, x)
        except Exception as error:  # whatever a user's network does that vmap cannot batch
            return "one_by_one", f"the network cannot be batched: {in_short(error)}"
        return "stacked", "one batched computation over the worker axis"

    def _chunk(self) -> int:
        """Return how many workers to batch: about a quarter of a GiB of parameters, and on a CPU no more images than
        pay: beyond, only the temporaries grow, and the system takes longer to hand out their pages."""
        fitting = max(1, _CHUNK_BYTES // max(1, self.layout.size * self.rows.element_size()))
        return min(fitting, _CHUNK_IMAGES) if has_convolutions(self.model) and self.device.type == "cpu" else fitting


def _select(matrix: torch.Tensor, slots: Sequence[int]) -> tuple[torch.Tensor, bool]:
    """Return the rows at ascending `slots`, and whether they are a view (neighbouring rows) or a copy."""
    first, last = slots[0], slots[-1]
    if last - first + 1 == len(slots):
        return matrix[first : last + 1], True
    return matrix[list(slots)], False


def _put(matrix: torch.Tensor, slots: Sequence[int], values: torch.Tensor) -> None:
    """Set the rows at ascending `slots`."""
    view, is_view = _select(matrix, slots) if matrix.shape[1] else (matrix, False)
    if is_view:
        view.copy_(values)
    elif matrix.shape[1]:
        matrix[list(slots)] = values


@torch.inference_mode()
def evaluate(model: nn.Module, tensors: Mapping[str, torch.Tensor], data: ResidentData) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy) of a model on the whole test set, without augmentation."""
    loss = torch.zeros((), dtype=torch.float64, device=data.device)
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    was_training = model.training
    model.eval()
    for start in range(0, len(data.test_y), EVALUATION_BATCH):
        x = data.normalised(data.test_x[start : start + EVALUATION_BATCH])
        y = data.test_y[start : start + EVALUATION_BATCH]
        logits = logits_of(functional_call(model, dict(tensors), (x,)))
        loss += F.cross_entropy(logits, y, reduction="none").double().sum()
        correct += (logits.argmax(1) == y).sum()
    model.train(was_training)
    return float(loss) / len(data.test_y), float(correct) / len(data.test_y)
