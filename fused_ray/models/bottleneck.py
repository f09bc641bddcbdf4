"""A registered model with a place before its output layer, for a module that is put there when something is forgotten.

    model: {factory: "fused_ray.models.bottleneck:build", args: {name: lenet, width: 32}}

The place holds two linear maps without bias, d to `width` and back, with a ReLU behind each. As long as it is closed
the model is the registered one, bit for bit, and trains, ranks and is adapted as that does. The maps are frozen: no
round sends them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.config import ModelConfig
from fused_ray.models import Shape, factory_of


class Bottleneck(nn.Module):
    """Features [n, d] to relu(U relu(V z)) [n, d] if it is open; else z as it is."""

    open: torch.Tensor

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(width, features), requires_grad=False)
        self.up = nn.Parameter(torch.zeros(features, width), requires_grad=False)
        self.register_buffer("open", torch.zeros(1, dtype=torch.int64))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return passed(z, self.down, self.up) if self.open else z


class Head(nn.Linear):
    """An output layer behind a bottleneck. Its input are the features below both."""

    def __init__(self, layer: nn.Linear, width: int) -> None:
        nn.Module.__init__(self)  # nothing is drawn: the layer is there
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias
        self.bottleneck = Bottleneck(layer.in_features, width)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(self.bottleneck(z))


def passed(z: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """relu(U relu(V z)) of features z [n, d], with V [width, d] and U [d, width]."""
    return F.linear(F.linear(z, down).relu(), up).relu()


def build(shape: Shape, classes: int, name: str = "lenet", width: int = 32, **args: Any) -> nn.Module:
    """A registered model of that name with a place before its last linear layer; `args` are the model's own."""
    model: nn.Module = factory_of(ModelConfig(name=name))(shape, classes, **args)
    last = [at for at, module in model.named_modules() if isinstance(module, nn.Linear)][-1]
    above, _, own = last.rpartition(".")
    layer = model.get_submodule(last)
    assert isinstance(layer, nn.Linear)
    setattr(model.get_submodule(above), own, Head(layer, width))
    return model
