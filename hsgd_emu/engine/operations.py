"""Learning as a log of operations on versions: what the clock plane asks of the learning plane.

A version is a model at one moment; a message carries a version, and handing a model down is passing its version on.
Operations are requests: a learner may carry them out later and together, as long as the result is the same.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakValueDictionary

from hsgd_emu.config.server_schema import Direction
from hsgd_emu.errors import RunError
from hsgd_emu.metrics import Metrics

_STEPS = struct.Struct("<qqq")
_SENT = struct.Struct("<8sq?q")
_HASH_BYTES = hashlib.sha256().digest_size


class Version:
    """A model, by what it has become of; whoever will still need it holds it.

    number: of the operation that makes it, 0 for the initial model; key: tells its operation and, through theirs, all
    operations that led to it; register: where its learner has it, None before it is made.
    """

    __slots__ = ("__weakref__", "key", "number", "register")

    def __init__(self, number: int, key: bytes) -> None:
        self.number, self.key = number, key
        self.register: Any = None


class Held(NamedTuple):
    """What the models of those who sit out a phase, and so hold what they received last, weigh in a server's average
    over all its children; the phase is the iterations begin + 1 ... end."""

    share: float
    begin: int
    end: int


NOBODY = Held(0.0, 0, 0)
NOTHING = Version(-1, b"")
"""Stands where no version is."""


class Learner(Protocol):
    """What learns, as the engine sees it. Nodes are numbered as in the topology (depth first).

    A version lives as long as somebody refers to it: the learner keeps what it needs to make those, and no more.
    """

    def start(self, version: Version) -> None:
        """Let a version be the initial model."""

    def steps(self, made: Version, worker: int, version: Version, iteration: int, num_steps: int) -> None:
        """Make a version: steps iteration + 1 ... iteration + num_steps of a worker from a version (equation (4))."""

    def combine(
        self,
        made: Version,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> None:
        """Make a version: the weighted average of versions, at a server; the weights sum to 1.

        begun: what the server sent down last, or begins with: the versions came of it; held: by those who sit out.
        """

    def compress(self, made: Version, node: int, direction: Direction, version: Version, base: Version) -> None:
        """Make a version: base + C(version - base + e), what is received of a version that a node sends compressed.

        base: what both ends know; e: what the node did not send that way before.
        """

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        """Return the figures of a version after `iteration` iterations."""

    def restore(self, state: Mapping[str, Any], versions: Mapping[int, Version]) -> None:
        """Go on from a stored state (see `Operations.count`); versions: by number, those that are still needed."""


class Operations:
    """The log of one trial's operations. A learner carries them out, or nobody: then the trial takes time only.

    recorded: figures by iteration where they are known already; state: of `learner`, with the number of `operations`
    that had led to it: these are passed over, and it goes on from there.
    """

    def __init__(
        self,
        learner: Learner | None = None,
        recorded: Mapping[int, Metrics] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.learner = learner if state is None else None
        self.recorded = recorded
        self.count = 0
        """Operations so far, evaluations included: a checkpoint says after how many it was made."""
        self.final: Version | None = None
        """The global model at the end."""
        self._hash = hashlib.sha256()
        self._headers: dict[int, tuple[Sequence[float], bytes]] = {}
        """By server: the weights of its last average, and what is hashed of them."""
        self._learner, self._resumes = learner, state
        self._versions: WeakValueDictionary[int, Version] = WeakValueDictionary()

    def start(self) -> Version:
        """Return the initial model."""
        learner, made = self.learner, self._version(b"")
        if learner is not None:
            learner.start(made)
        return made

    def steps(self, worker: int, version: Version, iteration: int, num_steps: int) -> Version:
        """Return what becomes of a version by a worker's steps iteration + 1 ... iteration + num_steps."""
        key = version.key
        if len(key) > _HASH_BYTES:
            key = hashlib.sha256(key).digest()
        # A version made by steps is mostly one of many that are combined: they are hashed together then.
        key = _STEPS.pack(worker, iteration, num_steps) + key
        learner, made = self.learner, self._version(key)
        if learner is not None:
            learner.steps(made, worker, version, iteration, num_steps)
        return made

    def combine(
        self,
        server: int,
        begun: Version,
        versions: Sequence[Version],
        weights: Sequence[float],
        held: Held = NOBODY,
    ) -> Version:
        """Return the weighted average of versions, made at a server that has sent down `begun`."""
        known, header = self._headers.get(server, (None, b""))
        if known is not weights:  # mostly the same list again
            header = struct.pack(f"<qq{len(weights)}d", server, len(versions), *weights)
            self._headers[server] = weights, header
        key = hashlib.sha256(header + b"".join([version.key for version in versions])).digest()
        learner, made = self.learner, self._version(key)
        if learner is not None:
            learner.combine(made, server, begun, versions, weights, held)
        return made

    def compress(self, node: int, direction: Direction, version: Version, base: Version) -> Version:
        """Return what is received of a version that a node sends compressed; base: what both ends know.

        That is what the node last received from where it sends to (up), or last sent there itself (down).
        """
        header = _SENT.pack(b"compress", node, direction == "down", len(version.key))
        learner, made = self.learner, self._version(hashlib.sha256(header + version.key + base.key).digest())
        if learner is not None:
            learner.compress(made, node, direction, version, base)
        return made

    def evaluate(self, version: Version, iteration: int) -> Metrics:
        """Return the figures of a version after `iteration` iterations, recorded ones where nobody learns.

        Raises:  RunError: they are to be recorded ones, and there are none at this iteration.
        """
        self._hash.update(struct.pack("<q", iteration) + version.key)
        learner = self.learner
        self.count += 1
        self._passed_over()
        if learner is not None:
            return learner.evaluate(version, iteration)
        if self.recorded is None:
            return Metrics()
        if iteration not in self.recorded:
            raise RunError(f"the stored trial has no evaluation at iteration {iteration}")
        return self.recorded[iteration]

    def digest(self) -> str:
        """Return the hash (SHA-256, hex) of what was evaluated, and so of all operations that had to do with it."""
        return self._hash.hexdigest()

    def _version(self, key: bytes) -> Version:
        made = Version(self.count, key)
        self.count += 1
        if self._resumes is not None:
            self._versions[made.number] = made
            self._passed_over()
        return made

    def _passed_over(self) -> None:
        if self._resumes is not None and self.count == self._resumes["operations"]:
            assert self._learner is not None
            self._learner.restore(self._resumes, self._versions)
            self.learner, self._resumes = self._learner, None
            self._versions.clear()
