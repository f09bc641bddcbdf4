"""Models and adapters as safetensors files: nothing is pickled, so nothing that is loaded can run code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fused_ray.config.fields import Constants
from fused_ray.config.parts.adapters import ADAPTER
from fused_ray.config.parts.door import function
from fused_ray.core.adapter import Adapter, Mask, Masks
from fused_ray.core.lora import Lora
from fused_ray.core.state import Arrays, state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.types import FloatVector


def encode_state(state: Mapping[str, np.ndarray[Any, Any]], constants: Constants | None = None) -> bytes:
    """A model's parameters and buffers; in the header their hash, and what its training images were normalised by."""
    header = {"sha256": state_hash(state)}
    if constants is not None:
        header |= {"mean": json.dumps(constants[0]), "std": json.dumps(constants[1])}
    return save({k: np.asarray(v, order="C") for k, v in state.items()}, metadata=header)


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """All tensors of a safetensors file and its header's metadata. Raises RunDirectoryError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise RunDirectoryError(f"there is no file {path}") from None
    except (OSError, SafetensorError, ValueError, TypeError) as error:  # TypeError: bfloat16, which NumPy lacks
        raise RunDirectoryError(f"{path} is not a readable safetensors file: {error}") from None


def read_state(path: Path) -> Arrays:
    """A model from a file. Raises RunDirectoryError if it is unreadable or does not have the hash it was saved with."""
    return read_model(path)[0]


def read_model(path: Path) -> tuple[Arrays, Constants | None]:
    """A model from a file, and what its training images were normalised by, if the file says it.

    Raises RunDirectoryError if it is unreadable or does not have the hash it was saved with.
    """
    state, about = read_tensors(path)
    if about.get("sha256", state_hash(state)) != state_hash(state):
        raise RunDirectoryError(f"{path} is damaged: its content does not have the hash that it was saved with")
    if not {"mean", "std"} <= about.keys():
        return state, None
    try:
        mean, std = (tuple(map(float, json.loads(about[key]))) for key in ("mean", "std"))
    except (TypeError, ValueError):
        mean = std = ()
    if not (mean and std):
        raise RunDirectoryError(f"{path} is damaged: mean and std in its header are no numbers")
    return state, (mean, std)


def encode_adapter(adapter: Adapter, values: FloatVector, about: Mapping[str, Any]) -> bytes:
    """An adapter: its values [V], what gives them their meaning (masks' positions, or a product's shape), a digest."""
    meaning, arrays = adapter.saved()
    header = {"digest": adapter.digest, "sha256": state_hash({"values": values}), "about": json.dumps(about)}
    if isinstance(adapter, Masks | Lora):
        header["masks" if isinstance(adapter, Masks) else "lora"] = json.dumps(meaning)
    else:
        header |= {"kind": about["kind"], "meaning": json.dumps(meaning)}
    return save({"values": values, **arrays}, metadata=header)


def read_adapter(path: Path) -> tuple[Adapter, FloatVector]:
    """An adapter from a file. Raises RunDirectoryError if it is unreadable or not the one that was saved."""
    tensors, about = read_tensors(path)
    try:
        adapter = _adapter(path, tensors, about)
        values: FloatVector = tensors["values"].astype(np.float32)
        intact = adapter.digest == about["digest"] and values.shape == (adapter.size,)
        intact = intact and state_hash({"values": values}) == about["sha256"]
    except (LookupError, TypeError, ValueError):
        intact = False
    if not intact:
        raise RunDirectoryError(f"{path} is damaged: it does not hold the adapter that was saved")
    return adapter, values


def _adapter(path: Path, tensors: Arrays, about: Mapping[str, str]) -> Adapter:
    if "lora" in about:
        return _lora(about["lora"])
    if "kind" not in about:
        return _masks(about["masks"], tensors)
    try:
        load = ADAPTER.find(about["kind"]).load
        assert load is not None
        loaded: Callable[..., Adapter] = function(load)
    except ValueError as error:
        raise RunDirectoryError(f"{path} holds an adapter of another package: {error}") from None
    return loaded(json.loads(about["meaning"]), {name: array for name, array in tensors.items() if name != "values"})


def _masks(text: str, tensors: Arrays) -> Masks:
    layers = json.loads(text)
    return Masks(
        tuple(Mask(i["layer"], i["entries"], tensors[f"positions.{i['layer']}"].astype(np.int64)) for i in layers)
    )


def _lora(text: str) -> Lora:
    about = json.loads(text)
    return Lora(tuple(about["names"]), tuple(map(tuple, about["shapes"])), about["rank"], about["alpha"])
