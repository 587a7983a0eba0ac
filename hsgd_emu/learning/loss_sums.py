"""Losses of workers' steps, summed until the evaluation that they count for.

Some steps may be taken before an evaluation that they lie behind: they count for the one after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hsgd_emu.learning.requests import Steps


class LossSums:
    """By evaluation: for each worker, the sum of its mini-batch losses and their number, (W,) each."""

    def __init__(self, num_workers: int, device: torch.device) -> None:
        self.num_workers, self.device = num_workers, device
        self.sums: dict[int, torch.Tensor] = {}
        """float64, on the device."""
        self.counts: dict[int, torch.Tensor] = {}
        """int64, on the CPU."""

    def add(self, requests: Sequence[Steps], losses_W: torch.Tensor, num_steps: int) -> None:
        """Add the sums of the losses of so many steps of each request's worker."""
        first = requests[0].evaluated
        if all(request.evaluated == first for request in requests):
            self._add(first, [request.place for request in requests], losses_W, num_steps)
            return
        for at in sorted({request.evaluated for request in requests}):
            chosen = [number for number, request in enumerate(requests) if request.evaluated == at]
            self._add(at, [requests[number].place for number in chosen], losses_W[chosen], num_steps)

    def _add(self, at: int, workers: list[int], losses: torch.Tensor, num_steps: int) -> None:
        if at not in self.sums:
            self.sums[at] = torch.zeros(self.num_workers, dtype=torch.float64, device=self.device)
            self.counts[at] = torch.zeros(self.num_workers, dtype=torch.int64)
        self.sums[at][workers] += losses
        self.counts[at][workers] += num_steps

    def mean(self, iteration: int) -> float | None:
        """Return the mean of all losses until an evaluation, and forget them; None: there are none."""
        # Mostly one; more where the one before was to be the last, and then the trial was made longer.
        due = [at for at in sorted(self.sums) if at <= iteration]
        total = sum(float(self.sums.pop(at).sum()) for at in due)
        return total / sum(int(self.counts.pop(at).sum()) for at in due) if due else None

    def of_workers(self, iteration: int) -> list[float | None]:
        """Return the mean of each worker's losses until an evaluation, before they are forgotten."""
        due = [at for at in self.sums if at <= iteration]
        sums = sum((self.sums[at].cpu() for at in due), torch.zeros(self.num_workers, dtype=torch.float64))
        counts = sum((self.counts[at] for at in due), torch.zeros(self.num_workers, dtype=torch.int64))
        return [total / num if num else None for total, num in zip(sums.tolist(), counts.tolist(), strict=True)]

    def state(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Return sums and numbers by evaluation, on the CPU."""
        return {at: (self.sums[at].cpu().clone(), self.counts[at].clone()) for at in sorted(self.sums)}

    def restore(self, state: Mapping[int, Any]) -> None:
        self.sums = {at: sums.to(self.device) for at, (sums, _) in state.items()}
        self.counts = {at: counts.clone() for at, (_, counts) in state.items()}
