"""Own arrays in one NumPy file: train_images, train_labels, test_images, test_labels, and class_names if wanted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fused_ray.data.columns import Column, column, from_numpy
from fused_ray.data.reading import reading
from fused_ray.data.source import Pixels, Source, in_memory, numbered
from fused_ray.errors import DataError

_SPLITS = ("train", "test")
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_CHANNELS = (1, 3)


def find(path: Path) -> Path:
    """The file itself. Raises DataError if there is none."""
    if not os.path.isfile(path):  # unlike Path.is_file, it says no where one may not look
        raise DataError(f"data.root: there is no file {path}; npz wants an .npz file with {', '.join(_ARRAYS)}")
    return path


def read(path: Path) -> Source:
    """Images [n, h, w], [n, h, w, c] or [n, c, h, w] of whole numbers 0 to 255, c of 1 or 3; labels [n] or [n, 1].

    Nothing is unpickled. Raises DataError naming the file, the array and, for a label, the row.
    """
    arrays = _load(path)
    names = arrays.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(f"{path}, class_names: {names.dtype} {list(names.shape)}, not a vector of words")
    images = [_images(arrays[f"{split}_images"], f"{path}, {split}_images") for split in _SPLITS]
    told = {f"{path}, {split}_labels": arrays[f"{split}_labels"] for split in _SPLITS}
    columns = {where: _labels(array, where) for where, array in told.items()}
    labels, class_names = numbered(columns, None if names is None else tuple(map(str, names)))
    for split, shown, classes in zip(_SPLITS, images, labels, strict=True):
        if len(shown) != len(classes):
            raise DataError(f"{path}: {split}_images has {len(shown)} images, {split}_labels {len(classes)} labels")
    train, test = map(in_memory, images, labels)
    return Source(train, test, class_names)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    with reading(str(path), "is not a readable .npz file of plain arrays"):
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one array, not an .npz file with {', '.join(_ARRAYS)}")
        with file:
            missing = [name for name in _ARRAYS if name not in file.files]
            if missing:
                raise DataError(f"{path} has the arrays {', '.join(file.files)}; it lacks {', '.join(missing)}")
            arrays = {name: file[name] for name in (*_ARRAYS, "class_names") if name in file.files}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a file in the archive that is none of NumPy's comes as its bytes
            raise DataError(f"{path}: {name} is no array")
    return arrays


def _images(array: NDArray[Any], where: str) -> Pixels:
    array = _bytes(array, where)
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, None])
    first, last = (array.ndim == 4 and array.shape[axis] in _CHANNELS for axis in (1, -1))
    if first == last:
        raise DataError(
            f"{where}: {list(array.shape)} is none of [n, h, w], [n, h, w, c] and [n, c, h, w] with c of 1 or 3"
        )
    return np.ascontiguousarray(array if first else array.transpose(0, 3, 1, 2))


def _bytes(array: NDArray[Any], where: str) -> Pixels:
    """The same values as uint8, if that keeps them; what goes to 1 at most could mean 255 by it, and is refused."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: {array.dtype}, not uint8")
    with np.errstate(invalid="ignore"):  # NaN
        pixels = array.astype(np.uint8)
    share = array.dtype.kind in "bf" and array.max(initial=0) <= 1
    if share or not np.array_equal(pixels, array):
        low, high = (array.min(), array.max()) if array.size else (0, 0)
        raise DataError(
            f"{where}: {array.dtype} from {low} to {high}, not whole numbers from 0 to 255; store uint8, shares of 1 "
            "multiplied by 255"
        )
    return pixels


def _labels(array: NDArray[Any], where: str) -> Column:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: {list(array.shape)}, not [n] or [n, 1]")
    with reading(where, "holds no labels"):
        return column(pa.chunked_array([from_numpy(array)]), where, "label")
