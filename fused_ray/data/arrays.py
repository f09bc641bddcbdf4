"""Own arrays in one NumPy file: train_images, train_labels, test_images, test_labels, and class_names if wanted."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fused_ray.data.source import Pixels, Source, in_memory, numbered
from fused_ray.errors import DataError
from fused_ray.types import IntVector

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_CHANNELS = (1, 3)


def find(path: Path) -> Path:
    """The file itself. Raises DataError if there is none."""
    if not path.is_file():
        raise DataError(f"data.root: there is no file {path}; npz wants an .npz file with {', '.join(_ARRAYS)}")
    return path


def read(path: Path) -> Source:
    """Images uint8 [n, h, w], [n, h, w, c] or [n, c, h, w] with c of 1 or 3; whole-number labels [n] or [n, 1].

    Nothing is unpickled. Raises DataError naming the file, the array and, for a label, the row.
    """
    found = _load(path)
    splits = {}
    for name in ("train", "test"):
        images = _images(found[f"{name}_images"], f"{path}, {name}_images")
        labels = _labels(found[f"{name}_labels"], f"{path}, {name}_labels")
        if len(images) != len(labels):
            raise DataError(f"{path}: {name}_images has {len(images)} images, {name}_labels {len(labels)} labels")
        splits[name] = (images, labels)
    names = found.get("class_names")
    if names is not None and (names.ndim != 1 or names.dtype.kind != "U"):
        raise DataError(f"{path}, class_names: {names.dtype} {list(names.shape)}, not a vector of words")
    by_array = {f"{path}, {name}_labels": split[1] for name, split in splits.items()}
    class_names = numbered(by_array, None if names is None else tuple(map(str, names)))
    return Source(in_memory(*splits["train"]), in_memory(*splits["test"]), class_names)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is one array, not an .npz file with {', '.join(_ARRAYS)}")
        with file:
            missing = [name for name in _ARRAYS if name not in file.files]
            if missing:
                raise DataError(f"{path} has the arrays {', '.join(file.files)}; it lacks {', '.join(missing)}")
            return {name: file[name] for name in (*_ARRAYS, "class_names") if name in file.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not a readable .npz file of plain arrays: {error}") from None


def _images(array: NDArray[Any], where: str) -> Pixels:
    if array.dtype != np.uint8:
        raise DataError(f"{where}: {array.dtype}, not uint8")
    if array.ndim == 3:
        return np.ascontiguousarray(array[:, None])
    first, last = (array.ndim == 4 and array.shape[axis] in _CHANNELS for axis in (1, -1))
    if first == last:
        raise DataError(
            f"{where}: {list(array.shape)} is none of [n, h, w], [n, h, w, c] and [n, c, h, w] with c of 1 or 3"
        )
    return np.ascontiguousarray(array if first else array.transpose(0, 3, 1, 2))


def _labels(array: NDArray[Any], where: str) -> IntVector:
    if array.dtype.kind not in "iu":
        raise DataError(f"{where}: {array.dtype}, not whole numbers")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: {list(array.shape)}, not [n] or [n, 1]")
    return array.astype(np.int64)
