"""Shrink: entries lose a part of their weight, and training brings back what is needed."""

import numpy as np
from pydantic import Field

from fused_ray.api import Section, Start


class Shrink(Section):
    share: float = Field(default=0.5, gt=0, le=1)
    """What they lose."""


def shrink(weights: np.ndarray, settings: Shrink) -> np.ndarray:
    return -weights * np.float32(settings.share)


START = Start(shrink, Shrink)
