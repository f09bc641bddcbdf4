"""Pictures and Parquet files as people have them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import datasets, scenarios
from fused_ray.errors import FusedRayError
from fused_ray.types import ImageData, Scenario

CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


GREY = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)


def encoded(pixels: Any, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


PNG = encoded(GREY)


def write(path: Path, cells: list[Any], labels: Any, **more: Any) -> None:
    """One file of a split; cells are bytes, or what else stands in the column."""
    cells = [{"bytes": cell, "path": None} if isinstance(cell, bytes) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(cells, CELL), "label": labels, **more}), path)


def brought(root: Path, cells: list[Any], labels: Any = None, test: list[Any] | None = None, **more: Any) -> ImageData:
    """A data set with these training images, and by default the first of them as its test set."""
    write(root / "train.parquet", cells, np.arange(len(cells)) % 2 if labels is None else labels, **more)
    write(
        root / "test.parquet",
        test or cells[:1],
        (np.arange(1) if labels is None else labels[:1]),
    )
    return load(root)


def load(root: Path, **fields: Any) -> ImageData:
    return datasets.load(DataConfig(name="parquet", root=str(root), **fields), 0)


def refusal(*given: Any, **fields: Any) -> str:
    """What is said of a data set that is refused."""
    with pytest.raises(FusedRayError) as caught:
        brought(*given, **fields) if len(given) > 1 else load(*given, **fields)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def built(config: RunConfig) -> Scenario:
    return scenarios.build(config, datasets.load(config.data, config.seed))
