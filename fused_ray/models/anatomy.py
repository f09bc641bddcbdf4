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
from torch.nn.parameter import is_lazy

from fused_ray.config import ModelConfig
from fused_ray.errors import ConfigError
from fused_ray.models import WEIGHTS, Shape, Stage, Staged, build, chain, inputs_of, layer_names, logits_of, seeded
from fused_ray.models.rehearsal import ROWS, checked, is_dense, lacks_memory, memory_format, probe, section_of

Cut = Literal["declared", "traced", "none"]
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
    frozen: tuple[str, ...]
    """Layers with a parameter that the model's maker froze (requires_grad=False). They are not adapted."""
    derived: tuple[str, ...]
    """Modules whose weight is computed from other parameters (weight_norm, spectral_norm, pruning): no layers, for an
    adapter could not take hold of it. They are trained like everything else."""
    entries: tuple[int, ...]
    """Of each of the layers, those of its weight and bias."""
    stages: int
    cut: Cut
    """Where the stages come from; with `none` the model is one stage, and nothing of it can be cached."""
    parameters: int
    frozen_values: int
    """How many of the parameters are frozen."""
    channels_last: bool
    """Whether it runs in that memory format, the faster one for convolutions."""

    @property
    def ranked(self) -> tuple[str, ...]:
        """The layers that may be critical."""
        return tuple(name for name in self.layers if name not in {*self.norms, *self.idle, *self.frozen})

    @property
    def output(self) -> str:
        """The last layer that the logits depend on."""
        return next(name for name in reversed(self.layers) if name not in self.idle)

    def barred(self, label: str) -> dict[str, str]:
        """Why modules with a weight cannot be adapted, by name; `label` is the model's."""
        idle = (
            "no gradient reaches {} of {} in evaluation mode, in which adapters are trained (it serves training alone, "
            "or nothing)"
        )
        frozen = "{} of {} is frozen (requires_grad=False)"
        derived = "the weight of {} of {} is computed from other parameters (weight_norm, spectral_norm, pruning)"
        kinds = ((derived, self.derived), (frozen, self.frozen), (idle, self.idle))
        return {name: said.format(name, label) for said, names in kinds for name in names}


def anatomy(model: ModelConfig, shape: Sequence[int], classes: int) -> Anatomy:
    """Build a model and look at it. Raises ConfigError in one line if it cannot be used, naming what is wrong."""
    return _anatomy(section_of(model), model.entry, tuple(shape), classes)


@lru_cache(maxsize=16)
def _anatomy(section: str, entry: str, shape: Shape, classes: int) -> Anatomy:
    config = ModelConfig.model_validate_json(section)
    with seeded(0):
        model = build(config, shape, classes)
    _check_tensors(config, model)
    form = memory_format(section, shape, classes)
    model = model.to(memory_format=form)  # type: ignore[call-overload]
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen_values = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    layers, idle = _in_order(config, model, shape, classes, form)
    pieces, cut = staged(model, shape, form)
    if isinstance(model, Staged) and cut != "declared":
        raise ConfigError(
            f"{config.where}: the model's stages() one after the other give other logits than its forward(), or not "
            "every layer is in exactly one of them; mend stages() or leave it out"
        )
    norms = tuple(layer for layer in layers if normalises(model.get_submodule(layer)))
    entries = tuple(sum(p.numel() for p in _parameters(model, layer)) for layer in layers)
    return Anatomy(
        layers=layers,
        norms=norms,
        idle=idle,
        frozen=tuple(name for name in layers if frozen & set(layer_parameter_names(model, name))),
        derived=_derived(model),
        entries=entries,
        stages=len(pieces),
        cut=cut,
        parameters=sum(p.numel() for p in model.parameters()),
        frozen_values=frozen_values,
        channels_last=form == torch.channels_last,
    )


def gated(model: ModelConfig, shape: Sequence[int], classes: int, layers: Sequence[str]) -> tuple[str, ...]:
    """Those of the layers that no gradient reaches once all their entries are zero: a ReLU follows, flat at zero.

    The layer itself then never moves again. Found on the probe, with all other entries as if trained: not zero.
    """
    return _gated(section_of(model), model.entry, tuple(shape), classes, tuple(layers))


@lru_cache(maxsize=64)
def _gated(section: str, entry: str, shape: Shape, classes: int, layers: tuple[str, ...]) -> tuple[str, ...]:
    form = memory_format(section, shape, classes)
    model = build(ModelConfig.model_validate_json(section), shape, classes)
    model = model.requires_grad_(True).to(memory_format=form)  # type: ignore[call-overload]
    stuck = layers
    for attempt in range(_ATTEMPTS):  # a BatchNorm with few channels may close them all by chance
        with torch.no_grad(), seeded(attempt):
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(0.01 * torch.randn_like(tensor))
        stuck = tuple(layer for layer in stuck if not _learns_from_zero(model, shape, layer, form))
    return stuck


def _learns_from_zero(model: nn.Module, shape: Shape, layer: str, form: torch.memory_format) -> bool:
    """Whether a gradient reaches a layer whose entries are all zero; the model is left as it was."""
    parameters = _parameters(model, layer)
    before = [parameter.detach().clone() for parameter in parameters]
    _fill(parameters, [torch.zeros_like(parameter) for parameter in parameters])
    with probing(model, shape, form, gradient=True) as x:
        logits = logits_of(model(x))
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
    return [model.get_parameter(name) for name in layer_parameter_names(model, layer)]


def layer_parameter_names(model: nn.Module, layer: str) -> list[str]:
    """The names of what an adapter of the layer may change."""
    named = model.get_submodule(layer).named_parameters(recurse=False)
    kinds = (*WEIGHTS, "bias", "in_proj_bias")
    return [f"{layer}.{name}" if layer else name for name, _ in named if name in kinds]


def _derived(model: nn.Module) -> tuple[str, ...]:
    """The modules whose weight is computed from parameters: it is no layer's, their own or another's, as it stands."""
    named = (*model.named_parameters(), *model.named_buffers())
    plain = {id(tensor) for name, tensor in named if name.rpartition(".")[2] in WEIGHTS}

    def computed(module: nn.Module, name: str) -> bool:
        try:
            weight = getattr(module, name, None)
        except Exception:  # a property of the user's may raise anything
            return False
        return isinstance(weight, torch.Tensor) and not plain & {id(weight), id(weight._base)}

    return tuple(path for path, module in model.named_modules() if any(computed(module, name) for name in WEIGHTS))


def normalises(module: nn.Module) -> bool:
    """Whether a module is a normalisation layer: its class says so by its name (BatchNorm2d, LayerNorm, RMSNorm)."""
    return "norm" in type(module).__name__.lower()


def staged(model: nn.Module, shape: Shape, form: torch.memory_format = torch.channels_last) -> tuple[list[Stage], Cut]:
    """The model's stages and where they come from; without any that hold, the whole model is one stage."""
    declared = isinstance(model, Staged)
    stages = model.stages() if isinstance(model, Staged) else chain.traced(model)
    if len(stages) > 1 and _same(model, stages, shape, form):
        return stages, "declared" if declared else "traced"
    return [Stage(tuple(layer_names(model)), model)], "none"


def stages(model: nn.Module, shape: Shape, form: torch.memory_format = torch.channels_last) -> list[Stage]:
    """The stages that a model is computed by; declared ones have been verified when the run began."""
    return model.stages() if isinstance(model, Staged) else staged(model, shape, form)[0]


def _same(model: nn.Module, stages: Sequence[Stage], shape: Shape, form: torch.memory_format) -> bool:
    """Whether every layer is in one stage, and the stages in a chain give the model's logits, bit for bit."""
    if sorted(name for stage in stages for name in stage.layers) != sorted(layer_names(model)):
        return False
    with probing(model, shape, form) as x:
        expected = logits_of(model(x))
        try:
            for stage in stages:
                x = stage.forward(x)
        except Exception as error:  # a chain that does not run is none
            if lacks_memory(error):  # but this may pass, and every process must come to the same stages
                raise
            return False
        return torch.equal(logits_of(x), expected)


def _in_order(
    config: ModelConfig, model: nn.Module, shape: Shape, classes: int, form: torch.memory_format
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
        with probing(model, shape, form, gradient=True) as x:
            output = model(x)
    except Exception as error:
        raise ConfigError(
            f"{config.where}: the model fails on {inputs_of(shape)}: {type(error).__name__}: {error}"
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    logits = checked(config, output, ROWS, classes)
    if "" in layer_names(model):
        raise ConfigError(
            f"{config.where}: the model itself owns a weight, so that this layer has no name; make it a module of the "
            "model: self.layer = torch.nn.Linear(...)"
        )
    if not layer_names(model):
        raise ConfigError(f"{config.where}: the model has no layer: no module of it owns a plain weight to adapt")

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
    names: set[str] = set()
    if logits.requires_grad:
        every = [parameter for parameters in owned.values() for parameter in parameters]
        try:
            gradients = torch.autograd.grad(logits.sum(), every, allow_unused=True)
        except RuntimeError as error:
            raise ConfigError(f"{config.where}: the model cannot learn: its backward pass fails: {error}") from error
        led = {id(parameter) for parameter, g in zip(every, gradients, strict=True) if g is not None}
        names = {name for name, parameters in owned.items() if led & {id(parameter) for parameter in parameters}}
    if not names:
        raise ConfigError(
            f"{config.where}: no gradient leads from the model's logits to any of its layers, so nothing can be "
            "learned; look for torch.no_grad or detach in its forward()"
        )
    return names


def _check_tensors(config: ModelConfig, model: nn.Module) -> None:
    """Only what a payload can hold and an adapter can take hold of. Raises ConfigError."""
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise ConfigError(
            f"{config.where}: {', '.join(lazy)} of a lazy layer has no shape yet; run the model once before the "
            "function returns it: model(torch.zeros(2, *shape))"
        )
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor):
            raise ConfigError(
                f"{config.where}: {name} in the state_dict is {type(tensor).__name__}, which cannot be averaged; keep "
                "tensors there alone (get_extra_state)"
            )
        whole = not (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype != torch.bool
        if not is_dense(tensor):
            raise ConfigError(
                f"{config.where}: {name} is no plain dense tensor ({tensor.layout}, {tensor.device}); weights and "
                "buffers are"
            )
        if tensor.dtype != torch.float32 and not whole:
            raise ConfigError(
                f"{config.where}: {name} is {tensor.dtype}; weights and buffers are float32 or whole numbers"
            )
        if _overlaps(tensor):
            raise ConfigError(
                f"{config.where}: several elements of {name} share one place in memory (expand); end it with .clone() "
                "in the model"
            )
    for name, parameter in model.named_parameters():
        if not (parameter.is_contiguous() or parameter.is_contiguous(memory_format=torch.channels_last)):
            raise ConfigError(f"{config.where}: {name} does not lie in one piece; make it .contiguous() in the model")
    shared = {n for n, _ in model.named_parameters(remove_duplicate=False)} - {n for n, _ in model.named_parameters()}
    if shared:
        raise ConfigError(
            f"{config.where}: {', '.join(sorted(shared))}: a weight that two modules share cannot be adapted"
        )


def _overlaps(tensor: torch.Tensor) -> bool:
    """Whether two elements may lie in one place."""
    reach = 0
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride <= reach:
                return True
            reach += (size - 1) * stride
    return False


@contextmanager
def probing(
    model: nn.Module, shape: Shape, form: torch.memory_format = torch.channels_last, gradient: bool = False
) -> Iterator[torch.Tensor]:
    """The probe [3, *shape] on the model's device; the model in evaluation mode, then as before."""
    training, where = model.training, next(iter(model.parameters()), torch.zeros(0)).device
    model.eval()
    try:
        with torch.set_grad_enabled(gradient):
            yield probe(shape, ROWS, where, form)
    finally:
        model.train(training)
