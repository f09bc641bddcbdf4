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
from fused_ray.models import WEIGHTS, Shape, Stage, Staged, build, chain, layer_names, seeded

Cut = Literal["declared", "traced", "none"]
_ROWS = 3
_ATTEMPTS = 3


@dataclass(frozen=True)
class Anatomy:
    """A model's parts, by name."""

    layers: tuple[str, ...]
    """All modules that own a weight and take part in evaluation, from the input to the output."""
    norms: tuple[str, ...]
    """Those of them that normalise; they are adapted only when named."""
    idle: tuple[str, ...]
    """Modules with a weight that no gradient reaches in evaluation mode, in which adapters are trained: a head for
    training only, one that is never used, what runs under no_grad. They cannot be adapted."""
    entries: tuple[int, ...]
    """Of each of the layers, those of its weight and bias."""
    stages: int
    cut: Cut
    """Where the stages come from; with `none` the model is one stage, and nothing of it can be cached."""
    parameters: int

    @property
    def ranked(self) -> tuple[str, ...]:
        """The layers that may be critical."""
        return tuple(name for name in self.layers if name not in {*self.norms, *self.idle})


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
    layers, idle = _in_order(config, model, shape, classes)
    found, cut = staged(model, shape)
    if isinstance(model, Staged) and cut != "declared":
        raise ConfigError(
            f"{config.where}: the model's stages() one after the other give other logits than its forward(), or not "
            "every layer is in exactly one of them; mend stages() or leave it out"
        )
    norms = tuple(layer for layer in layers if normalises(model.get_submodule(layer)))
    entries = tuple(sum(p.numel() for p in _parameters(model, layer)) for layer in layers)
    return Anatomy(layers, norms, idle, entries, len(found), cut, sum(p.numel() for p in model.parameters()))


def gated(model: ModelConfig, shape: Sequence[int], classes: int, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of the layers that no gradient reaches once all their entries are zero: a ReLU follows, flat at zero.

    The layer itself then never moves again. Found on the probe, with all other entries as if trained: not zero.
    """
    channels, height, width = shape
    about = model.model_dump_json(exclude={"weights"}), model.entry
    return _gated(*about, (channels, height, width), classes, tuple(layers))


@lru_cache(maxsize=64)
def _gated(section: str, entry: str, shape: Shape, classes: int, layers: tuple[str, ...]) -> tuple[str, ...]:
    model = build(ModelConfig.model_validate_json(section), shape, classes)
    stuck = layers
    for attempt in range(_ATTEMPTS):  # a BatchNorm with few channels may close them all by chance
        with torch.no_grad(), seeded(attempt):
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(0.01 * torch.randn_like(tensor))
        stuck = tuple(layer for layer in stuck if not _learns_from_zero(model, shape, layer))
    return stuck


def _learns_from_zero(model: nn.Module, shape: Shape, layer: str) -> bool:
    """Whether a gradient reaches a layer whose entries are all zero; the model is left as it was."""
    parameters = _parameters(model, layer)
    before = [parameter.detach().clone() for parameter in parameters]
    _fill(parameters, [torch.zeros_like(parameter) for parameter in parameters])
    with probing(model, shape, gradient=True) as x:
        logits = model(x)
        towards = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
        gradients = torch.autograd.grad((logits * towards).sum(), parameters, materialize_grads=True)
    _fill(parameters, before)
    return any(gradient.count_nonzero() for gradient in gradients)


@torch.no_grad()
def _fill(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)


def _parameters(model: nn.Module, layer: str) -> list[nn.Parameter]:
    """What an adapter of the layer may change."""
    named = model.get_submodule(layer).named_parameters(recurse=False)
    return [parameter for name, parameter in named if name in (*WEIGHTS, "bias", "in_proj_bias")]


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


def _in_order(
    config: ModelConfig, model: nn.Module, shape: Shape, classes: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers in the order in which the model runs them, and all that no gradient reaches.

    A layer that is never called itself comes with its parent, if a gradient says that it is used.
    """
    finished: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def finish(*_: Any) -> None:
            finished.setdefault(name, len(finished))

        return finish

    model.requires_grad_(True)
    hooks = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        with probing(model, shape, gradient=True) as x:
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

    if not layer_names(model):
        raise ConfigError(f"{config.where}: the model has no layer: no module of it owns a weight")

    def when(name: str) -> int:
        while name and name not in finished:
            name = name.rpartition(".")[0]
        return finished[name]

    reached = _reached(config, model, logits)
    layers = sorted((name for name in layer_names(model) if name in finished or name in reached), key=when)
    return tuple(layers), tuple(name for name in layer_names(model) if name not in reached)


def _reached(config: ModelConfig, model: nn.Module, logits: torch.Tensor) -> set[str]:
    """The layers to which a gradient leads from the logits. Raises ConfigError if there is none."""
    owned = {name: _parameters(model, name) for name in layer_names(model)}
    found: set[str] = set()
    if logits.requires_grad:
        every = [parameter for parameters in owned.values() for parameter in parameters]
        try:
            gradients = torch.autograd.grad(logits.sum(), every, allow_unused=True)
        except RuntimeError as error:
            raise ConfigError(f"{config.where}: the model cannot learn: its backward pass fails: {error}") from error
        led = {id(parameter) for parameter, g in zip(every, gradients, strict=True) if g is not None}
        found = {name for name, parameters in owned.items() if led & {id(parameter) for parameter in parameters}}
    if not found:
        raise ConfigError(
            f"{config.where}: no gradient leads from the model's logits to any of its layers, so nothing can be "
            "learned; look for torch.no_grad or detach in its forward()"
        )
    return found


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
def probing(model: nn.Module, shape: Shape, gradient: bool = False) -> Iterator[torch.Tensor]:
    """The probe [3, channels, height, width] on the model's device; the model in evaluation mode, then as before."""
    training, where = model.training, next(iter(model.parameters()), torch.zeros(0)).device
    size = _ROWS * shape[0] * shape[1] * shape[2]
    x = ((torch.arange(size, dtype=torch.float64) * 0.7548776662466927) % 1.0 * 4 - 2).to(where, torch.float32)
    model.eval()
    try:
        with torch.set_grad_enabled(gradient):
            yield x.reshape(_ROWS, *shape).contiguous(memory_format=torch.channels_last)
    finally:
        model.train(training)
