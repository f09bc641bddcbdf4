"""How clients train."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from fused_ray.config.fields import Count, Decay, Rate, Real, Rounds, Section
from fused_ray.config.parts.client_optimisers import CLIENT_OPTIMISER, ClientOptimiser
from fused_ray.config.parts.door import chosen, found_by
from fused_ray.config.parts.schedules import SCHEDULE, Schedule


class TrainConfig(Section):
    """Local training, in pre-training, ranking, unlearning and retraining; a fresh optimiser each round."""

    lr: Rate = 0.02
    """Learning rate."""
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    """SGD momentum."""
    weight_decay: Decay = 5e-4
    """L2 penalty."""
    batch_size: Count = 16
    """Examples a step."""
    local_epochs: Count = 1
    """Passes over a client's data a round, in unlearning too."""
    local_steps: Count | None = None
    """Batches a client and round instead of passes over its data, however much it holds; unset: local_epochs."""
    schedule: Annotated[str, found_by(SCHEDULE)] = "constant"
    """Learning rates over a phase's rounds: constant, cosine, linear, step; or your own, package.module:object."""
    schedule_args: dict[str, Any] = Field(default={})
    """Settings of the schedule, such as every (rounds) and factor of step."""
    warmup: Rounds = 0
    """Rounds at a phase's beginning over which the learning rate rises evenly; the one after them has all of it."""
    optimiser: Annotated[str, found_by(CLIENT_OPTIMISER)] = "sgd"
    """Of whole models: sgd, adam; or your own, package.module:object. An adapter's values are trained by sgd."""
    optimiser_args: dict[str, Any] = Field(default={})
    """Settings of the optimiser, such as beta1, beta2 and eps of adam."""
    proximal: Annotated[Real, Field(ge=0, le=1e3)] = 0.0
    """FedProx: a client's loss has this times half the squared distance to the round's model; whole models only."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # settings of parts are mappings

    @model_validator(mode="after")
    def _options(self) -> TrainConfig:
        self.schedule_part, self.optimiser_part  # noqa: B018  either raises where its settings are wrong
        return self

    @property
    def schedule_part(self) -> tuple[Schedule, Any]:
        """The schedule, and its settings as its own section."""
        return chosen(SCHEDULE, self.schedule, self.schedule_args, "schedule_args")

    @property
    def optimiser_part(self) -> tuple[ClientOptimiser, Any]:
        """The optimiser, and its settings as its own section."""
        return chosen(CLIENT_OPTIMISER, self.optimiser, self.optimiser_args, "optimiser_args")

    def steps(self, examples: int) -> int:
        """Batches a round of a client with so many examples."""
        if self.local_steps is not None:
            return self.local_steps if examples else 0
        return self.local_epochs * -(-examples // self.batch_size)

    def in_part(self, share: float) -> TrainConfig:
        """The same with so much of the epochs, or of the steps, rounded up."""
        name = "local_epochs" if self.local_steps is None else "local_steps"
        return self.model_copy(update={name: math.ceil(share * getattr(self, name))})

    def in_epochs(self, count: int, **more: Any) -> TrainConfig:
        """The same for so many passes over the data, however many steps that is, and with `more` fields changed."""
        return self.model_copy(update={"local_epochs": count, "local_steps": None, **more})

    def shown(self, examples: int) -> int:
        """Examples that these batches show, repeats counted; the last batch of a pass may be short."""
        if not examples:
            return 0
        passes, more = divmod(self.steps(examples), -(-examples // self.batch_size))
        return passes * examples + more * self.batch_size
