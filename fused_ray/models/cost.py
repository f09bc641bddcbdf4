"""What a model's forward pass on one example takes, stage by stage, in operations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fused_ray.config import ModelConfig
from fused_ray.errors import ConfigError
from fused_ray.models import Shape, build, seeded
from fused_ray.models.anatomy import probing, staged


@dataclass(frozen=True)
class Cost:
    """Operations of the forward pass on one example, a multiplication and an addition counted as two."""

    stages: tuple[tuple[tuple[str, ...], int], ...]
    """Of each stage its layers and its operations, from the input to the output."""

    @property
    def forward(self) -> int:
        """Of the whole model."""
        return sum(operations for _, operations in self.stages)

    def share_from(self, layers: Collection[str]) -> float:
        """The share of it from the lowest stage with one of these layers on; without any layer, all of it."""
        for at, (names, _) in enumerate(self.stages):
            if not layers or set(layers) & set(names):
                return sum(operations for _, operations in self.stages[at:]) / self.forward
        raise ValueError(f"none of {', '.join(sorted(layers))} is in a stage")


def cost(config: ModelConfig, shape: Sequence[int], classes: int) -> Cost:
    """Count a model's products of matrices and convolutions. Raises ConfigError where it has none to count."""
    return _cost(config, tuple(shape), classes)


@lru_cache(maxsize=16)
def _cost(config: ModelConfig, shape: Shape, classes: int) -> Cost:
    with seeded(0):
        model = build(config, shape, classes)
    pieces, _ = staged(model, shape, torch.contiguous_format)
    found = []
    # without gradients attention is one call, and but for MATH its products are another: neither would be counted
    with probing(model, shape, torch.contiguous_format, gradient=True) as x, sdpa_kernel(SDPBackend.MATH):
        rows = len(x)
        for piece in pieces:
            with FlopCounterMode(display=False) as counter:
                x = piece.forward(x)
            found.append((piece.layers, counter.get_total_flops() // rows))
    counted = Cost(tuple(found))
    if not counted.forward:
        raise ConfigError(
            f"{config.where}: what it computes cannot be counted (no product of matrices, no convolution), so a "
            "deployment's clock cannot time it; set deployment.profile=none"
        )
    return counted
