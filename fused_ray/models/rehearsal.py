"""A model tried as clients will use it, on throw-away copies: evaluated, then trained for a few steps.

A tuple from forward(), a change in place that the backward pass needs, a normalisation without enough values, a
`.view` that one memory format breaks, what a model keeps outside its state_dict: all of it shows only in training mode
or in a second step, and would otherwise show in the middle of the first round, or not at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.config import ModelConfig
from fused_ray.data.reading import some
from fused_ray.errors import ConfigError
from fused_ray.models import Shape, build, inputs_of, logits_of, seeded

ROWS = 3
"""Images of the probe."""
_STEPS = ((ROWS, True), (2, True), (1, False))
"""Of training: examples, and whether in training mode, which a batch of one is not (core.training)."""
_LR = 0.01
_PLAIN = frozenset(vars(nn.Module()))
_MENDS = (
    ("modified by an inplace operation", "use an operation that makes a new tensor (h = h + 1, not h += 1 or relu_)"),
    ("Expected more than 1", "leave that normalisation out, or give it more than one value a channel"),
    ("through the graph a second time", "what the model keeps from one step to the next needs .detach()"),
)
"""What PyTorch says, and what helps."""


@lru_cache(maxsize=16)
def memory_format(section: str, shape: Shape, classes: int) -> torch.memory_format:
    """The memory format that a model runs in: channels-last, or PyTorch's usual one if only that suits its code, or its
    inputs have no channels to come last.

    `section` is the configuration's section `model` as JSON. Raises ConfigError in one line if it can be used in
    neither, or if it failed for what may pass, a lack of memory. A registered model is known to be right.
    """
    if len(shape) != 3:
        rehearse(section, shape, classes, "cpu", torch.contiguous_format)
        return torch.contiguous_format
    try:
        rehearse(section, shape, classes, "cpu", torch.channels_last)
    except ConfigError as error:
        if not isinstance(error.__cause__, RuntimeError) or lacks_memory(error.__cause__):
            raise
        rehearse(section, shape, classes, "cpu", torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


@lru_cache(maxsize=16)
def rehearse(section: str, shape: Shape, classes: int, device: str, form: torch.memory_format) -> None:
    """Try a model on a device in a memory format. Raises ConfigError in one line if it cannot be used there."""
    config = ModelConfig.model_validate_json(section)
    if config.known is None:
        _rehearse(config, shape, classes, device, form)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, the processor's or the card's."""
    said = ("DefaultCPUAllocator", "bad_alloc", "ALLOC_FAILED")
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(part in str(error) for part in said)


def section_of(model: ModelConfig) -> str:
    """What of the configuration makes the model, as JSON."""
    return model.model_dump_json(exclude={"weights"})


def probe(shape: Shape, rows: int, device: torch.device, form: torch.memory_format) -> torch.Tensor:
    """The first inputs of the probe, fixed numbers [rows, *shape]; at most ROWS."""
    size = ROWS * math.prod(shape)
    x = ((torch.arange(size, dtype=torch.float64) * 0.7548776662466927) % 1.0 * 4 - 2).to(device, torch.float32)
    return x.reshape(ROWS, *shape)[:rows].contiguous(memory_format=form)


def _rehearse(config: ModelConfig, shape: Shape, classes: int, device: str, form: torch.memory_format) -> None:
    where = torch.device(device)
    model: nn.Module = build(config, shape, classes).to(where, memory_format=form)  # type: ignore[call-overload]
    trial = _Trial(config, model, shape, classes)
    with seeded(0, where), _running(model) as trial.open:
        trial.evaluate(probe(shape, ROWS, where, form))
        for rows, training in _STEPS:
            trial.step(probe(shape, rows, where, form), training)
        trial.check_memory(probe(shape, ROWS, where, form), probe(shape, 2, where, form))


class _Trial:
    """One model under trial."""

    open: list[str]
    """The modules that are running, from the outermost to the innermost."""

    def __init__(self, config: ModelConfig, model: nn.Module, shape: Shape, classes: int) -> None:
        self.config, self.model, self.shape, self.classes = config, model, shape, classes

    @torch.no_grad()
    def evaluate(self, x: torch.Tensor) -> None:
        """Evaluation says the same twice, and leaves the model as it was."""
        self.model.eval()
        before = _contents(self.model.state_dict())
        first, kept = self._logits(x, ""), outside(self.model)
        second = self._logits(x, "")
        changed = _differing(before, _contents(self.model.state_dict())) + _differing(kept, outside(self.model))
        if changed:
            raise ConfigError(
                f"{self.config.where}: evaluation changes {some(changed)} of the model; let forward() do so "
                "`if self.training` alone"
            )
        if not torch.equal(first, second) and first.isfinite().all():
            raise ConfigError(
                f"{self.config.where}: in evaluation mode the model says something else each time that it sees the "
                "same images; leave the random part to training (F.dropout(x, p, self.training))"
            )
        if self.classes > 1 and first.min() >= 0 and torch.allclose(first.sum(1), first.new_ones(len(first))):
            raise ConfigError(
                f"{self.config.where}: the model returns probabilities, which the loss would take for logits; leave "
                "the softmax out of forward()"
            )

    def step(self, x: torch.Tensor, training: bool) -> None:
        """A training step as a client makes it."""
        self.model.train(training)
        how = f" in training mode, {len(x)} at a time," if training else " one at a time"
        learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if not learning:
            raise ConfigError(
                f"{self.config.where}: all parameters of the model are frozen (requires_grad=False), so nothing can "
                "be learned; leave at least the output layer free"
            )
        with torch.enable_grad():
            logits = self._logits(x, how)
            loss = F.cross_entropy(logits, torch.arange(len(x), device=x.device) % self.classes)
            gradients: tuple[torch.Tensor | None, ...] = ()
            if loss.requires_grad:
                try:
                    gradients = torch.autograd.grad(loss, learning, allow_unused=True)
                except RuntimeError as error:
                    what = str(error).partition(" Hint: ")[0].rstrip(".")
                    raise ConfigError(
                        f"{self.config.where}: the model cannot learn: its backward pass fails: {what}{_mend(error)}"
                    ) from error
        if all(gradient is None for gradient in gradients):
            raise ConfigError(
                f"{self.config.where}: no gradient leads from the model's logits to any of its layers, so nothing can "
                "be learned; look for torch.no_grad or detach in its forward()"
            )
        with torch.no_grad():
            for parameter, gradient in zip(learning, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient, alpha=_LR)

    @torch.no_grad()
    def check_memory(self, x: torch.Tensor, other: torch.Tensor) -> None:
        """Raise ConfigError if training leaves something behind that the state_dict does not hold.

        From one state_dict, the same images must have the same outcome twice, and in evaluation mode whatever came
        before. What every pass makes anew, a size of the batch or a map of attention, does no harm.
        """
        state = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        before = outside(self.model)
        first, again, third = (self._from(state, batch, x) for batch in (x, x, other))
        accumulated = _differing(first[0], again[0])
        if accumulated or not (torch.equal(first[1], again[1]) and torch.equal(again[2], third[2])):
            names = accumulated or _differing(before, first[0]) or ["something"]
            raise ConfigError(
                f"{self.config.where}: training changes {some(names)}, which the model keeps outside its state_dict: "
                "it would pass from one client to the next in a worker and be lost in the average; register it as a "
                "persistent buffer (self.register_buffer), which is averaged, or do not keep it"
            )

    def _from(
        self, state: dict[str, torch.Tensor], batch: torch.Tensor, x: torch.Tensor
    ) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        """A pass in training mode from a state_dict: what is outside it then, the logits, and those of evaluation."""
        with seeded(1, x.device):
            self._load(state)
            self.model.train()
            trained, left = self._logits(batch, ""), outside(self.model)
            self._load(state)
            self.model.eval()
            return left, trained.nan_to_num(), self._logits(x, "").nan_to_num()

    def _load(self, state: dict[str, torch.Tensor]) -> None:
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(state[name])

    def _logits(self, x: torch.Tensor, how: str) -> torch.Tensor:
        del self.open[:]
        given = inputs_of(self.shape)
        try:
            output = self.model(x)
        except Exception as error:
            inside = ""
            if self.open and self.open[-1]:
                inside = f" in {self.open[-1]} ({type(self.model.get_submodule(self.open[-1])).__name__})"
            raise ConfigError(
                f"{self.config.where}: the model fails on {given}{how}{inside}: {type(error).__name__}: "
                f"{error}{_mend(error)}"
            ) from error
        return checked(self.config, output, len(x), self.classes, how)


def checked(config: ModelConfig, output: Any, rows: int, classes: int, how: str = "") -> torch.Tensor:
    """The logits [rows, classes] in a model's output. Raises ConfigError if there are none."""
    logits = logits_of(output)
    if not isinstance(logits, torch.Tensor) or logits.shape != (rows, classes):
        given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            f"{config.where}: for {rows} images{how.rstrip(',')} the model gives {given}, not {[rows, classes]} "
            "logits; forward() returns them, alone or first in a tuple"
        )
    return logits


def outside(model: nn.Module) -> dict[str, Any]:
    """What a model keeps outside its state_dict, by name: buffers that are not persistent, and plain attributes.

    Tensors that carry a gradient's graph are left out: they come from this step, and the next one makes them anew.
    """
    saved = set(model.state_dict())
    contents = {name: _content(buffer) for name, buffer in model.named_buffers() if name not in saved}
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in _PLAIN:
                contents[f"{path}.{key}" if path else key] = _content(value)
    return contents


def _content(value: Any, around: frozenset[int] = frozenset()) -> Any:
    """What can be compared of a value: numbers, text, dense tensors, and the usual containers of them.

    `around` are the containers that it is in, by id: one may contain itself.
    """
    if isinstance(value, torch.Tensor):
        if value.requires_grad or not is_dense(value):
            return None
        raw = value.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.tobytes()).hexdigest()}"
    if isinstance(value, torch.Generator):
        return _content(value.get_state())
    if id(value) in around:
        return None
    inside = around | {id(value)}
    if isinstance(value, dict):
        return {repr(key): _content(item, inside) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        return [_content(item, inside) for item in value]
    return value if isinstance(value, bool | int | float | complex | str | bytes) else None


def is_dense(tensor: torch.Tensor) -> bool:
    """Whether every element lies in memory as its own bytes."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def _contents(state: dict[str, Any]) -> dict[str, Any]:
    return {name: _content(value) for name, value in state.items()}


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in after if repr(after[name]) != repr(before.get(name))]  # as text, NaN is itself


def _mend(error: Exception) -> str:
    return next((f"; {mend}" for said, mend in _MENDS if said in str(error)), "")


@contextmanager
def _running(model: nn.Module) -> Iterator[list[str]]:
    """A list of the modules that have begun and not ended, while forward() runs; after a failure, where it failed."""
    running: list[str] = []

    def begin(name: str) -> Callable[..., None]:
        return lambda *_: running.append(name)

    def end(*_: Any) -> None:
        if running:
            running.pop()

    named = list(model.named_modules())
    hooks = [module.register_forward_pre_hook(begin(name)) for name, module in named]
    hooks += [module.register_forward_hook(end) for _, module in named]
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()
