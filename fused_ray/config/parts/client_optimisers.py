"""How clients learn from a gradient: what is known of each without importing it.

A new one is a function in `core/adam.py`, an entry here, and its test. One that another
package brings is such a record there. This door is provisional: what the functions take may still change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fused_ray.config.fields import Moment, Rate, Section
from fused_ray.config.parts.door import Door, Part


@dataclass(frozen=True)
class ClientOptimiser(Part):
    """(parameters, TrainConfig, settings) -> an object with `zero_grad()` and `step()`, made anew each round.

    The parameters are torch tensors, a list; a `torch.optim.Optimizer` will do.
    """


class AdamConfig(Section):
    """Client optimiser `adam`."""

    beta1: Moment = 0.9
    """Decay of the mean gradient."""
    beta2: Moment = 0.999
    """Decay of the mean squared gradient."""
    eps: Rate = 1e-8
    """Added to its root."""


CLIENT_OPTIMISERS: Mapping[str, ClientOptimiser] = {
    "sgd": ClientOptimiser("fused_ray.core.sgd:sgd_of"),
    "adam": ClientOptimiser("fused_ray.core.adam:adam_of", AdamConfig),
}
CLIENT_OPTIMISER = Door(
    *("client optimiser", "fused_ray.client_optimisers", CLIENT_OPTIMISERS, ClientOptimiser),
    must_be="a fused_ray.api.ClientOptimiser",
)
