"""How much of the remaining data unlearning uses."""

from __future__ import annotations

from typing import Literal

from fused_ray.config import RunConfig
from fused_ray.types import On, Remaining


def used(config: RunConfig, on: Literal["held", "retained"]) -> On:
    """What a client uses when unlearning of what it holds, or keeps: all, or `unlearn.retain` of what it keeps."""
    share = config.unlearn.retain
    if share == 1:
        return on
    return Remaining(share, config.seed, herding=config.unlearn.retain_by == "herding", forgotten=on == "held")
