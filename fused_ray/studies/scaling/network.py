"""The network of scaling studies."""

from __future__ import annotations

from torch import nn


def two_layers(shape: tuple[int, ...], classes: int, values: int = 10_000) -> nn.Module:
    """A hidden layer of the width with which there are about so many parameters, at least one."""
    (features,) = shape
    width = max(1, round((values - classes) / (features + 1 + classes)))
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))
