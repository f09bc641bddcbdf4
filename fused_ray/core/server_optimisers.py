"""Server optimisers: steps on the mean update as if it were a gradient, downhill (Reddi et al. 2021, arXiv 2003.00295).

`delta` is w_mean - w, minus the pseudo-gradient, over the values that learn, float64. Nothing but operations on single
values is done, each of them rounded as IEEE 754 says: the same bits on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fused_ray.config.parts.server_optimisers import FedAdamConfig, FedAvgMConfig

Step = NDArray[np.float64]
Kept = Mapping[str, Step]


def fedavgm(delta: Step, kept: Kept, settings: FedAvgMConfig) -> tuple[Step, Kept]:
    """Momentum (Hsu et al. 2019, arXiv 1909.06335): m = momentum * m + delta, and the step is lr * m."""
    m = settings.momentum * kept["m"] + delta if kept else delta
    return settings.lr * m, {"m": m}


def fedadam(delta: Step, kept: Kept, settings: FedAdamConfig) -> tuple[Step, Kept]:
    """Algorithm 2 of the paper, which corrects no bias: m begins at 0, v at tau**2.

    m = beta1 m + (1 - beta1) delta, v = beta2 v + (1 - beta2) delta**2, and the step is lr * m / (sqrt(v) + tau).
    """
    before = kept or {"m": np.zeros_like(delta), "v": np.full_like(delta, settings.tau * settings.tau)}
    m = settings.beta1 * before["m"] + (1 - settings.beta1) * delta
    v = settings.beta2 * before["v"] + (1 - settings.beta2) * (delta * delta)
    return settings.lr * m / (np.sqrt(v) + settings.tau), {"m": m, "v": v}
