"""What a built model consists of: its layers from the input to the output, and the stages it can be cut into.

All of it is found by running the model once on a probe, three images of fixed numbers. A model declares its stages
(models.Staged) or they are traced (models.chain); either is believed only if, stage after stage, the logits have the
very bits of the model's own forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from fused_ray.config import ModelConfig
from fused_ray.errors import ConfigError
from fused_ray.models import Shape, Stage, Staged, build, chain, layer_names, seeded

Cut = Literal["declared", "traced", "none"]
_ROWS = 3


@dataclass(frozen=True)
class Anatomy:
    """A model's parts, by name."""

    layers: tuple[str, ...]
    """All modules that own a weight, from the input to the output."""
    norms: tuple[str, ...]
    """Those of them that normalise; they are adapted only when named."""
    stages: int
    cut: Cut
    """Where the stages come from; with `none` the model is one stage, and nothing of it can be cached."""
    parameters: int

    @property
    def ranked(self) -> tuple[str, ...]:
        """The layers that may be critical."""
        return tuple(name for name in self.layers if name not in self.norms)


def anatomy(model: ModelConfig, shape: Sequence[int], classes: int) -> Anatomy:
    """Build a model and look at it. Raises ConfigError in one line if it cannot be used, naming what is wrong."""
    channels, height, width = shape
    return _anatomy(model.model_dump_json(exclude={"weights"}), model.entry, (channels, height, width), classes)


@lru_cache(maxsize=16)
def _anatomy(section: str, entry: str, shape: Shape, classes: int) -> Anatomy:
    config = ModelConfig.model_validate_json(section)
    with seeded(0):
        model = build(config, shape, classes)
    _check_tensors(config, model)
    layers = _in_order(config, model, shape, classes)
    if not layers:
        raise ConfigError(f"{config.where}: the model has no layer: no module of it owns a weight")
    found, cut = staged(model, shape)
    if isinstance(model, Staged) and cut != "declared":
        raise ConfigError(
            f"{config.where}: the model's stages() one after the other give other logits than its forward(), or not "
            "every layer is in exactly one of them; mend stages() or leave it out"
        )
    norms = tuple(layer for layer in layers if normalises(model.get_submodule(layer)))
    return Anatomy(layers, norms, len(found), cut, sum(p.numel() for p in model.parameters()))


def normalises(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: its class says so by its name (BatchNorm2d, LayerNorm, RMSNorm)."""
    return "norm" in type(module).__name__.lower()


def staged(model: nn.Module, shape: Shape) -> tuple[list[Stage], Cut]:
    """The model's stages and where they come from; without any that hold, the whole model is one stage."""
    declared = isinstance(model, Staged)
    stages = model.stages() if isinstance(model, Staged) else chain.traced(model)
    if len(stages) > 1 and _same(model, stages, shape):
        return stages, "declared" if declared else "traced"
    return [Stage(tuple(layer_names(model)), model)], "none"


def stages(model: nn.Module, shape: Shape) -> list[Stage]:
    """The stages that a model is computed by; declared ones have been verified when the run began."""
    return model.stages() if isinstance(model, Staged) else staged(model, shape)[0]


def _same(model: nn.Module, stages: Sequence[Stage], shape: Shape) -> bool:
    """Whether every layer is in one stage, and the stages in a chain give the model's logits, bit for bit."""
    if sorted(name for stage in stages for name in stage.layers) != sorted(layer_names(model)):
        return False
    with probing(model, shape) as x:
        expected = model(x)
        try:
            for stage in stages:
                x = stage.forward(x)
        except Exception:  # a chain that does not run is none
            return False
        return torch.equal(x, expected)


def _in_order(config: ModelConfig, model: nn.Module, shape: Shape, classes: int) -> tuple[str, ...]:
    """The layers in the order in which the model runs them; one that is never called itself comes with its parent."""
    finished: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def finish(*_: Any) -> None:
            finished.setdefault(name, len(finished))

        return finish

    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        with probing(model, shape) as x:
            logits = model(x)
    except Exception as error:
        size = " x ".join(map(str, shape))
        raise ConfigError(
            f"{config.where}: the model fails on images of {size}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    if not isinstance(logits, torch.Tensor) or logits.shape != (_ROWS, classes):
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(f"{config.where}: for {_ROWS} images the model gives {given}, not {[_ROWS, classes]} logits")

    def when(name: str) -> int:
        while name and name not in finished:
            name = name.rpartition(".")[0]
        return finished[name]

    return tuple(sorted(layer_names(model), key=when))


def _check_tensors(config: ModelConfig, model: nn.Module) -> None:
    """Only what a payload can hold and an adapter can take hold of. Raises ConfigError."""
    for name, tensor in model.state_dict().items():
        whole = not (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.bool
        if tensor.dtype != torch.float32 and not whole:
            raise ConfigError(
                f"{config.where}: {name} is {tensor.dtype}; weights and buffers are float32 or whole numbers"
            )
    for name, parameter in model.named_parameters():
        if not (parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last)):
            raise ConfigError(f"{config.where}: {name} does not lie in one piece; make it .contiguous() in the model")
    shared = {n for n, _ in model.named_parameters(remove_duplicate=False)} - {n for n, _ in model.named_parameters()}
    if shared:
        raise ConfigError(
            f"{config.where}: {', '.join(sorted(shared))}: a weight that two modules share cannot be adapted"
        )


@contextmanager
def probing(model: nn.Module, shape: Shape) -> Iterator[torch.Tensor]:
    """The probe [3, channels, height, width] on the model's device; the model in evaluation mode, then as before."""
    training, where = model.training, next(iter(model.parameters()), torch.zeros(0)).device
    size = _ROWS * shape[0] * shape[1] * shape[2]
    x = ((torch.arange(size, dtype=torch.float64) * 0.7548776662466927) % 1.0 * 4 - 2).to(where, torch.float32)
    model.eval()
    try:
        with torch.no_grad():
            yield x.reshape(_ROWS, *shape).contiguous(memory_format=torch.channels_last)
    finally:
        model.train(training)
