"""PyTorch's RMSprop as the clients' optimiser."""

import torch
from pydantic import Field

from fused_ray.api import ClientOptimiser, Section, TrainConfig


class RMSprop(Section):
    alpha: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the mean squared gradient."""


def optimiser(parameters: list[torch.Tensor], train: TrainConfig, settings: RMSprop) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=train.lr, alpha=settings.alpha, weight_decay=train.weight_decay)


CLIENT = ClientOptimiser(optimiser, RMSprop)
