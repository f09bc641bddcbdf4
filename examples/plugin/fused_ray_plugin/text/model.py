"""A two-layer network on bags of words."""

from torch import nn


def two_layers(shape: tuple[int, ...], classes: int, width: int = 32) -> nn.Module:
    (words,) = shape
    return nn.Sequential(nn.Linear(words, width), nn.ReLU(), nn.Linear(width, classes))
