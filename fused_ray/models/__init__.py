"""Networks as a chain of stages, so that what lies below the lowest adapted layer can be cut off and cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from fused_ray import registry
from fused_ray.seeding import derive


@dataclass(frozen=True)
class Stage:
    """One step of the forward pass: the layers (module names) whose weights it uses, and the step itself."""

    layers: tuple[str, ...]
    forward: Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class Staged(Protocol):
    """A model whose forward pass is its stages one after the other."""

    def stages(self) -> list[Stage]: ...


def build(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A registered model with PyTorch's default random weights. `shape` is (channels, height, width)."""
    module, _, factory = registry.MODELS[name].factory.partition(":")
    model: nn.Module = getattr(import_module(module), factory)(shape, classes)
    return model


def initialise(name: str, shape: tuple[int, int, int], classes: int, seed: int, purpose: str) -> nn.Module:
    """A registered model whose random weights depend on (seed, purpose) alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, purpose))
        return build(name, shape, classes)


def stages(model: nn.Module) -> list[Stage]:
    """The model's own stages; without a declaration the whole model is one stage, and nothing can be cut off."""
    if isinstance(model, Staged):
        return model.stages()
    names = tuple(name for name, module in model.named_modules() if getattr(module, "weight", None) is not None)
    return [Stage(names, model)]
