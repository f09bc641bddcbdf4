"""Makes the embedded subset of Fashion-MNIST: 1,000 + 200 images a class as PNG in Parquet. Deterministic."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fused_ray.config import DataConfig
from fused_ray.data import datasets
from fused_ray.seeding import permutation


def png(pixels: np.ndarray) -> bytes:
    """A grey image [height, width] as PNG, not deflated: zstd over many images in a row makes less of them."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG", compress_level=0)
    return sink.getvalue()


def write(path: Path, images: np.ndarray, labels: np.ndarray, per_class: int, purpose: str) -> None:
    """A class-balanced part of a data set, in random order."""
    order = permutation(len(labels), 0, purpose)
    kept = np.concatenate([order[labels[order] == label][:per_class] for label in range(10)])
    kept = kept[permutation(len(kept), 0, f"{purpose}/order")]
    cells = [{"bytes": png(images[i, 0]), "path": f"{i}.png"} for i in kept]
    table = pa.table(
        {
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels[kept], pa.int64()),
        }
    )
    # a page is compressed as a whole: the larger, the better
    pq.write_table(table, path, compression="zstd", compression_level=22, use_dictionary=False, data_page_size=1 << 26)


if __name__ == "__main__":
    data = datasets.load(DataConfig(name="fashion-mnist"), 0)
    folder = datasets.EMBEDDED
    write(folder / "fashion-mnist-mini-train.parquet", data.train_images, data.train_labels, 1000, "embedded-train")
    write(folder / "fashion-mnist-mini-test.parquet", data.test_images, data.test_labels, 200, "embedded-test")
