"""A learner asked by nodes instead of versions: each node has one model, as in Algorithm 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.engine.operations import NOBODY, Held, Learner, Operations, Version
from hsgd_emu.metrics import Metrics


class ByNode:
    """Has the same model at every node at first; what else is asked of it is asked of the learner."""

    learner: Learner
    nodes: Sequence[int]
    operations: Operations
    versions: dict[int, Version]
    known: dict[tuple[int, str], Version]
    """What both ends know, by node and direction where it sends compressed."""

    def __init__(self, learner: Learner, nodes: Sequence[int]) -> None:
        self.learner, self.nodes = learner, nodes
        self.operations = Operations(learner)
        self._begin(self.operations.start())

    def _begin(self, version: Version) -> None:
        self.versions = dict.fromkeys(self.nodes, version)
        self.known = dict.fromkeys(getattr(getattr(self.learner, "setup", None), "senders", ()), version)

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        self.versions[worker] = self.operations.steps(worker, self.versions[worker], iteration, num_steps)

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float], held: Held = NOBODY) -> None:
        below = [self._coded(child, "up") for child in children]
        self.versions[server] = self.operations.combine(server, self.versions[server], below, weights, held)

    def _coded(self, node: int, direction: Direction) -> Version:
        """Return what is received of a node's model, sent compressed where the learner's setup says so."""
        base = self.known.get((node, direction))
        return self.operations.compress(node, direction, self.versions[node], base) if base else self.versions[node]

    def send_down(self, server: int) -> None:
        """Let a server's model be what is received of it; before it is handed down."""
        self.versions[server] = self._coded(server, "down")
        if (server, "down") in self.known:
            self.known[server, "down"] = self.versions[server]

    def hand_down(self, server: int, child: int) -> None:
        self.versions[child] = self.versions[server]
        if (child, "up") in self.known:
            self.known[child, "up"] = self.versions[child]

    def evaluate(self, server: int, iteration: int) -> Metrics:
        return self.operations.evaluate(self.versions[server], iteration)

    def model_of(self, node: int) -> Any:
        return self.learner.model_of(self.versions[node])

    def weights_hash(self, node: int) -> str:
        return self.learner.weights_hash(self.versions[node])

    def state(self) -> dict[str, Any]:
        return {"operations": self.operations.count, **self.learner.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state in which all nodes had one model."""
        (number,) = state["versions"]
        version = Version(number, b"")
        self.learner.restore(state, {number: version})
        self._begin(version)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.learner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ByNode.__annotations__:
            super().__setattr__(name, value)
        else:
            setattr(self.learner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.learner, name)
