"""SGD with momentum, by PyTorch's own function without `torch.optim.SGD` around it.

The class loads PyTorch's compiler the first time that one is made: 2.5 seconds in every process, for nothing here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim.sgd import sgd

from fused_ray.config import TrainConfig


class SGD:
    """Steps on `parameters`, with the bits of `torch.optim.SGD`; each starts without momentum."""

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        fused: bool | None = None,
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.momentum, self.weight_decay, self.fused = lr, momentum, weight_decay, fused
        self.velocities: dict[int, torch.Tensor | None] = {}

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """In place; a parameter without a gradient stays as it is."""
        moved = [(place, p) for place, p in enumerate(self.parameters) if p.grad is not None]
        velocities = [self.velocities.get(place) for place, _ in moved]
        sgd(
            [p for _, p in moved],
            [p.grad for _, p in moved if p.grad is not None],
            velocities,
            fused=self.fused,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        self.velocities |= {place: velocity for (place, _), velocity in zip(moved, velocities, strict=True)}


def sgd_of(parameters: list[torch.Tensor], train: TrainConfig, settings: None) -> SGD:
    """The client optimiser `sgd`."""
    return SGD(parameters, train.lr, train.momentum, train.weight_decay, fused=True)
