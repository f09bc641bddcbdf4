"""Weights from a file in a model: they fit exactly or are refused, tensor by tensor, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

from fused_ray.core.state import Arrays
from fused_ray.errors import ConfigError


def read(path: Path, like: Mapping[str, NDArray[np.generic]], model: str) -> Arrays:
    """A model's weights from a safetensors file (`model.weights`) in the dtypes of `like`. Raises ConfigError."""
    file = path.expanduser()
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise ConfigError(f"model.weights: there is no file {file}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"model.weights: {file} is not a readable safetensors file: {error}") from None
    given = {name: (t.float() if t.is_floating_point() else t).numpy() for name, t in tensors.items()}
    try:
        return fitted(given, like, str(file), model)
    except ValueError as error:
        raise ConfigError(f"model.weights: {error}") from None


def fitted(
    given: Mapping[str, NDArray[np.generic]], like: Mapping[str, NDArray[np.generic]], file: str, model: str
) -> Arrays:
    """The tensors of a file in the dtypes of `like`. Raises ValueError naming the one that does not fit."""
    for name, array in like.items():
        if name not in given:
            raise ValueError(f"{file} has no tensor {name}, which {model} needs")
        if given[name].shape != array.shape:
            raise ValueError(f"{name} in {file} is {list(given[name].shape)}, {model} needs {list(array.shape)}")
        # the model itself may have some: a mask of -inf
        if not (np.isfinite(given[name]) | (given[name] == array)).all():
            raise ValueError(f"{name} in {file} has values that are not finite")
    unknown = sorted(set(given) - set(like))
    if unknown:
        raise ValueError(f"{file} has tensors that {model} lacks: {', '.join(unknown)}")
    return {name: given[name].astype(array.dtype) for name, array in like.items()}
