"""How models learn: the optimisers of clients and server, aggregates and schedules, known without importing them.

A new one is a function in `core`, an entry here, and its test; one that another package brings is such a record there.
These doors are provisional: what their functions take may still change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from fused_ray.config.fields import Count, Rate, Real, Section
from fused_ray.config.parts import Door, imported

Moment = Annotated[Real, Field(ge=0, lt=1)]
"""How much of a running mean stays from step to step."""


@dataclass(frozen=True)
class Part:
    """A function, or where it is (package.module:function), and the settings of its own, which it takes last.

    `section` is a subclass of `fused_ray.config.Section`; without one, None is taken.
    """

    entry: str | Callable[..., Any] | None
    """None: there is nothing to do."""
    section: type[BaseModel] | None = None

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        assert self.entry is not None
        function: Callable[..., Any] = imported(self.entry) if isinstance(self.entry, str) else self.entry
        return function


@dataclass(frozen=True)
class ClientOptimiser(Part):
    """(parameters, TrainConfig, settings) -> an object with `zero_grad()` and `step()`, made anew each round.

    The parameters are torch tensors, a list; a `torch.optim.Optimizer` will do.
    """


@dataclass(frozen=True)
class ServerOptimiser(Part):
    """(delta, kept, settings) -> the step that is added to the model, and what is kept for the next round.

    delta, float64 [L], is how far the clients' average lies from the model they had, over the values that learn;
    `kept` has arrays by name, none in a phase's first round.
    """


@dataclass(frozen=True)
class Aggregate(Part):
    """(updates, examples, settings) -> float32 [L], made of what single clients sent: updates, each float32 [L].

    The clients are in the order of their numbers; `examples` says on how many each trained.
    """


@dataclass(frozen=True)
class Schedule(Part):
    """(done, rounds, settings) -> what the learning rate is multiplied by, above 0, after `done` of so many rounds."""


class AdamConfig(Section):
    """Client optimiser `adam`."""

    beta1: Moment = 0.9
    """Decay of the mean gradient."""
    beta2: Moment = 0.999
    """Decay of the mean squared gradient."""
    eps: Rate = 1e-8
    """Added to its root."""


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


class TrimmedConfig(Section):
    """Aggregate `trimmed`."""

    share: Annotated[Real, Field(gt=0, lt=0.5)] = 0.1
    """Share of the clients that is left out at each end of every value, their number rounded down."""


class StepConfig(Section):
    """Schedule `step`."""

    every: Count = 10
    """Rounds after which the learning rate falls."""
    factor: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    """What it is multiplied by then."""


CLIENT_OPTIMISERS: Mapping[str, ClientOptimiser] = {
    "sgd": ClientOptimiser("fused_ray.core.sgd:sgd_of"),
    "adam": ClientOptimiser("fused_ray.core.adam:adam_of", AdamConfig),
}
SERVER_OPTIMISERS: Mapping[str, ServerOptimiser] = {
    "mean": ServerOptimiser(None),
    "fedavgm": ServerOptimiser("fused_ray.core.server_optimisers:fedavgm", FedAvgMConfig),
    "fedadam": ServerOptimiser("fused_ray.core.server_optimisers:fedadam", FedAdamConfig),
}
AGGREGATES: Mapping[str, Aggregate] = {
    "mean": Aggregate(None),  # the exact sum has it, and no update travels by itself
    "median": Aggregate("fused_ray.core.aggregates:median"),
    "trimmed": Aggregate("fused_ray.core.aggregates:trimmed_mean", TrimmedConfig),
}
SCHEDULES: Mapping[str, Schedule] = {
    "constant": Schedule("fused_ray.core.schedules:constant"),
    "cosine": Schedule("fused_ray.core.schedules:cosine"),
    "linear": Schedule("fused_ray.core.schedules:linear"),
    "step": Schedule("fused_ray.core.schedules:step", StepConfig),
}
CLIENT_OPTIMISER = Door(
    *("client optimiser", "fused_ray.client_optimisers", CLIENT_OPTIMISERS, ClientOptimiser),
    must_be="a fused_ray.api.ClientOptimiser",
)
SERVER_OPTIMISER = Door(
    *("server optimiser", "fused_ray.server_optimisers", SERVER_OPTIMISERS, ServerOptimiser),
    must_be="a fused_ray.api.ServerOptimiser",
)
AGGREGATE = Door(
    *("aggregate", "fused_ray.aggregates", AGGREGATES, Aggregate),
    must_be="a fused_ray.api.Aggregate",
)
SCHEDULE = Door(
    *("schedule", "fused_ray.schedules", SCHEDULES, Schedule),
    must_be="a fused_ray.api.Schedule",
)
