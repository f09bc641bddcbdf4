"""Data sets in memory: the embedded Parquet subset, and full Fashion-MNIST from wherever it lies."""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from fused_ray import registry
from fused_ray.config import DataConfig
from fused_ray.errors import DataError
from fused_ray.seeding import permutation
from fused_ray.types import ImageData, IntVector

Pixels = NDArray[np.uint8]

EMBEDDED = Path(__file__).parent / "embedded"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path("~/.cache/fused_ray").expanduser()
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_WAYS = (
    "install the Debian package dataset-fashion-mnist, or point data.root to a folder with its four IDX files or to a "
    "torchvision root (a folder with FashionMNIST/raw/), or leave data.root unset and let torchvision download it"
)


def load(config: DataConfig, seed: int) -> ImageData:
    """The configured data set, cut to `data.limit` if that is set. Raises DataError."""
    if config.name == "fashion-mnist-mini":
        folder = find(config) or EMBEDDED
        train = read_parquet(folder / "fashion-mnist-mini-train.parquet")
        test = read_parquet(folder / "fashion-mnist-mini-test.parquet")
    else:
        folder = find(config) or _download()
        images, labels, test_images, test_labels = (_idx_path(folder, name) for name in _IDX)
        train = read_idx_pair(images, labels)
        test = read_idx_pair(test_images, test_labels)
    return assemble(config, seed, train, test)


def assemble(
    config: DataConfig, seed: int, train: tuple[Pixels, IntVector], test: tuple[Pixels, IntVector]
) -> ImageData:
    """Check images and labels against what is known of the data set, and apply `data.limit`. Raises DataError."""
    info = registry.DATASETS[config.name]
    parts = (("train", train, info.train_examples), ("test", test, info.test_examples))
    for part, (images, labels), expected in parts:
        if len(labels) != expected:
            raise DataError(f"{config.name} {part}: there are {len(labels)} images, not {expected}; get the files anew")
        if images.shape[1:] != info.shape:
            raise DataError(f"{config.name} {part}: images are {images.shape[1:]}, not {info.shape}")
        if len(labels) and not 0 <= labels.min() <= labels.max() < info.classes:
            raise DataError(
                f"{config.name} {part}: labels go from {labels.min()} to {labels.max()}, not 0 to {info.classes - 1}"
            )
    mean, std = _moments(train[0])
    if config.limit is not None:
        train = _balanced(train, config.limit, info.classes, seed, "limit-train")
        test = _balanced(test, config.limit, info.classes, seed, "limit-test")
    return ImageData(config.name, info.classes, mean, std, *train, *test)


def find(config: DataConfig) -> Path | None:
    """The folder that holds the data set, without reading it; None if it would have to be downloaded.

    Looks into `data.root` alone if it is set, else in this order: the Debian package, torchvision roots, a download.
    Raises DataError if `data.root` does not hold the data set.
    """
    if config.name == "fashion-mnist-mini":
        folder = EMBEDDED if config.root is None else Path(config.root).expanduser()
        for split in ("train", "test"):
            if not os.path.isfile(folder / f"fashion-mnist-mini-{split}.parquet"):
                raise DataError(f"data.root: {folder} has no fashion-mnist-mini-{split}.parquet; leave data.root unset")
        return folder
    if config.root is not None:
        root = Path(config.root).expanduser()
        for folder in (root, root / "FashionMNIST" / "raw"):
            if _is_idx_folder(folder):
                return folder
        raise DataError(
            f"data.root: {root} lacks some or all of the four files of Fashion-MNIST ({_IDX[0]}[.gz] ...); {_WAYS}"
        )
    roots = [Path(os.environ["FUSED_RAY_DATA"])] if "FUSED_RAY_DATA" in os.environ else []
    places = [DEBIAN, *(root / "FashionMNIST" / "raw" for root in (*roots, CACHE, Path("data")))]
    return next((folder for folder in places if _is_idx_folder(folder)), None)


def read_idx(path: Path, dimensions: int) -> Pixels:
    """An IDX file of unsigned bytes, gzip-compressed or plain: uint8 of its own shape. Raises DataError."""
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path} is no IDX file of bytes in {dimensions} dimension(s)")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(f"{path} is damaged: its header says {shape}, it holds {len(content) - header} bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_idx_pair(images: Path, labels: Path) -> tuple[Pixels, IntVector]:
    """Images uint8 [n, 1, height, width] and labels int64 [n] of two IDX files. Raises DataError."""
    pixels, classes = read_idx(images, 3), read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{images} has {len(pixels)} images, {labels.name} {len(classes)} labels")
    return pixels[:, None], classes.astype(np.int64)


def read_parquet(path: Path) -> tuple[Pixels, IntVector]:
    """Images uint8 [n, channels, height, width] and labels int64 [n] of a Parquet file in the Hugging Face layout.

    A column `image` or `img` of {bytes, path} with PNG or JPEG, and a column `label`. Raises DataError.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from None
    column = next((name for name in ("image", "img") if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise DataError(f"{path} has the columns {', '.join(table.column_names)}; it needs image (or img) and label")
    images: list[NDArray[np.uint8]] = []
    for row, cell in enumerate(table.column(column).to_pylist()):
        images.append(_decode(cell, f"{path}, column {column}, row {row}"))
        if images[-1].shape != images[0].shape:
            raise DataError(f"{path}, column {column}, row {row}: {images[-1].shape} differs from {images[0].shape}")
    labels = table.column("label")
    if not pa.types.is_integer(labels.type):
        raise DataError(f"{path}, column label: {labels.type}, not whole numbers")
    if labels.null_count:
        row = labels.is_null().to_pylist().index(True)
        raise DataError(f"{path}, column label, row {row}: there is no label")
    return np.stack(images) if images else np.zeros((0, 1, 1, 1), np.uint8), labels.to_numpy().astype(np.int64)


def _decode(cell: Any, where: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(cell["bytes"]), formats=("PNG", "JPEG")) as picture:
            pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    except (TypeError, KeyError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        # Pillow calls a broken PNG a SyntaxError
        raise DataError(f"{where}: not an image as {{bytes, path}} with PNG or JPEG bytes") from None
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _moments(images: Pixels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the pixels divided by 255, from exact counts of their values."""
    values = np.arange(256) / 255.0
    means, deviations = [], []
    for channel in range(images.shape[1]):
        counts = np.bincount(images[:, channel].ravel(), minlength=256)
        mean = float((counts * values).sum() / counts.sum())
        means.append(mean)
        deviations.append(float(np.sqrt((counts * (values - mean) ** 2).sum() / counts.sum())))
    return tuple(means), tuple(deviations)


def _balanced(
    part: tuple[Pixels, IntVector], limit: int, classes: int, seed: int, purpose: str
) -> tuple[Pixels, IntVector]:
    """At most `limit` examples, as evenly over the classes as there are examples, in their first order."""
    images, labels = part
    order = permutation(len(labels), seed, purpose)
    # rank within its class, in random order: taking the lowest ranks first is even over classes
    rank = np.empty(len(labels), np.int64)
    for label in range(classes):
        members = order[labels[order] == label]
        rank[members] = np.arange(len(members))
    kept = np.sort(order[np.argsort(rank[order], kind="stable")][:limit])
    return images[kept], labels[kept]


def _is_idx_folder(folder: Path) -> bool:
    # unlike Path.is_file, os.path.isfile says no where one may not look
    return all(os.path.isfile(folder / name) or os.path.isfile(folder / f"{name}.gz") for name in _IDX)


def _idx_path(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"


def _download() -> Path:
    from fused_ray.data.torchvision_import import import_torchvision

    try:
        import_torchvision().datasets.FashionMNIST(str(CACHE), download=True)
    except Exception as error:  # torchvision raises RuntimeError, URLError, OSError and more
        raise DataError(
            f"Fashion-MNIST is not on this machine, and torchvision could not download it ({error}); {_WAYS}"
        ) from None
    return CACHE / "FashionMNIST" / "raw"
