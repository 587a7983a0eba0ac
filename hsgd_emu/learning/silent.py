"""Learners without learning: for timing alone, and for replaying what a trial has already learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hsgd_emu.engine.port import Learner, Metrics
from hsgd_emu.errors import RunError


class SilentLearner:
    """Does nothing: the trial yields times only."""

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        pass

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float]) -> None:
        pass

    def hand_down(self, server: int, child: int) -> None:
        pass

    def evaluate(self, server: int, iteration: int) -> Metrics:
        return Metrics()


class RecordedLearner(SilentLearner):
    """Replays a stored trial's figures by iteration; a synchronous schedule's weights do not depend on delays."""

    def __init__(self, metrics: Mapping[int, Metrics]) -> None:
        self.metrics = metrics

    def evaluate(self, server: int, iteration: int) -> Metrics:
        """Return the stored figures.

        Raises:  RunError: the stored trial was not evaluated at this iteration.
        """
        if iteration not in self.metrics:
            raise RunError(f"the stored trial has no evaluation at iteration {iteration}")
        return self.metrics[iteration]


class ResumingLearner:
    """Replays a trial up to a checkpoint, then lets the real learner go on from there.

    The clock is cheap and deterministic, so it runs again from zero; the learning does not.
    """

    def __init__(self, recorded: RecordedLearner, iteration: int, real: Learner) -> None:
        """iteration: of the checkpoint; real: the learner, its state already restored to that iteration."""
        self.recorded, self.iteration, self.real = recorded, iteration, real
        self.current: Learner = recorded

    def local_steps(self, worker: int, iteration: int, num_steps: int) -> None:
        # No step after the checkpoint is asked for before the global aggregation of the checkpoint is over.
        if iteration >= self.iteration:
            self.current = self.real
        self.current.local_steps(worker, iteration, num_steps)

    def aggregate(self, server: int, children: Sequence[int], weights: Sequence[float]) -> None:
        self.current.aggregate(server, children, weights)

    def hand_down(self, server: int, child: int) -> None:
        self.current.hand_down(server, child)

    def evaluate(self, server: int, iteration: int) -> Metrics:
        return self.current.evaluate(server, iteration)
