"""Adam (Kingma & Ba 2015, arXiv 1412.6980), by PyTorch's own function, for the reason that core.sgd gives."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.optim.adam import adam

from fused_ray.config import TrainConfig
from fused_ray.config.parts.client_optimisers import AdamConfig


class Adam:
    """Steps on `parameters`, with the bits of `torch.optim.Adam`; the L2 penalty is part of the gradient."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, weight_decay: float, settings: AdamConfig
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.weight_decay, self.settings = lr, weight_decay, settings
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        # where PyTorch's function reads them
        self.steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """In place; a parameter without a gradient stays as it is."""
        moved = [place for place, parameter in enumerate(self.parameters) if parameter.grad is not None]
        adam(
            [self.parameters[place] for place in moved],
            [gradient for parameter in self.parameters if (gradient := parameter.grad) is not None],
            [self.means[place] for place in moved],
            [self.squares[place] for place in moved],
            [],
            [self.steps[place] for place in moved],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=self.settings.beta1,
            beta2=self.settings.beta2,
            lr=self.lr,
            weight_decay=self.weight_decay,
            eps=self.settings.eps,
            maximize=False,
        )


def adam_of(parameters: list[torch.Tensor], train: TrainConfig, settings: AdamConfig) -> Adam:
    """The client optimiser `adam`."""
    return Adam(parameters, train.lr, train.weight_decay, settings)
