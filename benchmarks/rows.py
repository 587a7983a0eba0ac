"""The table of `learning.py`: what was measured of each workload and size, and the targets it is held to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

VARIANTS = ("conventional", "readable", "batched")
_GREY = {(10, False): (4.0, 6.0), (50, False): (4.0, 6.0)}
_CIFAR = {(n, evaluated): (least, 8.0) for n in (10, 50, 100) for evaluated, least in ((False, 4.2), (True, 5.0))}
TARGETS: dict[str, dict[str, dict[tuple[int, bool], tuple[float, float]]]] = {
    "cpu": {
        "mlp": {(50, False): (60.0, 90.0)},
        "lenet28": _GREY,
        "femnist_cnn": _GREY,
        "cifar_cnn": _CIFAR,
        "vgg11": {(10, False): (4.0, 5.0)},
    },
    "cuda": {"vgg11": {(10, False): (8.0, 15.0), (10, True): (30.0, 60.0)}},
}
"""By device, workload, (workers, with evaluation): (at least, aim) of the ratio to the conventional loop."""


@dataclass(frozen=True)
class Row:
    """One workload and size: host seconds per round of each variant's turns, in the order they were taken."""

    workload: str
    num_workers: int
    num_steps: int
    evaluated: bool
    engine: str
    round_wall_s: dict[str, list[float]]

    def median_s(self, variant: str) -> float | None:
        """Return a variant's median seconds per round, None if it was not measured."""
        turns = self.round_wall_s.get(variant)
        return statistics.median(turns) if turns else None

    def steps_per_s(self, variant: str) -> float | None:
        """Return a variant's worker-steps per second."""
        median_s = self.median_s(variant)
        return self.num_workers * self.num_steps / median_s if median_s else None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the conventional loop the batched learner is."""
        slow, fast = self.median_s("conventional"), self.median_s("batched")
        return slow / fast if slow and fast else None

    @property
    def iteration_ms(self) -> float | None:
        """What one step of all workers takes the batched learner, its share of everything else included."""
        median_s = self.median_s("batched")
        return median_s / self.num_steps * 1000 if median_s else None


def tables(rows: Sequence[Row], device: str) -> str:
    """Return the figures without and with evaluation."""
    head = f"| workload | n | {' | '.join(VARIANTS)} | ratio | at least | aim | ms/iteration | turns | engine |"
    rule = "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
    training = [_line(row, device, row.steps_per_s) for row in rows if not row.evaluated]
    evaluated = [_line(row, device, row.median_s) for row in rows if row.evaluated]
    lines: list[str] = []
    if training:
        lines += ["Training, worker-steps/s (ratio: batched to conventional):", "", head, rule, *training, ""]
    if evaluated:
        title = "Training, and evaluation of the whole test set every round, seconds per round:"
        lines += [title, "", head, rule, *evaluated, ""]
    return "\n".join(lines)


def _line(row: Row, device: str, figure: Callable[[str], float | None]) -> str:
    target = TARGETS[device].get(row.workload, {}).get((row.num_workers, row.evaluated), (None, None))
    cells = [row.workload, str(row.num_workers), *(_figure(figure(variant)) for variant in VARIANTS)]
    cells += [_figure(value) for value in (row.ratio, *target, row.iteration_ms)]
    return f"| {' | '.join([*cells, str(len(next(iter(row.round_wall_s.values())))), row.engine])} |"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
