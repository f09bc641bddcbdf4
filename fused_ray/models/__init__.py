"""Networks: how they are built, and the chain of stages that lets a frozen prefix be cut off and cached.

A model comes from a factory, a registered one or the user's own; models.anatomy says what it consists of.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from fused_ray.config import ModelConfig
from fused_ray.config.suggest import did_you_mean
from fused_ray.data.torchvision_import import with_torchvision
from fused_ray.errors import ConfigError
from fused_ray.seeding import derive, untouched

Shape = tuple[int, ...]
"""Of an input; of an image: channels, height, width."""
WEIGHTS = ("weight", "in_proj_weight")
"""What makes a module a layer: a parameter of this name; the second is that of attention's queries, keys, values."""


@dataclass(frozen=True)
class Stage:
    """One step of the forward pass: the layers (module names) whose weights it uses, and the step itself."""

    layers: tuple[str, ...]
    forward: Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class Staged(Protocol):
    """A model whose forward pass is its stages one after the other."""

    def stages(self) -> list[Stage]: ...


def logits_of(output: Any) -> Any:
    """A model's logits in what its forward() returns: that itself, or what comes first in a tuple or list."""
    while isinstance(output, tuple | list) and output:
        output = output[0]
    return output


def inputs_of(shape: Shape) -> str:
    """What a model is given, in words."""
    return f"{'images' if len(shape) == 3 else 'inputs'} of {' x '.join(map(str, shape))}"


def layer_names(model: nn.Module) -> list[str]:
    """All modules that own a weight, in the order in which the model defines them."""
    return [
        name
        for name, module in model.named_modules()
        if any(key in WEIGHTS for key, _ in module.named_parameters(recurse=False))
    ]


def build(model: ModelConfig | str, shape: Shape, classes: int) -> nn.Module:
    """A model as its factory makes it: of the section `model` of a configuration, or registered under a name.

    `shape` is that of an input, of an image (channels, height, width). What the factory draws, and a state does not
    hold, is the same each time. Raises ConfigError naming the factory when there is no such function, when it raises,
    or when it returns no nn.Module.
    """
    with seeded(0):
        return _made(model, shape, classes)


def initialise(model: ModelConfig | str, shape: Shape, classes: int, seed: int, purpose: str) -> nn.Module:
    """A model whose random weights depend on (seed, purpose) alone."""
    with seeded(derive(seed, purpose)):
        return _made(model, shape, classes)


def _made(model: ModelConfig | str, shape: Shape, classes: int) -> nn.Module:
    config = ModelConfig(name=model) if isinstance(model, str) else model
    function = factory_of(config)
    try:
        built = with_torchvision(lambda: function(shape, classes, **config.args))
    except Exception as error:
        raise ConfigError(
            f"{config.where}: it cannot make a model for {inputs_of(shape)} and {classes} "
            f"classes: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(built, nn.Module):
        raise ConfigError(f"{config.where}: it returned {type(built).__name__}, no torch.nn.Module")
    return built


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, the global generators (initial weights, dropout) depend on the seed alone; then as before."""
    cards = [device] if device is not None and device.type == "cuda" else []
    with untouched(seed), torch.random.fork_rng(devices=cards):
        torch.manual_seed(seed)
        yield


def factory_of(config: ModelConfig) -> Callable[..., Any]:
    """The factory. Raises ConfigError if its module or the function in it is missing."""
    try:
        module, _, name = config.entry.partition(":")
    except ValueError as error:  # a name that an installed package registers, elsewhere
        raise ConfigError(f"model.name: {error}") from None
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)  # as under `python -m`: an installed command has its own folder there instead
    try:
        found: Any = with_torchvision(lambda: import_module(module))
    except Exception as error:  # whatever the user's module does when it is imported
        as_file = module.endswith(".py") or "/" in module
        mend = "name it as in an import, without .py" if as_file else "it must be importable here and on every node"
        raise ConfigError(f"{config.where}: cannot import {module}: {type(error).__name__}: {error}; {mend}") from error
    for part in name.split("."):
        known, found = vars(found) if hasattr(found, "__dict__") else {}, getattr(found, part, None)
    if not callable(found):
        near = did_you_mean(part, [key for key, value in known.items() if callable(value)])
        raise ConfigError(f"{config.where}: {module} has no function {name}{near}")
    function: Callable[..., Any] = found
    return function
