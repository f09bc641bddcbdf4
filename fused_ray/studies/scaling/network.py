"""The network of scaling studies."""

from __future__ import annotations

from torch import nn


def two_layers(shape: tuple[int, ...], classes: int, values: int = 10_000) -> nn.Module:
    """A hidden layer of the width with which there are about so many parameters. Raises ValueError if that is none."""
    (features,) = shape
    each = features + 1 + classes
    if values < each + classes:
        raise ValueError(f"{values} values are too few: with a hidden layer of width 1 there are {each + classes}")
    width = round((values - classes) / each)
    return nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))
