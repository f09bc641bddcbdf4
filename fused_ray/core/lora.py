"""Low-rank adapters: W + (alpha / rank) * B A beside each adapted layer's weight (LoRA, arXiv 2106.09685).

FUSED's released code uses these (rank 16, alpha 32) where its paper describes sparse ones. A convolution's weight
[out, in, height, width] is taken as the matrix [out, in * height * width]; biases stay. B starts at zero, so the
adapter does; A starts uniform like a linear layer's weight. Values are A, then B, layer after layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fused_ray.core.layers import layer_parameters
from fused_ray.core.making import Made, Making
from fused_ray.core.reparametrised import OnWeights
from fused_ray.core.state import Arrays
from fused_ray.seeding import generator
from fused_ray.types import FloatVector

Factors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter's shape: the adapted layers and their weights' shapes."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    rank: int
    alpha: float

    @property
    def size(self) -> int:
        """V, the number of values."""
        return sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many of the values belong to each layer."""
        return tuple(self.rank * (out + inner) for out, inner in self._matrices())

    @property
    def entries(self) -> int:
        """Entries of the adapted weights in all."""
        return sum(out * inner for out, inner in self._matrices())

    @property
    def digest(self) -> str:
        """SHA-256 over layers, shapes, rank and alpha."""
        return hashlib.sha256(repr((self.names, self.shapes, self.rank, self.alpha)).encode()).hexdigest()

    def saved(self) -> tuple[dict[str, Any], dict[str, FloatVector]]:
        """Names, shapes, rank and alpha."""
        return asdict(self), {}

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def start_values(self, seed: int) -> FloatVector:
        """A uniform in +-1/sqrt(columns) (Kaiming's rule with a = sqrt(5)), B zero [V]."""
        parts = []
        for name, (out, inner) in zip(self.names, self._matrices(), strict=True):
            bound = inner**-0.5
            parts.append(generator(seed, f"lora/{name}").uniform(-bound, bound, self.rank * inner))
            parts.append(np.zeros(out * self.rank))
        return np.concatenate(parts).astype(np.float32)

    def split(self, values: torch.Tensor) -> Iterator[Factors]:
        """Per layer A [rank, columns] and B [out, rank] as views of values [V]."""
        at = 0
        for out, inner in self._matrices():
            a = values[at : at + self.rank * inner].reshape(self.rank, inner)
            at += a.numel()
            b = values[at : at + out * self.rank].reshape(out, self.rank)
            at += b.numel()
            yield a, b

    def attach(self, model: nn.Module) -> AttachedLora:
        """Take hold of the adapted layers' weights."""
        return AttachedLora(model, self)

    def apply(self, state: Mapping[str, NDArray[np.generic]], values: FloatVector) -> Arrays:
        """M_f = M_r + A_f: a copy of the state with the products added."""
        result: Arrays = {name: np.array(array) for name, array in state.items()}
        for name, factors in zip(self.names, self.split(torch.tensor(values)), strict=True):
            weight = layer_parameters(state, name)[0]
            result[weight] = _merged(torch.tensor(np.asarray(state[weight])), factors, self.scale).numpy()
        return result

    def _matrices(self) -> list[tuple[int, int]]:
        return [(shape[0], int(np.prod(shape[1:]))) for shape in self.shapes]


class AttachedLora(OnWeights):
    """A low-rank adapter on a live model."""

    def __init__(self, model: nn.Module, adapter: Lora) -> None:
        super().__init__(model, adapter.names)
        self._adapter = adapter

    def gradient(self, theta: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        parts = []
        for (a, b), full in zip(self._adapter.split(theta), gradients, strict=True):
            matrix = full.reshape(len(full), -1) * self._adapter.scale
            parts += [(b.T @ matrix).reshape(-1), (matrix @ a.T).reshape(-1)]
        return torch.cat(parts)

    @torch.no_grad()
    def write(self, theta: torch.Tensor) -> None:
        for parameter, base, factors in zip(self.parameters, self._base, self._adapter.split(theta), strict=True):
            parameter.copy_(_merged(base, factors, self._adapter.scale))


def low_rank(making: Making, settings: None) -> Made:
    """The adapter of a run: `unlearn.rank` and `unlearn.alpha` on the chosen layers."""
    config = making.federation.config
    shape = make_lora(making.base, making.names, config.unlearn.rank, config.unlearn.alpha)
    return Made(shape, shape.start_values(config.seed))


def make_lora(state: Mapping[str, NDArray[np.generic]], layers: Sequence[str], rank: int, alpha: float) -> Lora:
    """The adapter for some layers of a model's state."""
    weights = [layer_parameters(state, name)[0] for name in layers]
    return Lora(tuple(layers), tuple(state[weight].shape for weight in weights), rank, alpha)


def _merged(weight: torch.Tensor, factors: Factors, scale: float) -> torch.Tensor:
    """fl(W + scale * B A), the product in float64, so that it has the same bits merged or live."""
    a, b = (factor.double() for factor in factors)
    return (weight.double() + scale * (b @ a).reshape(weight.shape)).float()
