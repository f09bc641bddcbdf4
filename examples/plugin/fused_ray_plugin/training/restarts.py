"""Cosine with warm restarts (Loshchilov & Hutter, arXiv 1608.03983): the rate falls, and begins anew every so often."""

import math

from pydantic import Field

from fused_ray.api import Schedule, Section


class Restarts(Section):
    every: int = Field(default=5, ge=1)
    """Rounds from one beginning to the next."""


def restarts(done: int, rounds: int, settings: Restarts) -> float:
    return (1 + math.cos(math.pi * (done % settings.every) / settings.every)) / 2


SCHEDULE = Schedule(restarts, Restarts)
