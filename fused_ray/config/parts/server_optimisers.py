"""What the server makes of the clients' average: what is known of each without importing it.

A new one is a function in `core/server_optimisers.py`, an entry here, and its test. One that another
package brings is such a record there. This door is provisional: what the functions take may still change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fused_ray.config.fields import Moment, Rate, Section
from fused_ray.config.parts.door import Door, Part


@dataclass(frozen=True)
class ServerOptimiser(Part):
    """(delta, kept, settings) -> the step that is added to the model, and what is kept for the next round.

    delta, float64 [L], is how far the clients' average lies from the model they had, over the values that learn;
    `kept` has arrays by name, none in a phase's first round.
    """


class FedAvgMConfig(Section):
    """Server optimiser `fedavgm`."""

    lr: Rate = 1.0
    """Learning rate of the server."""
    momentum: Moment = 0.9
    """Momentum of the server."""


class FedAdamConfig(Section):
    """Server optimiser `fedadam`."""

    lr: Rate = 0.01
    """Learning rate of the server."""
    beta1: Moment = 0.9
    """Decay of the mean step."""
    beta2: Moment = 0.99
    """Decay of the mean squared step."""
    tau: Rate = 1e-3
    """Added to its root, which begins at this value: the larger, the less the steps adapt."""


SERVER_OPTIMISERS: Mapping[str, ServerOptimiser] = {
    "mean": ServerOptimiser(None),
    "fedavgm": ServerOptimiser("fused_ray.core.server_optimisers:fedavgm", FedAvgMConfig),
    "fedadam": ServerOptimiser("fused_ray.core.server_optimisers:fedadam", FedAdamConfig),
}
SERVER_OPTIMISER = Door(
    *("server optimiser", "fused_ray.server_optimisers", SERVER_OPTIMISERS, ServerOptimiser),
    must_be="a fused_ray.api.ServerOptimiser",
)
