"""FedYogi (Reddi et al. 2021, arXiv 2003.00295): FedAdam whose v changes by no more than the squared step, so that one
large round does not make all later steps short."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fused_ray.api import Section, ServerOptimiser

Step = NDArray[np.float64]


class FedYogi(Section):
    lr: Annotated[float, Field(gt=0)] = 0.01
    """Learning rate of the server."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean step."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """How slowly v follows the squared step."""
    tau: Annotated[float, Field(gt=0)] = 1e-3
    """Added to the root of v, which begins at this value."""


def step(delta: Step, kept: Mapping[str, Step], settings: FedYogi) -> tuple[Step, Mapping[str, Step]]:
    before = kept or {"m": np.zeros_like(delta), "v": np.full_like(delta, settings.tau**2)}
    m = settings.beta1 * before["m"] + (1 - settings.beta1) * delta
    square = delta * delta
    v = before["v"] - (1 - settings.beta2) * square * np.sign(before["v"] - square)
    return settings.lr * m / (np.sqrt(v) + settings.tau), {"m": m, "v": v}


SERVER = ServerOptimiser(step, FedYogi)
