"""IDX files, the format of MNIST and its kin, gzip-compressed or plain."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from fused_ray.data.source import Pixels
from fused_ray.errors import DataError
from fused_ray.types import IntVector


def read_idx(path: Path, dimensions: int) -> Pixels:
    """An IDX file of unsigned bytes: uint8 of its own shape. Raises DataError."""
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
