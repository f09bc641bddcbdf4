"""Scales: an adapter with one value for each output of a layer, by which its weights are scaled: (1 + s) W.

After (IA)^3 (arXiv 2205.05638), which scales activations. It starts at zero, where it changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fused_ray.api import AdapterKind, Made, Making, Reparametrised


@dataclass(frozen=True)
class Scales(Reparametrised):
    def count(self, shape: Sequence[int]) -> int:
        return shape[0]

    def merged(self, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return weight * (1 + values).reshape(-1, *[1] * (weight.dim() - 1))


def scales(making: Making, settings: None) -> Made:
    adapter = Scales.on(making.base, making.names)
    return Made(adapter, np.zeros(adapter.size, np.float32))


KIND = AdapterKind(scales, load=Scales.load)
