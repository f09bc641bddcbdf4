"""MNIST and CIFAR in torchvision's folders: small sets in the true formats, read by the true torchvision."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import struct
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray.config import DataConfig
from fused_ray.config.parts.datasets import DATASETS
from fused_ray.data import datasets, torchvision_sets
from fused_ray.data.torchvision_import import import_torchvision
from fused_ray.errors import DataError


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without these sets, where each has 10 + 4 images."""
    for name in ("mnist", "cifar10", "cifar100"):
        info = DATASETS[name]
        assert info is not None
        monkeypatch.setitem(DATASETS, name, dataclasses.replace(info, train_examples=10, test_examples=4))
    monkeypatch.setattr(torchvision_sets, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("FUSED_RAY_DATA", raising=False)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as they are published: pickled dicts with rows of 3072 bytes, red, green, blue; image i is filled with i.

    torchvision is told their MD5 sums in place of the published ones.
    """
    loader = getattr(import_torchvision().datasets, {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name])
    labels = "labels" if name == "cifar10" else "fine_labels"
    folder = root / loader.base_folder
    folder.mkdir(parents=True)

    def dump(file: str, content: Any) -> str:
        raw = pickle.dumps(content, protocol=2)
        (folder / file).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    def batch(start: int, count: int) -> dict[str, Any]:
        rows = np.repeat(np.arange(start, start + count, dtype=np.uint8)[:, None], 3072, axis=1)
        rows[:, 1024:2048] += 100  # green
        rows[:, 1] += 50  # the second pixel of the first line, red
        return {"data": rows, labels: [i % 10 for i in range(start, start + count)]}

    sizes = [2] * 5 if name == "cifar10" else [10]
    files = [file for file, _ in loader.train_list]
    sums = [[f, dump(f, batch(sum(sizes[:i]), sizes[i]))] for i, f in enumerate(files)]
    monkeypatch.setattr(loader, "train_list", sums)
    monkeypatch.setattr(loader, "test_list", [[f, dump(f, batch(0, 4))] for f, _ in loader.test_list])
    meta = {"filename": loader.meta["filename"], "key": loader.meta["key"]}
    names = {meta["key"]: list(DATASETS[name].class_names)}  # type: ignore[union-attr]
    monkeypatch.setattr(loader, "meta", {**meta, "md5": dump(meta["filename"], names)})
    return folder


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_from_a_torchvision_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = write_cifar(tmp_path / "root", name, monkeypatch)
    for root in (tmp_path / "root", folder):
        data = datasets.load(DataConfig(name=name, root=str(root)), 0)
        assert data.train_images.shape == (10, 3, 32, 32)
        assert data.train_images[:, :, 7, 9].tolist() == [[i, i + 100, i] for i in range(10)]
        assert data.train_images[3, :, 0, 1].tolist() == [53, 103, 3]
        assert data.train_labels.tolist() == list(range(10))
        assert data.test_labels.tolist() == [0, 1, 2, 3]
        assert data.classes == (10 if name == "cifar10" else 100)


def test_a_pickle_that_is_not_the_published_one_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cifar(tmp_path, "cifar10", monkeypatch)

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (folder / "data_batch_3").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(DataError, match=r"cifar-10-batches-py.* get them anew"):
        datasets.load(DataConfig(name="cifar10", root=str(tmp_path)), 0)
    assert not (tmp_path / "ran").exists()
    pickle.loads((folder / "data_batch_3").read_bytes())
    assert (tmp_path / "ran").exists()


def test_mnist_from_a_torchvision_root(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for stem, n in (("train", 10), ("t10k", 4)):
        images = np.repeat(np.arange(n, dtype=np.uint8), 784)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, n, 28, 28) + images.tobytes())
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, n) + bytes(range(n)))
    read = import_torchvision().datasets.MNIST(str(tmp_path / "root"), train=True)  # it sees the same
    data = datasets.load(DataConfig(name="mnist", root=str(tmp_path / "root")), 0)
    assert np.array_equal(data.train_images[:, 0], read.data.numpy())
    assert data.train_labels.tolist() == read.targets.tolist() == list(range(10))


@pytest.mark.parametrize(("name", "below"), [("mnist", "MNIST/raw"), ("cifar100", "cifar-100-python")])
def test_the_roots_are_searched_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, below: str
) -> None:
    monkeypatch.setenv("FUSED_RAY_DATA", str(tmp_path / "env"))
    assert datasets.find(DataConfig(name=name)) is None
    for place in (Path("data") / below, tmp_path / "cache" / below, tmp_path / "env" / below):
        place.mkdir(parents=True)
        for file in torchvision_sets._SETS[name].files:
            (place / file).touch()
        assert datasets.find(DataConfig(name=name)) == place


@pytest.mark.parametrize(("name", "title"), [("mnist", "MNIST"), ("cifar10", "CIFAR-10"), ("cifar100", "CIFAR-100")])
def test_a_machine_without_a_network_is_told_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, title: str
) -> None:
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv(variable.upper(), "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    with pytest.raises(DataError, match=f"{title} is not on this machine, and .* could not download") as caught:
        datasets.load(DataConfig(name=name), 0)
    assert "data.root" in str(caught.value)
    assert "dataset-fashion-mnist" not in str(caught.value)
    with pytest.raises(DataError, match=rf"data\.root: .*nowhere lacks .* of {title}"):
        datasets.find(DataConfig(name=name, root=str(tmp_path / "nowhere")))
