"""Every algorithm of a run file once more, as one loop over iterations in NumPy; data and draws are the package's.

A model is one float64 vector in torch's order of parameters: softmax regression's weights, then its biases. No
operations, no versions, no events: each worker's and server's variables stand in a `_Node`, and t goes from 1 to T.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsgd_emu.rng import stream

Vector = NDArray[np.float64]
Data = tuple[NDArray[Any], NDArray[Any]]
"""x (N, features), y (N,)."""
CLASSES = 10


@dataclass
class _Node:
    """A node of the tree, and all that it keeps during a trial."""

    name: str
    kind: str
    parent: _Node | None
    spec: dict[str, Any]
    children: list[_Node] = field(default_factory=list)
    # Where it is in a stage.
    above: Any = None
    below: list[_Node] = field(default_factory=list)
    period: int = 0
    taking_part: list[_Node] = field(default_factory=list)
    share: float = 0.0
    at: int = 0
    """When a worker is free, in ns."""
    ready: int = 0
    """When it has what it sends next."""
    # What it has.
    model: Any = None
    received: Any = None
    """From above."""
    sent: Any = None
    """Down."""
    moments: Any = None
    count: int = 0
    control: Any = 0.0
    mean_control: Any = 0.0
    rates: float = 0.0
    outer: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, Any] = field(default_factory=dict)
    uploads: dict[str, int] = field(default_factory=dict)

    @property
    def is_worker(self) -> bool:
        return not self.children


def tree_of(topology: dict[str, Any]) -> list[_Node]:
    """Return the nodes of a topology's `levels` or `root`, depth first, with the package's names."""
    found: list[_Node] = []

    def add(spec: dict[str, Any], parent: _Node | None, deeper: list[dict[str, Any]]) -> None:
        node = _Node("", spec.get("name", "root"), parent, spec)
        found.append(node)
        if parent is not None:
            parent.children.append(node)
        for child in [*spec.get("children", []), *deeper[:1]]:
            for _ in range(child.get("count", 1)):
                add(child, node, deeper[1:])

    add(topology.get("root", {}), None, topology.get("levels", []))
    numbers: dict[str, int] = {}
    for node in found:
        number = numbers[node.kind] = numbers.get(node.kind, -1) + 1
        node.name = f"{node.kind}-{number}"
    for node in found:
        if not numbers[node.kind]:
            node.name = node.kind
    return found


def of(given: Any, node: _Node, default: Any = None) -> Any:
    """Return what a mapping by name or class says of a node."""
    given = given or {}
    return given.get(node.name, given.get(node.kind, default))


def round_ends(period: Any, begin: int, end: int) -> list[int]:
    """Return where the rounds of a stage end."""
    if period == "once":
        return [end]

    def lengths() -> Iterator[int]:
        if isinstance(period, int):
            while True:
                yield period
        if "rounds" in period:
            yield from period["rounds"]
            while True:
                yield period["rounds"][-1]
        length = period["first"]
        while True:
            yield length
            length = length + period["add"] if "add" in period else length * period["times"]
            length = min(length, period.get("most") or length)

    ends, at = list[int](), begin
    for length in lengths():
        at = min(at + length, end)
        ends.append(at)
        if at == end:
            return ends
    raise AssertionError


class Trial:
    """One case of a run with one seed."""

    def __init__(self, run: dict[str, Any], case: dict[str, Any], data: list[Data], test: Data, seed: int = 1) -> None:
        """data: of each worker, depth first."""
        self.run, self.case, self.seed, self.test = run, case, seed, test
        self.train: dict[str, Any] = {**run["train"], **case.get("train", {})}
        self.T = self.train["iterations"]
        self.nodes = tree_of(run["topology"])
        self.root = self.nodes[0]
        self.workers = [node for node in self.nodes if node.is_worker]
        self.data = dict(zip([w.name for w in self.workers], data, strict=True))
        self.features = data[0][0].shape[1]
        self.sizes = [CLASSES * self.features, CLASSES]
        self.d = sum(self.sizes)
        self.squared = self.train.get("loss") == "squared"
        self.draws: dict[tuple[str, str], np.random.Generator] = {}
        averaged = run.get("evaluation", {}).get("averaged")
        self.after = None if averaged is None else averaged.get("after", 0)
        self.mixing = self._section("mixing")
        start = np.zeros(self.d)
        kept = {"adam": 2, "adamw": 2}.get(self.train.get("optimizer", "sgd"), 1)
        for node in self.nodes:
            node.model = node.received = node.sent = start
            node.moments = np.zeros((kept, self.d))
        self.uploaded = self.downloaded = 0
        self.closest = 1.0
        """How near to a tie any compression came: where numbers are equal but for their last bits, sums in another
        order may keep, or round, another one."""
        self.losses: list[float] = []
        self.iterates, self.num_iterates = np.zeros(self.d), 0

    def _section(self, name: str) -> Any:
        return self.case[name] if name in self.case else self.run.get(name)

    def _draw(self, purpose: str, node: _Node) -> np.random.Generator:
        key = purpose, node.name
        if key not in self.draws:
            self.draws[key] = stream(self.seed, purpose, node.name)
        return self.draws[key]

    # When.

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `curve` that are evaluated."""
        found: list[dict[str, Any]] = []
        every = self.run.get("evaluation", {}).get("every_iterations", 1)
        begin, evaluated = 0, 0
        phases = self.case.get("phases") or [self.case]
        for number, phase in enumerate(phases):
            end = begin + phase["iterations"] if "phases" in self.case and number + 1 < len(phases) else self.T
            self._begin_stage(phase, begin)
            round_begin = begin
            for round_end in round_ends(self.of_root, begin, end):
                for t in range(round_begin + 1, round_end + 1):
                    self._iteration(t, round_begin, is_last=t == round_end)
                if round_end // every > evaluated // every or round_end == self.T:
                    found.append(self._row(round_end))
                    evaluated = round_end
                round_begin = round_end
            begin = end
        return found

    def _begin_stage(self, phase: dict[str, Any], begin: int) -> None:
        periods = phase.get("periods", {"root": phase.get("period")})
        if "hier_avg" in phase:
            K1, K2, S = (phase["hier_avg"][key] for key in ("K1", "K2", "S"))
            lowest = [n for n in self.nodes if n.children and n.children[0].is_worker]
            periods = {"root": K2} | {n.name: K1 for n in lowest if 1 < S < len(self.workers)}
            if len(self.workers) == S:
                periods = {"root": K1}
        if isinstance(periods, list):
            levels: dict[str, Any] = {}
            for node in self.nodes:
                if node.children:
                    depth, up = 0, node.parent
                    while up is not None:
                        depth, up = depth + 1, up.parent
                    levels[node.name] = periods[depth]
            periods = levels
        self.of_root = periods["root"]
        for node in self.nodes:
            node.below, was_server = [], node.period > 0
            period = of(periods, node, "none")
            node.period = 0 if node.is_worker or period == "none" else 1 if node is self.root else period
            if node.period and not was_server:
                node.sent = node.received = self.root.sent
        for node in self.nodes[1:]:
            if node.is_worker or node.period:
                node.above = node.parent
                while not node.above.period:
                    node.above = node.above.parent
                node.above.below.append(node)
        share = phase.get("participation") or self.case.get("participation") or self.train.get("participation", 1)
        self.participation = share
        self.root.share = 1.0
        for node in self.nodes:
            for child, weight in zip(node.below, self._weights(node.below), strict=True):
                child.share = node.share * weight

    def _weights(self, children: list[_Node]) -> list[float]:
        by = (self._section("averaging") or {}).get("by", "workers")

        def size(node: _Node) -> float:
            if node.is_worker:
                return len(self.data[node.name][1]) if by == "samples" else 1
            return sum(map(size, node.below))

        sizes = [1.0 if by == "uniform" else size(child) for child in children]
        return [one / sum(sizes) for one in sizes]

    def _iteration(self, t: int, round_begin: int, is_last: bool) -> None:
        for server in self.nodes:
            begins = t - 1 == round_begin if server is self.root else (t - 1 - round_begin) % (server.period or 1) == 0
            if server.period and begins:
                self._draw_members(server)
        for server in self.nodes:
            for worker in server.below:
                if worker.is_worker:
                    self._maybe_step(worker, worker in server.taking_part, t)
        if self.after is not None and t > self.after:
            self.iterates = self.iterates + sum(w.share * w.model for w in self.workers)
            self.num_iterates += 1
        due = {id(s) for s in self.nodes[1:] if s.period and (t - round_begin) % s.period == 0}
        if is_last:
            self._aggregate(self.root)
            return
        for server in self.nodes[1:]:
            if id(server) in due and id(server.above) not in due:
                self._aggregate(server)

    def _draw_members(self, server: _Node) -> None:
        workers = [child for child in server.below if child.is_worker]
        server.taking_part = server.below
        if self.participation < 1 and workers:
            num = max(1, round(self.participation * len(workers)))
            drawn = self._draw("participation", server).choice(len(workers), num, replace=False)
            server.taking_part = [c for c in server.below if not c.is_worker or workers.index(c) in drawn]

    # A step.

    def rate(self, t: int) -> float:
        rate = self.train["learning_rate"]
        if not isinstance(rate, dict):
            return float(rate)
        initial = rate["initial"]
        if rate["schedule"] == "power":
            return float(initial * t ** -rate["exponent"])
        if rate["schedule"] == "inverse_sqrt":
            return float(initial / math.sqrt(1 + (t - 1) / rate.get("scale", 1.0)))
        if rate["schedule"] == "step":
            return float(initial * rate.get("factor", 0.1) ** sum(t > m for m in rate["milestones"]))
        final = rate.get("final", 0.0)
        cosine = final + (initial - final) * (1 + math.cos(math.pi * (t - 1) / self.T)) / 2
        return cosine * min(1.0, t / rate.get("warmup", 1))

    def loss_and_gradient(self, w: Vector, data: Data) -> tuple[float, Vector, NDArray[Any]]:
        x, y = data
        outputs = x @ w[: self.sizes[0]].reshape(CLASSES, -1).T + w[self.sizes[0] :]
        hot = np.eye(CLASSES)[y]
        if self.squared:
            loss, errors = 0.5 * ((outputs - hot) ** 2).sum(1).mean(), (outputs - hot) / len(y)
        else:
            shifted = outputs - outputs.max(1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            loss, errors = -(logs * hot).sum(1).mean(), (np.exp(logs) - hot) / len(y)
        return float(loss), np.concatenate([(errors.T @ x).ravel(), errors.sum(0)]), outputs

    def _maybe_step(self, worker: _Node, takes_part: bool, t: int) -> None:
        probability = self.train.get("step_probability", 1)
        if isinstance(probability, dict):
            probability = of(probability, worker, 1)
        takes = self._draw("steps", worker).random() < probability
        if not (takes and takes_part):
            return
        profile = worker.spec.get("compute", self.run.get("compute"))
        profile = self.run["profiles"][profile] if isinstance(profile, str) else profile
        worker.at += round(profile["step_s"] * 1e9)
        train, rate, w = self.train, self.rate(t), worker.model
        loss, g, _ = self.loss_and_gradient(w, self.data[worker.name])
        self.losses.append(loss)
        g = g + train.get("proximal", 0) * (w - worker.received)
        if "clip_norm" in train:
            g = g * min(1.0, train["clip_norm"] / (np.linalg.norm(g) + 1e-6))
        if train.get("correction") == "scaffold":
            g = g - worker.control + worker.mean_control
            worker.rates += rate
        decay, optimizer = train.get("weight_decay", 0), train.get("optimizer", "sgd")
        if optimizer == "adamw":
            w = w * (1 - rate * decay)
        else:
            g = g + decay * w
        if optimizer == "sgd":
            m = train.get("momentum", 0) * worker.moments[0] + g
            worker.model, worker.moments = w - rate * m, np.stack([m])
            return
        (b1, b2), epsilon = train.get("betas", (0.9, 0.999)), train.get("epsilon", 1e-8)
        worker.count += 1
        m, v = b1 * worker.moments[0] + (1 - b1) * g, b2 * worker.moments[1] + (1 - b2) * g * g
        worker.moments = np.stack([m, v])
        m, v = m / (1 - b1**worker.count), v / (1 - b2**worker.count)
        worker.model = w - rate * m / (np.sqrt(v) + epsilon)

    # An aggregation.

    def _aggregate(self, server: _Node) -> None:
        """Aggregate a server, all below it first, and send the result down."""
        if self.mixing is not None and server is self.root:
            self._mix()
            return
        self._gather(server)
        if server is self.root:
            self.result = server.model
        self._send_down(server)

    def _gather(self, server: _Node) -> None:
        """Let a server have its result: server.model; server.received stays what all below it began with."""
        models, ready = [], []
        taking_part = server.taking_part
        for child in taking_part:
            if not child.is_worker:
                self._gather(child)
            else:
                child.ready = child.at
                if self.train.get("correction") == "scaffold":
                    change = (child.received - child.model) / child.rates
                    child.control, child.rates = child.control - child.mean_control + change, 0.0
            models.append(self._compressed(child, "up", child.model, child.received))
            num_bytes = self._bytes(child, "up")
            self.uploaded += num_bytes
            ready.append(child.ready + self._way(child, server, num_bytes))
        weights = self._weights(taking_part)
        server.ready = max(ready) + round(server.spec.get("aggregation_s", 0) * 1e9)
        average = sum(p * model for p, model in zip(weights, models, strict=True))
        server.moments = sum(p * child.moments for p, child in zip(weights, taking_part, strict=True))
        server.count = max(child.count for child in taking_part)
        server.mean_control = sum(
            p * (child.control if child.is_worker else child.mean_control)
            for p, child in zip(weights, taking_part, strict=True)
        )
        server.model = self._outer(server, average)

    def _outer(self, server: _Node, average: Any) -> Any:
        rule = of(self._section("servers"), server, {"optimizer": "average"})
        name, x, state = rule["optimizer"], server.sent, server.outer
        if name == "average":
            return average
        delta, eta = x - average, rule.get("learning_rate", 1)
        m = state.get("m", 0.0)
        if name in ("momentum", "nesterov"):
            mu = rule["momentum"]
            m = state["m"] = mu * m + delta
            return x - eta * (m if name == "momentum" else delta + mu * m)
        (b1, b2), epsilon = rule.get("betas", (0.9, 0.99)), rule.get("epsilon", 1e-3)
        v = state.get("v", 0.0)
        m = state["m"] = b1 * m + (1 - b1) * delta
        if name == "adam":
            v = b2 * v + (1 - b2) * delta**2
        elif name == "yogi":
            v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
        else:
            v = v + delta**2
        state["v"] = v
        return x - eta * m / (np.sqrt(v) + epsilon)

    def _send_down(self, server: _Node) -> None:
        """Send a server's model to all below it, and on."""
        server.model = server.sent = self._compressed(server, "down", server.model, server.sent)
        for child in server.below:
            num_bytes = self._bytes(server, "down")
            self.downloaded += num_bytes
            start = server.ready if not child.is_worker else max(server.ready, child.at)
            child.model = child.received = server.model
            child.mean_control = server.mean_control
            arrived = start + self._way(server, child, num_bytes)
            if child.is_worker:
                child.at = arrived
                state = self.train.get("state", "keep")
                if state == "reset":
                    child.moments, child.count = np.zeros_like(child.moments), 0
                elif state == "average":
                    child.moments, child.count = server.moments, server.count
            else:
                child.ready, child.moments, child.count = arrived, server.moments, server.count
                self._send_down(child)

    def _mix(self) -> None:
        hubs = self.root.below
        for hub in hubs:
            self._gather(hub)
        b = self._weights(hubs)
        edges = self._edges(hubs)
        H = np.zeros((len(hubs), len(hubs)))
        degree = [sum(s in edge for edge in edges) for s in range(len(hubs))]
        for s, k in [*edges, *((k, s) for s, k in edges)]:
            H[s, k] = min(1 / (degree[s] + 1), b[k] / b[s] / (degree[k] + 1))
        H += np.diag(1 - H.sum(1))
        weights = self.mixing.get("weights", "metropolis")
        if weights != "metropolis":
            H = np.array(weights, float)
        results, ready = [hub.model for hub in hubs], [hub.ready for hub in hubs]
        self.result = sum(p * result for p, result in zip(b, results, strict=True))
        num_bytes = self._bytes(hubs[0], "up")
        at = [list[int]() for _ in hubs]
        for s, hub in enumerate(hubs):
            at[s].append(ready[s])
            hub.model = sum(h * result for h, result in zip(H[s], results, strict=True))
            for k, other in enumerate(hubs):
                if (min(s, k), max(s, k)) in edges and s != k:
                    self.uploaded += num_bytes
                    at[s].append(ready[k] + self._way(other, hub, num_bytes))
        for s, hub in enumerate(hubs):
            hub.ready = max(at[s])
            self._send_down(hub)
        self.root.ready = max(hub.ready for hub in hubs)

    def _edges(self, hubs: list[_Node]) -> set[tuple[int, int]]:
        graph, num = self.mixing.get("graph", "links"), len(hubs)
        if graph == "complete":
            return {(s, k) for s in range(num) for k in range(s + 1, num)}
        if graph == "ring":
            return {(min(s, (s + 1) % num), max(s, (s + 1) % num)) for s in range(num)}
        names = [hub.name for hub in hubs]
        pairs = [link["between"] for link in self.run["topology"]["links"]] if graph == "links" else graph
        pairs = [(names.index(one), names.index(other)) for one, other in pairs if {one, other} <= set(names)]
        return {(min(pair), max(pair)) for pair in pairs}

    # A message.

    def _compressed(self, node: _Node, direction: str, model: Any, base: Any) -> Any:
        spec = self._spec(node, direction)
        if spec is None:
            return model
        u = model - base + node.left_out.get(direction, 0.0)
        number = node.uploads[direction] = node.uploads.get(direction, 0) + 1
        names = (node.name,) if direction == "up" else (node.name, "down")
        sent = self._C(spec, u, stream(self.seed, "compression", *names, number))
        if spec.get("error_feedback", True):
            node.left_out[direction] = u - sent
        return base + sent

    def _spec(self, node: _Node, direction: str) -> Any:
        spec = of(self._section("compression"), node)
        return spec if spec and spec.get("direction", "up") in (direction, "both") else None

    def _C(self, spec: dict[str, Any], u: Vector, rng: np.random.Generator) -> Vector:
        if spec["method"] == "quantize":
            return np.concatenate([self._quantized(spec, part, rng) for part in np.split(u, [self.sizes[0]])])
        if spec["fraction"] == 1:
            return u
        num, factor = max(1, round(spec["fraction"] * self.d)), 1.0
        if spec["method"] == "top_k":
            chosen = np.argsort(-abs(u), kind="stable")
            kept, lost = abs(u[chosen[num - 1 : num + 1]])
            self.closest = min(self.closest, (kept - lost) / abs(u).max() if kept else 1.0)
            chosen = chosen[:num]
        else:
            chosen = rng.choice(self.d, num, replace=False)
            factor = 1.0 if spec.get("error_feedback", True) else self.d / num
        sent = np.zeros(self.d)
        sent[chosen] = u[chosen] * factor
        return sent

    def _quantized(self, spec: dict[str, Any], u: Vector, rng: np.random.Generator) -> Vector:
        scale, steps = abs(u).max(), 2 ** (spec["bits"] - 1) - 1
        ratio = u / scale * steps if scale else u
        shifted = ratio + (0.5 if spec.get("rounding") == "nearest" else rng.random(len(u)))
        off = abs(shifted - np.round(shifted))[u != 0]
        self.closest = min(self.closest, off.min() / steps if len(off) else 1.0)
        whole = np.round(ratio) if spec.get("rounding") == "nearest" else np.floor(shifted)
        return np.asarray(whole * scale / steps)

    def _bytes(self, node: _Node, direction: str) -> int:
        given, spec = self.run.get("message_bytes", 4 * self.d), self._spec(node, direction)
        if spec is None or spec.get("fraction") == 1:
            copies = 1
            if self.train.get("correction") == "scaffold":
                copies = 2
            elif self.train.get("state") == "average":
                copies += {"adam": 2, "adamw": 2}.get(
                    self.train.get("optimizer", ""), self.train.get("momentum", 0) > 0
                )
            return int(given * copies)
        if spec["method"] == "quantize":
            num = sum(math.ceil(d * spec["bits"] / 8) + 4 for d in self.sizes)
        else:
            num = max(1, round(spec["fraction"] * self.d)) * (8 if spec["method"] == "top_k" else 4)
        return int(-(-given * num // (4 * self.d)))

    def _way(self, one: _Node, other: _Node, num_bytes: int) -> int:
        """Return the nanoseconds from one node to another: over the tree, or a link of the two if that is faster."""

        def joins(ends: list[str]) -> bool:
            pairs = [(one, other), (other, one)]
            return any(ends[0] in (a.name, a.kind) and ends[1] in (b.name, b.kind) for a, b in pairs)

        links = [link for link in self.run["topology"].get("links", []) if joins(link["between"])]
        direct = [self._one_way(link["profile"], num_bytes) for link in links]

        def up(node: _Node) -> list[_Node]:
            return [] if node.parent is None else [node, *up(node.parent)]

        hops = [n for n in up(one) + up(other) if (n in up(one)) != (n in up(other))]
        return min([sum(self._one_way(n.spec["uplink"], num_bytes) for n in hops), *direct])

    def _one_way(self, profile: Any, num_bytes: int) -> int:
        profile = self.run["profiles"][profile] if isinstance(profile, str) else profile
        if "rtt_s" in profile:
            return round(profile["rtt_s"] * 1e9 / 2)
        return round(profile["latency_s"] * 1e9) + round(8 * num_bytes / profile["bandwidth_bps"] * 1e9)

    def _row(self, t: int) -> dict[str, Any]:
        def figures(model: Vector) -> tuple[float, float | None]:
            loss, _, outputs = self.loss_and_gradient(model, self.test)
            second, first = np.sort(outputs)[:, -2:].T
            accuracy = float((outputs.argmax(1) == self.test[1]).mean())
            return loss, None if (first - second < 1e-12).any() else accuracy  # a tie is decided by the last bits

        found: dict[str, Any] = {"iteration": t, "uploaded_bytes": self.uploaded, "downloaded_bytes": self.downloaded}
        found |= {"time_s": max(w.at for w in self.workers), "aggregated_s": self.root.ready}
        found["test_loss"], found["test_accuracy"] = figures(self.result)
        found["train_loss"] = sum(self.losses) / len(self.losses) if self.losses else None
        if self.after is not None and self.num_iterates:
            model = self.iterates / self.num_iterates
            found["averaged_test_loss"], found["averaged_test_accuracy"] = figures(model)
        self.losses = []
        return found
