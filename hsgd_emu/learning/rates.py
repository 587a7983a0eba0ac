"""Learning-rate schedules: the rate of the step after iteration t."""

from __future__ import annotations

import math

from hsgd_emu.config.run_schema import CosineRate, InverseSqrtRate, PowerRate, StepRate, TrainSpec


def has_one_rate(train: TrainSpec) -> bool:
    """Tell whether all steps have the same learning rate."""
    return isinstance(train.learning_rate, int | float)


def learning_rate(train: TrainSpec, iteration: int) -> float:
    """Return the learning rate (gamma in equation (4)) of the step after `iteration`, 0 to iterations - 1."""
    rate = train.learning_rate
    if isinstance(rate, StepRate):
        return rate.initial * rate.factor ** sum(iteration >= milestone for milestone in rate.milestones)
    if isinstance(rate, CosineRate):
        cosine = (1 + math.cos(math.pi * iteration / train.iterations)) / 2
        warm = min(1.0, (iteration + 1) / rate.warmup) if rate.warmup else 1.0
        return warm * (rate.final + (rate.initial - rate.final) * cosine)
    if isinstance(rate, InverseSqrtRate):
        return rate.initial / math.sqrt(1 + iteration / rate.scale)
    if isinstance(rate, PowerRate):
        return float(rate.initial * (iteration + 1) ** -rate.exponent)
    return float(rate)
