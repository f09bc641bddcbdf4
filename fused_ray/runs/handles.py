"""A run's models and its adapter for plain PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from fused_ray import models
from fused_ray.config import RunConfig
from fused_ray.core import state
from fused_ray.core.adapter import Adapter
from fused_ray.core.state import Arrays
from fused_ray.errors import RunDirectoryError
from fused_ray.storage.files import read_adapter, read_state
from fused_ray.types import FloatVector

Which = Literal["before", "after", "retrained"]


@dataclass(frozen=True)
class AdapterHandle:
    """The adapter of a finished run; it goes onto and comes off any copy of the run's model, in place and exactly."""

    adapter: Adapter
    values: FloatVector
    """[V]"""
    base: Arrays
    """M_r: float arithmetic alone cannot take an adapter off to the bit."""

    def apply(self, model: nn.Module) -> None:
        """Make M_r into M_f = M_r + A_f. Raises RunDirectoryError if the model is not M_r."""
        self._turn(model, self.base, self.adapter.apply(self.base, self.values), "M_r, the model before unlearning")

    def remove(self, model: nn.Module) -> None:
        """Make M_f into M_r again. Raises RunDirectoryError if the model is not M_f."""
        self._turn(model, self.adapter.apply(self.base, self.values), self.base, "M_f, the model with the adapter on")

    def _turn(self, model: nn.Module, is_now: Arrays, will_be: Arrays, name: str) -> None:
        if state.state_hash(state.arrays(model)) != state.state_hash(is_now):
            raise RunDirectoryError(f"the model is not this run's {name}: its hash is another one")
        state.write(model, state.flatten(will_be))


def read_adapter_handle(folder: Path) -> AdapterHandle | None:
    """The adapter of a finished run; None where a method changed the whole model. Raises RunDirectoryError."""
    if (folder / "unlearned.safetensors").exists():
        return None
    adapter, values = read_adapter(folder / "adapter.safetensors")
    return AdapterHandle(adapter, values, read_state(folder / "base.safetensors"))


def model_that_forgot(folder: Path) -> Arrays:
    """M_f of a finished run. Raises RunDirectoryError if its files are damaged."""
    handle = read_adapter_handle(folder)
    if handle is None:
        return read_state(folder / "unlearned.safetensors")
    return handle.adapter.apply(handle.base, handle.values)


def built(folder: Path, config: RunConfig, about_data: Mapping[str, Any], which: Which) -> nn.Module:
    """One of a run's models in evaluation mode, on the CPU. Raises RunDirectoryError where the run has none such."""
    if which == "retrained" and not (folder / "retrained.safetensors").exists():
        raise RunDirectoryError(f"{folder} has no retrained model: it was run with retrain.rounds=0")
    if which == "after":
        arrays = model_that_forgot(folder)
    else:
        arrays = read_state(folder / f"{'base' if which == 'before' else 'retrained'}.safetensors")
    model = models.build(config.model, tuple(about_data["shape"]), about_data["classes"])
    state.write(model, state.flatten(arrays))
    return model.eval()
