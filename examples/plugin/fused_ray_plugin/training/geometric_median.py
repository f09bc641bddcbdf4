"""The geometric median of the clients' models, weighted by examples: robust aggregation (Pillutla et al., arXiv
1912.13445), by their smoothed Weiszfeld algorithm. It needs all values at once, where the median takes each alone."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fused_ray.api import Aggregate, Section, norm


class GeometricMedian(Section):
    steps: Annotated[int, Field(ge=1, le=1000)] = 8
    """Steps of the algorithm."""
    smoothing: Annotated[float, Field(gt=0)] = 1e-6
    """A distance counts as at least so much."""


def median(
    updates: Sequence[NDArray[np.float32]], examples: Sequence[int], settings: GeometricMedian
) -> NDArray[np.float32]:
    weights = np.array(examples, np.float64)
    for _ in range(settings.steps):
        middle = np.zeros(len(updates[0]))
        for update, weight in zip(updates, weights / weights.sum(), strict=True):  # in the order of the clients
            middle += weight * update
        distances = [max(settings.smoothing, norm(update - middle)) for update in updates]
        weights = np.array(examples) / distances
    return middle.astype(np.float32)


AGGREGATE = Aggregate(median, GeometricMedian)
