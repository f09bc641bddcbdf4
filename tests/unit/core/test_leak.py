"""Nothing of what must be forgotten reaches a model that never saw it: not through the constants, not through a draw.

Whole runs on real files, twice: as they are, and with other pixels in D_u alone. M_r gets other bits by it; the
retrained model, and Exact-Fun's, keep theirs.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import load_file

from fused_ray import RunConfig, load_run, run
from fused_ray.core.state import state_hash
from fused_ray.data import datasets, scenarios

FAST = [
    *("engine.backend=local", "federation.clients=3", "data.min_examples=1", "output.plots=false", "train.lr=0.05"),
    *("pretrain.rounds=2", "unlearn.method=exactfun", "audit.enabled=false"),
]
CLASSES, SIDE = 3, 16


def encoded(pixels: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def pictures(count: int, seed: int) -> Any:
    """Colour images uint8 [count, height, width, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def changed(images: Any, rows: Any) -> Any:
    """The same with these rows' pixels much brighter, so that any mean over all of them moves."""
    images = images.copy()
    images[rows] = 255 - images[rows] // 8
    return images


def write_parquet(folder: Path, rows: Any) -> list[str]:
    """60 + 15 images, and D_u (class 0) in other pixels if its rows are given."""
    folder.mkdir()
    for split, count in (("train", 60), ("test", 15)):
        images = pictures(count, count)
        cells = [encoded(image) for image in (changed(images, rows) if split == "train" else images)]
        pq.write_table(pa.table({"image": cells, "label": np.arange(count) % CLASSES}), folder / f"{split}.parquet")
    return ["data.name=parquet", f"data.root={folder}"]


def write_arrays(folder: Path, rows: Any) -> list[str]:
    """The same as arrays, in uneven shades; rows that are given get other labels too."""
    folder.mkdir()
    images, labels = pictures(60, 1), np.arange(60) % CLASSES
    labels[rows] = (labels[rows] + 1) % CLASSES
    np.savez(
        folder / "own.npz",
        train_images=changed(images, rows),
        train_labels=labels,
        test_images=images[:15],
        test_labels=np.arange(15) % CLASSES,
    )
    return ["data.name=npz", f"data.root={folder / 'own.npz'}", "data.partition=iid", "data.augment=crop-flip"]


def write_embedded(folder: Path, rows: Any) -> list[str]:
    """The embedded set with other pixels in some rows of the training set."""
    folder.mkdir()
    for split in ("train", "test"):
        name = f"fashion-mnist-mini-{split}.parquet"
        table = pq.read_table(datasets.EMBEDDED / name)
        cells = table["image"].to_pylist()
        for row in rows if split == "train" else ():
            pixels = np.asarray(Image.open(io.BytesIO(cells[row]["bytes"])))
            cells[row]["bytes"] = encoded(255 - pixels // 8)
        place = table.schema.get_field_index("image")
        cells = pa.array(cells, table.schema.field("image").type)
        pq.write_table(table.set_column(place, table.schema.field("image"), cells), folder / name)
    return [f"data.root={folder}", "data.limit=120"]


def hashes(fields: list[str], out: Path) -> dict[str, str]:
    result = run(RunConfig.from_dict({}, [*FAST, *fields, f"output.dir={out}"]))
    found = {name: result["hash"][name] for name in ("base", "unlearned")}
    return found | {"retrained": state_hash(load_file(load_run(out).path / "retrained.safetensors"))}


@pytest.mark.parametrize(
    ("write", "forget"),
    [
        (write_parquet, ["forget.scenario=class"]),
        (write_arrays, ["forget.scenario=client", "forget.clients=[1]", "forget.poison=false"]),
        (write_embedded, ["forget.scenario=sample", "forget.share=0.4"]),
    ],
    ids=["parquet", "npz", "embedded"],
)
def test_other_pixels_in_what_is_forgotten_leave_what_never_saw_it(
    write: Callable[[Path, Any], list[str]], forget: list[str], tmp_path: Path
) -> None:
    plain = [*write(tmp_path / "plain", np.zeros(0, np.int64)), *forget]
    config = RunConfig.from_dict({}, [*FAST, *plain])
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    gone = np.concatenate([scenario.forgotten(client) for client in range(len(scenario.held))])
    assert data.train_rows is not None
    other = [*write(tmp_path / "other", data.train_rows[gone]), *forget]
    before, after = hashes(plain, tmp_path / "a"), hashes(other, tmp_path / "b")
    assert after["base"] != before["base"]
    assert after["retrained"] == before["retrained"]
    assert after["unlearned"] == before["unlearned"]
    assert len({*before.values()}) == 3
