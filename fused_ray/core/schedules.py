"""Learning rates from round to round of a phase.

A schedule says what the learning rate is multiplied by after `done` of `rounds` rounds, those of a warm-up not counted.
"""

from __future__ import annotations

import math

from fused_ray.config import TrainConfig
from fused_ray.config.parts.schedules import StepConfig


def scheduled(train: TrainConfig, round: int, rounds: int) -> TrainConfig:
    """How clients train in a round (from 1) of so many: at the round's learning rate.

    In round r of a warm-up of W it is r / (W + 1) of the whole rate, after it what the schedule says.
    """
    if round <= train.warmup:
        factor = round / (train.warmup + 1)
    else:
        schedule, settings = train.schedule_part
        factor = schedule.function(round - train.warmup - 1, rounds - train.warmup, settings)
    return train.model_copy(update={"lr": train.lr * factor})


def constant(done: int, rounds: int, settings: None) -> float:
    """1."""
    return 1.0


def cosine(done: int, rounds: int, settings: None) -> float:
    """(1 + cos(pi done / rounds)) / 2: from 1 down to what is left above 0 (Loshchilov & Hutter, arXiv 1608.03983)."""
    return (1 + math.cos(math.pi * done / rounds)) / 2


def linear(done: int, rounds: int, settings: None) -> float:
    """1 - done / rounds."""
    return 1 - done / rounds


def step(done: int, rounds: int, settings: StepConfig) -> float:
    """`factor` for every `every` rounds."""
    return float(settings.factor ** (done // settings.every))
