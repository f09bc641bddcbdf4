"""Own arrays in one NumPy file: the shapes that are taken, and every fault in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray.config import DataConfig, RunConfig
from fused_ray.data import datasets, scenarios
from fused_ray.errors import ConfigError, DataError
from fused_ray.types import ImageData

IMAGES = np.arange(6 * 4 * 5, dtype=np.uint8).reshape(6, 4, 5)
COLOUR = np.arange(6 * 3 * 4 * 5, dtype=np.int64).astype(np.uint8).reshape(6, 3, 4, 5)
GOOD = {
    "train_images": IMAGES,
    "train_labels": np.array([0, 1, 2, 0, 1, 2]),
    "test_images": IMAGES[:2],
    "test_labels": np.array([2, 3]),
}


def load(path: Path, **arrays: Any) -> ImageData:
    np.savez(path, **{**GOOD, **arrays})
    return datasets.load(DataConfig(name="npz", root=str(path)), 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def test_grey_images(path: Path) -> None:
    data = load(path)
    assert data.train_images.tolist() == IMAGES[:, None].tolist()
    assert data.train_labels.dtype == np.int64
    assert (data.classes, data.class_names) == (4, ("0", "1", "2", "3"))
    assert (data.mean, data.std) == ((0.5,), (0.5,))


@pytest.mark.parametrize("last", [True, False], ids=["n h w c", "n c h w"])
def test_colour_images(path: Path, last: bool) -> None:
    shown = COLOUR.transpose(0, 2, 3, 1) if last else COLOUR
    data = load(path, train_images=shown, test_images=shown[:2])
    assert data.train_images.tolist() == COLOUR.tolist()


def test_labels_of_other_kinds_and_names(path: Path) -> None:
    names = np.array(["a", "b", "c", "d"])
    data = load(path, train_labels=np.array([[0], [1], [2], [0], [1], [2]], np.uint8), class_names=names)
    assert data.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.class_names == ("a", "b", "c", "d")


def test_one_mean_and_deviation_serve_all_channels_or_each_has_its_own(path: Path) -> None:
    np.savez(path, **{**GOOD, "train_images": COLOUR, "test_images": COLOUR[:2]})
    for mean, std, expected in (
        (None, None, ((0.5,) * 3, (0.5,) * 3)),
        (0.25, (0.1, 0.2, 0.3), ((0.25,) * 3, (0.1, 0.2, 0.3))),
    ):
        data = datasets.load(DataConfig(name="npz", root=str(path), mean=mean, std=std), 0)
        assert (data.mean, data.std) == expected


@pytest.mark.parametrize("key", ["mean", "std"])
def test_constants_for_another_number_of_channels_are_refused(path: Path, key: str) -> None:
    np.savez(path, **{**GOOD, "train_images": COLOUR, "test_images": COLOUR[:2]})
    fields = ("data.name=npz", f"data.root={path}", f"data.{key}=[0.1, 0.2]", "data.min_examples=1")
    config = RunConfig.from_dict({}, [*fields, "federation.clients=2"])
    with pytest.raises(ConfigError, match=rf"data\.{key}: there are 2 numbers, .* have 3 channels; give one"):
        scenarios.build(config, datasets.load(config.data, 0))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({"train_images": IMAGES / 255}, "train_images: float64 from 0.0 to 0.46.*by 255", id="floats"),
        pytest.param({"test_images": IMAGES[0]}, r"test_images: \[4, 5\] is none of", id="one image"),
        pytest.param({"train_images": np.zeros((6, 4, 5, 2), np.uint8)}, r"\[6, 4, 5, 2\]", id="two channels"),
        pytest.param({"train_images": np.zeros((6, 3, 5, 3), np.uint8)}, r"\[6, 3, 5, 3\]", id="ambiguous"),
        pytest.param({"train_images": IMAGES[:5]}, "has 5 images, train_labels 6", id="too few"),
        pytest.param({"train_labels": np.arange(6) / 2}, "train_labels, row 1: label 0.5 is no", id="half labels"),
        pytest.param({"train_labels": np.zeros((6, 2), int)}, r"train_labels: \[6, 2\]", id="labels a table"),
        pytest.param({"test_labels": np.array([0, -1])}, "test_labels, row 1: -1 is no class", id="negative"),
        pytest.param({"test_labels": np.array([0, 8])}, "row 1: 8 is no class; there are only 8", id="an id"),
        pytest.param({"class_names": np.array(["a", "b"])}, "row 2: 2 is no class; 2 classes", id="unnamed"),
        pytest.param({"class_names": np.array([1, 2, 3, 4])}, "class_names: int64", id="names numbers"),
        pytest.param({"train_labels": np.array([None] * 6)}, "not a readable .npz file of plain", id="objects"),
        pytest.param({"test_images": IMAGES[:, :3][:2]}, "test images", id="another size"),
        pytest.param({"test_images": IMAGES[:0], "test_labels": np.zeros(0, int)}, "test set is empty", id="empty"),
    ],
)
def test_faulty_arrays_are_named(path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"{path}.*{message}"):
        load(path, **arrays)


def test_faulty_files_are_named(path: Path) -> None:
    config = DataConfig(name="npz", root=str(path))
    with pytest.raises(DataError, match=r"data\.root: there is no file .*own\.npz"):
        datasets.find(config)
    np.savez(path, train_images=IMAGES)
    with pytest.raises(DataError, match="lacks train_labels, test_images, test_labels"):
        datasets.load(config, 0)
    np.save(path.with_suffix(".npy"), IMAGES)
    with pytest.raises(DataError, match="is one array"):
        datasets.load(DataConfig(name="npz", root=str(path.with_suffix(".npy"))), 0)
    np.savez(path, **GOOD)
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[:-100], whole[:200] + b"\0" * 50 + whole[250:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"own\.npz"):
            datasets.load(config, 0)
