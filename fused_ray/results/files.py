"""Models and adapters as safetensors files: nothing is pickled, so nothing that is loaded can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fused_ray.core.adapter import Mask, Masks
from fused_ray.core.state import Arrays, state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.types import FloatVector


def encode_state(state: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A model's parameters and buffers with their hash in the header."""
    return save({k: np.asarray(v, order="C") for k, v in state.items()}, metadata={"sha256": state_hash(state)})


def read_tensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """All tensors of a safetensors file and its header's metadata. Raises RunDirectoryError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError:
        raise RunDirectoryError(f"there is no file {path}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise RunDirectoryError(f"{path} is not a readable safetensors file: {error}") from None


def read_state(path: Path) -> Arrays:
    """A model from a file. Raises RunDirectoryError if it is unreadable or does not have the hash it was saved with."""
    state, about = read_tensors(path)
    if about.get("sha256", state_hash(state)) != state_hash(state):
        raise RunDirectoryError(f"{path} is damaged: its content does not have the hash that it was saved with")
    return state


def encode_adapter(masks: Masks, values: FloatVector, about: Mapping[str, Any]) -> bytes:
    """An adapter: its values [V], each mask's positions, and the masks' digest in the header."""
    tensors: dict[str, np.ndarray[Any, Any]] = {"values": values}
    tensors |= {f"positions.{mask.layer}": mask.positions for mask in masks.layers}
    layers = [{"layer": mask.layer, "entries": mask.entries} for mask in masks.layers]
    header = {
        "masks": json.dumps(layers),
        "digest": masks.digest,
        "sha256": state_hash({"values": values}),
        "about": json.dumps(about),
    }
    return save(tensors, metadata=header)


def read_adapter(path: Path) -> tuple[Masks, FloatVector]:
    """An adapter from a file. Raises RunDirectoryError if it is unreadable or its masks are not those saved."""
    tensors, about = read_tensors(path)
    try:
        layers = json.loads(about["masks"])
        masks = Masks(
            tuple(Mask(i["layer"], i["entries"], tensors[f"positions.{i['layer']}"].astype(np.int64)) for i in layers)
        )
        values: FloatVector = tensors["values"].astype(np.float32)
        intact = masks.digest == about["digest"] and values.shape == (masks.size,)
        intact = intact and state_hash({"values": values}) == about["sha256"]
    except (KeyError, TypeError, ValueError):
        intact = False
    if not intact:
        raise RunDirectoryError(f"{path} is damaged: it does not hold the adapter that was saved")
    return masks, values
