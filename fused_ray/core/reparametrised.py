"""Adapters that say how an adapted weight follows from M_r's and a few values: a base class for kinds of one's own.

A subclass says how many values a layer has and what its weight becomes, as a function that PyTorch can differentiate.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fused_ray.core.layers import layer_parameters
from fused_ray.core.state import Arrays
from fused_ray.types import FloatVector

R = TypeVar("R", bound="Reparametrised")


@dataclass(frozen=True)
class Reparametrised(ABC):
    """The adapted layers and their weights' shapes; biases stay."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @abstractmethod
    def count(self, shape: Sequence[int]) -> int:
        """How many values a layer with a weight of this shape has."""

    @abstractmethod
    def merged(self, weight: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """The weight with the adapter on, from M_r's and the layer's values; float64, so that it rounds but once."""

    @classmethod
    def on(cls: type[R], base: Mapping[str, NDArray[np.generic]], layers: Sequence[str]) -> R:
        """The adapter on some layers of a model's state."""
        return cls(tuple(layers), tuple(base[layer_parameters(base, name)[0]].shape for name in layers))

    @classmethod
    def load(cls: type[R], meaning: Mapping[str, Any], arrays: Mapping[str, Any]) -> R:
        """What `saved` gave, read again."""
        return cls(**{**meaning, "names": tuple(meaning["names"]), "shapes": tuple(map(tuple, meaning["shapes"]))})

    def saved(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """All fields."""
        return asdict(self), {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many of the values belong to each layer."""
        return tuple(self.count(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """V, the number of values."""
        return sum(self.sizes)

    @property
    def entries(self) -> int:
        """Entries of the adapted weights in all."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    @property
    def digest(self) -> str:
        """SHA-256 over the class and all fields."""
        return hashlib.sha256(f"{type(self).__qualname__} {asdict(self)}".encode()).hexdigest()

    def attach(self, model: nn.Module) -> AttachedWeights:
        """Take hold of the adapted layers' weights."""
        return AttachedWeights(model, self)

    def apply(self, state: Mapping[str, NDArray[np.generic]], values: FloatVector) -> Arrays:
        """M_f = M_r + A_f: a copy of the state with the adapted weights."""
        result: Arrays = {name: np.array(array) for name, array in state.items()}
        for name, part in zip(self.names, torch.tensor(values).split(self.sizes), strict=True):
            weight = layer_parameters(state, name)[0]
            result[weight] = self.merged(torch.tensor(state[weight]).double(), part.double()).float().numpy()
        return result


class OnWeights:
    """Whole weights of some layers of a live model, and what they were. Theta is the values themselves."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        named = dict(model.named_parameters())
        self.parameters: list[nn.Parameter] = [named[layer_parameters(named, name)[0]] for name in layers]
        self._base = [parameter.detach().clone() for parameter in self.parameters]

    def start(self, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    def values(self, theta: torch.Tensor) -> torch.Tensor:
        return theta

    @torch.no_grad()
    def remove(self) -> None:
        for parameter, base in zip(self.parameters, self._base, strict=True):
            parameter.copy_(base)


class AttachedWeights(OnWeights):
    """Such an adapter on a live model."""

    def __init__(self, model: nn.Module, adapter: Reparametrised) -> None:
        super().__init__(model, adapter.names)
        self._adapter = adapter

    def gradient(self, theta: torch.Tensor, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        parts = []
        for base, part, full in zip(self._base, theta.split(self._adapter.sizes), gradients, strict=True):
            values = part.detach().double().requires_grad_()
            with torch.enable_grad():
                merged = self._adapter.merged(base.double(), values)
            parts.append(torch.autograd.grad(merged, values, full.double())[0].float())
        return torch.cat(parts)

    @torch.no_grad()
    def write(self, theta: torch.Tensor) -> None:
        for parameter, base, part in zip(self.parameters, self._base, theta.split(self._adapter.sizes), strict=True):
            parameter.copy_(self._adapter.merged(base.double(), part.double()))
