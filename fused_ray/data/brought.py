"""A data set that another package brings: loaded, and held to what a data set is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.config import DataConfig
from fused_ray.config.parts.datasets import DataSet
from fused_ray.config.parts.door import function
from fused_ray.data.source import Source, in_memory
from fused_ray.errors import DataError
from fused_ray.types import IntVector, Loaded


def read(config: DataConfig, part: DataSet, seed: int) -> Source:
    """What the part loads with the settings `data.args`. Raises DataError naming the part and what is wrong."""
    where = f"data.name: {config.name}"
    try:
        loaded = function(part.load)(seed, **dict(config.settings or ()))
    except DataError:
        raise
    except Exception as error:  # whatever the loader does
        raise DataError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, Loaded):
        raise DataError(f"{where} loads {type(loaded).__name__}, not fused_ray.api.Loaded")
    splits = {"train": (loaded.train_inputs, loaded.train_labels), "test": (loaded.test_inputs, loaded.test_labels)}
    classes = len(loaded.class_names) or _largest(loaded.train_labels, where, "train") + 1
    read = []
    for split, (inputs, labels) in splits.items():
        _check_inputs(inputs, part.images, f"{where}, {split}_inputs")
        numbers = _labels(labels, classes, where, split)
        if len(numbers) != len(inputs):
            raise DataError(f"{where}: there are {len(inputs)} {split}_inputs, but {len(numbers)} {split}_labels")
        read.append(in_memory(inputs, numbers))
    columns = {name: np.asarray(column) for name, column in loaded.columns.items()}
    for name, column in columns.items():
        if column.shape != (len(read[0].labels),):
            raise DataError(f"{where}: the column {name} is {list(column.shape)}, not one value per training example")
    names = tuple(map(str, loaded.class_names or range(classes)))
    return Source(read[0], read[1], names, tuple(loaded.notes), columns)


def _check_inputs(inputs: Any, images: bool, where: str) -> None:
    wanted, of = (np.uint8, "[n, channels, height, width]") if images else (np.float32, "[n, ...]")
    given = f"{inputs.dtype} {list(inputs.shape)}" if isinstance(inputs, np.ndarray) else type(inputs).__name__
    fits = isinstance(inputs, np.ndarray) and inputs.dtype == wanted
    if not fits or (inputs.ndim != 4 if images else inputs.ndim < 2) or 0 in inputs.shape[1:]:
        hint = "; say images=False of inputs that are none" if images else ""
        raise DataError(f"{where}: {given}, not {np.dtype(wanted)} {of}{hint}")
    if not images and not np.isfinite(inputs).all():
        row = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(1))[0]
        raise DataError(f"{where}: row {row} is not finite")


def _labels(labels: Any, classes: int, where: str, split: str) -> IntVector:
    largest = _largest(labels, where, split)
    array: NDArray[Any] = np.asarray(labels)
    if (array.size and array.min() < 0) or largest >= classes:
        wrong = array.min() if array.min() < 0 else largest
        raise DataError(f"{where}, {split}_labels: {wrong} is no class; there are {classes}, counted from 0")
    return array.astype(np.int64)


def _largest(labels: Any, where: str, split: str) -> int:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DataError(f"{where}, {split}_labels: {array.dtype} {list(array.shape)}, not whole numbers [n]")
    return int(array.max(initial=-1))
