"""Where small federations begin, and how many rounds they have."""

from __future__ import annotations

from fused_ray import models
from fused_ray.core import state


def initial_arrays(data, seed=0):
    return state.arrays(models.initialise("lenet", (1, 28, 28), data.classes, seed, "init"))


def initial(data, seed=0):
    return state.flatten(initial_arrays(data, seed))
