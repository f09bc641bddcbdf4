"""Reading image data: the embedded set's facts, the places that are searched, and every fault in a file."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import struct
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import LocalFileSystem

from fused_ray.config import DataConfig
from fused_ray.config.parts.datasets import DATASETS
from fused_ray.data import datasets, torchvision_sets
from fused_ray.data.idx import read_idx
from fused_ray.data.parquet import read_files
from fused_ray.data.parquet_file import ParquetFile
from fused_ray.errors import DataError

ROOT = Path(__file__).resolve().parents[3]
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(scope="module")
def mini() -> Any:
    return datasets.load(DataConfig(), 0)


# --- the embedded set ------------------------------------------------------------------------------------


def test_the_embedded_set_is_what_the_registry_declares(mini: Any) -> None:
    info = DATASETS["fashion-mnist-mini"]
    assert mini.name == "fashion-mnist-mini"
    assert mini.classes == info.classes == len(info.class_names)
    assert mini.train_images.shape == (info.train_examples, *info.shape)
    assert mini.test_images.shape == (info.test_examples, *info.shape)
    assert mini.train_images.dtype == mini.test_images.dtype == np.uint8
    assert mini.train_labels.dtype == mini.test_labels.dtype == np.int64
    assert np.bincount(mini.train_labels).tolist() == [1000] * 10
    assert np.bincount(mini.test_labels).tolist() == [200] * 10


def test_mean_and_deviation_are_constants_or_what_is_told(mini: Any) -> None:
    assert (mini.mean, mini.std) == ((0.286,), (0.353,))
    told = datasets.load(DataConfig(mean=0.25, std=(0.125,), limit=10), 0)
    assert (told.mean, told.std) == ((0.25,), (0.125,))


def test_the_embedded_set_is_small_and_carries_its_licence() -> None:
    assert sum(file.stat().st_size for file in datasets.EMBEDDED.glob("*.parquet")) <= 5_000_000
    notice = (datasets.EMBEDDED / "LICENSE.fashion-mnist").read_text(encoding="utf-8")
    assert "Copyright (c) 2017 Zalando SE" in notice
    assert "Permission is hereby granted, free of charge" in notice
    assert "THE SOFTWARE IS PROVIDED" in notice


@pytest.mark.skipif(not torchvision_sets.DEBIAN.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_embedded_pixels_equal_their_source(mini: Any) -> None:
    """Each image names the one it was made from; none is taken twice."""
    for split, stem, images, labels in (
        ("train", "train", mini.train_images, mini.train_labels),
        ("test", "t10k", mini.test_images, mini.test_labels),
    ):
        table = pq.read_table(datasets.EMBEDDED / f"fashion-mnist-mini-{split}.parquet")
        origin = np.array([int(Path(cell["path"]).stem) for cell in table["image"].to_pylist()])
        assert len(np.unique(origin)) == len(origin)
        source = read_idx(torchvision_sets.DEBIAN / f"{stem}-images-idx3-ubyte.gz", 3)
        assert np.array_equal(images[:, 0], source[origin])
        assert np.array_equal(labels, read_idx(torchvision_sets.DEBIAN / f"{stem}-labels-idx1-ubyte.gz", 1)[origin])


def test_the_maker_of_the_embedded_set_is_deterministic(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_embedded_data", ROOT / "benchmarks" / "make_embedded_data.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    images = np.arange(40 * 784, dtype=np.uint32).astype(np.uint8).reshape(40, 1, 28, 28)
    labels = np.arange(40) % 10
    for name in ("a", "b"):
        maker.write(tmp_path / name, images, labels, 2, "some-purpose")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    file = ParquetFile(LocalFileSystem(), str(tmp_path / "a"), "a")
    split = read_files([file], [file]).train
    read, read_labels = split.images(None).pixels, split.labels
    assert np.bincount(read_labels).tolist() == [2] * 10
    assert {image.tobytes() for image in read} < {image.tobytes() for image in images}


# --- data.limit ------------------------------------------------------------------------------------------


def test_a_limit_keeps_classes_balanced_and_the_constants(mini: Any) -> None:
    small = datasets.load(DataConfig(limit=103), 0)
    for labels in (small.train_labels, small.test_labels):
        counts = np.bincount(labels, minlength=10)
        assert counts.sum() == 103
        assert counts.max() - counts.min() <= 1
    assert (small.mean, small.std) == (mini.mean, mini.std)


def test_a_limit_above_the_test_set_leaves_it_whole(mini: Any) -> None:
    part = datasets.load(DataConfig(limit=3000), 0)
    assert len(part.train_labels) == 3000
    assert np.array_equal(part.test_images, mini.test_images)


def test_a_limit_is_drawn_from_the_seed_and_keeps_the_order(mini: Any) -> None:
    first, again, other = (datasets.load(DataConfig(limit=50), seed) for seed in (0, 0, 1))
    assert np.array_equal(first.train_images, again.train_images)
    assert not np.array_equal(first.train_images, other.train_images)
    place = {image.tobytes(): i for i, image in enumerate(mini.train_images)}
    places = [place[image.tobytes()] for image in first.train_images]
    assert places == sorted(places)


# --- the places of the full set --------------------------------------------------------------------------


def idx(array: Any, magic: bytes = b"") -> bytes:
    array = np.asarray(array, np.uint8)
    head = magic or bytes([0, 0, 8, array.ndim])
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder: Path, train: int = 20, test: int = 10, zipped: bool = False) -> Path:
    """Four small IDX files; image i is filled with i."""
    folder.mkdir(parents=True)
    for stem, n in (("train", train), ("t10k", test)):
        images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 28, 28))
        for name, content in (("images-idx3", idx(images)), ("labels-idx1", idx(np.arange(n) % 10))):
            path = folder / f"{stem}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Fashion-MNIST, where the set has 20 + 10 images."""
    small = dataclasses.replace(DATASETS["fashion-mnist"], train_examples=20, test_examples=10)
    monkeypatch.setitem(DATASETS, "fashion-mnist", small)
    monkeypatch.setattr(torchvision_sets, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(torchvision_sets, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("FUSED_RAY_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


FULL = DataConfig(name="fashion-mnist")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_data_root_may_hold_the_files_or_be_a_torchvision_root(nowhere: Path, zipped: bool, below: str) -> None:
    folder = write_set(nowhere / "root" / below, zipped=zipped)
    config = DataConfig(name="fashion-mnist", root=str(nowhere / "root"))
    assert datasets.find(config) == folder
    data = datasets.load(config, 0)
    assert data.train_images.shape == (20, 1, 28, 28)
    assert data.train_images[:, 0, 5, 5].tolist() == list(range(20))
    assert data.test_labels.tolist() == list(range(10))
    assert (data.mean, data.std) == ((0.286,), (0.353,))


def test_the_places_are_searched_in_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSED_RAY_DATA", str(nowhere / "env"))
    assert datasets.find(FULL) is None
    below = Path("FashionMNIST/raw")
    places = [Path("data") / below, nowhere / "cache" / below, nowhere / "env" / below, nowhere / "debian"]
    for place in places:  # from the last that is searched to the first
        write_set(place)
        assert datasets.find(FULL) == place


def test_an_incomplete_folder_is_passed_over(nowhere: Path) -> None:
    write_set(nowhere / "debian")
    (nowhere / "debian" / STEMS[3]).unlink()
    assert datasets.find(FULL) is None


def names_three_ways(error: BaseException) -> bool:
    text = str(error)
    return "\n" not in text and all(way in text for way in ("dataset-fashion-mnist", "data.root", "download"))


def test_a_root_without_the_data_names_the_ways_out(nowhere: Path) -> None:
    write_set(nowhere / "debian")  # a root that is given is not silently replaced by another place
    with pytest.raises(DataError) as caught:
        datasets.find(DataConfig(name="fashion-mnist", root=str(nowhere / "missing")))
    assert names_three_ways(caught.value)
    assert "missing" in str(caught.value)


def test_the_embedded_set_is_not_found_in_a_wrong_root(tmp_path: Path) -> None:
    assert datasets.find(DataConfig()) == datasets.EMBEDDED
    with pytest.raises(DataError, match=r"leave data\.root unset"):
        datasets.find(DataConfig(root=str(tmp_path)))


def test_a_failed_download_names_the_ways_out(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        class datasets:
            @staticmethod
            def FashionMNIST(root: str, download: bool) -> None:
                raise OSError("no\nnetwork")

    monkeypatch.setattr(torchvision_sets, "import_torchvision", lambda: Offline)
    with pytest.raises(DataError, match="no network") as caught:
        datasets.load(FULL, 0)
    assert names_three_ways(caught.value)


def test_a_machine_without_a_network_is_told_the_ways_out(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real torchvision, whose download meets a proxy that refuses."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    with pytest.raises(DataError, match="could not download") as caught:
        datasets.load(FULL, 0)
    assert names_three_ways(caught.value)


def test_a_download_is_read(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Online:
        class datasets:
            @staticmethod
            def FashionMNIST(root: str, download: bool) -> None:
                write_set(Path(root) / "FashionMNIST" / "raw")

    monkeypatch.setattr(torchvision_sets, "import_torchvision", lambda: Online)
    assert len(datasets.load(FULL, 0).train_labels) == 20
    assert datasets.find(FULL) == nowhere / "cache" / "FashionMNIST" / "raw"


@pytest.mark.parametrize(
    ("stem", "content", "message"),
    [
        (STEMS[0], idx(np.zeros((19, 28, 28))), "19 images"),
        (STEMS[0], idx(np.zeros((20, 28, 27))), "28, 27"),
        (STEMS[1], idx([10] * 20), "labels"),
        (STEMS[3], idx([0] * 11), "11 labels"),
    ],
)
def test_sets_that_do_not_fit_together(nowhere: Path, stem: str, content: bytes, message: str) -> None:
    (write_set(nowhere / "debian") / stem).write_bytes(content)
    with pytest.raises(DataError, match=message):
        datasets.load(FULL, 0)


def test_a_set_of_the_wrong_size_is_refused(nowhere: Path) -> None:
    write_set(nowhere / "debian", train=21)
    with pytest.raises(DataError, match="21 images, not 20"):
        datasets.load(FULL, 0)


# --- IDX -------------------------------------------------------------------------------------------------

GOOD = idx(np.arange(24).reshape(4, 3, 2))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_by_hand(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "file").write_bytes(pack(GOOD))
    read = read_idx(tmp_path / "file", 3)
    assert read.dtype == np.uint8
    assert read.tolist() == np.arange(24).reshape(4, 3, 2).tolist()


ZIPPED = gzip.compress(GOOD)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:10], id="half a header"),
        pytest.param(b"\1" + GOOD[1:], id="magic"),
        pytest.param(idx(np.zeros((4, 3, 2)), bytes([0, 0, 13, 3])), id="floats"),
        pytest.param(idx(np.zeros((4, 3))), id="dimensions"),
        pytest.param(GOOD[:-1], id="truncated"),
        pytest.param(GOOD + b"\0", id="too long"),
        pytest.param(GOOD[:4] + b"\xff" * 12 + GOOD[16:], id="absurd sizes"),
        pytest.param(ZIPPED[:-9], id="gzip truncated"),
        pytest.param(ZIPPED[:12] + b"\xff\xff\xff\xff" + ZIPPED[16:], id="gzip damaged"),
        pytest.param(ZIPPED[:-8] + b"\0" * 8, id="gzip checksum"),
    ],
)
def test_faulty_idx_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some-file"
    path.write_bytes(content)
    with pytest.raises(DataError, match="some-file"):
        read_idx(path, 3)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="some-file"):
        read_idx(tmp_path / "some-file", 3)
