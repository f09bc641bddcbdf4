"""The data sets that torchvision can download, from wherever they lie: its root folders, the Debian package, a cache.

MNIST and Fashion-MNIST are read by our own IDX reader, since the Debian package's files are compressed otherwise than
those whose checksums torchvision knows. CIFAR's files are pickles, which could run code: torchvision itself reads them,
after comparing every file with the published MD5 sum, and refuses all others.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fused_ray.config.parts.datasets import DATASETS
from fused_ray.config.paths import expanded
from fused_ray.data.idx import read_idx_pair
from fused_ray.data.source import Source, Split, in_memory
from fused_ray.data.torchvision_import import import_torchvision
from fused_ray.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = "~/.cache/fused_ray"


@dataclass(frozen=True)
class _Set:
    title: str
    loader: str
    """Its class in torchvision.datasets."""
    folder: str
    """Where its files lie below a torchvision root."""
    files: tuple[str, ...]


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_SETS = {
    "fashion-mnist": _Set("Fashion-MNIST", "FashionMNIST", "FashionMNIST/raw", _IDX),
    "mnist": _Set("MNIST", "MNIST", "MNIST/raw", _IDX),
    "cifar10": _Set(
        "CIFAR-10",
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
    "cifar100": _Set("CIFAR-100", "CIFAR100", "cifar-100-python", ("train", "test", "meta")),
}


def find(name: str, root: str | None) -> Path | None:
    """The folder that holds the data set's files; None if it would have to be downloaded.

    Looks into `root` alone if that is given, else in this order: the Debian package (Fashion-MNIST), and below the
    torchvision roots FUSED_RAY_DATA, the cache, ./data. Raises DataError if `root` does not hold the data set.
    """
    wanted = _SETS[name]
    if root is not None:
        given = Path(root).expanduser()
        for folder in (given, given / wanted.folder):
            if _holds(folder, wanted):
                return folder
        raise DataError(
            f"data.root: {given} lacks some or all of the {len(wanted.files)} files of {wanted.title} "
            f"({wanted.files[0]} ...); {_ways(name)}"
        )
    roots = [expanded(os.environ["FUSED_RAY_DATA"])] if "FUSED_RAY_DATA" in os.environ else []
    places = [above / wanted.folder for above in (*roots, *filter(None, [_cache()]), Path("data"))]
    if name == "fashion-mnist":
        places.insert(0, DEBIAN)
    return next((folder for folder in places if _holds(folder, wanted)), None)


def read(name: str, folder: Path | None) -> Source:
    """The data set from its folder, downloaded first if there is none. Raises DataError."""
    wanted, info = _SETS[name], DATASETS[name]
    assert info is not None, f"{name} is a known data set"
    folder = folder or _download(name)
    if wanted.files == _IDX:
        paths = [_idx_path(folder, file) for file in _IDX]
        train, test = (in_memory(*read_idx_pair(*paths[at : at + 2])) for at in (0, 2))
    else:
        train, test = (_read_cifar(wanted, folder, training) for training in (True, False))
    return Source(train, test, info.class_names)


def _read_cifar(wanted: _Set, folder: Path, training: bool) -> Split:
    try:
        loaded = getattr(import_torchvision().datasets, wanted.loader)(str(folder.parent), train=training)
    except Exception as error:  # RuntimeError where a checksum differs, and whatever importing torchvision raises
        raise DataError(
            f"{folder}: torchvision does not take these files for {wanted.title} as it was published ({error}); get "
            "them anew"
        ) from None
    images = np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2))  # it turns them into [n, height, width, channels]
    return in_memory(images, np.array(loaded.targets, np.int64))


def _download(name: str) -> Path:
    wanted, cache = _SETS[name], _cache()
    if cache is None:
        raise DataError(f"{wanted.title} is not on this machine, and there is no home folder to keep it; {_ways(name)}")
    target = cache / wanted.folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # what is broken off, at a full disk or by Ctrl-C, must not be taken for the data set by the next start
        with tempfile.TemporaryDirectory(dir=cache) as made:
            getattr(import_torchvision().datasets, wanted.loader)(made, download=True)
            whole = Path(made) / wanted.folder
            try:
                whole.rename(target)
            except OSError:  # something is there: another process was faster, or a part of the files
                if not _holds(target, wanted):
                    target.rename(Path(made) / "incomplete")
                    whole.rename(target)
    except Exception as error:  # torchvision raises RuntimeError, URLError, OSError and more
        raise DataError(
            f"{wanted.title} is not on this machine, and torchvision could not download it ({error}); {_ways(name)}"
        ) from None
    return target


def _cache() -> Path | None:
    """The folder for downloads; None where the user has no home folder."""
    try:
        return Path(CACHE).expanduser()
    except RuntimeError:
        return None


def _ways(name: str) -> str:
    wanted = _SETS[name]
    package = "install the Debian package dataset-fashion-mnist, or " if name == "fashion-mnist" else ""
    return (
        f"{package}point data.root to a folder with its files or to a torchvision root (a folder with "
        f"{wanted.folder}/), or leave data.root unset and let torchvision download it"
    )


def _holds(folder: Path, wanted: _Set) -> bool:
    # unlike Path.is_file, os.path.isfile says no where one may not look
    if wanted.files == _IDX:
        return all(os.path.isfile(folder / file) or os.path.isfile(folder / f"{file}.gz") for file in _IDX)
    return folder.name == wanted.folder and all(os.path.isfile(folder / file) for file in wanted.files)


def _idx_path(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.is_file() else folder / f"{name}.gz"
